"""Verbs of make that speak to AWS, with a command `aws` that knows some stacks, and notes what it is asked."""

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
with open({calls!r}, "a") as calls:
    print(json.dumps([*{named!r}, *sys.argv[1:]]), file=calls)
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
class FakeAws:
    """A folder with the command, and what it was asked."""

    folder: Path
    calls: Path

    def asked(self) -> list[list[str]]:
        return [json.loads(line) for line in self.calls.read_text().splitlines()] if self.calls.exists() else []


def install_fake_aws(to: Path, failing: tuple[str, ...] = (), answers: Mapping[str, Any] | None = None) -> FakeAws:
    """The command in a folder below `to`, of which the one call fails that begins with `failing`.

    It knows "litelens" and "litelens-dev", "pageless", which is the same without a page, and "another", which is of
    another kind. `answers` are those of other operations, by their names. A command `sam` is there too, which does
    nothing.
    """
    fake = FakeAws(to / "bin", to / "calls")
    fake.folder.mkdir()
    (fake.folder / "grep").symlink_to(shutil.which("grep") or "grep")
    stacks = {name: _stack() for name in ("litelens", "litelens-dev")}
    stacks |= {"pageless": _stack(Page="false"), "another": {"Stacks": [{}]}}
    values = {"python": sys.executable, "calls": str(fake.calls), "stacks": stacks, "failing": list(failing)}
    for name, named in (("aws", []), ("sam", ["sam"])):
        program = fake.folder / name
        program.write_text(_PROGRAM.format(**values, named=named, answers=answers or {}))
        program.chmod(0o755)
    return fake


def make(verb: str, path: Path, *, within: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
    """The verb, in a folder, where no other commands are found than those in `path` and make's own."""
    command = shutil.which("make")
    assert command
    assignments = [f"{name}={value}" for name, value in variables.items()]
    return subprocess.run(
        [command, "--file", ROOT / "Makefile", verb, *assignments],
        cwd=within,
        env={"PATH": str(path)},
        capture_output=True,
        text=True,
    )


def _stack(**parameters: str) -> dict[str, object]:
    outputs = synthesize(**parameters)["Outputs"].items()
    return {"Stacks": [{"Outputs": [{"OutputKey": name, "OutputValue": made["Value"]} for name, made in outputs]}]}
