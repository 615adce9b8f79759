"""`litelens import` as people run it, with models and photos as they have them."""

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray
from PIL import Image, ImageOps
from servers import ENVIRONMENT, run_server
from support import CAT, DATA, require

from litelens.core.bundle import load_bundle
from litelens.core.classifier import Classifier, Options
from litelens.core.images import Limits, decode

MODELS = DATA / "models"
TEACHABLE = MODELS / "teachable-machine" / "model_unquant.tflite"
SLIM = MODELS / "mobilenet_v1_0.25_224_1_metadata_1.tflite"
SLIM_WITHOUT_METADATA = MODELS / "mobilenet_v1_0.25_224_1_default_1.tflite"
SLIM_UINT8 = MODELS / "mobilenet_v1_0.25_224_quant.tflite"
AUTOML = MODELS / "automl_labeler_model.tflite"
PETS = DATA / "dogs-vs-cats"
PHOTOS = DATA / "photos"
LIMITS = Limits(bytes=10**8)
SIDE = 224
IMPORTS: Mapping[str, tuple[Path, ...]] = {
    "teachable": (TEACHABLE,),
    "slim": (SLIM,),
    "slim-uint8": (SLIM_UINT8,),
    "automl": (AUTOML,),
}


def litelens(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in this folder."""
    command = [sys.executable, "-m", "litelens_client", *arguments]
    environment = {**ENVIRONMENT, "LITELENS_MODELS": ""}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which all models were imported, with the printed JSON of each beside them."""
    require(MODELS.is_dir() and PETS.is_dir(), f"the models are not at {DATA}; LITELENS_DATA names another folder")
    work = tmp_path_factory.mktemp("work")
    for name, arguments in IMPORTS.items():
        done = litelens(work, "import", *map(str, arguments), "--name", name, "--json")
        assert done.returncode == 0, done.stderr
        (work / f"{name}.json").write_text(done.stdout)
    return work


def classifier(folder: Path, name: str, engine: str = "litert") -> Classifier:
    return Classifier(load_bundle(folder / "models" / name), LIMITS, threads=1, engine=engine)


def probabilities(found: Classifier, photo: bytes) -> NDArray[np.float64]:
    """Return the confidences of a photo in the order of the model's outputs."""
    candidates = found.classify(photo, Options(top_k=len(found.bundle.labels))).candidates
    return np.array([each.confidence for each in sorted(candidates, key=lambda each: each.index)])


def run(model: Path, values: NDArray[Any]) -> NDArray[np.float64]:
    """Run a file with a plain interpreter; returns the real values of its output."""
    interpreter = Interpreter(model_path=str(model), num_threads=1)
    interpreter.allocate_tensors()
    (image,), (scores,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.set_tensor(image["index"], values[np.newaxis])
    interpreter.invoke()
    found = interpreter.get_tensor(scores["index"])[0]
    scale, zero_point = scores["quantization"]
    return (found.astype(float) - zero_point) * scale if scale else found.astype(float)


def pets(count: int) -> list[Path]:
    return [path for label in ("cat", "dog") for path in sorted((PETS / "test" / label).iterdir())[:count]]


def everyday_photos() -> list[Path]:
    return sorted(PHOTOS.glob("*.jpg"))


def test_a_teachable_machine_export_answers_as_its_own_sample_code(folder: Path) -> None:
    """The sample code fits the photo into a square and turns its values into x / 127.5 - 1."""
    served = classifier(folder, "teachable")
    for path in pets(20):
        with Image.open(path) as opened:
            square = ImageOps.fit(opened.convert("RGB"), (SIDE, SIDE), Image.Resampling.BILINEAR)
        expected = run(TEACHABLE, np.asarray(square, np.float32) / np.float32(127.5) - 1)
        assert probabilities(served, path.read_bytes()) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("name", "model"), [("teachable", TEACHABLE), ("slim", SLIM)])
def test_float_models_answer_as_a_plain_interpreter_for_photos_of_all_sizes(
    folder: Path, name: str, model: Path
) -> None:
    served = classifier(folder, name)
    spec = served.bundle.preprocessing
    for path in everyday_photos()[::3]:
        photo = path.read_bytes()
        pixels = decode(photo, LIMITS, spec).pixels(spec)
        expected = run(model, pixels.astype(np.float32) / np.float32(127.5) - 1)
        assert probabilities(served, photo) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("name", "model"), [("slim-uint8", SLIM_UINT8), ("automl", AUTOML)])
def test_integer_models_get_the_pixels_and_answer_within_a_level(folder: Path, name: str, model: Path) -> None:
    served = classifier(folder, name)
    spec = served.bundle.preprocessing
    for path in everyday_photos()[::6]:
        photo = path.read_bytes()
        expected = run(model, decode(photo, LIMITS, spec).pixels(spec))
        assert probabilities(served, photo) == pytest.approx(expected / expected.sum(), abs=1 / 256)


def test_the_engines_agree_on_float_models(folder: Path) -> None:
    for name in ("teachable", "slim"):
        first, second = (classifier(folder, name, engine) for engine in ("litert", "openvino"))
        for path in everyday_photos()[:5]:
            photo = path.read_bytes()
            assert probabilities(first, photo) == pytest.approx(probabilities(second, photo), abs=1e-3)


@pytest.mark.parametrize(
    ("name", "network", "exporter", "values"),
    [
        ("teachable", "float32", "Teachable Machine", "-1 to 1"),
        ("slim", "float32", "TensorFlow-Slim", "-1 to 1"),
        ("slim-uint8", "uint8", "TensorFlow-Slim", "-1 to 0.9922"),
        ("automl", "uint8", None, "-1.008 to 1"),
    ],
)
def test_each_model_is_recognized(folder: Path, name: str, network: str, exporter: str, values: str) -> None:
    document = json.loads((folder / f"{name}.json").read_text())
    assert (document["network"], document["exporter"], document["output"]) == (network, exporter, "probabilities")
    assert {each["subject"]: each["value"] for each in document["assumptions"]}["Values"] == values


def test_cats_and_dogs_are_told_apart(folder: Path) -> None:
    served = classifier(folder, "teachable")
    found = [served.classify(path.read_bytes()).candidates[0].label for path in pets(50)]
    right = sum(label == path.parent.name.title() for label, path in zip(found, pets(50), strict=True))
    assert right >= 90


def test_the_flower_is_a_daisy(folder: Path) -> None:
    (daisy,) = (DATA / "everyday").glob("*_daisy.jpg")
    assert classifier(folder, "automl").classify(daisy.read_bytes()).candidates[0].label == "daisy"


def test_both_mobilenets_know_everyday_things(folder: Path) -> None:
    """ImageNet's number and name of the thing are in the file's name: n01514668_cock.jpg."""
    for name in ("slim", "slim-uint8"):
        served = classifier(folder, name)
        assert served.bundle.labels[0] == "background"
        assert sum(label.startswith("crane (") for label in served.bundle.labels) == 2
        names = [path.stem.partition("_")[2].replace("_", " ") for path in everyday_photos()]
        best = [served.classify(path.read_bytes()).candidates for path in everyday_photos()]
        right = sum(
            any(candidate.label.lower() == name.lower() for candidate in candidates)
            for name, candidates in zip(names, best, strict=True)
        )
        assert right >= len(names) / 2


def test_a_mobilenet_without_labels_takes_a_file_without_the_background_class(folder: Path, tmp_path: Path) -> None:
    labels = load_bundle(folder / "models" / "slim").labels[1:]
    (tmp_path / "labels.txt").write_bytes("\r\n".join(labels).encode("utf-16"))
    options = ("--labels", str(tmp_path / "labels.txt"), "--name", "slim")
    done = litelens(tmp_path, "import", str(SLIM_WITHOUT_METADATA), *options)
    assert done.returncode == 0, done.stderr
    assert load_bundle(tmp_path / "models" / "slim").labels == ("background", *labels)
    photo = CAT.read_bytes()
    first, second = (probabilities(classifier(work, "slim"), photo) for work in (folder, tmp_path))
    assert first == pytest.approx(second, abs=1e-6)


def test_photos_give_an_accuracy_a_temperature_and_a_report(tmp_path: Path) -> None:
    require(TEACHABLE.is_file() and PETS.is_dir(), f"the models are not at {DATA}")
    photos = tmp_path / "photos"
    for path in pets(30):
        (photos / path.parent.name).mkdir(parents=True, exist_ok=True)
        (photos / path.parent.name / path.name).symlink_to(path)
    done = litelens(tmp_path, "import", str(TEACHABLE), "--name", "pets", "--data", str(photos), "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["metrics"]["test_images"] == document["metrics"]["validation_images"] == 30
    assert document["metrics"]["int8_top1"] >= 0.85
    bundle = load_bundle(tmp_path / "models" / "pets")
    assert bundle.temperature == document["temperature"] != 1
    assert (bundle.folder / "report.html").stat().st_size > 10_000
    assert len(bundle.golden) == 6


def call(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, body, {"Content-Type": "image/jpeg"})
    response = connection.getresponse()
    return response.status, json.loads(response.read())


def test_the_server_serves_an_imported_model_and_says_what_it_lacks(folder: Path) -> None:
    models = str(folder / "models")
    with run_server(LITELENS_MODELS=models, LITELENS_BUNDLE=str(folder / "models" / "teachable")) as port:
        photo = CAT.read_bytes()
        status, answer = call(port, "POST", "/v1/classify", photo)
        assert (status, answer["predictions"][0]["label"]) == (200, "Cat")
        assert answer["model"]["name"] == "teachable"
        for query in ("heatmap=true", "embedding=true"):
            status, problem = call(port, "POST", f"/v1/classify?{query}", photo)
            assert (status, problem["code"]) == (400, "invalid_option")
        assert call(port, "POST", "/v1/embed", photo)[0] in (400, 404)
        status, model = call(port, "GET", "/v1/model")
        assert (status, model["manifest"]["imported"]["exporter"]) == (200, "Teachable Machine")
        listed = {each["name"]: each for each in call(port, "GET", "/v1/models")[1]["models"]}
        assert set(IMPORTS) <= set(listed)
        assert not any("error" in listed[name] for name in IMPORTS)


def test_nothing_can_be_learned_from_an_imported_model(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    base = str(folder / "models" / "teachable")
    done = litelens(tmp_path, "learn", str(tmp_path / "photos"), "--name", "pets", "--base", base)
    assert done.returncode == 1
    assert base in done.stderr
    assert "Traceback" not in done.stderr


def test_embeddings_of_an_imported_model_are_refused(folder: Path) -> None:
    done = litelens(folder, "classify", str(CAT), "--model", "teachable", "--embeddings", "out.npy")
    assert done.returncode != 0
    assert "Traceback" not in done.stderr


def damaged(model: bytes, seed: int) -> bytes:
    """Return the model cut off, or with changed bytes where its tables are: at the beginning and at the end."""
    random = np.random.default_rng(seed)
    if seed % 3 == 0:
        return model[: random.integers(1000, len(model))]
    changed = bytearray(model)
    start = 0 if seed % 3 == 1 else len(model) - 60_000
    for at in random.integers(start, start + 60_000, 400):
        changed[max(at, 8)] = random.integers(256)
    return bytes(changed)


@pytest.mark.parametrize("seed", range(6))
def test_a_damaged_model_is_refused_with_a_sentence_or_imported(folder: Path, tmp_path: Path, seed: int) -> None:
    path = tmp_path / "damaged.tflite"
    path.write_bytes(damaged((AUTOML if seed % 2 else TEACHABLE).read_bytes(), seed))
    (tmp_path / "labels.txt").write_text("Cat\nDog\n")
    done = litelens(tmp_path, "import", os.fspath(path), "--name", "damaged", "--mean", "0.5", "--std", "0.5")
    assert done.returncode in (0, 1)
    assert "Traceback" not in done.stderr
    if done.returncode:
        assert path.name in done.stderr
        assert not (tmp_path / "models" / "damaged").exists()
