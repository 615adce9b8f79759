import numpy as np
import pytest

from training.network import Stem, resnet50


@pytest.mark.parametrize(
    ("stem", "size", "grid"),
    [("imagenet", 64, 2), ("cifar", 32, 4), ("cifar-stride2", 32, 2)],
)
def test_the_logits_are_the_mean_of_the_class_activation_map(
    stem: Stem, size: int, grid: int, noise: np.random.Generator
) -> None:
    network = resnet50(size, size, 10, stem)
    outputs = network.predict(noise.normal(size=(2, size, size, 3)).astype(np.float32), verbose=0)
    assert outputs["class_activation_map"].shape == (2, grid, grid, 10)
    assert outputs["logits"] == pytest.approx(outputs["class_activation_map"].mean(axis=(1, 2)), abs=1e-4)


def test_it_has_the_size_of_a_resnet50() -> None:
    # Torchvision's resnet50 has 25,557,032 parameters, of which 2,049,000 are the 1000-class head's.
    network = resnet50(224, 224, 1000, "imagenet")
    assert sum(int(np.prod(w.shape)) for w in network.trainable_weights) == 25_557_032
