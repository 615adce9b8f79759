"""`make redrive`, with a command `aws` that knows some stacks."""

from pathlib import Path

import pytest
from fake_aws import FakeAws, install_fake_aws, make


@pytest.fixture
def fake_aws(tmp_path: Path) -> FakeAws:
    return install_fake_aws(tmp_path)


def test_what_failed_goes_back_to_the_queue(fake_aws: FakeAws) -> None:
    done = make("redrive", fake_aws.folder, STACK="litelens")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "The uploads that failed are on their way back to the queue.\n"
    describe, move = fake_aws.asked()
    assert describe[:4] == ["cloudformation", "describe-stacks", "--stack-name", "litelens"]
    assert move == ["sqs", "start-message-move-task", "--source-arn", "Storage.Outputs.ImagesDeadLettersArn"]


@pytest.mark.parametrize("variables", [{}, {"STACK": ""}])
def test_redrive_asks_which_stack(fake_aws: FakeAws, variables: dict[str, str]) -> None:
    done = make("redrive", fake_aws.folder, **variables)
    assert done.returncode != 0
    assert done.stderr.startswith("Which stack? make redrive ENV=prod, or STACK=litelens\n")
    assert fake_aws.asked() == []


def test_redrive_says_that_it_needs_the_aws_command(tmp_path: Path) -> None:
    done = make("redrive", tmp_path, STACK="litelens")
    assert done.returncode != 0
    assert done.stderr.startswith("make redrive needs the AWS CLI, the command aws; install it first\n")


def test_redrive_moves_nothing_of_another_kind_of_stack(fake_aws: FakeAws) -> None:
    done = make("redrive", fake_aws.folder, STACK="another")
    assert done.returncode != 0
    assert done.stderr.startswith("The stack another has no output ImagesDeadLettersArn; is it one of litelens?\n")
    assert len(fake_aws.asked()) == 1


def test_redrive_ends_where_aws_fails(fake_aws: FakeAws) -> None:
    assert make("redrive", fake_aws.folder, STACK="missing").returncode != 0
    assert len(fake_aws.asked()) == 1
