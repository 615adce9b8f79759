"""Log lines of libraries on standard error are hidden, and other lines are printed."""

import os
import subprocess
import sys
import threading
import time

import pytest
from support import DEFAULT_BUNDLE, ROOT

from litelens.core.native_logs import hide_native_logs

LOG_LINES = (
    b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n",
    b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n",
    b"I0000 00:00:1795955551.553403   11501 port.cc:153] oneDNN custom operations are on.\n",
    b"E0000 00:00:1795955527.190227   11272 cuda_platform.cc:52] failed call to cuInit\n",
    b"2026-10-14 12:31:42.123456: I tensorflow/core/platform/cpu_feature_guard.cc:210] This binary\n",
    b"fully_quantize: 0, inference_type: 6, input_inference_type: INT8, output_inference_type: INT8\n",
)
OTHER_LINES = (
    b"ERROR: Didn't find op for builtin opcode\n",
    b"a line of another thread\n",
    b"Information: one\n",
    b"last",
)


def printed(capfd: pytest.CaptureFixture[str]) -> str:
    return capfd.readouterr().err


def test_log_lines_are_hidden_and_all_others_are_printed(capfd: pytest.CaptureFixture[str]) -> None:
    with hide_native_logs():
        for line in (*LOG_LINES, *OTHER_LINES):
            os.write(2, line)
    os.write(2, b" and later")
    assert printed(capfd) == b"".join(OTHER_LINES).decode() + " and later"


def test_log_lines_are_printed_if_the_call_raises(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        with hide_native_logs():
            os.write(2, LOG_LINES[0])
            raise ValueError("damaged")

    with pytest.raises(ValueError, match="damaged"):
        fail()
    assert printed(capfd) == LOG_LINES[0].decode()


def test_lines_keep_their_order(capfd: pytest.CaptureFixture[str]) -> None:
    print("before", file=sys.stderr, end=" ")
    with hide_native_logs():
        print("within", file=sys.stderr, end=" ")
        with hide_native_logs():
            os.write(2, LOG_LINES[0])
    print("after", file=sys.stderr)
    assert printed(capfd) == "before within after\n"


def test_concurrent_threads_restore_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    def load() -> None:
        for _ in range(50):
            with hide_native_logs():
                os.write(2, LOG_LINES[0])

    threads = [threading.Thread(target=load) for _ in range(8)]
    descriptors = len(os.listdir("/dev/fd"))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.write(2, b"there")
    assert printed(capfd) == "there"
    # Files that other tests left open may be closed meanwhile.
    assert len(os.listdir("/dev/fd")) <= descriptors


def test_hiding_takes_less_than_half_a_millisecond() -> None:
    def milliseconds() -> float:
        started = time.perf_counter()
        with hide_native_logs():
            pass
        return 1000 * (time.perf_counter() - started)

    assert min(milliseconds() for _ in range(20)) < 0.5


def test_a_model_loads_if_standard_error_is_closed() -> None:
    script = (
        "import os; os.close(2)\n"
        "from pathlib import Path\n"
        "from litelens.core.bundle import load_bundle\n"
        "from litelens.core.engines import load_engine\n"
        f"load_engine('litert', load_bundle(Path({str(DEFAULT_BUNDLE)!r})), 1); print('loaded')"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT / "lambda", capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "loaded\n")


def test_a_stream_that_cannot_be_flushed_loses_no_lines(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def flush(self) -> None:
            raise ValueError("I/O operation on closed file")

    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", Broken())
        with hide_native_logs():
            os.write(2, b"inside\n")
    os.write(2, b"outside\n")
    assert printed(capfd) == "inside\noutside\n"


def test_lines_are_printed_as_they_come_if_no_file_can_be_opened(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("litelens.core.native_logs._scratch_file", full)
    with hide_native_logs():
        os.write(2, LOG_LINES[0])
    assert printed(capfd) == LOG_LINES[0].decode()
