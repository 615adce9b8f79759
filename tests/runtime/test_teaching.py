"""Teaching a model over real HTTP, with `litelens serve` in an empty folder."""

import http.client
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

from class_folders import photo
from servers import ENVIRONMENT, serve_command
from support import ROOT, encoded, free_port, running

CLASSES = {"cat": "cat", "coffee ☕": "coffee"}
PHOTOS = 6


def call(port: int, method: str, path: str, body: bytes = b"") -> tuple[int, Any]:
    """Return the status, and the document if there is one."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, body, {"Content-Type": "image/png"} if body else {})
    response = connection.getresponse()
    content = response.read()
    is_json = (response.getheader("Content-Type") or "").endswith("json")
    return response.status, json.loads(content) if is_json else content


def png(label: str, number: int) -> bytes:
    return encoded(photo(label, number), "PNG")


def test_a_model_is_taught_tried_kept_and_served_without_a_restart(tmp_path: Path) -> None:
    port = free_port()
    variables = {
        "PYTHONPATH": f"{ROOT / 'lambda'}:{ROOT / 'client'}",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "LITELENS_MODELS": "",
    }
    work = tmp_path / "work"
    work.mkdir()
    with running(serve_command(port), ready=f"http://127.0.0.1:{port}", cwd=work, env={**ENVIRONMENT, **variables}):
        assert call(port, "GET", "/v1/draft") == (200, {"classes": []})
        assert list(work.iterdir()) == []
        for name, label in CLASSES.items():
            assert call(port, "PUT", f"/v1/draft/classes/{quote(name)}")[0] == 204
            for number in range(PHOTOS):
                path = f"/v1/draft/classes/{quote(name)}/photos"
                assert call(port, "POST", path, png(label, number))[0] == 201

        status, learned = call(port, "POST", "/v1/draft/learn")
        assert (status, learned["distribution"]["train"]) == (200, [PHOTOS, PHOTOS])
        for name, label in CLASSES.items():
            assert best_label(call(port, "POST", "/v1/draft/classify", png(label, 40))) == name
        assert model_names(port) == ["everyday"]

        status, kept = call(port, "POST", "/v1/draft/keep", b'{"name": "mugs"}')
        assert (status, kept["name"]) == (201, "mugs")
        assert model_names(port) == ["everyday", "mugs"]
        for name, label in CLASSES.items():
            assert best_label(call(port, "POST", "/v1/classify?model=mugs", png(label, 40))) == name

        assert call(port, "DELETE", "/v1/draft")[0] == 204
        assert model_names(port) == ["everyday", "mugs"]
    assert [path.name for path in (work / "models").iterdir()] == ["mugs"]


def best_label(answered: tuple[int, Any]) -> str:
    status, answer = answered
    assert status == 200, answer
    return str(answer["predictions"][0]["label"])


def model_names(port: int) -> list[str]:
    return [model["name"] for model in call(port, "GET", "/v1/models")[1]["models"]]
