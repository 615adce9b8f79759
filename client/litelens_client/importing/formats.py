"""Tell .tflite files from everything else that people have, by content, and say what to do with the others."""

import zipfile
from pathlib import Path

from litelens_client.importing.errors import ImportRefused

# A larger file would take minutes to load in Lambda, and much memory here.
MAX_BYTES = 200_000_000

# The mark of a .tflite file follows the first four bytes.
MARK, MARK_AT = b"TFL3", 4
_HEAD_BYTES = 64

_HDF5 = b"\x89HDF\r\n\x1a\n"
_ZIP = b"PK\x03\x04"
_LFS_POINTER = b"version https://git-lfs"

_SUFFIXES = {
    ".keras": "a Keras 3 file",
    ".h5": "a Keras 2 file (HDF5)",
}
_PYTORCH = (".pt", ".pth", ".safetensors", ".ckpt")


def require_tflite(path: Path, name: str) -> None:
    """Raise ImportRefused unless the path is that of a .tflite file of at most MAX_BYTES; `name` is the new model's.

    Raises OSError if the file cannot be read.
    """
    if path.is_dir():
        _refuse_folder(path, name)
    if not path.exists():
        raise ImportRefused(f"there is no file {path}")
    if not path.is_file():
        raise ImportRefused(f"{path} is neither a file nor a folder")
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ImportRefused(f"{path} has {size:,} bytes; a model may have {MAX_BYTES:,}")
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if head[MARK_AT : MARK_AT + len(MARK)] != MARK:
        raise ImportRefused(_explain(path, head, name))


def _refuse_folder(path: Path, name: str) -> None:
    if (path / "saved_model.pb").is_file():
        raise ImportRefused(_in_training(path, "a SavedModel folder", name))
    models = sorted(path.glob("*.tflite"))
    if models:
        raise ImportRefused(f"{path} is a folder; name the model in it, such as {models[0]}")
    raise ImportRefused(f"{path} is a folder, and has no .tflite file; name the file of a model")


def _explain(path: Path, head: bytes, name: str) -> str:
    """Say what a file is that is not a .tflite file, and what to do."""
    suffix = path.suffix.lower()
    if not head:
        return f"{path} is empty"
    if head.startswith(_LFS_POINTER):
        return f"{path} is a pointer of Git LFS and not the model; run git lfs pull in its repository"
    if head.startswith(_HDF5):
        return _in_training(path, _SUFFIXES[".h5"], name)
    if head.startswith(_ZIP):
        return _explain_archive(path, name)
    if suffix == ".onnx":
        return f"{path} is an ONNX model; docs/import.md says how to convert it to a SavedModel folder first"
    if suffix in _PYTORCH:
        return f"{path} is a PyTorch file; export the model to ONNX or to .tflite where it was trained"
    if path.name == "model.json":
        return (
            f"{path} belongs to a TensorFlow.js model; export the model as TensorFlow Lite instead (in Teachable "
            "Machine: Export Model, Tensorflow Lite, Floating point)"
        )
    if path.name == "saved_model.pb":
        return _in_training(path.parent, "a SavedModel folder", name)
    if suffix in _SUFFIXES:
        return _in_training(path, _SUFFIXES[suffix], name)
    return (
        f"{path} is not a .tflite file: it does not have {MARK.decode()} at byte {MARK_AT}. It is damaged, encrypted, "
        "or has another format"
    )


def _explain_archive(path: Path, name: str) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
    # A damaged archive fails anywhere in zipfile.
    except Exception:
        members = []
    if "model.weights.h5" in members:
        return _in_training(path, _SUFFIXES[".keras"], name)
    if any(member.endswith("data.pkl") for member in members):
        return f"{path} is a PyTorch file; export the model to ONNX or to .tflite where it was trained"
    models = [member for member in members if member.endswith(".tflite")]
    if models:
        return f"{path} is a ZIP archive; unpack it and name {models[0]}"
    return f"{path} is a ZIP archive and not a .tflite file; unpack it and name the model in it"


def _in_training(path: Path, what: str, name: str) -> str:
    return (
        f"{path} is {what}, and converting it needs TensorFlow. In a checkout of litelens, run: .venv-train/bin/python "
        f"-m training all --model {path} --labels labels.txt --calibration photos --name {name} (docs/import.md says "
        "how to make that environment). Or convert it to .tflite where it was trained"
    )
