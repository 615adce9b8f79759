"""The Keras model that is fitted: augmentation, normalization, the network and the loss, all on the device."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

from litelens.core.preprocessing import Preprocessing
from training.augmentation import apply_augmentation_layer, create_augmentation_layers
from training.devices import build_forward_pass
from training.preset import Augmentation, Teacher


class TrainingModel(keras.Model):  # type: ignore[misc]
    """A model from `images`, uint8 `(n, h, w, 3)`, and one-hot `labels` to `logits` and `labels`.

    The labels are an input because MixUp and CutMix change them. The loss is the cross entropy with smoothed labels,
    times the weight of each image's class; an image whose labels are all 0 has no effect. If the teacher's logits are
    an input too, the loss is that of training.preset.Teacher.
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
        self._forward = build_forward_pass(network)
        self._normalize = create_normalization(spec)
        self._augmentation = create_augmentation_layers(augmentation, seed)
        self._teacher = teacher
        self._label_smoothing = label_smoothing
        self._class_weights = class_weights
        self._accuracy = keras.metrics.Mean(name="accuracy")

    def build(self, input_shape: Any) -> None:
        """Mark all layers as built: the network is built already, and the other layers have no weights.

        Otherwise Keras would draw the order of the batches once more in the first `fit` of a process, to build them.
        """
        for layer in self._augmentation:
            for each in layer._flatten_layers():
                each.built = True
        self.built = True

    def call(self, inputs: Mapping[str, Any], training: bool = False) -> dict[str, Any]:
        batch = {"images": ops.cast(inputs["images"], "float32"), "labels": inputs["labels"]}
        if training:
            for layer in self._augmentation:
                batch = apply_augmentation_layer(layer, batch)
        logits = self._forward(self._normalize(batch["images"]), training=training)["logits"]
        outputs = {"logits": logits, "labels": batch["labels"]}
        return {**outputs, "teacher": inputs["teacher"]} if "teacher" in inputs else outputs

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        labels = y_pred["labels"]
        losses = keras.losses.categorical_crossentropy(
            labels, y_pred["logits"], from_logits=True, label_smoothing=self._label_smoothing
        )
        if "teacher" in y_pred:
            share = self._teacher.weight
            losses = (1 - share) * losses + share * self._distillation_loss(y_pred)
        weights = ops.sum(labels * self._class_weights, axis=-1)
        return ops.sum(losses * weights) / ops.maximum(ops.sum(labels), 1.0)

    def _distillation_loss(self, y_pred: Any) -> Any:
        """The cross entropy of both softened softmaxes, times temperature^2, which keeps the size of the gradient."""
        temperature = self._teacher.temperature
        expected = ops.softmax(y_pred["teacher"] / temperature, axis=-1)
        found = ops.log_softmax(y_pred["logits"] / temperature, axis=-1)
        return -(temperature**2) * ops.sum(expected * found, axis=-1)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        labels = y_pred["labels"]
        correct = ops.argmax(y_pred["logits"], axis=-1) == ops.argmax(labels, axis=-1)
        self._accuracy.update_state(correct, sample_weight=ops.sum(labels, axis=-1))
        return self.get_metrics_result()

    def reseed(self, seed: int) -> None:
        """Make all random numbers from now on depend on this seed alone."""
        keras.utils.set_random_seed(seed)
        states = [variable for variable in self.variables if variable.name == "seed_generator_state"]
        for state, value in zip(states, np.random.SeedSequence(seed).generate_state(len(states)), strict=True):
            state.assign([int(value) & 0x7FFFFFFF, 0])


def create_normalization(spec: Preprocessing) -> keras.Layer:
    """Create the layer that normalizes pixels, 0 to 255, as `Preprocessing.normalize` does."""
    return layers.Rescaling(
        scale=[1 / (255 * s) for s in spec.std],
        offset=[-m / s for m, s in zip(spec.mean, spec.std, strict=True)],
        dtype="float32",
    )
