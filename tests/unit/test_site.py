"""`make site`, with a fake command `aws`."""

from pathlib import Path

import pytest
from fake_aws_cli import FakeAwsCli, install_fake_aws_cli, make

from litelens_client.page import IMMUTABLE, REVALIDATED

BUCKET = "s3://Site.Outputs.SiteBucketName"
PAGE = {"index.html": '<script src="main.js"></script>', "worker.js": "1", "main.js": "2", "views/card.js": "3"}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with a page."""
    for name, content in PAGE.items():
        file = tmp_path / "web" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return tmp_path


@pytest.fixture
def fake_aws(tmp_path: Path) -> FakeAwsCli:
    return install_fake_aws_cli(tmp_path)


def test_site_uploads_the_files_of_the_version_before_the_index_that_names_them(
    fake_aws: FakeAwsCli, checkout: Path
) -> None:
    done = make("site", fake_aws.folder, cwd=checkout, STACK="litelens")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "The page is at Site.Outputs.PageUrl\n"
    *describe, versioned, unversioned = fake_aws.calls()
    assert [call[:4] for call in describe] == [["cloudformation", "describe-stacks", "--stack-name", "litelens"]] * 2
    (version,) = [folder.name for folder in (checkout / "build" / "site").iterdir() if folder.is_dir()]
    copy = ["s3", "cp", f"build/site/{version}", f"{BUCKET}/{version}", "--recursive"]
    assert versioned == [*copy, "--cache-control", IMMUTABLE]
    copy = ["s3", "cp", "build/site", BUCKET, "--recursive", "--exclude", "v-*"]
    assert unversioned == [*copy, "--cache-control", REVALIDATED]
    assert f'src="{version}/main.js"' in (checkout / "build" / "site" / "index.html").read_text()


def test_site_uploads_no_version_of_an_earlier_call(fake_aws: FakeAwsCli, checkout: Path) -> None:
    versions = []
    for content in ("before", "after"):
        (checkout / "web" / "main.js").write_text(content)
        assert make("site", fake_aws.folder, cwd=checkout, STACK="litelens").returncode == 0
        versions.append({file.name for file in (checkout / "build" / "site").glob("v-*")})
    assert [len(names) for names in versions] == [1, 1]
    assert versions[0] != versions[1]


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


def test_site_uploads_nothing_if_there_is_no_page(fake_aws: FakeAwsCli, checkout: Path) -> None:
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
    assert [call[:2] for call in fake.calls()].count(["s3", "cp"]) == 1
    assert "The page is at" not in done.stdout
