"""Binary and multi-label models: their confidences, and which labels are present, in the classifier and the API."""

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import add_bundle, add_familiarity, change_manifest, make_multi_label
from support import CIFAR_BUNDLE, DEFAULT_BUNDLE, ROCKET, LambdaContext, classify_bytes, event

from litelens.core.bundle import IMAGE, LOGITS, Bundle, Tensor, load_bundle
from litelens.core.classifier import Classifier, Options, Prediction
from litelens.core.errors import BundleError, ModelUnusable
from litelens.core.images import Limits
from litelens.core.probabilities import sigmoid

PHOTO = ROCKET.read_bytes()


class FixedEngine:
    """An engine that returns the same output for every image."""

    def __init__(self, output: np.ndarray) -> None:
        self._output = output

    def run(self, _: np.ndarray) -> dict[str, np.ndarray]:
        return {LOGITS: self._output[np.newaxis]}


@pytest.fixture
def classifier_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Classifier]:
    """A function that returns a classifier whose model has this output, `(n,)`, for the labels a, b, ..."""

    def make(given: Any, labels: str, **changes: Any) -> Classifier:
        given = given if isinstance(given, np.ndarray) else np.array(given, np.float32)
        monkeypatch.setattr("litelens.core.classifier.load_engine", lambda *_: FixedEngine(given))
        bundle = load_bundle(DEFAULT_BUNDLE)
        scale = 0.0 if given.dtype == np.float32 else 1 / 255
        fields = {
            "labels": tuple(labels),
            "tensors": {IMAGE: bundle.tensors[IMAGE], LOGITS: Tensor((1, len(given)), scale, 0, given.dtype.name)},
            "groups": {},
            "temperature": 1.0,
            "head": None,
        }
        return Classifier(dataclasses.replace(bundle, **(fields | changes)), Limits(), 1)

    return make


def by_label(prediction: Prediction) -> dict[str, float]:
    return {each.label: each.confidence for each in prediction.candidates}


def present(prediction: Prediction) -> set[str]:
    return {each.label for each in prediction.candidates if each.present}


@pytest.mark.parametrize("output", ["logits", "probabilities"])
@pytest.mark.parametrize("probability", [0.001, 0.3, 0.5, 0.9])
def test_a_single_score_of_two_labels_is_the_probability_of_the_second(
    classifier_of: Callable[..., Classifier], output: str, probability: float
) -> None:
    score = probability if output == "probabilities" else math.log(probability / (1 - probability))
    prediction = classifier_of([score], "ab", output=output).classify(PHOTO)
    assert by_label(prediction) == pytest.approx({"a": 1 - probability, "b": probability}, abs=1e-6)
    assert [each.present for each in prediction.candidates] == [None, None]


def test_the_temperature_of_a_binary_model_divides_its_log_odds(classifier_of: Callable[..., Classifier]) -> None:
    prediction = classifier_of([0.8], "ab", output="probabilities", temperature=2.0).classify(PHOTO)
    assert by_label(prediction)["b"] == pytest.approx(1 / (1 + 0.25**0.5), abs=1e-6)


@pytest.mark.parametrize("level", [0, 1, 128, 254, 255])
def test_a_rounded_sigmoid_stays_what_it_is_and_is_never_infinitely_sure(
    classifier_of: Callable[..., Classifier], level: int
) -> None:
    classifier = classifier_of(np.array([level], np.uint8), "ab", output="probabilities")
    assert by_label(classifier.classify(PHOTO))["b"] == pytest.approx(level / 255, abs=0.5 / 255)
    assert np.abs(classifier.logits(np.zeros((260, 260, 3), np.uint8))).max() < 10


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_score_that_is_not_finite_is_an_error(classifier_of: Callable[..., Classifier], value: float) -> None:
    with pytest.raises(ModelUnusable):
        classifier_of([value], "ab").classify(PHOTO)


@pytest.mark.parametrize("output", ["logits", "probabilities"])
def test_each_label_of_a_multi_label_model_has_a_probability_of_its_own(
    classifier_of: Callable[..., Classifier], output: str
) -> None:
    probabilities = {"a": 0.9, "b": 0.02, "c": 0.8}
    scores = [value if output == "probabilities" else math.log(value / (1 - value)) for value in probabilities.values()]
    prediction = classifier_of(scores, "abc", output=output, threshold=None, thresholds=(0.5,) * 3).classify(PHOTO)
    assert by_label(prediction) == pytest.approx(probabilities, abs=1e-6)
    assert [each.label for each in prediction.candidates] == ["a", "c", "b"]


def multi_label(classifier_of: Callable[..., Classifier], *thresholds: float) -> Classifier:
    return classifier_of([0.9, 0.3, 0.6], "abc", output="probabilities", threshold=None, thresholds=thresholds)


def test_each_label_is_present_from_its_own_threshold(classifier_of: Callable[..., Classifier]) -> None:
    prediction = multi_label(classifier_of, 0.95, 0.2, 0.5).classify(PHOTO)
    assert present(prediction) == {"b", "c"}
    assert prediction.uncertain is False


def test_a_photo_on_which_no_label_is_present_is_uncertain(classifier_of: Callable[..., Classifier]) -> None:
    prediction = multi_label(classifier_of, 0.95, 0.95, 0.95).classify(PHOTO)
    assert present(prediction) == set()
    assert prediction.uncertain is True


def test_the_threshold_option_replaces_those_of_all_labels(classifier_of: Callable[..., Classifier]) -> None:
    classifier = multi_label(classifier_of, 0.95, 0.95, 0.95)
    assert present(classifier.classify(PHOTO, Options(threshold=0.5))) == {"a", "c"}
    assert classifier.classify(PHOTO, Options(threshold=0.5)).uncertain is False
    assert classifier.classify(PHOTO, Options(threshold=0.5)).uncertain_by_default is True


def test_all_labels_are_given_unless_top_k_says_how_many(classifier_of: Callable[..., Classifier]) -> None:
    labels = "abcdefghij"
    classifier = classifier_of([0.5] * 10, labels, output="probabilities", threshold=None, thresholds=tuple([0.4] * 10))
    assert len(classifier.classify(PHOTO).candidates) == 10
    assert len(classifier.classify(PHOTO, Options(top_k=3)).candidates) == 3
    assert len(classifier_of([0.1] * 10, labels).classify(PHOTO).candidates) == 5


def test_the_entropy_of_independent_labels_is_the_sum_of_theirs(classifier_of: Callable[..., Classifier]) -> None:
    classifier = classifier_of(
        [0.5, 0.5, 1.0], "abc", output="probabilities", threshold=None, thresholds=(0.5, 0.5, 0.5)
    )
    assert classifier.classify(PHOTO).entropy == pytest.approx(2, abs=1e-4)


def test_one_label_alone_can_be_present_or_not(classifier_of: Callable[..., Classifier]) -> None:
    prediction = classifier_of([0.7], "a", output="probabilities", threshold=None, thresholds=(0.5,)).classify(PHOTO)
    assert by_label(prediction) == pytest.approx({"a": 0.7})
    assert present(prediction) == {"a"}


def test_sigmoid_survives_extreme_scores() -> None:
    with np.errstate(over="raise"):
        assert sigmoid(np.array([-1e4, 0, 1e4], np.float32)).tolist() == [0, 0.5, 1]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_multi_label(add_bundle(tmp_path, "tags"))


def test_a_manifest_with_thresholds_is_that_of_a_multi_label_model(bundle: Path) -> None:
    loaded = load_bundle(bundle)
    assert loaded.is_multi_label
    assert loaded.thresholds == (0.5,) * 100
    assert loaded.threshold is None
    assert not load_bundle(CIFAR_BUNDLE).is_multi_label


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"threshold": 0.5}, "threshold must be left out"),
        ({"thresholds": [0.5]}, "thresholds must have a number for each of the 100 labels"),
        ({"thresholds": [1.5] * 100}, "thresholds.0 must be a number <= 1.0"),
        ({"thresholds": []}, "thresholds must be a list of length >= 1"),
    ],
)
def test_thresholds_that_cannot_be_right_are_refused(bundle: Path, fields: dict[str, Any], named: str) -> None:
    change_manifest(bundle, **fields)
    with pytest.raises(BundleError, match=named):
        load_bundle(bundle)


def test_groups_of_labels_that_do_not_add_up_are_refused(bundle: Path) -> None:
    change_manifest(bundle, groups=dict.fromkeys(load_bundle(bundle).labels, "things"))
    with pytest.raises(BundleError, match="groups must be left out"):
        load_bundle(bundle)


def test_a_manifest_without_any_threshold_is_refused(bundle: Path) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    del manifest["thresholds"]
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="the field threshold is missing"):
        load_bundle(bundle)


@pytest.fixture
def handle(tmp_path: Path) -> Callable[[dict[str, Any]], Any]:
    """A function that answers a request with a multi-label model."""
    from litelens.api.handler import create_handler
    from litelens.settings import read_settings

    bundle = add_familiarity(add_bundle(tmp_path, "tags"), unfamiliar=False)
    make_multi_label(bundle, [0.01, *[0.5] * 99])
    handler = create_handler(dataclasses.replace(read_settings(), bundle=bundle, models=None))
    return lambda request: json.loads(handler(request, LambdaContext())["body"])


def test_the_api_gives_all_labels_and_says_which_are_present(
    handle: Callable[[dict[str, Any]], Any], tmp_path: Path
) -> None:
    answer = handle(classify_bytes(PHOTO))
    bundle: Bundle = load_bundle(tmp_path / "tags")
    assert {each["label"] for each in answer["predictions"]} == set(bundle.labels)
    for each in answer["predictions"]:
        assert each["present"] is (each["confidence"] >= bundle.thresholds[each["index"]])
    assert "group" not in answer
    assert answer["unfamiliar"] is False


def test_the_request_can_choose_the_number_of_labels_and_one_threshold(
    handle: Callable[[dict[str, Any]], Any],
) -> None:
    answer = handle(classify_bytes(PHOTO, top_k="2", threshold="0"))
    assert [each["present"] for each in answer["predictions"]] == [True, True]
    answer = handle(classify_bytes(PHOTO, threshold="1"))
    assert not any(each["present"] for each in answer["predictions"])
    assert answer["uncertain"] is True


def test_the_heat_map_is_that_of_the_most_confident_label(handle: Callable[[dict[str, Any]], Any]) -> None:
    answer = handle(classify_bytes(PHOTO, heatmap="true"))
    assert answer["heatmap"]["label"] == answer["predictions"][0]["label"]


def test_the_model_says_that_its_labels_have_thresholds(handle: Callable[[dict[str, Any]], Any]) -> None:
    manifest = handle(event("GET", "/v1/model"))["manifest"]
    assert len(manifest["thresholds"]) == len(manifest["labels"])
    assert "threshold" not in manifest


def test_an_answer_with_exclusive_labels_says_nothing_about_presence(tmp_path: Path) -> None:
    classifier = Classifier(load_bundle(CIFAR_BUNDLE), Limits(), threads=1)
    assert {each.present for each in classifier.classify(PHOTO).candidates} == {None}
