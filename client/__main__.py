"""The command `litelens`, a file for each of its commands.

Exits with 0 when all went well, 1 when something did not or the output cannot be written, 2 when the command is wrong,
and 130 when it was interrupted.
"""

import argparse
import io
import sys
from collections.abc import Callable, Sequence

# These import all else when it is known to be needed, so that the help comes at once.
from client import __version__
from client.backfill import add_backfill
from client.classify import add_classify
from client.listing import add_results
from client.upload import add_upload


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with these arguments, by default the process's; returns the exit code.

    Raises SystemExit, which is also such a code, when the command is wrong or cannot even begin.
    """
    given = _parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # File names are bytes, which may not be text.
        sys.stdout.reconfigure(errors="backslashreplace")
    run: Callable[[argparse.Namespace], int] = given.run
    try:
        return run(given)
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="litelens", description="Classify photos.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_classify(commands)
    add_upload(commands)
    add_results(commands)
    add_backfill(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
