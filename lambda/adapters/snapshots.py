"""SnapStart: what Lambda's runtime calls before it keeps a snapshot of the process, and in each that begins from it.

The model is loaded and tried while the handler's module is imported, and so before the snapshot.
https://docs.aws.amazon.com/lambda/latest/dg/snapstart-runtime-hooks-python.html
"""

import contextlib
import random
from collections.abc import Iterable

from adapters.calls import Service, aws_client, close_connections


def prepare_for_snapshots(services: Iterable[Service]) -> None:
    """Have these services' clients made before the snapshot, and the process made fresh after it.

    Lambda's runtime brings the hooks along; elsewhere there are no snapshots, and this does nothing.
    """
    try:
        from snapshot_restore_py import register_after_restore, register_before_snapshot
    except ImportError:
        return
    register_before_snapshot(make_clients, tuple(services))
    register_after_restore(make_fresh)


def make_clients(services: Iterable[Service]) -> None:
    """What takes longest of the first request that needs AWS; without SnapStart only such a request pays for it."""
    from botocore.exceptions import BotoCoreError

    # Who needs a client that cannot be made is told so then; the rest works without.
    with contextlib.suppress(BotoCoreError):
        for service in services:
            aws_client(service)


def make_fresh() -> None:
    """Drop what all processes of one snapshot would share: connections that are long dead, and the state of `random`,
    by which packages choose pauses and boundaries.
    """
    close_connections()
    random.seed()
