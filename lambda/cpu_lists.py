"""Let LiteRT read from the image which CPUs there are: Lambda on Arm does not say, without /sys/devices/system/cpu.

There, LiteRT's copy of the library cpuinfo fails (https://github.com/pytorch/cpuinfo/issues/143), and LiteRT runs the
model by far slower code, with slightly other answers. The Dockerfile runs this; nothing imports it.
"""

import sys
from pathlib import Path

FOLDER = "/sys/devices/system/cpu/"
NAMES = ("possible", "present")
# As many as Lambda gives a function at most; of these, cpuinfo uses those that /proc/cpuinfo tells of.
CPUS = "0-5\n"


def put_lists(folder: Path, task_root: str) -> None:
    """Put the lists into `folder`/cpu, and have the libraries in `folder`/ai_edge_litert read them in `task_root`/cpu.

    `task_root` is where the folder lies when it is served. Raises SystemExit when a path is too long to take the place
    of the one in the libraries, or when they do not read these lists.
    """
    paths = {_text(FOLDER + name): _text(_served_path(name, task_root)) for name in NAMES}
    replaced = [_replace(library, paths) for library in (folder / "ai_edge_litert").glob("*.so")]
    if set().union(*replaced) != paths.keys():
        raise SystemExit(f"No library of LiteRT names {FOLDER}{NAMES[0]}: look whether Lambda on Arm still needs this.")
    (folder / "cpu").mkdir()
    for name in NAMES:
        (folder / "cpu" / name).write_text(CPUS)


def _served_path(name: str, task_root: str) -> str:
    """A path as long as the one whose place it takes: many slashes are as good as one."""
    room = len(FOLDER + name) - len(task_root)
    path = task_root + f"/cpu/{name}".rjust(room, "/")
    if len(path) > len(FOLDER + name):
        raise SystemExit(f"{task_root} is too long a path: it may have {len(FOLDER) - len('/cpu/')} characters.")
    return path


def _text(path: str) -> bytes:
    return path.encode() + b"\0"


def _replace(library: Path, paths: dict[bytes, bytes]) -> set[bytes]:
    """Those of the paths that the library named."""
    content = library.read_bytes()
    named = {old for old in paths if old in content}
    for old in named:
        content = content.replace(old, paths[old])
    library.write_bytes(content)
    return named


if __name__ == "__main__":
    put_lists(Path(sys.argv[1]), sys.argv[2])
