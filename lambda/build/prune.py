"""Remove from the installed packages everything that serving never loads. The Dockerfile runs this; nothing imports it.

Lambda runs the image as an unknown user on a read-only file system, where Python cannot cache compiled modules. The
packages are therefore compiled here, and their sources, which would double their size, are removed. Tracebacks still
have file names and line numbers.
"""

import compileall
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

# Glob patterns relative to the folder with the packages.
UNUSED = (
    # LiteRT: accelerators, converters, and dependencies of those alone.
    *("ai_edge_litert/aot", "ai_edge_litert/tools", "ai_edge_litert/vendors"),
    *("ai_edge_litert/libLiteRtWebGpuAccelerator.so", "ai_edge_litert/schema_py_generated.py"),
    *("ai_edge_litert/descriptor_pb2.py", "backports", "colorama", "flatbuffers", "google", "ml_dtypes", "tqdm"),
    # OpenVINO: other devices, other formats, the converter, and the telemetry that importing the package would start.
    *("openvino/include", "openvino/tools", "openvino/torch", "openvino_telemetry", "openvino/libs/cache.json"),
    *("openvino/libs/libopenvino_auto*", "openvino/libs/libopenvino_c.*", "openvino/libs/libopenvino_gguf*"),
    *("openvino/libs/libopenvino_hetero*", "openvino/libs/libopenvino_intel_gpu*"),
    *("openvino/libs/libopenvino_intel_npu*", "openvino/libs/libopenvino_jax*", "openvino/libs/libopenvino_onnx*"),
    *("openvino/libs/libopenvino_paddle*", "openvino/libs/libopenvino_pytorch*"),
    "openvino/libs/libopenvino_tensorflow_frontend*",
    # Pillow: fonts and windows.
    *("PIL/_imagingft*", "PIL/_imagingtk*"),
    *("pillow.libs/libbrotli*", "pillow.libs/libfreetype*", "pillow.libs/libharfbuzz*"),
    # NumPy: random numbers and the tools for C and Fortran.
    *("numpy/_core/include", "numpy/f2py", "numpy/random"),
    # Powertools: utilities that no handler uses.
    *("aws_lambda_powertools/utilities/batch", "aws_lambda_powertools/utilities/idempotency"),
    *("aws_lambda_powertools/utilities/data_masking", "aws_lambda_powertools/utilities/feature_flags"),
    *("aws_lambda_powertools/utilities/kafka", "aws_lambda_powertools/utilities/parser"),
    *("aws_lambda_powertools/utilities/streaming", "aws_lambda_powertools/utilities/validation"),
    # cryptography, which verifies tokens: it needs only cffi's compiled part.
    *("cffi", "pycparser"),
    # boto3: resources and examples. botocore's services are in SERVICES.
    *("boto3/data/*", "boto3/examples"),
    # All packages: programs, tests, type stubs, static libraries.
    *("bin", "**/tests", "**/*.pyi", "**/*.pxd", "**/*.a", "**/_*_tests.*.so", "**/_simd.*.so"),
)
# The decoder of HEIC, which is removed if the image is built with HEIC=false.
HEIC = ("_pi_heif*", "pi_heif", "pi_heif.libs", "pi_heif-*")
# The services that the functions call, and STS for credentials.
SERVICES = frozenset({"bedrock-runtime", "codedeploy", "dynamodb", "events", "lambda", "s3", "sts"})


def prune(folder: Path, unused: Iterable[str] = UNUSED) -> None:
    """Delete the files and folders in `folder` that match these patterns, and botocore's descriptions of services."""
    for pattern in unused:
        for path in list(folder.glob(pattern)):
            _remove(path)
    for path in (folder / "botocore" / "data").iterdir():
        if path.is_dir() and path.name not in SERVICES:
            _remove(path)


def replace_sources(folder: Path) -> None:
    """Compile every module in `folder` to a .pyc file beside its source, and delete the source."""
    if not compileall.compile_dir(folder, quiet=1, legacy=True):
        raise SystemExit(f"A module in {folder} does not compile.")
    for source in list(folder.rglob("*.py")):
        source.unlink()


def _remove(path: Path) -> None:
    """Delete a file or a folder, unless it was deleted with its parent folder."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    folder, heic = Path(sys.argv[1]), sys.argv[2]
    prune(folder, UNUSED if heic == "true" else (*UNUSED, *HEIC))
    replace_sources(folder)
