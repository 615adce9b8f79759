"""Put lists of CPUs into the image and make LiteRT read them, because Lambda on Arm has no /sys/devices/system/cpu.

Without the lists, LiteRT's copy of the library cpuinfo fails (https://github.com/pytorch/cpuinfo/issues/143), and
LiteRT runs the model with far slower code, whose results differ slightly. Only the Dockerfile runs this script.
"""

import sys
from pathlib import Path

FOLDER = "/sys/devices/system/cpu/"
NAMES = ("possible", "present")
# The maximum number of CPUs of a function. cpuinfo uses those of them that /proc/cpuinfo lists.
CPUS = "0-5\n"


def put_lists(folder: Path, task_root: str) -> None:
    """Write the lists to `folder`/cpu, and make the libraries in `folder`/ai_edge_litert read these.

    `task_root` is the folder's path in the finished image. Raises SystemExit if a path is too long to replace the one
    in the libraries, or if the libraries do not read these lists.
    """
    paths = {_c_string(FOLDER + name): _c_string(_served_path(name, task_root)) for name in NAMES}
    replaced = [_replace(library, paths) for library in (folder / "ai_edge_litert").glob("*.so")]
    if set().union(*replaced) != paths.keys():
        raise SystemExit(
            f"No library of LiteRT reads {FOLDER}{NAMES[0]}: check whether Lambda on Arm still needs this script."
        )
    (folder / "cpu").mkdir()
    for name in NAMES:
        (folder / "cpu" / name).write_text(CPUS)


def _served_path(name: str, task_root: str) -> str:
    """Return a path of the same length as the one that it replaces, padded with slashes, which a path may repeat."""
    room = len(FOLDER + name) - len(task_root)
    path = task_root + f"/cpu/{name}".rjust(room, "/")
    if len(path) > len(FOLDER + name):
        raise SystemExit(f"The path {task_root} is too long: it may have {len(FOLDER) - len('/cpu/')} characters.")
    return path


def _c_string(text: str) -> bytes:
    return text.encode() + b"\0"


def _replace(library: Path, paths: dict[bytes, bytes]) -> set[bytes]:
    """Replace paths in a library; returns those that it contained."""
    content = library.read_bytes()
    found = {old for old in paths if old in content}
    for old in found:
        content = content.replace(old, paths[old])
    library.write_bytes(content)
    return found


if __name__ == "__main__":
    put_lists(Path(sys.argv[1]), sys.argv[2])
