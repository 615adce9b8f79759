"""A fixed run of the fuzzer over the decoder, the same each time; run it by hand for longer."""

import re
import subprocess
import sys
from pathlib import Path

import hostile
import pytest
from support import DATA, ROOT

FUZZER = ROOT / "tests" / "runtime" / "fuzz_decoder.py"
RUNS = 80_000
LONGEST = 8_000

# libFuzzer holds the peak of getrusage to its limit, and a process begins with the peak of the one that started it.
# A shell's is small; that of these tests can be above the limit.
FROM_A_SHELL = ["sh", "-c", '"$@"; exit $?', "sh"]


def make_corpus(folder: Path) -> None:
    """Small files of every format, and the data folder's hostile ones where it is at hand."""
    folder.mkdir()
    for image_format in ("JPEG", "PNG", "WEBP", "GIF", "BMP"):
        (folder / image_format).write_bytes(hostile.small(image_format))
    for name in ("JPEG EXIF without end", "JPEG and a page", "PNG and a JPEG", "WEBP and a page", "GIF and a page"):
        (folder / name.replace(" ", "-")).write_bytes(hostile.MAKERS[name]())
    for path in sorted((DATA / "hostile").rglob("*.*")):
        if path.stat().st_size <= LONGEST:
            (folder / f"{path.parent.name}-{path.name}").write_bytes(path.read_bytes())


@pytest.mark.skipif(sys.platform != "linux", reason="atheris is there for Linux only")
def test_mutated_files_give_an_image_or_an_input_error(tmp_path: Path) -> None:
    make_corpus(tmp_path / "corpus")
    (tmp_path / "found").mkdir()
    limits = [f"-max_len={LONGEST}", "-timeout=10", "-rss_limit_mb=512"]
    options = [f"-runs={RUNS}", "-seed=1", *limits, f"-artifact_prefix={tmp_path}/"]
    done = subprocess.run(
        [*FROM_A_SHELL, sys.executable, FUZZER, tmp_path / "found", tmp_path / "corpus", *options],
        cwd=ROOT / "lambda",
        env={"PYTHONPATH": "."},
        capture_output=True,
        text=True,
        errors="replace",
    )
    assert done.returncode == 0, done.stderr[-5000:]
    assert f"Done {RUNS} runs" in done.stderr
    # What it found its way to beyond the corpus; none would mean that nothing was fed to the decoder.
    assert int(re.findall(r"corp: (\d+)", done.stderr)[-1]) > 50
