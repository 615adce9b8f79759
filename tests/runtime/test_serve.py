"""`litelens serve` over real HTTP."""

import base64
import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
from bundles import add_bundle
from servers import API_KEY, ENVIRONMENT, Deployment, run_server, serve_command
from support import (
    DEFAULT_BUNDLE,
    ROCKET,
    ROOT,
    LambdaContext,
    answer_of,
    classify_bytes,
    require,
)

from litelens.api.handler import handler
from litelens_client.api import MAX_PAYLOAD_BYTES


def call(
    port: int, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
) -> tuple[http.client.HTTPResponse, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, body, headers or {})
    response = connection.getresponse()
    return response, json.loads(response.read())


def test_raw_bytes_reach_the_handler_unchanged(port: int) -> None:
    photo = ROCKET.read_bytes()
    expected = answer_of(handler(classify_bytes(photo, top_k="3"), LambdaContext()))["predictions"]
    response, answer = call(port, "POST", "/v1/classify?top_k=3", photo, {"Content-Type": "image/jpeg"})
    assert response.status == 200
    assert response.getheader("Content-Type") == "application/json"
    assert answer["predictions"] == expected


def test_an_image_in_base64_gets_the_same_answer(port: int) -> None:
    photo = ROCKET.read_bytes()
    _, raw = call(port, "POST", "/v1/classify", photo, {"Content-Type": "image/jpeg"})
    body = json.dumps({"image": base64.b64encode(photo).decode()})
    _, answer = call(port, "POST", "/v1/classify", body, {"Content-Type": "application/json"})
    assert answer["predictions"] == raw["predictions"]


def test_a_chunked_body_is_accepted(port: int) -> None:
    photo = ROCKET.read_bytes()
    chunks = iter([photo[:1000], photo[1000:]])
    response, _ = call(port, "POST", "/v1/classify", chunks, {"Content-Type": "image/jpeg"})
    assert response.status == 200


def test_health_and_model_are_served(port: int) -> None:
    assert call(port, "GET", "/v1/health")[1]["status"] == "ok"
    assert call(port, "GET", "/v1/model")[1]["manifest"] == json.loads((DEFAULT_BUNDLE / "manifest.json").read_text())


def test_every_bundle_in_the_folder_of_models_is_served_also_one_that_appears_later(tmp_path: Path) -> None:
    add_bundle(tmp_path, "pets")
    with run_server(LITELENS_MODELS=str(tmp_path)) as port:
        assert [model["name"] for model in call(port, "GET", "/v1/models")[1]["models"]] == ["everyday", "pets"]
        add_bundle(tmp_path, "new")
        photo = ROCKET.read_bytes()
        for name in ("pets", "new"):
            response, answer = call(port, "POST", f"/v1/classify?model={name}", photo, {"Content-Type": "image/jpeg"})
            assert (response.status, answer["model"]["name"]) == (200, name)


def test_errors_are_problem_documents(port: int) -> None:
    response, problem = call(port, "POST", "/v1/classify", b"hello", {"Content-Type": "image/png"})
    assert (response.status, problem["code"]) == (415, "not_an_image")
    assert response.getheader("Content-Type") == "application/problem+json"
    response, problem = call(port, "DELETE", "/v1/classify")
    assert (response.status, response.getheader("Allow")) == (405, "POST")


def test_a_body_above_the_limit_is_rejected_before_it_is_complete(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        head = f"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {10**12}\r\n\r\n"
        connection.sendall(head.encode())
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(MAX_PAYLOAD_BYTES // 65_536 + 2):
                connection.sendall(b"\0" * 65_536)
        answer = connection.recv(65_536).decode()
    assert answer.startswith("HTTP/1.1 413 ")
    assert "text/plain" in answer
    assert call(port, "GET", "/v1/health")[0].status == 200


def test_the_server_survives_a_client_that_disconnects(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\nabc")
    assert call(port, "GET", "/v1/health")[0].status == 200


def test_a_client_that_resets_the_connection_causes_no_traceback() -> None:
    with subprocess.Popen(
        serve_command(0), cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout
            port = int(process.stdout.readline().split()[4].rpartition(":")[2])
            # The system completes the connection, and the server finds it reset when it accepts it.
            process.send_signal(signal.SIGSTOP)
            with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.sendall(b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")
            process.send_signal(signal.SIGCONT)
            assert call(port, "GET", "/v1/health")[0].status == 200
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=30)
        finally:
            process.kill()
    assert errors == ""


@pytest.mark.parametrize(
    "path",
    ["/%2e%2e/README.md", "/views/%2e%2e/%2e%2e/README.md", "/%2e%2e%2fREADME.md", "/..%5cREADME.md", "/%2fetc/hosts"],
)
def test_no_path_leaves_the_folder_of_the_page(deployment: Deployment, path: str) -> None:
    assert status(deployment, path) == 403


def test_a_port_in_use_is_reported(port: int) -> None:
    done = subprocess.run(serve_command(port), cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith(f"Port {port} cannot be used")
    assert "Traceback" not in done.stderr


def test_a_key_is_required_where_the_template_requires_it(deployment: Deployment) -> None:
    for path in ("/v1/health", "/docs", "/docs/start.js", "/openapi.json"):
        assert status(deployment, path) == 200
    for path in ("/v1/model", "/v1/models", "/v1/nothing", "/docs/start.js/more"):
        assert status(deployment, path) == status(deployment, path, "wrong") == 403
    assert status(deployment, "/v1/model", API_KEY) == 200


def status(deployment: Deployment, path: str, key: str | None = None) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", deployment.port, timeout=60)
    connection.request("GET", path, headers={} if key is None else {"X-Api-Key": key})
    return connection.getresponse().status


def test_a_missing_bundle_is_reported() -> None:
    environment = {**ENVIRONMENT, "LITELENS_BUNDLE": "models/nothing"}
    done = subprocess.run(serve_command(0), cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("models/nothing/manifest.json cannot be read")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("key", ["", API_KEY])
def test_the_printed_command_works_and_ctrl_c_ends_the_server_silently(key: str) -> None:
    require(shutil.which("curl"), "there is no curl here")
    environment = {**ENVIRONMENT, "API_KEY": key}
    with subprocess.Popen(
        serve_command(0), cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout
            assert process.stderr
            greeting, _, curl = (process.stdout.readline() for _ in range(3))
            assert greeting.startswith("litelens is listening on http://127.0.0.1:")
            assert not key or key not in greeting + curl
            shell = {**os.environ, "KEY": key}
            done = subprocess.run(curl, shell=True, cwd=ROOT, env=shell, capture_output=True, text=True, timeout=60)
            assert len(json.loads(done.stdout)["predictions"]) == 5
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=30) == 0
            assert "Traceback" not in process.stderr.read()
        finally:
            process.kill()
