"""litelens from the command line and from Python: `client.__main__` is the command, `client.api` speaks the API."""

# pyproject.toml's, which is not installed beside the command.
__version__ = "0.1.0"
