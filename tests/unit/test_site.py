"""`make site`, with a command `aws` that knows some stacks."""

from pathlib import Path

import pytest
from fake_aws import FakeAws, install_fake_aws, make

# All files: sync would leave out one that is no newer than another of its size.
COPY = ["s3", "cp", "web", "s3://Site.Outputs.SiteBucketName", "--recursive", "--cache-control", "no-cache"]
CLEAN = ["s3", "sync", "web", "s3://Site.Outputs.SiteBucketName", "--delete"]
INVALIDATION = ["cloudfront", "create-invalidation", "--distribution-id", "Site.Outputs.SiteDistributionId"]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with a page to put somewhere."""
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "index.html").write_text("<!doctype html>")
    return tmp_path


@pytest.fixture
def fake_aws(tmp_path: Path) -> FakeAws:
    return install_fake_aws(tmp_path)


def test_the_page_is_put_where_the_stack_serves_it(fake_aws: FakeAws, checkout: Path) -> None:
    done = make("site", fake_aws.folder, within=checkout, STACK="litelens")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "The page is at Site.Outputs.PageUrl\n"
    *describe, copy, clean, invalidation = fake_aws.asked()
    assert [call[:4] for call in describe] == [["cloudformation", "describe-stacks", "--stack-name", "litelens"]] * 3
    assert (copy, clean) == (COPY, CLEAN)
    assert invalidation == [*INVALIDATION, "--paths", "/*"]


@pytest.mark.parametrize("variables", [{}, {"STACK": ""}])
def test_site_asks_which_stack(fake_aws: FakeAws, checkout: Path, variables: dict[str, str]) -> None:
    done = make("site", fake_aws.folder, within=checkout, **variables)
    assert done.returncode != 0
    assert done.stderr.startswith("Which stack? make site ENV=prod, or STACK=litelens\n")
    assert fake_aws.asked() == []


def test_site_says_that_it_needs_the_aws_command(checkout: Path) -> None:
    done = make("site", checkout / "nothing", within=checkout, STACK="litelens")
    assert done.returncode != 0
    assert done.stderr.startswith("make site needs the AWS CLI, the command aws; install it first\n")


def test_site_deletes_nothing_when_there_is_no_page_to_put_there(fake_aws: FakeAws, checkout: Path) -> None:
    (checkout / "web" / "index.html").unlink()
    done = make("site", fake_aws.folder, within=checkout, STACK="litelens")
    assert done.returncode != 0
    assert done.stderr.startswith("There is no page to put anywhere; web/index.html is missing.\n")
    assert fake_aws.asked() == []


@pytest.mark.parametrize("stack", ["pageless", "another"])
def test_site_puts_nothing_into_a_stack_without_a_page(fake_aws: FakeAws, checkout: Path, stack: str) -> None:
    done = make("site", fake_aws.folder, within=checkout, STACK=stack)
    assert done.returncode != 0
    sentence = f"The stack {stack} has no output SiteBucketName; is it one of litelens with Page=true?\n"
    assert done.stderr.startswith(sentence)
    assert len(fake_aws.asked()) == 1


def test_site_ends_where_the_stack_is_not_found(fake_aws: FakeAws, checkout: Path) -> None:
    assert make("site", fake_aws.folder, within=checkout, STACK="missing").returncode != 0
    assert len(fake_aws.asked()) == 1


def test_site_ends_where_files_cannot_be_put(tmp_path: Path, checkout: Path) -> None:
    fake = install_fake_aws(tmp_path, failing=("s3", "cp"))
    done = make("site", fake.folder, within=checkout, STACK="litelens")
    assert done.returncode != 0
    assert fake.asked()[-1] == COPY
    assert "The page is at" not in done.stdout
