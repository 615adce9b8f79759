"""Tell .tflite files from everything else that people have, by content, and say what to do with the others."""

import zipfile
from dataclasses import dataclass
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

_SAVED_MODEL, _KERAS_WEIGHTS = "saved_model.pb", "model.weights.h5"
_SUFFIXES = {
    ".keras": "a Keras 3 file",
    ".h5": "a Keras 2 file (HDF5)",
}
_PYTORCH = (".pt", ".pth", ".safetensors", ".ckpt")


@dataclass(frozen=True)
class TensorFlowModel:
    """A model that only TensorFlow can convert: the path that names it, and its format."""

    path: Path
    what: str


def find_tensorflow_model(path: Path) -> TensorFlowModel | None:
    """Return the model if the path is that of a Keras file or a SavedModel; None for everything else.

    Raises OSError if the file cannot be read.
    """
    folder = path.parent if path.name == _SAVED_MODEL else path
    if (folder / _SAVED_MODEL).is_file():
        return TensorFlowModel(folder, "a SavedModel folder")
    if not path.is_file():
        return None
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    suffix = path.suffix.lower()
    if head.startswith(_HDF5):
        return TensorFlowModel(path, _SUFFIXES[".h5"])
    if head.startswith(_ZIP):
        return TensorFlowModel(path, _SUFFIXES[".keras"]) if _KERAS_WEIGHTS in _members(path) else None
    is_named = suffix in _SUFFIXES and head and not head.startswith(_LFS_POINTER)
    return TensorFlowModel(path, _SUFFIXES[suffix]) if is_named else None


def require_tflite(path: Path, name: str) -> None:
    """Raise ImportRefused unless the path is that of a .tflite file of at most MAX_BYTES; `name` is the new model's.

    Raises OSError if the file cannot be read.
    """
    if model := find_tensorflow_model(path):
        raise ImportRefused(_in_training(model, name))
    if path.is_dir():
        _refuse_folder(path)
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
        raise ImportRefused(_explain(path, head))


def _refuse_folder(path: Path) -> None:
    models = sorted(path.glob("*.tflite"))
    if models:
        raise ImportRefused(f"{path} is a folder; name the model in it, such as {models[0]}")
    raise ImportRefused(f"{path} is a folder, and has no .tflite file; name the file of a model")


def _explain(path: Path, head: bytes) -> str:
    """Say what a file is that is not a .tflite file, and what to do."""
    suffix = path.suffix.lower()
    if not head:
        return f"{path} is empty"
    if head.startswith(_LFS_POINTER):
        return f"{path} is a pointer of Git LFS and not the model; run git lfs pull in its repository"
    if head.startswith(_ZIP):
        return _explain_archive(path)
    if suffix == ".onnx":
        return f"{path} is an ONNX model; docs/import.md says how to convert it to a SavedModel folder first"
    if suffix in _PYTORCH:
        return f"{path} is a PyTorch file; export the model to ONNX or to .tflite where it was trained"
    if path.name == "model.json":
        return (
            f"{path} belongs to a TensorFlow.js model; export the model as TensorFlow Lite instead (in Teachable "
            "Machine: Export Model, Tensorflow Lite, Floating point)"
        )
    return (
        f"{path} is not a .tflite file: it does not have {MARK.decode()} at byte {MARK_AT}. It is damaged, encrypted, "
        "or has another format"
    )


def _explain_archive(path: Path) -> str:
    members = _members(path)
    if any(member.endswith("data.pkl") for member in members):
        return f"{path} is a PyTorch file; export the model to ONNX or to .tflite where it was trained"
    models = [member for member in members if member.endswith(".tflite")]
    if models:
        return f"{path} is a ZIP archive; unpack it and name {models[0]}"
    return f"{path} is a ZIP archive and not a .tflite file; unpack it and name the model in it"


def _members(path: Path) -> list[str]:
    """Return the names of the files in an archive; none if it is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    # A damaged archive fails anywhere in zipfile.
    except Exception:
        return []


def _in_training(model: TensorFlowModel, name: str) -> str:
    return (
        f"{model.path} is {model.what}, and converting it needs TensorFlow. In a checkout of litelens, run: "
        f".venv-train/bin/litelens import {model.path} --quantize photos --name {name} (docs/import.md says how to "
        "make that environment). Or convert it to .tflite where it was trained"
    )
