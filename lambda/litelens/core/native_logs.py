"""Hide log lines that C++ libraries print to standard error and that no setting turns off."""

import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import BinaryIO

_STDERR = 2

# Log lines of TensorFlow Lite, of absl (with its first line), of TensorFlow's older logger, and of TensorFlow's
# converter. TensorFlow Lite's errors do not match.
_LOG_LINE = re.compile(
    rb"(INFO|WARNING|VERBOSE): |[IWE]\d{4} \d\d:\d\d:\d\d|"
    rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: [IWE] |To enable the following instructions|fully_quantize: "
)

# The redirection affects the whole process; it may be nested within one thread.
_lock = threading.RLock()


@contextmanager
def hide_native_logs() -> Iterator[None]:
    """Hide the log lines that libraries print to file descriptor 2 while the block runs; takes a few microseconds.

    All other lines, including those of other threads, are printed when the block ends. If the block raises, log lines
    are printed too. Use it around a single native call, because nothing reaches standard error until the block ends.
    Lines are lost if the process is killed, and so is the output of processes that other threads start during the
    block.
    """
    with _lock, ExitStack() as stack:
        try:
            original = os.dup(_STDERR)
            stack.callback(os.close, original)
            captured = stack.enter_context(_scratch_file())
        except OSError:
            # Standard error is closed, or no file can be opened: lines are not hidden.
            yield
            return
        _flush()
        os.dup2(captured.fileno(), _STDERR)
        select = _all_lines
        try:
            yield
            select = _without_log_lines
        finally:
            _flush()
            os.dup2(original, _STDERR)
            captured.seek(0)
            _write(select(captured.read()))


def _scratch_file() -> BinaryIO:
    """Open an unbuffered temporary file; on Linux in memory, which takes a tenth of the time."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("native-logs"), "w+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)


def _all_lines(text: bytes) -> bytes:
    return text


def _without_log_lines(text: bytes) -> bytes:
    return b"".join(line for line in text.splitlines(keepends=True) if not _LOG_LINE.match(line))


def _write(text: bytes) -> None:
    while text:
        text = text[os.write(_STDERR, text) :]


def _flush() -> None:
    """Flush Python's own buffer. A stream that is closed or replaced has no lines for file descriptor 2."""
    with suppress(OSError, ValueError, AttributeError):
        sys.stderr.flush()
