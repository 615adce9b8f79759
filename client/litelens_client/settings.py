"""Settings of the command, and the folders that are installed with it: the bundle `everyday` and the page."""

import os
import sys
from pathlib import Path

from litelens.core.registry import find_bundles
from litelens.settings import DEFAULT_MODEL, Settings, SettingsError, read_settings

_PACKAGE = Path(__file__).parent
_CHECKOUT = _PACKAGE.parents[1]


def local_settings(model: str | None = None) -> Settings:
    """Read the settings from the environment, with this model, given as to bundle_folder().

    Ends the process if there is no such model or a variable is invalid.
    """
    folders = {"LITELENS_BUNDLE": str(bundle_folder(model)), "LITELENS_MODELS": str(models_folder())}
    try:
        return read_settings({**os.environ, **folders})
    except SettingsError as error:
        sys.exit(str(error))


def bundle_folder(model: str | None = None) -> Path:
    """Return the folder of a model's bundle, from its name or the folder's path; ends the process if there is none.

    Models with names are `everyday` and those in models_folder(). The default is the bundle in LITELENS_BUNDLE, or else
    `everyday`.
    """
    everyday = _shipped(DEFAULT_MODEL, f"models/{DEFAULT_MODEL}")
    if not model:
        return Path(os.environ.get("LITELENS_BUNDLE") or everyday)
    named = find_bundles(everyday, models_folder())
    if model not in named and not Path(model).is_dir():
        sys.exit(f"{model} is neither a folder nor one of the models {', '.join(named)}.")
    return named.get(model, Path(model))


def models_folder() -> Path:
    """Return the folder with the bundles of the models: LITELENS_MODELS, by default models/ in the current folder."""
    return Path(os.environ.get("LITELENS_MODELS") or "models")


def page_folder() -> Path:
    """Return the folder with the static files of the page."""
    return _shipped("web", "web")


def _shipped(name: str, in_checkout: str) -> Path:
    """Return a folder that comes with litelens: inside the installed package or, without one, in the checkout."""
    packaged = _PACKAGE / "data" / name
    return packaged if packaged.is_dir() else _CHECKOUT / in_checkout
