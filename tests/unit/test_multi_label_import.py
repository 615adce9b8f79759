"""`litelens import` of binary and multi-label models: what is found out, what they answer, how they are measured."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_models import SIDE, small_model
from support import encoded

from litelens.core.bundle import Output, load_bundle
from litelens.core.classifier import Classifier, Options, Prediction
from litelens.core.engines import ENGINES
from litelens.core.images import Limits
from litelens_client.__main__ import main
from litelens_client.importing.bundle import Imported, Request, import_model
from litelens_client.importing.errors import ImportRefused
from litelens_client.importing.expectations import Given
from litelens_client.learning.errors import DatasetError

PLAIN = Given(mean=(0.5,) * 3, std=(0.5,) * 3)
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "yellow": (255, 255, 0), "black": (0, 0, 0)}
HIGH, LOW = 1 / (1 + math.exp(-4)), 1 / (1 + math.exp(4))


def imported(
    folder: Path,
    labels: str,
    multi_label: bool | None = None,
    data: Path | None = None,
    scores: Output | None = None,
    **spec: Any,
) -> Imported:
    (folder / "source").mkdir(parents=True)
    (folder / "source" / "model.tflite").write_bytes(small_model(**spec))
    (folder / "source" / "labels.txt").write_text(labels)
    request = Request(folder / "source" / "model.tflite", None, PLAIN, data, multi_label=multi_label, scores=scores)
    return import_model(request, folder / "mine", "litelens import")


def classify(folder: Path, colour: str, engine: str = "litert") -> Prediction:
    classifier = Classifier(load_bundle(folder / "mine"), Limits(), threads=1, engine=engine)
    return classifier.classify(encoded(Image.new("RGB", (40, 30), COLOURS[colour]), "PNG"))


def present(prediction: Prediction) -> set[str]:
    return {each.label for each in prediction.candidates if each.present}


def sources(result: Imported) -> dict[str, str]:
    return {each.subject: f"{each.value} ({each.source})" for each in result.assumptions}


@pytest.mark.parametrize("kind", ["float32", "uint8", "int8"])
def test_a_single_sigmoid_is_the_probability_of_the_second_label(tmp_path: Path, kind: str) -> None:
    result = imported(tmp_path, "other\nred\n", kind=kind, classes=1, softmax=False, logistic=True)
    assert result.manifest["output"] == "probabilities"
    assert "probability of red" in sources(result)["Scores"]
    red, green = classify(tmp_path, "red"), classify(tmp_path, "green")
    assert [each.label for each in red.candidates] == ["red", "other"]
    assert red.candidates[0].confidence == pytest.approx(HIGH, abs=0.01)
    assert green.candidates[0].label == "other"
    assert green.candidates[0].confidence == pytest.approx(HIGH, abs=0.01)


def test_a_single_score_without_a_sigmoid_is_a_logit(tmp_path: Path) -> None:
    result = imported(tmp_path, "other\nred\n", classes=1, softmax=False)
    assert result.manifest["output"] == "logits"
    assert classify(tmp_path, "red").candidates[0].confidence == pytest.approx(HIGH, abs=0.001)


@pytest.mark.parametrize(("labels", "multi_label"), [("other\nred\n", None), ("red\n", True)])
@pytest.mark.parametrize("scores", [None, "logits", "probabilities"])
def test_scores_that_happen_to_be_from_0_to_1_are_logits_unless_the_option_says_otherwise(
    tmp_path: Path, labels: str, multi_label: bool | None, scores: Output | None
) -> None:
    spec = {"classes": 1, "softmax": False, "gain": 0.02, "bias": 0.5}
    result = imported(tmp_path, labels, multi_label, scores=scores, **spec)
    assert result.manifest["output"] == (scores or "logits")
    assert ("assumed" in sources(result)["Scores"]) == (scores is None)
    assert "--scores" in sources(result)["Scores"]


@pytest.mark.parametrize(
    ("scores", "spec"), [("logits", {"logistic": True}), ("logits", {"softmax": True}), ("probabilities", {})]
)
def test_an_option_that_contradicts_the_model_is_refused(tmp_path: Path, scores: Output, spec: dict[str, bool]) -> None:
    with pytest.raises(ImportRefused, match="leave out --scores"):
        imported(tmp_path, "red\ngreen\nblue\n", scores=scores, **{"softmax": False, **spec})


def test_a_label_with_the_separator_of_labels_in_csv_is_refused_if_a_photo_can_have_several(tmp_path: Path) -> None:
    labels = "red;green\ngreen\nblue\n"
    with pytest.raises(ImportRefused, match="red;green"):
        imported(tmp_path / "several", labels, softmax=False, logistic=True)
    imported(tmp_path / "exclusive", labels)


@pytest.mark.parametrize("engine", ENGINES)
def test_both_engines_serve_a_binary_model(tmp_path: Path, engine: str) -> None:
    imported(tmp_path, "other\nred\n", classes=1, softmax=False, logistic=True)
    assert classify(tmp_path, "red", engine).candidates[0].confidence == pytest.approx(HIGH, abs=0.001)


@pytest.mark.parametrize("labels", ["red\n", "red\ngreen\nblue\n"])
def test_a_single_score_needs_two_labels(tmp_path: Path, labels: str) -> None:
    with pytest.raises(ImportRefused, match=r"single score.*two labels"):
        imported(tmp_path, labels, classes=1, softmax=False, logistic=True)


def test_a_softmax_of_a_single_score_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImportRefused, match="always 1"):
        imported(tmp_path, "other\nred\n", classes=1)


def test_a_single_score_can_be_that_of_one_label_which_is_present_or_not(tmp_path: Path) -> None:
    imported(tmp_path, "red\n", multi_label=True, classes=1, softmax=False, logistic=True)
    assert present(classify(tmp_path, "yellow")) == {"red"}
    assert present(classify(tmp_path, "blue")) == set()
    assert classify(tmp_path, "blue").uncertain


@pytest.mark.parametrize("kind", ["float32", "uint8", "int8"])
def test_several_sigmoids_are_labels_that_can_be_present_together(tmp_path: Path, kind: str) -> None:
    result = imported(tmp_path, "red\ngreen\nblue\n", kind=kind, softmax=False, logistic=True)
    assert result.manifest["thresholds"] == [0.5] * 3
    assert "--no-multi-label" in sources(result)["Scores"]
    yellow = classify(tmp_path, "yellow")
    assert present(yellow) == {"red", "green"}
    for candidate in yellow.candidates:
        assert candidate.confidence == pytest.approx(HIGH if candidate.present else LOW, abs=0.01)
    assert present(classify(tmp_path, "black")) == set()


def test_scores_without_a_function_are_those_of_labels_that_exclude_each_other(tmp_path: Path) -> None:
    imported(tmp_path, "red\ngreen\nblue\n", softmax=False)
    assert not load_bundle(tmp_path / "mine").is_multi_label


def test_the_option_says_that_logits_are_those_of_several_labels(tmp_path: Path) -> None:
    imported(tmp_path, "red\ngreen\nblue\n", multi_label=True, softmax=False)
    assert load_bundle(tmp_path / "mine").output == "logits"
    assert present(classify(tmp_path, "yellow")) == {"red", "green"}


def test_scores_that_add_up_are_not_those_of_several_labels(tmp_path: Path) -> None:
    with pytest.raises(ImportRefused, match="exclude each other"):
        imported(tmp_path, "red\ngreen\nblue\n", multi_label=True)


def test_the_golden_images_of_a_multi_label_model_are_answered_with_both_engines(tmp_path: Path) -> None:
    imported(tmp_path, "red\ngreen\nblue\n", softmax=False, logistic=True)
    bundle = load_bundle(tmp_path / "mine")
    assert bundle.golden
    for engine in ENGINES:
        classifier = Classifier(bundle, Limits(), threads=1, engine=engine)
        for image in bundle.golden:
            found = classifier.classify(image.read(bundle.folder), Options(top_k=3)).candidates
            assert {each.label: each.confidence for each in found}[image.label] == pytest.approx(
                image.confidence, abs=0.05
            )


def add_photos(root: Path, count: int = 8) -> Path:
    """Write noisy photos of each colour; return a table of their labels."""
    random = np.random.default_rng(3)
    root.mkdir(parents=True)
    rows = ["file,labels"]
    labels = {"red": "RED", "green": "green", "blue": "blue", "yellow": "red;green", "black": ""}
    for colour, levels in COLOURS.items():
        for number in range(count):
            pixels = np.clip(np.array(levels) + random.normal(0, 20, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / f"{colour}-{number}.png")
            rows.append(f"{colour}-{number}.png,{labels[colour]}")
    (root / "labels.csv").write_text("\n".join(rows))
    return root / "labels.csv"


def test_a_table_of_labels_gives_thresholds_and_measures_the_model(tmp_path: Path) -> None:
    data = add_photos(tmp_path / "photos")
    result = imported(tmp_path, "red\ngreen\nblue\n", data=data, softmax=False, logistic=True)
    document = result.document
    assert document is not None
    assert document["metrics"]["test_images"] == 20
    assert document["metrics"]["mean_average_precision"] == 1
    assert document["metrics"]["exact_match"] >= 0.9
    assert result.manifest["thresholds"] == document["metrics"]["thresholds"]
    assert load_bundle(tmp_path / "mine").thresholds == tuple(document["metrics"]["thresholds"])
    assert "red, green" in (tmp_path / "mine" / "report.html").read_text()


def test_a_photo_in_several_class_folders_has_all_their_labels(tmp_path: Path) -> None:
    table = add_photos(tmp_path / "photos")
    root = tmp_path / "folders"
    for row in table.read_text().splitlines()[1:]:
        file, labels = row.split(",")
        for label in filter(None, labels.lower().split(";")):
            (root / label).mkdir(parents=True, exist_ok=True)
            (root / label / file).write_bytes((table.parent / file).read_bytes())
    result = imported(tmp_path, "red\ngreen\nblue\n", data=root, softmax=False, logistic=True)
    assert result.document is not None
    assert result.document["metrics"]["test_images"] == 16
    assert sum(result.document["distribution"]["test"]) == 20


def test_a_table_is_refused_if_the_labels_exclude_each_other(tmp_path: Path) -> None:
    data = add_photos(tmp_path / "photos", 2)
    with pytest.raises(DatasetError, match="class folders"):
        imported(tmp_path, "red\ngreen\nblue\n", data=data)


def test_a_label_that_the_model_lacks_is_named(tmp_path: Path) -> None:
    data = add_photos(tmp_path / "photos", 2)
    with pytest.raises(DatasetError, match="'green'"):
        imported(tmp_path, "red\npink\nblue\n", data=data, softmax=False, logistic=True)


@pytest.mark.parametrize("with_data", [False, True])
def test_the_summary_of_a_multi_label_model_speaks_of_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], with_data: bool
) -> None:
    data = add_photos(tmp_path / "photos")
    (tmp_path / "model.tflite").write_bytes(small_model(softmax=False, logistic=True))
    (tmp_path / "labels.txt").write_text("red\ngreen\nblue\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LITELENS_MODELS", raising=False)
    options = ["--mean", "0.5", "--std", "0.5", "--multi-label", *(["--data", str(data)] if with_data else [])]
    assert main(["import", "model.tflite", "--name", "colours", *options]) == 0
    printed = capsys.readouterr().out
    assert "mean average precision" in printed if with_data else "Present:" in printed
    assert main(["import", "model.tflite", "--name", "colours", "--json", *options]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert len(answer["thresholds"]) == 3
    assert "threshold" not in answer
    if with_data:
        assert "--multi-label" in json.loads(Path("models/colours/metrics.json").read_text())["command"]


def test_a_binary_model_is_calibrated_on_its_log_odds(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    for label, levels in (("other", (0, 255, 0)), ("red", (255, 0, 0))):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(10):
            pixels = np.clip(np.array(levels) + random.normal(0, 20, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / label / f"{number}.png")
    result = imported(tmp_path, "other\nred\n", data=tmp_path / "photos", classes=1, softmax=False, logistic=True)
    bundle = load_bundle(tmp_path / "mine")
    assert result.document is not None
    assert result.document["metrics"]["int8_top1"] == 1
    assert bundle.temperature != 1
    sharper = Classifier(dataclasses.replace(bundle, temperature=1.0), Limits(), 1)
    logit = sharper.logits(np.full((SIDE, SIDE, 3), COLOURS["red"], np.uint8))
    expected = 1 / (1 + math.exp(-(logit[1] - logit[0]) / bundle.temperature))
    assert classify(tmp_path, "red").candidates[0].confidence == pytest.approx(expected, abs=1e-4)
