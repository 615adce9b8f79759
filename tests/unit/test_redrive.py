"""`make redrive`, with a fake command `aws`."""

from pathlib import Path

import pytest
from fake_aws_cli import FakeAwsCli, install_fake_aws_cli, make


@pytest.fixture
def fake_aws(tmp_path: Path) -> FakeAwsCli:
    return install_fake_aws_cli(tmp_path)


def test_redrive_moves_dead_letters_back_to_the_queue(fake_aws: FakeAwsCli) -> None:
    done = make("redrive", fake_aws.folder, STACK="litelens")
    assert done.returncode == 0, done.stderr
    describe, move = fake_aws.calls()
    assert describe[:4] == ["cloudformation", "describe-stacks", "--stack-name", "litelens"]
    assert move == ["sqs", "start-message-move-task", "--source-arn", "Storage.Outputs.ImagesDeadLettersArn"]


@pytest.mark.parametrize("variables", [{}, {"STACK": ""}])
def test_redrive_asks_which_stack(fake_aws: FakeAwsCli, variables: dict[str, str]) -> None:
    done = make("redrive", fake_aws.folder, **variables)
    assert done.returncode != 0
    assert "make redrive ENV=" in done.stderr
    assert fake_aws.calls() == []


def test_redrive_reports_a_missing_aws_command(tmp_path: Path) -> None:
    done = make("redrive", tmp_path, STACK="litelens")
    assert done.returncode != 0
    assert "the AWS CLI" in done.stderr


def test_redrive_does_nothing_for_a_stack_that_is_not_litelens(fake_aws: FakeAwsCli) -> None:
    done = make("redrive", fake_aws.folder, STACK="another")
    assert done.returncode != 0
    assert "another" in done.stderr
    assert "ImagesDeadLettersArn" in done.stderr
    assert len(fake_aws.calls()) == 1


def test_redrive_stops_if_aws_fails(fake_aws: FakeAwsCli) -> None:
    assert make("redrive", fake_aws.folder, STACK="missing").returncode != 0
    assert len(fake_aws.calls()) == 1
