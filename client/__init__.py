"""litelens from the command line and from Python: `client.__main__` is the command, `client.api` speaks the API."""
