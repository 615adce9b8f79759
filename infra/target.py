"""Print a shell command that exports the stack and the region of a make target: infra/target.py TARGET

It exports STACK, and the region twice: some versions of `aws` and `sam` read only AWS_REGION or only
AWS_DEFAULT_REGION. ENV names an environment in samconfig.toml, which has both. With STACK instead of ENV, the region is
REGION, or else that of the caller's variables.
"""

import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

try:
    import tomllib
except ModuleNotFoundError:
    sys.exit("litelens needs Python 3.11, 3.12 or 3.13; choose one: make PYTHON=python3.13 ...")

CONFIG = Path(__file__).parent.parent / "samconfig.toml"

# The variables from which AWS's tools read the region.
REGION_VARIABLES = ("AWS_REGION", "AWS_DEFAULT_REGION")

# These targets need settings that only samconfig.toml has.
NEED_ENVIRONMENT = ("deploy", "destroy")


class TargetError(Exception):
    """The stack or its region is unknown; the message says what to set."""


@dataclass(frozen=True)
class Target:
    """A stack and its region."""

    stack: str
    region: str


def main() -> int:
    """Print the command and return the exit code."""
    (verb,) = sys.argv[1:]
    try:
        target = find_target(verb, tomllib.loads(CONFIG.read_text()), os.environ)
    except TargetError as error:
        print(error, file=sys.stderr)
        return 2
    except (OSError, tomllib.TOMLDecodeError) as error:
        print(f"{CONFIG.name} cannot be read: {error}", file=sys.stderr)
        return 2
    region = shlex.quote(target.region)
    print(f"export STACK={shlex.quote(target.stack)}", *(f"{name}={region}" for name in REGION_VARIABLES))
    return 0


def find_target(verb: str, config: Mapping[str, Any], variables: Mapping[str, str]) -> Target:
    """Return the stack of a make target and its region; raises TargetError."""
    environment, stack = variables.get("ENV"), variables.get("STACK")
    if not environment and verb in NEED_ENVIRONMENT:
        raise TargetError(f"Which environment of samconfig.toml? make {verb} ENV=dev")
    if environment:
        settings = _settings(environment, config)
        return Target(stack or _setting(settings, environment, "stack_name"), _setting(settings, environment, "region"))
    if not stack:
        raise TargetError(f"Which stack? make {verb} ENV=prod, or STACK=litelens")
    return Target(stack, variables.get("REGION") or _callers_region(verb, variables))


def _settings(environment: str, config: Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(config.get(environment), dict):
        raise TargetError(f"samconfig.toml has no environment {environment}; add one, or choose another")
    return dict(config[environment].get("global", {}).get("parameters", {}))


def _setting(settings: Mapping[str, Any], environment: str, name: str) -> str:
    if not settings.get(name):
        raise TargetError(
            f"samconfig.toml has no {name} for {environment}; add it to [{environment}.global.parameters]"
        )
    return str(settings[name])


def _callers_region(verb: str, variables: Mapping[str, str]) -> str:
    found = {name: variables[name] for name in REGION_VARIABLES if variables.get(name)}
    if not found:
        raise TargetError(f"Which region? make {verb} ENV=prod, or STACK=litelens REGION=us-east-1")
    if len(set(found.values())) > 1:
        both = " and ".join(f"{name}={region}" for name, region in found.items())
        raise TargetError(f"Which region? {both} differ; make {verb} STACK=litelens REGION=us-east-1")
    return next(iter(found.values()))


if __name__ == "__main__":
    sys.exit(main())
