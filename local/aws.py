"""AWS on this machine: moto's server, and what keeps the user's own AWS out of it."""

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from boto3.session import Session
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

REGION = "us-east-1"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local", "AWS_DEFAULT_REGION": REGION}

_HOST = "127.0.0.1"

Middleware = Callable[["WSGIApplication"], "WSGIApplication"]


@contextmanager
def serving_aws(
    port: int = 0, middleware: Middleware = lambda application: application, host: str = _HOST
) -> Iterator[str]:
    """The base URL of a server with moto's AWS until the block ends, behind this middleware.

    With port 0 it is at a free one; with the host 0.0.0.0 it can be reached from containers too. Raises OSError when
    the port is taken. What is made in one server is there in another one of the same process.
    """
    application = middleware(_with_atomic_tables(DomainDispatcherApplication(create_backend_app)))
    server = make_server(host, port, application, threaded=True, request_handler=_QuietHandler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://{_HOST}:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def aws_session() -> Session:
    """A session of boto3's for the AWS here."""
    return Session(CREDENTIALS["AWS_ACCESS_KEY_ID"], CREDENTIALS["AWS_SECRET_ACCESS_KEY"], region_name=REGION)


@cache
def client_at(endpoint: str, service: str) -> Any:
    """The process's client for a service of the AWS at this URL; making one takes longer than most calls."""
    # boto3's stubs have a signature for each service's name.
    make: Any = aws_session().client
    return make(service, endpoint_url=endpoint)


def isolated_environment(inherited: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment for a process that shall know nothing of the user's AWS."""
    return {
        **{name: value for name, value in inherited.items() if not _is_private(name)},
        **CREDENTIALS,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }


class _QuietHandler(MotoRequestHandler):
    def log_request(self, *_: Any) -> None:
        pass


def _is_private(name: str) -> bool:
    """Whether a variable is the user's own matter: their AWS, their settings of litelens, or their way out."""
    return name.startswith(("AWS_", "LITELENS_", "POWERTOOLS_")) or name.lower().endswith("_proxy")


def _with_atomic_tables(application: "WSGIApplication") -> "WSGIApplication":
    """DynamoDB as it promises to be: moto looks at a condition and then writes, and another thread may come between."""
    lock = threading.Lock()

    def with_atomic_tables(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        target: Any = environ.get("HTTP_X_AMZ_TARGET", "")
        if not target.startswith("DynamoDB_"):
            return application(environ, start_response)
        with lock:
            return application(environ, start_response)

    return with_atomic_tables
