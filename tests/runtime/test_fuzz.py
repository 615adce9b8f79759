"""A short, deterministic run of fuzz_decoder.py."""

import re
import subprocess
import sys
from pathlib import Path

import hostile
import pytest
from support import DATA, ROOT

from litelens.core.formats import FORMAT_NAMES

FUZZER = ROOT / "tests" / "runtime" / "fuzz_decoder.py"
RUNS = 80_000
LONGEST = 8_000

# libFuzzer compares its memory limit with the peak in getrusage, which a process inherits from its parent. That of a
# shell is small; that of these tests can be above the limit.
SHELL = ["sh", "-c", '"$@"; exit $?', "sh"]


def make_corpus(folder: Path) -> None:
    """Write small files of every format, and the small hostile files of the data folder if it is available."""
    folder.mkdir()
    for image_format in FORMAT_NAMES:
        (folder / image_format).write_bytes(hostile.small(image_format))
    for name in ("JPEG EXIF without end", "JPEG and a page", "PNG and a JPEG", "WEBP and a page", "GIF and a page"):
        (folder / name.replace(" ", "-")).write_bytes(hostile.MAKERS[name]())
    for path in sorted((DATA / "hostile").rglob("*.*")):
        if path.stat().st_size <= LONGEST:
            (folder / f"{path.parent.name}-{path.name}").write_bytes(path.read_bytes())


@pytest.mark.skipif(sys.platform != "linux", reason="atheris needs Linux")
def test_mutated_files_give_an_image_or_an_input_error(tmp_path: Path) -> None:
    make_corpus(tmp_path / "corpus")
    (tmp_path / "found").mkdir()
    limits = [f"-max_len={LONGEST}", "-timeout=10", "-rss_limit_mb=512"]
    options = [f"-runs={RUNS}", "-seed=1", *limits, f"-artifact_prefix={tmp_path}/"]
    done = subprocess.run(
        [*SHELL, sys.executable, FUZZER, tmp_path / "found", tmp_path / "corpus", *options],
        cwd=ROOT / "lambda",
        env={"PYTHONPATH": "."},
        capture_output=True,
        text=True,
        errors="replace",
    )
    assert done.returncode == 0, done.stderr[-5000:]
    assert f"Done {RUNS} runs" in done.stderr
    # The corpus has grown by inputs that reach new code; otherwise the decoder would not have run.
    assert int(re.findall(r"corp: (\d+)", done.stderr)[-1]) > 50
