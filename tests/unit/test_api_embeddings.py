"""Embeddings in the API's answers."""

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import add_bundle, remove_features
from class_folders import BASE, add_classes, one_thread
from PIL import Image
from support import CAT, ROCKET, SAMPLES, LambdaContext, answer_of, classify_bytes, classify_json, encoded, event
from test_request_forms import FORM_TYPE, form

from litelens.api.handler import create_handler
from litelens.core.bundle import load_bundle
from litelens.core.images import Limits
from litelens.settings import Settings
from litelens_client.learning.embeddings import EmbeddingCache
from litelens_client.learning.learn import learn, load_base
from litelens_client.learning.learned_bundle import write_learned_bundle

Handle = Callable[[dict[str, Any]], dict[str, Any]]

PHOTO = CAT.read_bytes()
PHOTO_JSON = {"image": base64.b64encode(PHOTO).decode()}
BACKBONE = load_bundle(BASE).backbone
DIMENSION = 1280


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the bundle `lite`, with `learned`, learned from it, `again`, learned from that, and `plain`."""
    folder = tmp_path_factory.mktemp("models")
    photos = add_classes(tmp_path_factory.mktemp("photos"), 2)
    add_bundle(folder, "lite", BASE)
    remove_features(add_bundle(folder, "plain", BASE))
    with pytest.MonkeyPatch.context() as patch, one_thread():
        # Golden images take OpenVINO seconds, and are not needed here.
        patch.setattr("litelens_client.learning.learned_bundle.add_golden_images", lambda folder: [])
        patch.setattr("litelens_client.learning.regression.REGULARIZATIONS", (1e-2,))
        cache = EmbeddingCache()
        for name, base in (("learned", "lite"), ("again", "learned")):
            write_learned_bundle(learn(photos, load_base(folder / base), cache), folder / name, "a test")
        cache.close()
        yield folder


@pytest.fixture(scope="module")
def handle(models: Path) -> Handle:
    """A handler with the default model `lite` and the other models in the folder."""
    handler = create_handler(Settings(models / "lite", Limits(), threads=1, models=models))
    return lambda event: handler(event, LambdaContext())


def answer_to(handle: Handle, request: dict[str, Any]) -> Any:
    response = handle(request)
    assert response["statusCode"] == 200, response["body"]
    return answer_of(response)


def code_of(response: dict[str, Any]) -> tuple[int, str]:
    return response["statusCode"], answer_of(response)["code"]


def values_of(embedding: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(embedding["base64"], validate=True), "<f4")


def embed(handle: Handle, photo: bytes, content_type: str = "image/jpeg", **query: str) -> np.ndarray:
    """Return the embedding of a photo, sent as it is."""
    return values_of(answer_to(handle, classify_bytes(photo, content_type, embedding="true", **query))["embedding"])


def classify_form(*fields: tuple[str, str]) -> dict[str, Any]:
    return event("POST", "/v1/classify", form(("image", PHOTO), *fields), FORM_TYPE)


@pytest.mark.parametrize(
    "request_",
    [
        classify_bytes(PHOTO, embedding="true"),
        classify_bytes(PHOTO, embedding="TRUE"),
        classify_form(("embedding", "true")),
        classify_json(PHOTO_JSON | {"embedding": True}),
        event(
            "POST",
            "/v1/classify",
            json.dumps(PHOTO_JSON | {"embedding": True}),
            "application/json",
            {"embedding": "false"},
        ),
    ],
)
def test_an_embedding_can_be_asked_for_in_the_query_the_form_or_the_json(
    handle: Handle, request_: dict[str, Any]
) -> None:
    embedding = answer_to(handle, request_)["embedding"]
    assert list(embedding) == ["backbone", "dimension", "base64"]
    assert np.array_equal(values_of(embedding), embed(handle, PHOTO))


@pytest.mark.parametrize(
    "request_",
    [
        classify_bytes(PHOTO),
        classify_bytes(PHOTO, embedding="false"),
        classify_bytes(PHOTO, embedding_format="list"),
        classify_bytes(PHOTO, heatmap="true"),
        classify_form(("embedding", "false")),
        classify_json(PHOTO_JSON),
        classify_json(PHOTO_JSON | {"embedding": False}),
    ],
)
def test_there_is_no_embedding_unless_requested(handle: Handle, request_: dict[str, Any]) -> None:
    assert "embedding" not in answer_to(handle, request_)


@pytest.mark.parametrize(
    "request_",
    [
        classify_bytes(PHOTO, embedding="true", embedding_format="list"),
        classify_form(("embedding", "true"), ("embedding_format", "list")),
        classify_json(PHOTO_JSON | {"embedding": True, "embedding_format": "list"}),
    ],
)
def test_a_list_and_base64_have_the_same_numbers(handle: Handle, request_: dict[str, Any]) -> None:
    embedding = answer_to(handle, request_)["embedding"]
    assert list(embedding) == ["backbone", "dimension", "values"]
    assert np.array_equal(np.array(embedding["values"], np.float32), embed(handle, PHOTO))
    assert np.array_equal(embed(handle, PHOTO), embed(handle, PHOTO, embedding_format="base64"))


def test_an_embedding_has_the_length_1_and_the_dimension_of_the_features(handle: Handle) -> None:
    for photo in (PHOTO, ROCKET.read_bytes()):
        embedding = answer_to(handle, classify_bytes(photo, embedding="true"))["embedding"]
        assert embedding["dimension"] == len(values_of(embedding)) == DIMENSION
        assert np.linalg.norm(values_of(embedding)) == pytest.approx(1, abs=1e-6)


def test_an_embedding_names_the_model_whose_features_it_has(handle: Handle) -> None:
    for model in ("lite", "learned", "again"):
        answer = answer_to(handle, classify_bytes(PHOTO, embedding="true", model=model))
        assert answer["model"]["name"] == model
        assert answer["embedding"]["backbone"] == BACKBONE


def test_a_learned_model_has_the_embeddings_of_its_base(handle: Handle) -> None:
    for model in ("learned", "again"):
        assert np.array_equal(embed(handle, PHOTO, model=model), embed(handle, PHOTO))


def test_each_image_of_a_list_has_its_own_embedding(handle: Handle) -> None:
    rocket = {"image": base64.b64encode(ROCKET.read_bytes()).decode()}
    images = [PHOTO_JSON, {"image": base64.b64encode(b"hello").decode()}, rocket]
    cat, failed, other = answer_to(handle, classify_json({"images": images, "embedding": True}))["results"]
    assert np.array_equal(values_of(cat["embedding"]), embed(handle, PHOTO))
    assert np.array_equal(values_of(other["embedding"]), embed(handle, ROCKET.read_bytes()))
    assert (failed["status"], "embedding" in failed) == ("failed", False)


def test_the_same_photo_is_similar_in_each_format_and_other_photos_are_not(handle: Handle) -> None:
    found = {}
    for path in (CAT, ROCKET, SAMPLES / "coffee.jpg"):
        image = Image.open(path).convert("RGB")
        copies = (encoded(image, "PNG"), "image/png"), (encoded(image, "JPEG", quality=75), "image/jpeg")
        found[path] = embed(handle, path.read_bytes())
        for copy in copies:
            assert embed(handle, *copy) @ found[path] > 0.9
    similarities = np.stack([*found.values()]) @ np.stack([*found.values()]).T
    assert similarities[~np.eye(len(found), dtype=bool)].max() < 0.7


def test_an_embedding_and_a_heat_map_can_be_asked_for_together(handle: Handle) -> None:
    answer = answer_to(handle, classify_bytes(PHOTO, embedding="true", heatmap="true", top_k="1"))
    assert {"embedding", "heatmap"} <= answer.keys()
    assert len(answer["predictions"]) == 1


@pytest.mark.parametrize("options", [{"embedding": "true"}, {"embedding": "true", "embedding_format": "list"}])
def test_a_model_without_features_refuses_a_request_for_an_embedding(handle: Handle, options: dict[str, str]) -> None:
    assert code_of(handle(classify_bytes(PHOTO, model="plain", **options))) == (400, "invalid_option")
    assert "embedding" not in answer_to(handle, classify_bytes(PHOTO, model="plain"))


@pytest.mark.parametrize(
    "request_",
    [
        classify_bytes(PHOTO, embedding="1"),
        classify_bytes(PHOTO, embedding=""),
        classify_bytes(PHOTO, embedding_format="npy"),
        classify_bytes(PHOTO, embedding="true", embedding_format="LIST"),
        classify_bytes(PHOTO, embedding="true", embedding_format=""),
        classify_form(("embedding_format", "npy")),
        classify_json(PHOTO_JSON | {"embedding": True, "embedding_format": "npy"}),
        classify_json({"images": [PHOTO_JSON], "embedding_format": ""}),
    ],
)
def test_a_value_that_an_option_does_not_have_is_refused(handle: Handle, request_: dict[str, Any]) -> None:
    assert code_of(handle(request_)) == (400, "invalid_option")


@pytest.mark.parametrize("options", [{"embedding": "true"}, {"embedding": 1}, {"embedding_format": 1}])
def test_json_of_the_wrong_type_is_refused(handle: Handle, options: dict[str, Any]) -> None:
    assert code_of(handle(classify_json(PHOTO_JSON | options))) == (400, "invalid_request")
