"""litelens' own handler, as it is deployed. LITELENS_ENGINE chooses the engine."""

import os
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.events import Context
from litelens.core.bundle import IMAGE, LOGITS, load_bundle
from litelens.core.engines import Engine, load_engine
from litelens.core.images import Limits, decode
from litelens.settings import read_settings


class Handler:
    """Serves a bundle's folder. `preprocess` and `invoke` use a second engine, because the handler's is private."""

    def __init__(self, model: Path, threads: int) -> None:
        os.environ.update(LITELENS_BUNDLE=str(model), LITELENS_THREADS=str(threads))
        from litelens.api.handler import handler

        self._handle = handler
        self._settings = read_settings()
        self._bundle = load_bundle(model)

    def __call__(self, event: dict[str, Any], context: object) -> dict[str, Any]:
        return self._handle(event, Context())  # type: ignore[arg-type]

    def preprocess(self, photo: bytes) -> NDArray[np.int8]:
        spec = self._bundle.preprocessing
        pixels = decode(photo, Limits(), spec).pixels(spec)
        return self._bundle.tensors[IMAGE].quantize(spec.normalize(pixels))[np.newaxis]

    def invoke(self, levels: NDArray[np.int8]) -> NDArray[np.float32]:
        return self._bundle.tensors[LOGITS].dequantize(self._engine.run(levels)[LOGITS][0])

    @cached_property
    def _engine(self) -> Engine:
        return load_engine(self._settings.engine, self._bundle, self._settings.threads)
