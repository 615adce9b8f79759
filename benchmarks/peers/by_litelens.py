"""litelens' own handler, as it is deployed.

LITELENS_ENGINE chooses the engine, as in a deployment.
"""

import os
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelens.bundle import IMAGE, LOGITS, load_bundle
from litelens.engines import Engine, load_engine
from litelens.images import Limits, decode
from settings import read_settings


class Context:
    """What Lambda passes beside the event."""

    function_name = "benchmark"
    memory_limit_in_mb = 1769
    invoked_function_arn = "arn:aws:lambda:us-east-1:000000000000:function:benchmark"
    aws_request_id = "00000000-0000-0000-0000-000000000000"

    def get_remaining_time_in_millis(self) -> int:
        return 60_000


class Handler:
    """`model` is a bundle's folder. `invoke` runs an engine of its own, as the handler's is nobody else's to call."""

    def __init__(self, model: Path, threads: int) -> None:
        os.environ.update(LITELENS_BUNDLE=str(model), LITELENS_THREADS=str(threads))
        from handlers.api import handler

        self._handle = handler
        self._settings = read_settings()
        self._bundle = load_bundle(model)

    def __call__(self, event: dict[str, Any], context: object) -> dict[str, Any]:
        return self._handle(event, Context())  # type: ignore[arg-type]

    def preprocess(self, photo: bytes) -> NDArray[np.int8]:
        spec = self._bundle.preprocessing
        pixels = decode(photo, Limits(), spec).pixels(spec)
        return self._bundle.tensors[IMAGE].levels(spec.normalized(pixels))[np.newaxis]

    def invoke(self, levels: NDArray[np.int8]) -> NDArray[np.float32]:
        return self._bundle.tensors[LOGITS].values(self._engine.run(levels)[LOGITS][0])

    @cached_property
    def _engine(self) -> Engine:
        return load_engine(self._settings.engine, self._bundle, self._settings.threads)
