"""Runtime hooks for SnapStart: before Lambda takes a snapshot of the process, and after each restore.

The model is loaded and run once while the handler's module is imported, which happens before the snapshot.
https://docs.aws.amazon.com/lambda/latest/dg/snapstart-runtime-hooks-python.html
"""

import contextlib
import random
from collections.abc import Iterable

from litelens.aws.clients import Service, aws_client, close_connections


def register_hooks(services: Iterable[Service]) -> None:
    """Register both hooks, with these services' clients. Outside Lambda this does nothing.

    The package snapshot_restore_py is part of Lambda's Python runtime.
    """
    try:
        from snapshot_restore_py import register_after_restore, register_before_snapshot
    except ImportError:
        return
    register_before_snapshot(before_snapshot, tuple(services))
    register_after_restore(after_restore)


def before_snapshot(services: Iterable[Service]) -> None:
    """Create the clients in advance, which takes most of the time of a first request that needs AWS."""
    from botocore.exceptions import BotoCoreError

    # If a client cannot be created, the error is raised again when it is needed; everything else works without it.
    with contextlib.suppress(BotoCoreError):
        for service in services:
            aws_client(service)


def after_restore() -> None:
    """Discard the state that all processes restored from one snapshot share.

    These are dead connections, and the state of `random`, with which packages choose pauses and boundaries.
    """
    close_connections()
    random.seed()
