"""What is fitted: the network between augmentation and loss, all of which runs on the device."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

from litelens.preprocessing import Preprocessing
from training.devices import fast_forward
from training.preset import Augmentation, Teacher

_DEGREES_IN_A_TURN = 360


class Trainee(keras.Model):  # type: ignore[misc]
    """From `images`, uint8 `(n, h, w, 3)`, and one-hot `labels` to `logits` and the labels, which mixing changes.

    Its loss is the cross entropy with smoothed labels, times the weight of each image's class; an image whose labels
    are all 0 has no effect. The labels are an input because mixing needs them. If the `teacher`'s logits are an input
    too, the loss is that of training.preset.Teacher.
    """

    def __init__(
        self,
        network: keras.Model,
        spec: Preprocessing,
        augmentation: Augmentation,
        *,
        seed: int,
        teacher: Teacher = Teacher(),  # noqa: B008 (frozen)
        label_smoothing: float,
        class_weights: NDArray[np.float32],
    ) -> None:
        super().__init__(dtype="float32")
        self.network = network
        self._forward = fast_forward(network)
        self._normalize = normalization(spec)
        self._augmentation = augmentation_layers(augmentation, seed)
        self._teacher = teacher
        self._label_smoothing = label_smoothing
        self._class_weights = class_weights
        self._accuracy = keras.metrics.Mean(name="accuracy")

    def build(self, input_shape: Any) -> None:
        """Mark all layers as built: the network is built already, and the other layers have no weights.

        Otherwise the first `fit` of a process would draw the batches' order once more, to build them.
        """
        for layer in self._augmentation:
            for each in layer._flatten_layers():
                each.built = True
        self.built = True

    def call(self, inputs: Mapping[str, Any], training: bool = False) -> dict[str, Any]:
        batch = {"images": ops.cast(inputs["images"], "float32"), "labels": inputs["labels"]}
        if training:
            for layer in self._augmentation:
                batch = _augmented(layer, batch)
        logits = self._forward(self._normalize(batch["images"]), training=training)["logits"]
        answers = {"logits": logits, "labels": batch["labels"]}
        return {**answers, "teacher": inputs["teacher"]} if "teacher" in inputs else answers

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        labels = y_pred["labels"]
        losses = keras.losses.categorical_crossentropy(
            labels, y_pred["logits"], from_logits=True, label_smoothing=self._label_smoothing
        )
        if "teacher" in y_pred:
            share = self._teacher.weight
            losses = (1 - share) * losses + share * self._teacher_loss(y_pred)
        weights = ops.sum(labels * self._class_weights, axis=-1)
        return ops.sum(losses * weights) / ops.maximum(ops.sum(labels), 1.0)

    def _teacher_loss(self, y_pred: Any) -> Any:
        """The cross entropy of both softened softmaxes, times temperature^2, which keeps the size of the gradient."""
        temperature = self._teacher.temperature
        expected = ops.softmax(y_pred["teacher"] / temperature, axis=-1)
        found = ops.log_softmax(y_pred["logits"] / temperature, axis=-1)
        return -(temperature**2) * ops.sum(expected * found, axis=-1)

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


def augmentation_layers(chosen: Augmentation, seed: int) -> list[keras.Layer]:
    """Keras' layers for the augmentations that are turned on, in the order in which they act on pixels from 0 to 255.

    Flips and crops are not among them: the batches have them already (training.batches).
    """
    rotation, zoom, shift, shear = chosen.rotation / _DEGREES_IN_A_TURN, chosen.zoom, chosen.shift, chosen.shear
    plans: list[tuple[object, type[keras.Layer], dict[str, Any]]] = [
        (rotation, layers.RandomRotation, {"factor": rotation, "fill_mode": "reflect"}),
        (zoom, layers.RandomZoom, {"height_factor": zoom, "fill_mode": "reflect"}),
        (shift, layers.RandomTranslation, {"height_factor": shift, "width_factor": shift, "fill_mode": "reflect"}),
        (shear, layers.RandomShear, {"x_factor": shear, "y_factor": shear, "fill_mode": "reflect"}),
        (chosen.randaugment, layers.RandAugment, {"factor": chosen.randaugment, "value_range": (0, 255)}),
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
