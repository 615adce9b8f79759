"""A local AWS: moto's server, and an environment that is isolated from the user's own AWS."""

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
def serve_aws(
    port: int = 0, middleware: Middleware = lambda application: application, host: str = _HOST
) -> Iterator[str]:
    """Serve moto's AWS behind a WSGI middleware until the block ends; yields the base URL.

    With port 0 the server takes a free port. With the host 0.0.0.0 containers can reach it too. All servers of a
    process share their resources. Raises OSError if the port is in use.
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
    """Return a boto3 session with the local credentials."""
    return Session(CREDENTIALS["AWS_ACCESS_KEY_ID"], CREDENTIALS["AWS_SECRET_ACCESS_KEY"], region_name=REGION)


@cache
def client_at(endpoint: str, service: str) -> Any:
    """Return a client of the AWS at this URL. Clients are cached, because creating one takes longer than most calls."""
    # boto3's stubs have one signature per service name.
    make: Any = aws_session().client
    return make(service, endpoint_url=endpoint)


def isolated_environment(inherited: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return an environment without the user's AWS settings, with local credentials."""
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
    """Return whether a variable configures the user's own AWS, litelens or proxy."""
    return name.startswith(("AWS_", "LITELENS_", "POWERTOOLS_")) or name.lower().endswith("_proxy")


def _with_atomic_tables(application: "WSGIApplication") -> "WSGIApplication":
    """Make DynamoDB's conditional writes atomic: in moto, another thread can write after the condition was checked."""
    lock = threading.Lock()

    def with_atomic_tables(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        target: Any = environ.get("HTTP_X_AMZ_TARGET", "")
        if not target.startswith("DynamoDB_"):
            return application(environ, start_response)
        with lock:
            return application(environ, start_response)

    return with_atomic_tables
