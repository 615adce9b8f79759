import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from aws import aws_at
from support import DEFAULT_BUNDLE, ROOT

from litelens.aws.clients import aws_client
from litelens.aws.snapstart import after_restore

_NO_BUCKETS = b"<ListAllMyBucketsResult><Buckets/></ListAllMyBucketsResult>"


@pytest.fixture
def connections() -> Iterator[list[int]]:
    """The client's port of each request to a fake S3 that keeps connections open."""
    ports: list[int] = []

    class Empty(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            ports.append(self.client_address[1])
            self.send_response(200)
            self.send_header("Content-Length", str(len(_NO_BUCKETS)))
            self.end_headers()
            self.wfile.write(_NO_BUCKETS)

        def log_message(self, *_: object) -> None:
            """Print no requests."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Empty) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with aws_at(f"http://127.0.0.1:{server.server_port}"):
            yield ports
        server.shutdown()


def test_clients_open_new_connections_after_a_restore(connections: list[int]) -> None:
    for _ in range(2):
        aws_client("s3").list_buckets()
    after_restore()
    aws_client("s3").list_buckets()
    first, second, restored = connections
    assert first == second
    assert restored != first


def test_processes_restored_from_one_snapshot_draw_different_random_numbers() -> None:
    before = random.getstate()
    drawn = []
    for _ in range(2):
        random.setstate(before)
        after_restore()
        drawn.append(random.random())
    assert drawn[0] != drawn[1]


def run(script: str, **variables: str) -> str:
    """Return the output of a script in a process that has imported the API's handler, as Lambda's runtime does."""
    return subprocess.run(
        [sys.executable, "-c", f"import litelens.api.handler, sys\n{script}"],
        env={"LITELENS_BUNDLE": str(DEFAULT_BUNDLE), "PYTHONPATH": str(ROOT / "lambda"), **variables},
        check=True,
        capture_output=True,
        text=True,
    ).stdout


HOOKS = "from awslambdaric.lambda_runtime_hooks_runner import run_before_snapshot\nrun_before_snapshot()\n"
CLIENTS = """
from litelens.aws.clients import _clients
print([client.meta.service_model.service_name for client in _clients])
"""
AWS = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}


def test_a_snapshot_contains_the_clients_that_the_deployment_needs() -> None:
    configured = {"LITELENS_BUCKETS": "photos", "LITELENS_RESULTS_TABLE": "results"}
    assert run(HOOKS + CLIENTS, **AWS, **configured) == "['s3', 'dynamodb']\n"
    assert run(HOOKS + CLIENTS, **AWS) == "[]\n"


def test_without_a_snapshot_boto3_is_not_imported_at_start() -> None:
    assert run("print('boto3' in sys.modules)", LITELENS_BUCKETS="photos", **AWS) == "False\n"
