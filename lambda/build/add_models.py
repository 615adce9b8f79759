"""Put the bundles to serve into the image, compiled ahead. Only the Dockerfile runs this script."""

import shutil
import sys
from pathlib import Path

from litelens.core.bundle import MANIFEST, load_bundle
from litelens.core.engines import compile_ahead, load_engine
from litelens.core.errors import BundleError


def add_models(source: Path, task: Path, engine: str, names: str) -> None:
    """Copy bundles from `source` to `task`/models, compile them and load each once.

    `names` are the folders in `source`, separated by commas. The first one is the default; the link `task`/model leads
    to it. Raises SystemExit if a bundle does not exist or cannot be served.
    """
    chosen = list(dict.fromkeys(names.split(",")))
    existing = sorted(path.parent.name for path in source.glob(f"[!.]*/{MANIFEST}"))
    for name in chosen:
        if name not in existing:
            raise SystemExit(f"Model: there is no bundle {name!r} in models/; there are {', '.join(existing)}.")
        bundle = shutil.copytree(source / name, task / "models" / name)
        try:
            _compile(bundle, engine)
        except BundleError as error:
            raise SystemExit(str(error)) from error
    (task / "model").symlink_to(Path("models") / chosen[0])


def _compile(folder: Path, engine: str) -> None:
    bundle = load_bundle(folder)
    compile_ahead(engine, bundle)
    load_engine(engine, bundle, threads=1)


if __name__ == "__main__":
    add_models(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4])
