"""Fake commands `aws` and `sam` for make targets. They know some stacks and record their arguments and regions.

Calls that the real commands would refuse raise AssertionError when the records are read.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jmespath
from aws_commands import check_call
from support import ROOT
from template import synthesize

ACCOUNT = "123456789012"
REGION = "eu-central-1"
REPOSITORY = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/litelens-images"

# `aws` answers with the value that its query selects, in the form of `--output text`. Calls without a query print
# nothing. Without site-packages and their startup files, Python starts faster.
_PROGRAM = """#!{python} -SE
import json, os, sys
regions = [os.environ.get(name) for name in ("AWS_REGION", "AWS_DEFAULT_REGION")]
arguments = [*{named!r}, *sys.argv[1:]]
with open({log!r}, "a") as log:
    print(json.dumps([arguments, regions]), file=log)
with open({log!r}) as log:
    count = sum(json.loads(line)[0][:2] == arguments[:2] for line in log)
if any(arguments[:len(start)] == start for start in {failing!r}):
    print("An error occurred (AccessDenied) when calling the operation: no", file=sys.stderr)
    sys.exit(254)
options = {{name: value for name, value in zip(arguments[2:], [*arguments[3:], ""]) if name.startswith("--")}}
operation, stack = arguments[1], options.get("--stack-name")
if operation == "describe-stacks" and stack not in {stacks!r}:
    print(f"An error occurred (ValidationError) when calling the DescribeStacks operation: "
          f"Stack with id {{stack}} does not exist", file=sys.stderr)
    sys.exit(254)
answers = {answers!r}
answer = {stacks!r}[stack] if operation == "describe-stacks" else answers.get(operation)
for option in ("--stack-name", "--bucket", "--table-name", "--include-only-statuses", "--deployment-id"):
    if operation != "describe-stacks" and isinstance(answer, dict) and options.get(option) in answer:
        answer = answer[options[option]]
if isinstance(answer, list):
    answer = answer[min(count, len(answer)) - 1]
if answer == "missing":
    sys.exit(254)
if answer is not None and options.get("--query"):
    sys.path.append({packages!r})
    import jmespath
    found = jmespath.search(options["--query"], answer)
    rows = found if isinstance(found, list) and found and isinstance(found[0], list) else [found]
    for row in rows:
        print(*row if isinstance(row, list) else [row], sep="\\t")
"""


@dataclass(frozen=True)
class FakeAwsCli:
    """A folder with the fake commands, and the file that records their calls."""

    folder: Path
    log: Path

    def calls(self) -> list[list[str]]:
        """Return the arguments of each call; those of `sam` begin with "sam"."""
        return [arguments for arguments, _ in self._records()]

    def regions(self) -> set[tuple[str | None, str | None]]:
        """Return the values of AWS_REGION and AWS_DEFAULT_REGION in all calls."""
        return {(region, default) for _, (region, default) in self._records()}

    def _records(self) -> list[Any]:
        records = [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []
        for arguments, _ in records:
            check_call(tuple(arguments))
        return records


def install_fake_aws_cli(
    to: Path,
    failing: Sequence[str] | Sequence[Sequence[str]] = (),
    answers: Mapping[str, Any] | None = None,
    stacks: Mapping[str, Any] | None = None,
) -> FakeAwsCli:
    """Install `aws`, `sam` and a Python for the smoke test into a folder in `to`.

    Calls that begin with `failing`, or with one of several, fail; those of `sam` begin with "sam".

    The known stacks are "litelens", "litelens-dev" and "litelens-prod", each with a stack for images, "pageless"
    without a page, and "another", which is not litelens. `stacks` replaces some; None removes one. `answers` has the
    answers of other operations by name, each for all calls or by the value of an option that tells calls apart. A list
    has the answers in turn; the last one is repeated.
    """
    fake = FakeAwsCli(to / "bin", to / "calls.jsonl")
    fake.folder.mkdir()
    (fake.folder / "grep").symlink_to(shutil.which("grep") or "grep")
    names = ("litelens", "litelens-dev", "litelens-prod")
    known: dict[str, Any] = {name: deployed_stack(Page="true") for name in names}
    known |= {f"{name}-images": images_stack() for name in names}
    known |= {"pageless": deployed_stack(Page="false"), "another": {"Stacks": [{}]}, **(stacks or {})}
    values = {
        "python": sys.executable,
        "packages": str(Path(jmespath.__file__).parent.parent),
        "log": str(fake.log),
        "stacks": {name: made for name, made in known.items() if made is not None},
        "failing": [list(failing)] if failing and isinstance(failing[0], str) else [list(each) for each in failing],
        "answers": {"get-caller-identity": {"Account": ACCOUNT}, **(answers or {})},
    }
    for name, named in (("aws", []), ("sam", ["sam"])):
        _install(fake.folder / name, _PROGRAM.format(**values, named=named))
    venv = to / "venv"
    (venv / "bin").mkdir(parents=True)
    _install(venv / "bin" / "python", _PROGRAM.format(**values, named=["python"]))
    # What `make` takes for a finished environment.
    for name in (".locked", ".ready"):
        (venv / name).touch()
    return fake


def make(
    target: str, path: Path, *, cwd: Path = ROOT, region: str | None = REGION, stdin: Any = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a make target in a folder, with only the commands in `path`, and with AWS_REGION set to `region`.

    Standard input is a file that is no terminal, unless `stdin` is given. Raises AssertionError if a call of the target
    is one that the real command would refuse.
    """
    command = shutil.which("make")
    assert command
    ready = path.parent / "venv" / ".ready"
    assignments = [f"{name}={value}" for name, value in {"RUN_ENV": str(ready), **variables}.items()]
    environment = {"PATH": str(path), "PYTHON": sys.executable}
    done = subprocess.run(
        [command, "--file", ROOT / "Makefile", target, *assignments],
        cwd=cwd,
        env=environment | ({"AWS_REGION": region} if region else {}),
        stdin=subprocess.DEVNULL if stdin is None else stdin,
        capture_output=True,
        text=True,
    )
    FakeAwsCli(path, path.parent / "calls.jsonl").calls()
    return done


@contextmanager
def terminal(typed: str) -> Iterator[int]:
    """Open a terminal in which a person has typed a line; yields its file descriptor."""
    controller, terminal = os.openpty()
    try:
        os.write(controller, f"{typed}\n".encode())
        yield terminal
    finally:
        os.close(terminal)
        os.close(controller)


def deployed_stack(status: str = "UPDATE_COMPLETE", *, terminable: bool = True, **parameters: str) -> dict[str, Any]:
    """Return CloudFormation's description of a deployed stack of litelens with these parameters."""
    known = {name: value for name, value in parameters.items() if name != "ProtectData"}
    outputs = synthesize(**known)["Outputs"].items()
    return {
        "Stacks": [
            {
                "StackStatus": status,
                "EnableTerminationProtection": not terminable,
                "Parameters": [{"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()],
                "Outputs": [{"OutputKey": name, "OutputValue": made["Value"]} for name, made in outputs],
            }
        ]
    }


def failed_stack(status: str, **parameters: str) -> dict[str, Any]:
    """Return CloudFormation's description of a stack without outputs, because its creation failed."""
    (stack,) = deployed_stack(status, **parameters)["Stacks"]
    return {"Stacks": [{name: value for name, value in stack.items() if name != "Outputs"}]}


def images_stack() -> dict[str, Any]:
    outputs = [{"OutputKey": "RepositoryUri", "OutputValue": REPOSITORY}]
    return {"Stacks": [{"StackStatus": "CREATE_COMPLETE", "Outputs": outputs}]}


def resource(name: str, kind: str, physical_id: str | None, status: str = "CREATE_COMPLETE") -> dict[str, Any]:
    """Return CloudFormation's summary of a resource."""
    made = {"LogicalResourceId": name, "ResourceType": kind, "ResourceStatus": status}
    return made if physical_id is None else {**made, "PhysicalResourceId": physical_id}


def resources(*found: dict[str, Any]) -> dict[str, Any]:
    """Return the answer of list-stack-resources with these summaries."""
    return {"StackResourceSummaries": list(found)}


def _install(program: Path, source: str) -> None:
    program.write_text(source)
    program.chmod(0o755)
