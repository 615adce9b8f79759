"""The models of a deployment: the default one is loaded at the start, the others when they are first asked for.

A model's name is the name of its bundle's folder.
"""

import dataclasses
import logging
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from litelens.core.bundle import MANIFEST, Bundle, load_bundle
from litelens.core.classifier import Classifier
from litelens.core.errors import BundleError, ModelNotFound, ModelUnusable
from litelens.core.images import Limits

# The maximum number of models that are loaded at the same time, including the default one.
MAX_LOADED = 4

# What clients are told of a bundle that cannot be loaded; the log has the reason, which names files.
DAMAGED = "its bundle is damaged; the log says why."

_logger = logging.getLogger(__name__)

_Revision = tuple[int, ...] | None

# The maximum number of names that an error message lists.
_MAX_NAMES = 20


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready to classify, and the milliseconds that its first inference took.

    `revision` is that of the manifest when the model was loaded; if it changes, the model is loaded again.
    """

    classifier: Classifier
    warm_up_ms: float
    revision: _Revision

    @property
    def bundle(self) -> Bundle:
        """The model's bundle; its name is the model's name."""
        return self.classifier.bundle


class ModelRegistry:
    """Loads models by name, and again if their bundles have changed. Not safe for concurrent use."""

    def __init__(
        self, default: Path, models: Path | None, limits: Limits, threads: int, engine: str = "litert"
    ) -> None:
        """Load the bundle in the folder `default`; the other models are the bundles in the folder `models`.

        Raises BundleError if the default bundle cannot be served.
        """
        self._default, self._models = default, models
        self._limits, self._threads, self._engine = limits, threads, engine
        # The revision of each bundle's manifest, and the bundle without its arrays, by the model's name.
        self._listed: dict[str, tuple[_Revision, Bundle]] = {}
        # The least recently used model is the first.
        self._loaded: dict[str, LoadedModel] = {}
        self.default_name = model_name(default, models)
        self.default = self._load(self.default_name, default)

    def get(self, name: str | None = None) -> LoadedModel:
        """Return the model of that name, or the default one; raises ModelNotFound or ModelUnusable."""
        name = name or self.default_name
        folder = self._folder_of(name)
        try:
            model = self._load(name, folder)
        except BundleError as error:
            _logger.warning("The model %s cannot be loaded: %s", name, error)
            if name != self.default_name:
                raise ModelUnusable(f"The model {name} cannot be used: {DAMAGED}") from error
            # The default model is loaded already, and serves on until its bundle is mended.
            return self.default
        if name == self.default_name:
            self.default = model
        return model

    @property
    def names(self) -> list[str]:
        """The names of all models, the default one first."""
        return list(self._folders())

    def bundles(self) -> dict[str, Bundle | BundleError]:
        """Return each model's bundle, or the reason why it cannot be used, by name; the default model is the first.

        The bundles have neither heads nor familiarity, so that a long list takes little memory.
        """
        found: dict[str, Bundle | BundleError] = {}
        for name, folder in self._folders().items():
            try:
                found[name] = self._describe(name, folder)
            except BundleError as error:
                found[name] = error
        self._listed = {name: kept for name, kept in self._listed.items() if name in found}
        return found

    def _folder_of(self, name: str) -> Path:
        """Return a model's folder; raises ModelNotFound. The name is only compared, and never becomes a path."""
        if name == self.default_name:
            return self._default
        folders = self._folders()
        if name not in folders:
            raise ModelNotFound(f"There is no model {reprlib.repr(name)}; {_sentence(folders)}")
        return folders[name]

    def _folders(self) -> dict[str, Path]:
        return _folders(self.default_name, self._default, self._models)

    def _load(self, name: str, folder: Path) -> LoadedModel:
        """Return a model; load it only the first time and after its manifest has changed."""
        revision = _revision(folder / MANIFEST)
        model = self._loaded.get(name)
        if model is None or model.revision != revision:
            bundle = read_bundle(name, folder)
            self._loaded.pop(name, None)
            self._make_room()
            classifier = Classifier(bundle, self._limits, self._threads, self._engine)
            model = LoadedModel(classifier, classifier.warm_up(), revision)
        self._loaded.pop(name, None)
        self._loaded[name] = model
        return model

    def _describe(self, name: str, folder: Path) -> Bundle:
        """Return a bundle without its arrays; read it only the first time and after its manifest has changed."""
        revision = _revision(folder / MANIFEST)
        if name not in self._listed or self._listed[name][0] != revision:
            bundle = dataclasses.replace(read_bundle(name, folder), head=None, familiarity=None)
            self._listed[name] = (revision, bundle)
        return self._listed[name][1]

    def _make_room(self) -> None:
        """Drop the least recently used models, so that another one can be loaded; never the default one."""
        others = [name for name in self._loaded if name != self.default_name]
        while len(others) > MAX_LOADED - 2:
            del self._loaded[others.pop(0)]


def find_bundles(default: Path, models: Path | None) -> dict[str, Path]:
    """Return the folders of all bundles by the name of their model, the default one first.

    These are the folder `default`, and the folders in `models` that have a manifest and whose names can be printed and
    do not begin with a dot. If both have a bundle of the same name, the default one is used.
    """
    return _folders(model_name(default, models), default, models)


def model_name(bundle: Path, models: Path | None) -> str:
    """Return the name of a bundle's folder or, if a link in `models` leads to this folder, the link's name."""
    path = bundle.resolve()
    return next((folder.name for folder in _children(models) if folder.resolve() == path), path.name)


def read_bundle(name: str, folder: Path) -> Bundle:
    """Load a bundle under its model's name; raises BundleError."""
    return dataclasses.replace(load_bundle(folder), name=name)


def _folders(name: str, default: Path, models: Path | None) -> dict[str, Path]:
    found = {name: default}
    for folder in _children(models):
        if not folder.name.startswith(".") and folder.name.isprintable() and (folder / MANIFEST).is_file():
            found.setdefault(folder.name, folder)
    return found


def _children(folder: Path | None) -> list[Path]:
    try:
        return sorted(folder.iterdir()) if folder else []
    except OSError:
        return []


def _revision(path: Path) -> _Revision:
    """Return a file's inode, size and times in nanoseconds; None if it cannot be read.

    One of them changes when the file is written or replaced. Unpacking an archive can restore the time of modification,
    but not that of the last change of the inode.
    """
    try:
        found = path.stat()
    except OSError:
        return None  # read_bundle() reports the reason
    return (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _sentence(folders: Mapping[str, Path]) -> str:
    names = [*folders][:_MAX_NAMES]
    more = "; GET /v1/models lists all" if len(folders) > _MAX_NAMES else ""
    return f"the models are {', '.join(names)}{more}."
