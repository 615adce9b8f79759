"""Training steps with litelens, and with plain torch on the same network.

Needs torch and KERAS_BACKEND=torch.
"""

import time

import keras
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from training.batches import training_batches
from training.dataset import Dataset, Pixels, Split
from training.devices import keep_freed_memory, supported_precision
from training.fit import compile_model
from training.network import build_network
from training.preset import load_preset

_BFLOAT16 = "mixed_bfloat16"


class LitelensStep:
    """The training step of `python -m training fit`, on batches of random images that are cropped and flipped."""

    def __init__(self, preset: str, stride: int, steps: int) -> None:
        self._preset = load_preset(preset)
        recipe = self._preset.recipe
        self.batch, self.precision = recipe.batch_size, supported_precision(recipe.precision)
        labels, spec = self._preset.label_names(), self._preset.preprocessing
        keep_freed_memory()
        network = build_network(self._preset.network, spec, len(labels), self.precision, stem_stride=stride)
        generator = np.random.default_rng(0)
        # One step more than is timed: the first one refills the caches after the other implementations.
        count = (steps + 1) * self.batch
        images = generator.integers(0, 256, (count, spec.height, spec.width, 3), dtype=np.uint8)
        self._split = Split(Pixels(images), generator.integers(0, len(labels), count))
        one = self._split.take([0])
        self._dataset = Dataset(labels, self._split, one, one, one)
        self._model = compile_model(network, self._preset, 1, self._dataset)

    def rates(self, steps: int) -> list[float]:
        """Time steps, including reading their batches; return the images per second of each."""
        split = self._split.take(np.arange((steps + 1) * self.batch))
        augmentation = self._preset.recipe.augmentation
        batches = training_batches(split, len(self._dataset.labels), self.batch, 0, augmentation)
        clock = _Clock()
        self._model.fit(batches, epochs=1, callbacks=[clock], verbose=0)
        return [self.batch / seconds for seconds in np.diff(clock.ends).tolist()]


class _Clock(keras.callbacks.Callback):  # type: ignore[misc]
    """Record the time at which each step ends."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[float] = []

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        self.ends.append(time.perf_counter())


class PlainStep:
    """A training step as in torch's documentation. If `tuned`, glibc keeps freed memory, as with litelens."""

    def __init__(self, preset: str, stride: int, *, tuned: bool) -> None:
        settings = load_preset(preset)
        self.batch, self.precision = settings.recipe.batch_size, supported_precision(settings.recipe.precision)
        if tuned:
            keep_freed_memory()
        classes, spec = len(settings.label_names()), settings.preprocessing
        self._network = ResNet50(classes, stride).to(memory_format=torch.channels_last)
        self._optimizer = torch.optim.SGD(
            self._network.parameters(), 0.1, momentum=settings.recipe.momentum, nesterov=True, weight_decay=5e-4
        )
        images = torch.randn(self.batch, 3, spec.height, spec.width)
        self._images = images.to(memory_format=torch.channels_last)
        self._classes = torch.randint(0, classes, (self.batch,))

    def rates(self, steps: int) -> list[float]:
        """Time steps; return the images per second of each."""
        self._step()
        return [self.batch / self._step() for _ in range(steps)]

    def _step(self) -> float:
        started = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.precision == _BFLOAT16):
            loss = functional.cross_entropy(self._network(self._images), self._classes)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        return time.perf_counter() - started


class ResNet50(nn.Module):  # type: ignore[misc]
    """The network resnet50-cifar: ResNet-50 v1.5 with a 3x3 stem and no pooling after it."""

    def __init__(self, classes: int, stride: int) -> None:
        super().__init__()
        blocks: list[nn.Module] = [_convolution(3, 64, 3, stride), nn.ReLU(inplace=True)]
        channels = 64
        for width, count, first_stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
            for number in range(count):
                blocks.append(_Bottleneck(channels, width, first_stride if number == 0 else 1))
                channels = 4 * width
        self.features = nn.Sequential(*blocks)
        self.head = nn.Linear(channels, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.head(self.features(images).mean((2, 3)))
        return scores


class _Bottleneck(nn.Module):  # type: ignore[misc]
    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _convolution(channels, width, 1, 1),
            nn.ReLU(inplace=True),
            _convolution(width, width, 3, stride),
            nn.ReLU(inplace=True),
            _convolution(width, 4 * width, 1, 1),
        )
        changes = stride != 1 or channels != 4 * width
        self.shortcut = _convolution(channels, 4 * width, 1, stride) if changes else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.body(x) + self.shortcut(x), inplace=True)


def _convolution(channels: int, filters: int, kernel: int, stride: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, filters, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(filters))
