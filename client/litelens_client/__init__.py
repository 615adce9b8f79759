"""litelens for Python and the command line: `Client` calls the API, `litelens_client.__main__` is the command."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from litelens_client.api import Client

__all__ = ["Client", "__version__"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Imported on first use, so that the command's help does not wait for the HTTP library.
    if name == "Client":
        from litelens_client.api import Client

        return Client
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
