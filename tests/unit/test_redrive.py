"""`make redrive`, with a command `aws` that knows one stack."""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import ROOT
from template import synthesize


@dataclass(frozen=True)
class FakeAws:
    """A folder with a command `aws` that knows one stack, and notes what it is asked."""

    folder: Path
    calls: Path

    def asked(self) -> list[list[str]]:
        return [json.loads(line) for line in self.calls.read_text().splitlines()] if self.calls.exists() else []


@pytest.fixture
def fake_aws(tmp_path: Path) -> FakeAws:
    outputs = [{"OutputKey": name, "OutputValue": made["Value"]} for name, made in synthesize()["Outputs"].items()]
    stacks = {"litelens": {"Stacks": [{"Outputs": outputs}]}, "another": {"Stacks": [{}]}}
    fake = FakeAws(tmp_path / "bin", tmp_path / "calls")
    fake.folder.mkdir()
    program = fake.folder / "aws"
    program.write_text(FAKE_AWS.format(python=sys.executable, calls=str(fake.calls), stacks=stacks))
    program.chmod(0o755)
    return fake


FAKE_AWS = """#!{python}
import json, sys
import jmespath
with open({calls!r}, "a") as calls:
    print(json.dumps(sys.argv[1:]), file=calls)
options = dict(zip(sys.argv[3::2], sys.argv[4::2]))
if sys.argv[2] == "describe-stacks":
    found = {stacks!r}.get(options["--stack-name"])
    print(jmespath.search(options["--query"], found) if found else "", end="")
    sys.exit(0 if found else 254)
"""


def redrive(path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """`make redrive` where no other commands are found than those of the folder and make's own."""
    make = shutil.which("make")
    assert make
    assignments = [f"{name}={value}" for name, value in variables.items()]
    return subprocess.run(
        [make, "redrive", *assignments], cwd=ROOT, env={"PATH": str(path)}, capture_output=True, text=True
    )


def test_what_failed_goes_back_to_the_queue(fake_aws: FakeAws) -> None:
    done = redrive(fake_aws.folder, STACK="litelens")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "The uploads that failed are on their way back to the queue.\n"
    describe, move = fake_aws.asked()
    assert describe[:4] == ["cloudformation", "describe-stacks", "--stack-name", "litelens"]
    assert move == ["sqs", "start-message-move-task", "--source-arn", "Storage.Outputs.ImagesDeadLettersArn"]


@pytest.mark.parametrize("variables", [{}, {"STACK": ""}])
def test_redrive_asks_which_stack(fake_aws: FakeAws, variables: dict[str, str]) -> None:
    done = redrive(fake_aws.folder, **variables)
    assert done.returncode != 0
    assert done.stderr.startswith("Which stack? make redrive STACK=litelens\n")
    assert fake_aws.asked() == []


def test_redrive_says_that_it_needs_the_aws_command(tmp_path: Path) -> None:
    done = redrive(tmp_path, STACK="litelens")
    assert done.returncode != 0
    assert done.stderr.startswith("make redrive needs the AWS CLI, the command aws; install it first\n")


def test_redrive_moves_nothing_of_another_kind_of_stack(fake_aws: FakeAws) -> None:
    done = redrive(fake_aws.folder, STACK="another")
    assert done.returncode != 0
    assert done.stderr.startswith("The stack another has no output ImagesDeadLettersArn; is it one of litelens?\n")
    assert len(fake_aws.asked()) == 1


def test_redrive_ends_where_aws_fails(fake_aws: FakeAws) -> None:
    assert redrive(fake_aws.folder, STACK="missing").returncode != 0
    assert len(fake_aws.asked()) == 1
