"""Settings of the command, and the folders that are installed with it: the bundle `everyday` and the page."""

import os
import sys
from pathlib import Path

from litelens.settings import DEFAULT_MODEL, Settings, SettingsError, read_settings

_PACKAGE = Path(__file__).parent
_CHECKOUT = _PACKAGE.parents[1]


def local_settings(bundle: str | None = None) -> Settings:
    """Read the settings from the environment, with this bundle; ends the process if a variable is invalid."""
    try:
        return read_settings({**os.environ, "LITELENS_BUNDLE": str(bundle_folder(bundle))})
    except SettingsError as error:
        sys.exit(str(error))


def bundle_folder(bundle: str | None = None) -> Path:
    """Return the bundle's folder; by default that in LITELENS_BUNDLE, or else that of the bundle `everyday`."""
    chosen = bundle or os.environ.get("LITELENS_BUNDLE")
    return Path(chosen) if chosen else _shipped(DEFAULT_MODEL, f"models/{DEFAULT_MODEL}")


def page_folder() -> Path:
    """Return the folder with the static files of the page."""
    return _shipped("web", "web")


def _shipped(name: str, in_checkout: str) -> Path:
    """Return a folder that comes with litelens: inside the installed package or, without one, in the checkout."""
    packaged = _PACKAGE / "data" / name
    return packaged if packaged.is_dir() else _CHECKOUT / in_checkout
