"""What is fitted: the network between augmentation and loss, all of which runs on the device."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

from litelens.preprocessing import Preprocessing
from training.preset import Augmentation

_DEGREES_IN_A_TURN = 360


class Trainee(keras.Model):  # type: ignore[misc]
    """From `images`, uint8 `(n, h, w, 3)`, and one-hot `labels` to `logits` and the labels, which mixing changes.

    Its loss is the cross entropy with smoothed labels, times the weight of each image's class; an image whose labels
    are all 0 counts for nothing. Mixing needs the labels on the way in, which is why they are an input.
    """

    def __init__(
        self,
        network: keras.Model,
        spec: Preprocessing,
        augmentation: Augmentation,
        *,
        seed: int,
        label_smoothing: float,
        class_weights: NDArray[np.float32],
    ) -> None:
        super().__init__(dtype="float32")
        self.network = network
        self._normalize = normalization(spec)
        self._augmentation = augmentation_layers(augmentation, spec, seed)
        self._label_smoothing = label_smoothing
        self._class_weights = class_weights
        self._accuracy = keras.metrics.Mean(name="accuracy")

    def build(self, input_shape: Any) -> None:
        """The network comes built, and the other layers have no weights."""
        self.built = True

    def call(self, inputs: Mapping[str, Any], training: bool = False) -> dict[str, Any]:
        batch = {"images": ops.cast(inputs["images"], "float32"), "labels": inputs["labels"]}
        if training:
            for layer in self._augmentation:
                batch = _augmented(layer, batch)
        logits = self.network(self._normalize(batch["images"]), training=training)["logits"]
        return {"logits": logits, "labels": batch["labels"]}

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        labels = y_pred["labels"]
        losses = keras.losses.categorical_crossentropy(
            labels, y_pred["logits"], from_logits=True, label_smoothing=self._label_smoothing
        )
        weights = ops.sum(labels * self._class_weights, axis=-1)
        return ops.sum(losses * weights) / ops.maximum(ops.sum(labels), 1.0)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        labels = y_pred["labels"]
        right = ops.argmax(y_pred["logits"], axis=-1) == ops.argmax(labels, axis=-1)
        self._accuracy.update_state(right, sample_weight=ops.sum(labels, axis=-1))
        return self.get_metrics_result()

    def reseed(self, seed: int) -> None:
        """Make what is drawn from here on depend on this seed alone."""
        keras.utils.set_random_seed(seed)
        states = [variable for variable in self.variables if variable.name == "seed_generator_state"]
        for state, value in zip(states, np.random.SeedSequence(seed).generate_state(len(states)), strict=True):
            state.assign([int(value) & 0x7FFFFFFF, 0])


def normalization(spec: Preprocessing) -> keras.Layer:
    """The layer that turns pixels, 0 to 255, into what `Preprocessing.values` gives for them."""
    return layers.Rescaling(
        scale=[1 / (255 * s) for s in spec.std],
        offset=[-m / s for m, s in zip(spec.mean, spec.std, strict=True)],
        dtype="float32",
    )


def augmentation_layers(chosen: Augmentation, spec: Preprocessing, seed: int) -> list[keras.Layer]:
    """Keras' layers for what is turned on, in the order in which they act on pixels from 0 to 255."""
    rotation, zoom, shift, shear = chosen.rotation / _DEGREES_IN_A_TURN, chosen.zoom, chosen.shift, chosen.shear
    padding = {"height_factor": chosen.crop_padding / spec.height, "width_factor": chosen.crop_padding / spec.width}
    plans: list[tuple[object, type[keras.Layer], dict[str, Any]]] = [
        (chosen.flip, layers.RandomFlip, {"mode": "horizontal"}),
        (rotation, layers.RandomRotation, {"factor": rotation, "fill_mode": "reflect"}),
        (zoom, layers.RandomZoom, {"height_factor": zoom, "fill_mode": "reflect"}),
        (shift, layers.RandomTranslation, {"height_factor": shift, "width_factor": shift, "fill_mode": "reflect"}),
        (shear, layers.RandomShear, {"x_factor": shear, "y_factor": shear, "fill_mode": "reflect"}),
        (chosen.randaugment, layers.RandAugment, {"factor": chosen.randaugment, "value_range": (0, 255)}),
        # A shift by whole pixels over a black border is the same as padding and cropping, but differs in each image.
        (
            chosen.crop_padding,
            layers.RandomTranslation,
            {**padding, "fill_mode": "constant", "interpolation": "nearest"},
        ),
        (chosen.mixup, layers.MixUp, {"alpha": chosen.mixup}),
        (chosen.cutmix, layers.CutMix, {"factor": chosen.cutmix}),
    ]
    wanted = [(layer, options) for strength, layer, options in plans if strength]
    return [layer(**options, seed=seed + i, dtype="float32") for i, (layer, options) in enumerate(wanted)]


def _augmented(layer: keras.Layer, batch: dict[str, Any]) -> dict[str, Any]:
    if isinstance(layer, layers.MixUp | layers.CutMix):
        mixed: dict[str, Any] = layer(batch, training=True)
        return mixed
    return {**batch, "images": layer(batch["images"], training=True)}
