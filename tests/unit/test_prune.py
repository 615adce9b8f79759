"""The script that removes from the image's packages what serving never loads."""

import subprocess
import sys
from pathlib import Path

import pytest

import prune


def add(folder: Path, *paths: str) -> None:
    """Write small files below a folder."""
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("value = 7\n" if path.endswith(".py") else "content")


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_tests_stubs_programs_and_unused_services_are_removed(tmp_path: Path) -> None:
    kept = {"numpy/core.py", "numpy/core.so", "botocore/data/s3/service.json", "botocore/data/endpoints.json"}
    removed = {
        *("bin/f2py", "numpy/tests/test_core.py", "numpy/lib/tests/data/a.txt", "numpy/core.pyi", "numpy/random/a.so"),
        *("botocore/data/ec2/service.json", "PIL/_imagingft.so", "openvino/libs/libopenvino_onnx_frontend.so"),
    }
    add(tmp_path, *kept, *removed)
    prune.prune(tmp_path)
    assert files(tmp_path) == kept


def test_the_decoder_of_heic_can_be_left_out(tmp_path: Path) -> None:
    heic = {"_pi_heif.so", "pi_heif/__init__.py", "pi_heif.libs/libheif.so", "pi_heif-1.dist-info/METADATA"}
    add(tmp_path, "PIL/_avif.so", *heic)
    (tmp_path / "botocore" / "data").mkdir(parents=True)
    prune.prune(tmp_path)
    assert files(tmp_path) == {"PIL/_avif.so", *heic}
    prune.prune(tmp_path, (*prune.UNUSED, *prune.HEIC))
    assert files(tmp_path) == {"PIL/_avif.so"}


def test_the_services_that_the_functions_call_are_kept(tmp_path: Path) -> None:
    descriptions = {f"botocore/data/{service}/service.json" for service in prune.SERVICES}
    add(tmp_path, *descriptions)
    prune.prune(tmp_path)
    assert files(tmp_path) == descriptions


def test_modules_are_compiled_in_place_of_their_sources(tmp_path: Path) -> None:
    add(tmp_path, "package/__init__.py", "package/module.py", "package/data.txt")
    prune.replace_sources(tmp_path)
    assert files(tmp_path) == {"package/__init__.pyc", "package/module.pyc", "package/data.txt"}
    program = "import package.module; print(package.module.value)"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert done.stdout == "7\n"


def test_a_module_that_does_not_compile_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text("def\n")
    with pytest.raises(SystemExit, match=str(tmp_path)):
        prune.replace_sources(tmp_path)
