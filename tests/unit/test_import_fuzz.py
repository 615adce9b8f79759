"""Damaged and hostile models: `litelens import` refuses each with a sentence, and its own process stays alive."""

import contextlib
import time
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from small_models import KINDS, SIDE, Builder, small_model

from litelens_client.importing import trial
from litelens_client.importing.errors import ImportRefused
from litelens_client.importing.graph import examine, parse
from litelens_client.importing.trial import try_model

# Bytes that make lengths, offsets and indices too large, too small or zero.
_BYTES = (0, 1, 2, 127, 128, 255)


def damaged(random: np.random.Generator) -> bytes:
    """Return a small model of a random kind, cut off or with some bytes changed."""
    model = bytearray(small_model(str(random.choice(KINDS))))
    if random.random() < 0.1:
        return bytes(model[: random.integers(8, len(model))])
    for at in random.integers(0, len(model), random.integers(1, 4)):
        model[at] = random.choice([*_BYTES, random.integers(256)])
    return bytes(model)


def is_examined(model: bytes) -> bool:
    with contextlib.suppress(ImportRefused):
        examine(parse(model))
        return True
    return False


def test_damaged_tables_are_refused_quickly() -> None:
    random = np.random.default_rng(1)
    started = time.process_time()
    examined = [is_examined(damaged(random)) for _ in range(300)]
    assert 0 < sum(examined) < len(examined)
    assert time.process_time() - started < 60


def test_what_the_tables_do_not_show_is_found_by_running_the_model(tmp_path: Path) -> None:
    """Each model runs or is refused; none ends this process, whatever the interpreter does with it."""
    random = np.random.default_rng(2)
    models = [model for _ in range(40) if is_examined(model := damaged(random))][:8]
    assert len(models) == 8
    for model in models:
        (tmp_path / "damaged.tflite").write_bytes(model)
        with contextlib.suppress(ImportRefused):
            assert try_model(tmp_path / "damaged.tflite", tmp_path / "model.tflite").milliseconds > 0


def enlarging_model(side: int) -> bytes:
    """Return a model of a thousand bytes that enlarges photos to this many pixels on each side."""
    builder = Builder()
    image = builder.tensor("in", (1, SIDE, SIDE, 3))
    size = builder.tensor("size", (2,), schema.TensorType.INT32, constant=np.array([side, side], np.int32))
    large = builder.tensor("large", (1, side, side, 3))
    options = schema.ResizeNearestNeighborOptionsT()
    builder.operator(schema.BuiltinOperator.RESIZE_NEAREST_NEIGHBOR, (image, size), large, options)
    axes = builder.tensor("axes", (2,), schema.TensorType.INT32, constant=np.array([1, 2], np.int32))
    mean = builder.tensor("out", (1, 3))
    builder.operator(schema.BuiltinOperator.MEAN, (large, axes), mean, schema.ReducerOptionsT())
    return builder.build([image], [mean])


def test_a_model_that_needs_too_much_memory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "large.tflite"
    path.write_bytes(enlarging_model(32))
    assert try_model(path, tmp_path / "model.tflite").graph.operators == 2
    path.write_bytes(enlarging_model(13_300))  # 2.1 GB
    with pytest.raises(ImportRefused):
        try_model(path, tmp_path / "model.tflite")


def test_a_model_that_takes_too_long_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "MAX_SECONDS", 0)
    path = tmp_path / "model.tflite"
    path.write_bytes(small_model())
    with pytest.raises(ImportRefused, match=r"\b0 seconds"):
        try_model(path, tmp_path / "new.tflite")


def test_a_model_whose_scores_are_not_numbers_is_refused(tmp_path: Path) -> None:
    parsed = parse(small_model(softmax=False))
    (weights,) = (tensor for tensor in parsed.subgraphs[0].tensors if tensor.name == b"weights")
    parsed.buffers[weights.buffer].data = np.frombuffer(np.full(9, np.nan, np.float32).tobytes(), np.uint8)
    builder = Builder()
    builder.model = parsed
    (tmp_path / "model.tflite").write_bytes(builder.pack())
    with pytest.raises(ImportRefused, match="finite"):
        try_model(tmp_path / "model.tflite", tmp_path / "new.tflite")
