"""What looks after the project: workflows, hooks, Dependabot, exceptions of checks, and the pages about them."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from support import ROOT

MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE))
PAGES = [
    *(ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs" / "decisions").glob("*.md")),
]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
MANIFESTS = {"pip": "pyproject.toml", "docker": "Dockerfile", "github-actions": ".github/workflows"}


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def steps(workflow: Path) -> list[dict[str, Any]]:
    return [step for job in read(workflow)["jobs"].values() for step in job["steps"]]


def locked_names(name: str) -> set[str]:
    return set(re.findall(r"^([a-z0-9-]+)==", (ROOT / name).read_text(), re.MULTILINE))


def named(path: Path) -> str:
    return path.name


def test_there_are_workflows_that_check_and_deploy() -> None:
    assert [path.name for path in WORKFLOWS] == ["check.yml", "deploy.yml"]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=named)
def test_workflows_run_nothing_but_make_targets_that_exist_and_ci(workflow: Path) -> None:
    commands = [step["run"] for step in steps(workflow) if "run" in step]
    assert commands
    for command in commands:
        made = re.fullmatch(r'make ([a-z]+)( [A-Z]+="[^"]+")*', command)
        if made:
            assert made[1] in TARGETS, f"{command}: there is no such target in Makefile"
        else:
            assert command.split()[-1] == ".ci/run"


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=named)
def test_actions_are_of_one_version_and_of_makers_that_are_trusted(workflow: Path) -> None:
    for used in (step["uses"] for step in steps(workflow) if "uses" in step):
        assert re.fullmatch(r"(actions|aws-actions)/[a-z-]+@v\d+", used)


def test_only_the_job_that_deploys_may_ask_for_an_identity_and_it_waits_for_approval() -> None:
    deploy = read(ROOT / ".github" / "workflows" / "deploy.yml")
    (job,) = deploy["jobs"].values()
    assert deploy["permissions"] == {}
    assert job["permissions"] == {"contents": "read", "id-token": "write"}
    assert "environment" in job
    assert read(ROOT / ".github" / "workflows" / "check.yml")["permissions"] == {"contents": "read"}


def test_no_workflow_has_a_secret() -> None:
    for workflow in WORKFLOWS:
        assert "secrets." not in workflow.read_text()


def test_dependabot_looks_where_there_is_something_to_renew() -> None:
    updates = read(ROOT / ".github" / "dependabot.yml")["updates"]
    assert {update["package-ecosystem"] for update in updates} == set(MANIFESTS)
    for update in updates:
        assert (ROOT / update["directory"].lstrip("/") / MANIFESTS[update["package-ecosystem"]]).exists()


def test_hooks_fetch_nothing_and_run_tools_that_are_locked() -> None:
    tools = {
        ".venv-dev/bin": locked_names("requirements-dev.txt"),
        ".venv-check/bin": locked_names("requirements-check.txt"),
    }
    for repository in read(ROOT / ".pre-commit-config.yaml")["repos"]:
        assert repository["repo"] == "local"
        for hook in repository["hooks"]:
            assert hook["language"] == "system"
            environment, _, tool = hook["entry"].split()[0].rpartition("/")
            assert tool in tools[environment]


def test_every_tool_of_the_checks_is_locked_by_hash_in_the_release_that_is_asked_for() -> None:
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["check"]
    lock = (ROOT / "requirements-check.txt").read_text()
    for requirement in map(Requirement, asked):
        (locked,) = re.findall(rf"^{requirement.name}==(\S+) .*\\\n    --hash=sha256:", lock, re.MULTILINE)
        assert requirement.specifier.contains(locked)


def test_lock_files_name_no_host() -> None:
    assert "://" not in (ROOT / "requirements-check.txt").read_text()


def test_every_exception_of_checkov_has_its_reason() -> None:
    lines = (ROOT / ".checkov.yaml").read_text().splitlines()
    exceptions = lines[lines.index("skip-check:") + 1 :]
    assert sum(line.startswith("  - ") for line in exceptions) == len(read(ROOT / ".checkov.yaml")["skip-check"]) > 0
    for above, line in zip(["", *exceptions], exceptions, strict=False):
        if line.startswith("  - "):
            assert above.startswith("  # ")


def test_every_exception_of_bandit_has_its_reason() -> None:
    (skips,) = re.findall(
        r"^\[tool\.bandit\]\nskips = \[\n(.+?)^\]", (ROOT / "pyproject.toml").read_text(), re.M | re.S
    )
    for line in skips.splitlines():
        assert re.fullmatch(r'    "B\d{3}", # .{10,}', line)


def test_clean_removes_every_environment() -> None:
    (removed,) = re.findall(r"^clean:.*\n\trm -rf (.+)$", MAKEFILE, re.MULTILINE)
    assert {".venv", ".venv-dev", ".venv-check"} <= set(removed.split())


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_pages_link_to_files_and_sections_that_exist(page: Path) -> None:
    for target, section in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", page.read_text()):
        linked = (page.parent / target).resolve() if target else page
        assert linked.exists(), f"{page.name} links to {target}"
        if section:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(), re.MULTILINE)
            assert section in {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_pages_name_make_targets_that_exist(page: Path) -> None:
    assert set(re.findall(r"`make ([a-z]+)", page.read_text())) <= TARGETS


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_pages_name_files_that_exist(page: Path) -> None:
    rooms = r"lambda|training|tests|docs|benchmarks|client|local|\.github"
    for path in re.findall(rf"`((?:{rooms})/[\w/.-]*)`", page.read_text()):
        assert (ROOT / path).exists(), f"{page.name} names {path}"


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "decisions").glob("*.md")), ids=named)
def test_decisions_are_short_and_tell_the_question_the_reason_and_the_price(page: Path) -> None:
    text = page.read_text()
    assert len(text.splitlines()) < 40
    for word in ("**Asked:**", "**Because**", "**The price:**"):
        assert word in text


def test_decisions_have_the_figures_that_were_measured() -> None:
    """Each `N ms` in a decision is in the results, or in the table that stands there rounded."""
    results = (ROOT / "benchmarks" / "results.md").read_text()
    measured = {round(float(number)) for number in re.findall(r"\| ([\d.]+)(?= \(| \|)", results)}
    for page in sorted((ROOT / "docs" / "decisions").glob("*.md")):
        for number in re.findall(r"(\d+)\sms\b", page.read_text()):
            assert int(number) in measured, f"{page.name}: {number} ms"
