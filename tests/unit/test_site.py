"""`make site`, with a fake command `aws`."""

from pathlib import Path

import pytest
from fake_aws_cli import FakeAwsCli, install_fake_aws_cli, make

# Copies all files: sync would skip a file that has the same size and is not newer.
COPY = ["s3", "cp", "web", "s3://Site.Outputs.SiteBucketName", "--recursive", "--cache-control", "no-cache"]
CLEAN = ["s3", "sync", "web", "s3://Site.Outputs.SiteBucketName", "--delete"]
INVALIDATION = ["cloudfront", "create-invalidation", "--distribution-id", "Site.Outputs.SiteDistributionId"]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with a page."""
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "index.html").write_text("<!doctype html>")
    return tmp_path


@pytest.fixture
def fake_aws(tmp_path: Path) -> FakeAwsCli:
    return install_fake_aws_cli(tmp_path)


def test_site_uploads_the_page_and_invalidates_the_cache(fake_aws: FakeAwsCli, checkout: Path) -> None:
    done = make("site", fake_aws.folder, cwd=checkout, STACK="litelens")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "The page is at Site.Outputs.PageUrl\n"
    *describe, copy, clean, invalidation = fake_aws.calls()
    assert [call[:4] for call in describe] == [["cloudformation", "describe-stacks", "--stack-name", "litelens"]] * 3
    assert (copy, clean) == (COPY, CLEAN)
    assert invalidation == [*INVALIDATION, "--paths", "/*"]


@pytest.mark.parametrize("variables", [{}, {"STACK": ""}])
def test_site_asks_which_stack(fake_aws: FakeAwsCli, checkout: Path, variables: dict[str, str]) -> None:
    done = make("site", fake_aws.folder, cwd=checkout, **variables)
    assert done.returncode != 0
    assert done.stderr.startswith("Which stack? make site ENV=prod, or STACK=litelens\n")
    assert fake_aws.calls() == []


def test_site_reports_a_missing_aws_command(checkout: Path) -> None:
    done = make("site", checkout / "nothing", cwd=checkout, STACK="litelens")
    assert done.returncode != 0
    assert done.stderr.startswith("make site needs the AWS CLI, the command aws; install it first\n")


def test_site_deletes_nothing_if_there_is_no_page(fake_aws: FakeAwsCli, checkout: Path) -> None:
    (checkout / "web" / "index.html").unlink()
    done = make("site", fake_aws.folder, cwd=checkout, STACK="litelens")
    assert done.returncode != 0
    assert done.stderr.startswith("There is no page to upload: web/index.html is missing.\n")
    assert fake_aws.calls() == []


@pytest.mark.parametrize("stack", ["pageless", "another"])
def test_site_uploads_nothing_to_a_stack_without_a_page(fake_aws: FakeAwsCli, checkout: Path, stack: str) -> None:
    done = make("site", fake_aws.folder, cwd=checkout, STACK=stack)
    assert done.returncode != 0
    sentence = f"The stack {stack} has no output SiteBucketName; is it a litelens stack with Page=true?\n"
    assert done.stderr.startswith(sentence)
    assert len(fake_aws.calls()) == 1


def test_site_stops_if_the_stack_does_not_exist(fake_aws: FakeAwsCli, checkout: Path) -> None:
    assert make("site", fake_aws.folder, cwd=checkout, STACK="missing").returncode != 0
    assert len(fake_aws.calls()) == 1


def test_site_stops_if_the_upload_fails(tmp_path: Path, checkout: Path) -> None:
    fake = install_fake_aws_cli(tmp_path, failing=("s3", "cp"))
    done = make("site", fake.folder, cwd=checkout, STACK="litelens")
    assert done.returncode != 0
    assert fake.calls()[-1] == COPY
    assert "The page is at" not in done.stdout
