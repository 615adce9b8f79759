import dataclasses
import math
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image
from support import DEFAULT_BUNDLE, ROCKET, encoded

from litelens.core.bundle import IMAGE, LOGITS, Tensor, load_bundle
from litelens.core.classifier import Classifier, Options, Timing
from litelens.core.errors import ImageTooLarge, InvalidOption, ModelUnusable
from litelens.core.images import Limits, decode
from litelens.core.probabilities import entropy, softmax


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier(load_bundle(DEFAULT_BUNDLE), Limits(), threads=1)


def test_confidences_add_up_to_1_and_the_highest_comes_first(classifier: Classifier) -> None:
    prediction = classifier.classify(ROCKET.read_bytes(), Options(top_k=1000))
    confidences = [c.confidence for c in prediction.candidates]
    assert sum(confidences) == pytest.approx(1, abs=1e-5)
    assert confidences == sorted(confidences, reverse=True)
    assert sorted(c.index for c in prediction.candidates) == list(range(1000))
    assert all(classifier.bundle.labels[c.index] == c.label for c in prediction.candidates)


@pytest.mark.parametrize("top_k", [1, 5, 1000, 10**9])
def test_top_k_is_the_number_of_labels(classifier: Classifier, top_k: int) -> None:
    assert len(classifier.classify(ROCKET.read_bytes(), Options(top_k=top_k)).candidates) == min(top_k, 1000)


@pytest.mark.parametrize("top_k", [0, -1])
def test_top_k_out_of_range_is_refused(classifier: Classifier, top_k: int) -> None:
    with pytest.raises(InvalidOption, match="above 0"):
        classifier.classify(ROCKET.read_bytes(), Options(top_k=top_k))


def test_a_prediction_is_uncertain_below_the_threshold() -> None:
    bundle = load_bundle(DEFAULT_BUNDLE)
    confidence = Classifier(bundle, Limits(), 1).classify(ROCKET.read_bytes()).candidates[0].confidence
    for threshold, uncertain in ((confidence, False), (np.nextafter(confidence, 1), True)):
        classifier = Classifier(dataclasses.replace(bundle, threshold=float(threshold)), Limits(), 1)
        assert classifier.classify(ROCKET.read_bytes()).uncertain is uncertain


@pytest.mark.parametrize("offset", [-1e-4, 1e-4])
def test_the_threshold_option_replaces_the_threshold_of_the_bundle(classifier: Classifier, offset: float) -> None:
    best = classifier.classify(ROCKET.read_bytes()).candidates[0].confidence
    options = Options(threshold=best + offset)
    assert classifier.classify(ROCKET.read_bytes(), options).uncertain is (offset > 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(threshold=-0.01), "threshold must be a number from 0 to 1"),
        (Options(threshold=1.01), "threshold must be a number from 0 to 1"),
        (Options(threshold=float("nan")), "threshold must be a number from 0 to 1"),
        (Options(heat_map=True, heat_map_label="unicorn"), "heatmap_label must be one of the model's labels"),
        (Options(heat_map_label="unicorn"), "heatmap_label must be one of the model's labels"),
    ],
)
def test_an_invalid_option_is_refused_before_the_image_is_decoded(
    classifier: Classifier, options: Options, message: str
) -> None:
    with pytest.raises(InvalidOption, match=message):
        classifier.classify(b"no image", options)


def test_the_confidence_of_a_group_is_the_sum_of_its_labels(classifier: Classifier) -> None:
    prediction = classifier.classify(ROCKET.read_bytes(), Options(top_k=1000))
    assert prediction.group is not None
    members = [c.confidence for c in prediction.candidates if c.group == prediction.group.label]
    assert len(members) > 1
    assert prediction.group.confidence == pytest.approx(sum(members), abs=1e-6)


def test_the_confidence_of_a_group_of_all_labels_is_at_most_1() -> None:
    bundle = load_bundle(DEFAULT_BUNDLE)
    one = dataclasses.replace(bundle, groups=dict.fromkeys(bundle.labels, "things"))
    group = Classifier(one, Limits(), 1).classify(ROCKET.read_bytes()).group
    assert group is not None
    assert group.confidence == pytest.approx(1, abs=1e-5)
    assert group.confidence <= 1


def test_without_groups_a_prediction_has_no_group() -> None:
    prediction = Classifier(dataclasses.replace(load_bundle(DEFAULT_BUNDLE), groups={}), Limits(), 1).classify(
        ROCKET.read_bytes()
    )
    assert prediction.group is None
    assert {candidate.group for candidate in prediction.candidates} == {None}


def test_confidences_are_the_softmax_of_the_logits_divided_by_the_temperature() -> None:
    bundle = dataclasses.replace(load_bundle(DEFAULT_BUNDLE), temperature=2.5)
    classifier = Classifier(bundle, Limits(), threads=1)
    image = decode(ROCKET.read_bytes(), Limits(), bundle.preprocessing)
    logits = classifier.logits(image.pixels(bundle.preprocessing))
    expected = softmax(logits / np.float32(2.5))
    for candidate in classifier.classify(ROCKET.read_bytes(), Options(top_k=1000)).candidates:
        assert candidate.confidence == pytest.approx(expected[candidate.index], abs=1e-6)


def test_the_same_pixels_give_the_same_answer_in_any_lossless_format(
    classifier: Classifier, noise: np.random.Generator
) -> None:
    image = Image.fromarray(noise.integers(0, 256, (32, 32, 3), dtype=np.uint8))
    answers = {
        classifier.classify(encoded(image, image_format, **options)).candidates
        for image_format, options in (("PNG", {}), ("BMP", {}), ("WEBP", {"lossless": True}))
    }
    assert len(answers) == 1


def test_the_model_can_tell_nearly_all_levels_of_a_pixel_apart(classifier: Classifier) -> None:
    levels = classifier._input_levels
    assert levels.shape == (256, 3)
    for channel in range(3):
        assert len(set(levels[:, channel].tolist())) >= 250


@pytest.mark.parametrize("std", [(0.5, 0.5, 0.5), (0.3, 0.5, 0.7)], ids=["alike", "different"])
def test_each_pixel_becomes_the_level_of_its_normalized_value(
    std: tuple[float, float, float], noise: np.random.Generator
) -> None:
    bundle = load_bundle(DEFAULT_BUNDLE)
    spec = msgspec.structs.replace(bundle.preprocessing, crop=1.0, std=std)
    pixels = noise.integers(0, 256, (spec.height, spec.width, 3), dtype=np.uint8)
    prepared = Classifier(dataclasses.replace(bundle, preprocessing=spec), Limits(), 1).prepare(
        encoded(Image.fromarray(pixels), "PNG")
    )
    expected = bundle.tensors[IMAGE].quantize(spec.normalize(pixels))
    assert prepared.levels.dtype == expected.dtype
    assert np.array_equal(prepared.levels, expected[np.newaxis])


def test_the_timing_is_in_milliseconds(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 100.25, 200.0, 201.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    assert classifier.classify(ROCKET.read_bytes()).timing == Timing(decode=250.0, inference=1000.0, total=1250.0)


def test_the_limits_reach_the_decoder() -> None:
    with pytest.raises(ImageTooLarge):
        Classifier(load_bundle(DEFAULT_BUNDLE), Limits(pixels=100), 1).classify(ROCKET.read_bytes())


def test_softmax_survives_extreme_scores() -> None:
    assert softmax(np.array([1000.0, 1000.0, -1000.0], np.float32)).tolist() == [0.5, 0.5, 0.0]


@pytest.mark.parametrize(
    ("probabilities", "bits"),
    [([1, 0, 0], 0), ([0.5, 0.25, 0.25], 1.5), ([0.01] * 100, math.log2(100)), ([1, 1e-45], 0)],
)
def test_entropy_is_in_bits(probabilities: list[float], bits: float) -> None:
    assert entropy(np.array(probabilities, np.float32)) == pytest.approx(bits, abs=1e-5)


def test_the_entropy_of_a_prediction_is_that_of_all_labels(classifier: Classifier) -> None:
    few, all_labels = (classifier.classify(ROCKET.read_bytes(), Options(top_k=top_k)) for top_k in (1, 1000))
    expected = sum(c.confidence * math.log2(1 / c.confidence) for c in all_labels.candidates if c.confidence)
    assert few.entropy == all_labels.entropy == pytest.approx(expected, abs=1e-4)


class FixedEngine:
    """An engine that returns the same output for every image."""

    def __init__(self, output: np.ndarray) -> None:
        self._output = output

    def run(self, _: np.ndarray) -> dict[str, np.ndarray]:
        return {LOGITS: self._output[np.newaxis]}


def fixed_classifier(monkeypatch: pytest.MonkeyPatch, given: np.ndarray, **changes: Any) -> Classifier:
    """Return a classifier whose model gives this output, `(3,)`, of class scores or probabilities."""
    monkeypatch.setattr("litelens.core.classifier.load_engine", lambda *_: FixedEngine(given))
    bundle = load_bundle(DEFAULT_BUNDLE)
    scale = 0.0 if given.dtype == np.float32 else 1 / 256
    tensors = {IMAGE: bundle.tensors[IMAGE], LOGITS: Tensor((1, 3), scale, 0, given.dtype.name)}
    fields = {"labels": ("a", "b", "c"), "groups": {}, "temperature": 1.0, "head": None, "familiarity": None}
    return Classifier(dataclasses.replace(bundle, tensors=tensors, **(fields | changes)), Limits(), 1)


def confidences(classifier: Classifier) -> list[float]:
    found = classifier.classify(ROCKET.read_bytes(), Options(top_k=3)).candidates
    return [candidate.confidence for candidate in sorted(found, key=lambda each: each.index)]


@pytest.mark.parametrize("probabilities", [[0.7, 0.2, 0.1], [1, 0, 0], [1 - 1e-6, 1e-6, 1e-30]])
def test_probabilities_stay_what_they_are_at_a_temperature_of_1(
    monkeypatch: pytest.MonkeyPatch, probabilities: list[float]
) -> None:
    classifier = fixed_classifier(monkeypatch, np.array(probabilities, np.float32), output="probabilities")
    assert confidences(classifier) == pytest.approx(probabilities, abs=1e-6)


def test_the_temperature_applies_to_the_logarithms_of_probabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    output = np.array([0.8, 0.2, 0], np.float32)
    classifier = fixed_classifier(monkeypatch, output, output="probabilities", temperature=2.0)
    assert confidences(classifier) == pytest.approx([2 / 3, 1 / 3, 0], abs=1e-6)


@pytest.mark.parametrize("levels", [[255, 1, 0], [256 - 64, 64, 0], [255, 0, 0]])
def test_rounded_probabilities_stay_what_they_are_within_half_a_level(
    monkeypatch: pytest.MonkeyPatch, levels: list[int]
) -> None:
    classifier = fixed_classifier(monkeypatch, np.array(levels, np.uint8), output="probabilities")
    assert confidences(classifier) == pytest.approx(np.array(levels) / sum(levels), abs=0.5 / 256)


def test_a_rounded_0_is_not_infinitely_unlikely(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a single wrong answer of a uint8 model would decide the temperature."""
    classifier = fixed_classifier(monkeypatch, np.array([255, 1, 0], np.uint8), output="probabilities")
    logits = classifier.logits(np.zeros((260, 260, 3), np.uint8))
    assert logits[2] == pytest.approx(math.log(0.5 / 256 / 3), abs=1e-4)


@pytest.mark.parametrize("output", ["logits", "probabilities"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_scores_that_are_not_finite_are_an_error_that_names_the_model(
    monkeypatch: pytest.MonkeyPatch, output: str, value: float
) -> None:
    classifier = fixed_classifier(monkeypatch, np.array([value, 0, 0], np.float32), output=output)
    with pytest.raises(ModelUnusable, match=classifier.bundle.name):
        classifier.classify(ROCKET.read_bytes())
