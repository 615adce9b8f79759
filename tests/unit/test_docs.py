"""The documentation agrees with the code: commands, links, parameters, settings, error codes and figures."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from support import CIFAR_BUNDLE, DEFAULT_BUNDLE, PAGES, ROOT, anchors, command_lines, reported_errors, shell_blocks
from template import gateway_codes, parameters

from litelens.api.openapi import OPERATIONS
from litelens.api.requests import BINARY_TYPES
from litelens.core.formats import MEDIA_TYPES
from litelens.core.images import Limits
from litelens.settings import DEFAULT_MAX_UPLOAD_BYTES, DEFAULT_MODEL, Settings
from litelens_client.__main__ import create_parser

README = (ROOT / "README.md").read_text()
API = (ROOT / "docs" / "api.md").read_text()
DEPLOY = (ROOT / "docs" / "deploy.md").read_text()
MODELS = (ROOT / "docs" / "models.md").read_text()
TRAIN = (ROOT / "docs" / "train.md").read_text()
TEMPLATE = (ROOT / "template.yaml").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z]+)::?(?=\s)", MAKEFILE, re.MULTILINE))


def links(page: Path) -> list[str]:
    """Return the addresses of links and pictures that do not begin with a scheme."""
    found = re.findall(r"\]\(([^)\s]+)\)|\bsrc=\"([^\"]+)\"", page.read_text())
    return [address for pair in found for address in pair if address and not re.match(r"[a-z]+:", address)]


def make_targets(page: Path) -> set[str]:
    """Return the targets of make in a page: after a backtick, or at the beginning of a line in a shell block."""
    return set(re.findall(r"`make ([a-z]+)", page.read_text())) | set(
        re.findall(r"^ *make ([a-z]+)", "".join(shell_blocks(page)), re.MULTILINE)
    )


def page_name(page: Path) -> str:
    return page.name


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{link}: no such file"
        assert not anchor or anchor in anchors(target), f"{link}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_make_target_in_a_page_exists(page: Path) -> None:
    assert make_targets(page) <= TARGETS


@pytest.mark.parametrize(("page", "arguments"), command_lines("litelens"))
def test_every_call_of_litelens_in_a_page_is_valid(page: str, arguments: list[str]) -> None:
    assert create_parser().parse_args(arguments), page


def test_the_readme_states_the_sizes_of_the_environments() -> None:
    sizes = dict(re.findall(r"^\| `(\.venv[a-z-]*)` \| .+? \| ([\d.]+ [MG]B) \|$", README, re.MULTILINE))
    assert list(sizes) == [".venv", ".venv-dev", ".venv-train"]


def test_the_readme_links_to_every_page() -> None:
    linked = {(ROOT / link.partition("#")[0]).resolve() for link in links(ROOT / "README.md")}
    assert {page for page in PAGES if page.name != "README.md"} <= linked


def test_every_python_file_in_the_tree_of_the_code_exists() -> None:
    (tree,) = re.findall(r"^```\n(lambda/.+?)^```", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE | re.DOTALL)
    named = set(re.findall(r"[\w/]+\.py", tree))
    assert named
    assert [name for name in named if not any(ROOT.glob(f"[cil]*/**/{name}"))] == []


def test_the_runbook_links_to_every_query() -> None:
    queries = {f"../infra/queries/{path.name}" for path in (ROOT / "infra" / "queries").glob("*.txt")}
    assert queries == {link for link in links(ROOT / "docs" / "runbook.md") if "/queries/" in link}


def test_make_without_arguments_lists_every_target() -> None:
    done = subprocess.run(["make"], cwd=ROOT, check=True, capture_output=True, text=True)
    listed = re.findall(r"^  make ([a-z]+) +\S.*$", done.stdout, re.MULTILINE)
    (phony,) = re.findall(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE)
    assert listed == phony.split()


def test_every_error_code_is_documented_with_its_status() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d{3}) \|", API, re.MULTILINE)
    in_function = {error.code: error.status.value for error in reported_errors()}
    assert sorted(rows) == sorted((code, str(status)) for code, status in (in_function | gateway_codes()).items())


def test_every_parameter_is_documented_with_its_default() -> None:
    table = DEPLOY.partition("| parameter |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (`[A-Z]\w+`.*?) \| (.+?) \|", table, re.MULTILINE)
    documented = {
        name: value
        for names, values in rows
        for name, value in zip(*(names.replace("`", "").split(", "), values.split(", ")), strict=True)
    }
    assert documented == {name: str(declared["Default"]) or "none" for name, declared in parameters().items()}


def test_every_setting_is_documented_with_its_default() -> None:
    documented = dict(re.findall(r"^\| `(LITELENS_\w+)` \| (.+?) \|", DEPLOY, re.MULTILINE))
    source = (ROOT / "lambda" / "litelens" / "settings.py").read_text()
    assert set(documented) == set(re.findall(r"LITELENS_[A-Z_]+", source))
    assert documented["LITELENS_MAX_BYTES"] == str(Limits().bytes)
    assert documented["LITELENS_MAX_PIXELS"] == str(Limits().pixels)
    assert documented["LITELENS_MAX_UPLOAD_BYTES"] == str(DEFAULT_MAX_UPLOAD_BYTES)
    # `limits` combines two settings.
    assert len(documented) == len(Settings.__dataclass_fields__) + 1


def test_every_preset_is_documented() -> None:
    table = TRAIN.partition("| preset |")[2].partition("\n\n")[0]
    documented = re.findall(r"^\| `([a-z0-9-]+)` \|", table, re.MULTILINE)
    assert sorted(documented) == sorted(path.stem for path in (ROOT / "training" / "presets").glob("*.toml"))


def test_the_readme_calls_every_endpoint() -> None:
    called = set(re.findall(r"\$API(/[a-z0-9./]+)", README))
    endpoints = {operation.path.replace("/{id}", "/") for operation in OPERATIONS}
    assert called == endpoints | {"/openapi.json", "/docs"}


def test_the_readme_names_every_media_type() -> None:
    assert [media_type for media_type in MEDIA_TYPES if f"`{media_type}`" not in README] == []


def test_the_pages_have_the_measured_figures_of_the_bundled_models() -> None:
    everyday = json.loads((DEFAULT_BUNDLE / "manifest.json").read_text())
    measured = everyday["metrics"]
    assert f"{measured['agreement']:.1%} of {measured['test_images']} photos" in " ".join(MODELS.split())
    package, version = everyday["training"]["origin"]["weights"].rpartition(" package ")[2].split()
    assert f"`{package}` {version}" in MODELS
    cifar = json.loads((CIFAR_BUNDLE / "manifest.json").read_text())["metrics"]
    assert f"{cifar['int8_top1']:.1%} top-1" in MODELS
    assert f"{cifar['int8_top1']:.1%} top-1" in README


def test_the_readme_has_the_measured_figures_of_the_comparison() -> None:
    rows = json.loads((ROOT / "benchmarks" / "results.json").read_text())["peers"]["rows"]
    assert rows
    for row in rows:
        cells = [f"{row['ratio']:.2f}", f"{row['top1']:.1%}", f"{row['peak_megabytes']:.0f} MB"]
        assert f"| {row['peer']} | {' | '.join(cells)} |" in README


def test_api_gateway_treats_the_same_media_types_as_binary() -> None:
    declared = [name.replace("~1", "/") for name in re.findall(r"^ +- (\w+~1[\w-]+)$", TEMPLATE, re.MULTILINE)]
    assert declared == list(BINARY_TYPES)


def test_the_template_and_the_dockerfile_have_the_same_defaults() -> None:
    dockerfile = (ROOT / "lambda" / "Dockerfile").read_text()
    defaults = dict(re.findall(r"^ARG ([A-Z_]+)=(.+)$", dockerfile, re.MULTILINE))
    assert f"        BASE_IMAGE: {defaults['BASE_IMAGE']}\n" in TEMPLATE
    for name in ("Engine", "Model", "Heic"):
        assert f"        {name.upper()}: !Ref {name}\n" in TEMPLATE
        assert defaults[name.upper()] == parameters()[name]["Default"]


def test_every_tool_has_the_same_default_model() -> None:
    (of_make,) = re.findall(r"^BUNDLE \?= models/(.+)$", MAKEFILE, re.MULTILINE)
    deployed = re.findall(r'"Model=(.+?)"', (ROOT / "samconfig.toml").read_text())
    assert {of_make, parameters()["Model"]["Default"], *deployed} == {DEFAULT_MODEL}
