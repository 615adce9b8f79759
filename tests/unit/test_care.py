"""The project's upkeep: locks, environments, workflows, hooks, exceptions from checks, and files that pages name."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from aws_commands import check_call
from fake_aws_cli import install_fake_aws_cli
from packaging.requirements import Requirement
from support import PAGES, ROOT

MAKEFILE = (ROOT / "Makefile").read_text()
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
GROUPS = PYPROJECT["dependency-groups"]
# By the name of the lock.
REQUIREMENTS = {
    "check": GROUPS["check"],
    "run": PYPROJECT["project"]["dependencies"],
    "dev": [*PYPROJECT["project"]["optional-dependencies"]["openvino"], *GROUPS["test"]],
    "train": [*GROUPS["train"], *GROUPS["bench"]],
}
TARGETS = set(re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
DEPLOY = ROOT / ".github" / "workflows" / "deploy.yml"
# An action of GitHub or AWS at a commit, with its version as a comment, or a workflow of this repository.
PINNED = re.compile(
    r"uses: ((actions|aws-actions)/[a-z-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+|\./\.github/workflows/[a-z]+\.yml)"
)
MANIFESTS = {"pip": "pyproject.toml", "docker": "Dockerfile", "github-actions": ".github/workflows"}


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def steps(workflow: Path) -> list[dict[str, Any]]:
    """Return the steps of all jobs; a job that runs another workflow has none."""
    return [step for job in read(workflow)["jobs"].values() for step in job.get("steps", ())]


def run_step(name: str, folder: Path, **variables: str) -> dict[str, str]:
    """Run the script of a step of the deployment and return its outputs."""
    (step,) = [step for step in steps(DEPLOY) if step.get("id") == name]
    outputs = folder / "outputs"
    environment = {"PATH": os.environ["PATH"], **variables, "GITHUB_OUTPUT": str(outputs)}
    bash = shutil.which("bash")
    assert bash
    subprocess.run([bash, "-e", "-c", step["run"]], cwd=ROOT, env=environment, check=True, timeout=60)
    return dict(line.split("=", 1) for line in outputs.read_text().splitlines())


def locked_packages(name: str) -> set[str]:
    """Return the lines of a lock file without hashes, such as `idna==3.20`."""
    lock = (ROOT / "requirements" / f"{name}.txt").read_text()
    return set(re.findall(r"^([a-z0-9].*==.+?) \\$", lock, re.MULTILINE))


def locked_names(name: str) -> set[str]:
    return {package.partition("==")[0] for package in locked_packages(name)}


def named(path: Path) -> str:
    return path.name


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=named)
def test_workflows_run_only_existing_make_targets_the_ci_script_and_named_scripts(workflow: Path) -> None:
    commands = [step["run"] for step in steps(workflow) if "run" in step and "name" not in step]
    assert commands
    for command in commands:
        if command.startswith("make "):
            made = re.fullmatch(r'make((?: [a-z]+| \.venv[a-z-]*/\.ready)+)(?: [A-Z]+="[^"]+")*', command)
            assert made, command
            targets = {target for target in made[1].split() if not target.endswith("/.ready")}
            assert targets <= TARGETS, f"{command}: there is no such target in Makefile"
        else:
            assert command.split()[-1] == ".ci/run"


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=named)
def test_workflows_use_only_actions_of_github_and_aws_at_a_commit(workflow: Path) -> None:
    lines = [line.strip().removeprefix("- ") for line in workflow.read_text().splitlines()]
    used = [line for line in lines if line.startswith("uses:")]
    assert used
    assert [line for line in used if not PINNED.fullmatch(line)] == []


def test_an_action_has_the_same_commit_in_all_workflows() -> None:
    used = {step["uses"] for workflow in WORKFLOWS for step in steps(workflow) if "uses" in step}
    assert len(used) == len({action.partition("@")[0] for action in used})


def test_only_the_deploy_job_may_get_an_aws_identity_and_it_has_an_environment() -> None:
    deploy = read(DEPLOY)
    assert deploy["permissions"] == {}
    permissions = {name: job["permissions"] for name, job in deploy["jobs"].items()}
    assert permissions == {"check": {"contents": "read"}, "deploy": {"contents": "read", "id-token": "write"}}
    assert "environment" in deploy["jobs"]["deploy"]
    assert read(ROOT / ".github" / "workflows" / "check.yml")["permissions"] == {"contents": "read"}


def test_a_deployment_waits_for_all_checks_of_the_same_commit() -> None:
    jobs = read(DEPLOY)["jobs"]
    assert jobs["check"]["uses"] == "./.github/workflows/check.yml"
    assert jobs["deploy"]["needs"] == "check"
    assert "if" not in jobs["deploy"]
    checks = read(ROOT / ".github" / "workflows" / "check.yml")
    # YAML 1.1 reads the key `on` as true.
    assert "workflow_call" in checks[True]
    commands = [step.get("run", "") for job in checks["jobs"].values() for step in job["steps"]]
    assert "make check" in commands
    assert any(command.endswith(".ci/run") for command in commands)


def test_packages_are_installed_before_the_job_gets_an_aws_identity() -> None:
    order = [step.get("uses", step.get("run", "")) for step in steps(DEPLOY)]
    (identity,) = [number for number, step in enumerate(order) if step.startswith("aws-actions/configure-aws")]
    assert {".venv/.ready", ".venv-dev/.ready"} <= {word for step in order[:identity] for word in step.split()}


@pytest.mark.parametrize("environment", ["dev", "prod"])
def test_the_deployment_takes_its_region_from_samconfig(environment: str, tmp_path: Path) -> None:
    settings = tomllib.loads((ROOT / "samconfig.toml").read_text())[environment]["global"]["parameters"]
    assert run_step("target", tmp_path, ENV=environment) == {
        "stack": settings["stack_name"],
        "region": settings["region"],
    }
    (identity,) = [step["with"] for step in steps(DEPLOY) if "configure-aws" in step.get("uses", "")]
    assert identity["aws-region"] == "${{ steps.target.outputs.region }}"
    assert "AWS_REGION }}" not in DEPLOY.read_text()


@pytest.mark.parametrize(("stack", "has_page"), [("litelens", True), ("pageless", False)])
def test_the_deployment_uploads_the_page_of_a_stack_that_has_one(stack: str, has_page: bool, tmp_path: Path) -> None:
    fake = install_fake_aws_cli(tmp_path)
    url = run_step("page", tmp_path, PATH=str(fake.folder), STACK=stack)["url"]
    assert bool(url) == has_page
    assert len(fake.calls()) == 1
    deploy, find, site = steps(DEPLOY)[-3:]
    assert deploy["run"].startswith("make deploy ")
    assert find["id"] == "page"
    assert (site["run"], site["if"]) == ("make site", "steps.page.outputs.url != ''")


def test_the_deployment_gives_sam_only_known_options_that_the_script_does_not_give() -> None:
    (arguments,) = [made[1] for step in steps(DEPLOY) if (made := re.search(r'ARGS="(.+)"', step.get("run", "")))]
    check_call(("sam", "deploy", *arguments.split()))
    given = (ROOT / "infra" / "deploy.sh").read_text().split()
    assert not [word for word in arguments.split() if word.startswith("--") and word in given]


def test_workflows_use_no_secrets() -> None:
    for workflow in WORKFLOWS:
        assert "secrets." not in workflow.read_text()


def test_dependabot_updates_every_kind_of_dependency() -> None:
    updates = read(ROOT / ".github" / "dependabot.yml")["updates"]
    assert {update["package-ecosystem"] for update in updates} == set(MANIFESTS)
    for update in updates:
        assert (ROOT / update["directory"].lstrip("/") / MANIFESTS[update["package-ecosystem"]]).exists()


def test_commit_hooks_download_nothing_and_run_locked_tools() -> None:
    tools = {".venv-dev/bin": locked_names("dev"), ".venv-check/bin": locked_names("check")}
    for repository in read(ROOT / ".pre-commit-config.yaml")["repos"]:
        assert repository["repo"] == "local"
        for hook in repository["hooks"]:
            assert hook["language"] == "system"
            environment, _, tool = hook["entry"].split()[0].rpartition("/")
            assert tool in tools[environment]


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_the_lock_satisfies_the_requirements(name: str) -> None:
    versions = dict(package.partition(" ;")[0].split("==") for package in locked_packages(name))
    for requirement in map(Requirement, REQUIREMENTS[name]):
        assert requirement.specifier.contains(versions[requirement.name])


def test_the_wheel_does_not_require_exact_versions() -> None:
    """Exact versions would prevent an installation beside other applications."""
    for requirement in map(Requirement, REQUIREMENTS["run"]):
        assert not {specifier.operator for specifier in requirement.specifier} & {"==", "==="}


def test_environments_contain_the_build_backend_that_installations_use() -> None:
    for name in ("run", "dev", "train"):
        assert set(PYPROJECT["build-system"]["requires"]) <= locked_packages(name)


@pytest.mark.parametrize("name", ["run", "dev", "image-litert", "image-openvino"])
def test_the_lock_for_training_contains_every_smaller_lock(name: str) -> None:
    assert locked_packages(name) <= locked_packages("train")


def test_only_the_lock_for_training_contains_tensorflow() -> None:
    assert {"tensorflow", "keras", "jax", "onnx"} <= locked_names("train")
    assert not {"tensorflow", "keras", "jax", "onnx"} & locked_names("dev")


@pytest.mark.parametrize("path", sorted((ROOT / "requirements").iterdir()), ids=named)
def test_lock_files_have_hashes_and_name_no_host(path: Path) -> None:
    entries = re.split(r"\n(?! )", path.read_text().strip())
    assert all(entry.startswith("#") or "--hash=sha256:" in entry for entry in entries)
    assert "://" not in path.read_text()


def test_every_exception_from_checkov_has_a_reason() -> None:
    lines = (ROOT / ".checkov.yaml").read_text().splitlines()
    exceptions = lines[lines.index("skip-check:") + 1 :]
    assert sum(line.startswith("  - ") for line in exceptions) == len(read(ROOT / ".checkov.yaml")["skip-check"]) > 0
    for above, line in zip(["", *exceptions], exceptions, strict=False):
        if line.startswith("  - "):
            assert above.startswith("  # ")


def test_every_exception_from_bandit_has_a_reason() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    (skips,) = re.findall(r"^\[tool\.bandit\]\nskips = \[\n(.+?)^\]", text, re.MULTILINE | re.DOTALL)
    for line in skips.splitlines():
        assert re.fullmatch(r'    "B\d{3}", # .{10,}', line)


def test_clean_removes_every_environment() -> None:
    (removed,) = re.findall(r"^clean:.*\n\trm -rf (.+)$", MAKEFILE, re.MULTILINE)
    environments = re.findall(r"^[A-Z]+_ENV := (.+)/\.ready$", MAKEFILE, re.MULTILINE)
    assert len(environments) == 4
    assert set(environments) <= set(removed.split())


@pytest.mark.parametrize(
    ("tests", "environments"),
    [
        ("tests", {".venv-dev", ".venv-train"}),
        ("tests/unit", {".venv-dev"}),
        ("tests/runtime/test_wheel.py tests/browser", {".venv-dev"}),
        ("tests/training/test_fit.py", {".venv-train"}),
    ],
)
def test_make_creates_only_the_environments_that_the_chosen_tests_need(tests: str, environments: set[str]) -> None:
    command = ["make", "--dry-run", "--always-make", "test", f"TESTS={tests}"]
    commands = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert set(re.findall(r"-m venv --clear (\S+)", commands)) == environments
    assert set(re.findall(r"^(\S+)/bin/python -m pytest", commands, re.MULTILINE)) == environments


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=named)
def test_pages_name_files_that_exist(page: Path) -> None:
    rooms = r"lambda|training|tests|docs|benchmarks|client|local|\.github"
    for path in re.findall(rf"`((?:{rooms})/[\w/.-]*)`", page.read_text()):
        assert (ROOT / path).exists(), f"{page.name} names {path}"


def test_decisions_state_measured_figures() -> None:
    """Each `N ms` in a decision is a rounded figure of benchmarks/results.md."""
    results = (ROOT / "benchmarks" / "results.md").read_text()
    measured = {round(float(number)) for number in re.findall(r"\| ([\d.]+)(?= \(| \|)", results)}
    for page in sorted((ROOT / "docs" / "decisions").glob("*.md")):
        for number in re.findall(r"(\d+)\sms\b", page.read_text()):
            assert int(number) in measured, f"{page.name}: {number} ms"
