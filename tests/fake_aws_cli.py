"""Fake commands `aws` and `sam` for make targets. They know some stacks and record their arguments."""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support import ROOT
from template import synthesize

_PROGRAM = """#!{python}
import json, sys
import jmespath
with open({log!r}, "a") as log:
    print(json.dumps([*{named!r}, *sys.argv[1:]]), file=log)
if sys.argv[1:3] == {failing!r}:
    sys.exit(1)
options = dict(zip(sys.argv[3::2], sys.argv[4::2]))
if sys.argv[2] == "describe-stacks":
    found = {stacks!r}.get(options["--stack-name"])
    print(jmespath.search(options["--query"], found) if found else "", end="")
    sys.exit(0 if found else 254)
answers = {answers!r}
if sys.argv[2] in answers:
    asked = options.get("--include-only-statuses") or options.get("--deployment-id") or ""
    answer = answers[sys.argv[2]]
    found = jmespath.search(options["--query"], answer.get(asked, answer))
    print(*found if isinstance(found, list) else [found], sep="\\t")
"""


@dataclass(frozen=True)
class FakeAwsCli:
    """A folder with the fake commands, and the file that records their calls."""

    folder: Path
    log: Path

    def calls(self) -> list[list[str]]:
        """Return the arguments of each call."""
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []


def install_fake_aws_cli(
    to: Path, failing: tuple[str, ...] = (), answers: Mapping[str, Any] | None = None
) -> FakeAwsCli:
    """Install `aws` and `sam` into a folder in `to`. Calls of `aws` that begin with `failing` fail.

    The known stacks are "litelens" and "litelens-dev", "pageless" without a page, and "another", which is not litelens.
    `answers` has the answers of other operations by name. `sam` does nothing.
    """
    fake = FakeAwsCli(to / "bin", to / "calls.jsonl")
    fake.folder.mkdir()
    (fake.folder / "grep").symlink_to(shutil.which("grep") or "grep")
    stacks = {name: _stack() for name in ("litelens", "litelens-dev")}
    stacks |= {"pageless": _stack(Page="false"), "another": {"Stacks": [{}]}}
    values = {"python": sys.executable, "log": str(fake.log), "stacks": stacks, "failing": list(failing)}
    for name, named in (("aws", []), ("sam", ["sam"])):
        program = fake.folder / name
        program.write_text(_PROGRAM.format(**values, named=named, answers=answers or {}))
        program.chmod(0o755)
    return fake


def make(target: str, path: Path, *, cwd: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a make target in a folder, with only the commands in `path`."""
    command = shutil.which("make")
    assert command
    assignments = [f"{name}={value}" for name, value in variables.items()]
    return subprocess.run(
        [command, "--file", ROOT / "Makefile", target, *assignments],
        cwd=cwd,
        env={"PATH": str(path)},
        capture_output=True,
        text=True,
    )


def _stack(**parameters: str) -> dict[str, object]:
    outputs = synthesize(**parameters)["Outputs"].items()
    return {"Stacks": [{"Outputs": [{"OutputKey": name, "OutputValue": made["Value"]} for name, made in outputs]}]}
