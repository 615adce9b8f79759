"""What is written down twice must say the same."""

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from support import CIFAR_BUNDLE, DEFAULT_BUNDLE, ROOT, anchors
from template import gateway_codes, parameters

from client.__main__ import _parser as client_parser
from handlers import problems
from handlers.bodies import BINARY_TYPES, IMAGE_TYPES
from handlers.openapi import OPERATIONS
from litelens.images import FORMATS, Limits
from settings import DEFAULT_MAX_UPLOAD_BYTES, DEFAULT_MODEL, Settings
from training.__main__ import BROUGHT
from training.__main__ import _parser as training_parser
from training.preset import load_preset

README = (ROOT / "README.md").read_text()
API = (ROOT / "docs" / "api.md").read_text()
TRAIN = (ROOT / "docs" / "train.md").read_text()
DEPLOY = (ROOT / "docs" / "deploy.md").read_text()
PARAMETERS = DEPLOY.partition("| parameter |")[2].partition("\n\n")[0]
PRESETS_TABLE = TRAIN.partition("| preset |")[2].partition("\n\n")[0]
TEMPLATE = (ROOT / "template.yaml").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def links(page: Path) -> list[str]:
    """The addresses of links and pictures that do not begin with a scheme."""
    written = re.findall(r"\]\(([^)\s]+)\)|\bsrc=\"([^\"]+)\"", page.read_text())
    return [address for pair in written for address in pair if address and not re.match(r"[a-z]+:", address)]


def verbs_in(page: Path) -> set[str]:
    """The verbs of make in a page's code: at the begin of a line in a block, or of what is between backticks."""
    text = page.read_text()
    blocks = "".join(re.findall(r"^ *```sh\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL))
    return set(re.findall(r"`make ([a-z]+)", text)) | set(re.findall(r"^ *make ([a-z]+)", blocks, re.MULTILINE))


def test_the_page_on_the_api_lists_every_problem_with_its_status() -> None:
    listed = dict(re.findall(r"^\| `(\w+)` \| (\d{3}) \|", API, re.MULTILINE))
    kinds = {kind.code: kind.status.value for kind in [*problems.KINDS.values(), problems.INTERNAL]}
    assert len(listed) == len(re.findall(r"^\| `\w+` \| \d{3} \|", API, re.MULTILINE))
    assert listed == {code: str(status) for code, status in (kinds | gateway_codes()).items()}


def test_the_readme_states_what_was_measured_of_the_bundled_models() -> None:
    everyday = json.loads((DEFAULT_BUNDLE / "manifest.json").read_text())
    measured = everyday["metrics"]
    words = " ".join(README.split())
    assert f"for {measured['agreement']:.1%} of {measured['test_images']} photos" in words
    assert f"at {everyday['threshold']} one label has more" in words
    assert everyday["training"]["origin"]["weights"].rpartition(" package ")[2] in words
    cifar = json.loads((CIFAR_BUNDLE / "manifest.json").read_text())["metrics"]
    assert f"{cifar['int8_top1']:.1%} top-1" in words


def test_the_readme_shows_how_to_serve_either_bundle() -> None:
    assert "(`make run`)" in README
    assert f"`make run BUNDLE={CIFAR_BUNDLE.relative_to(ROOT)}`" in README
    assert f"`Model={CIFAR_BUNDLE.name}`" in README


def test_the_page_on_training_lists_every_preset() -> None:
    listed = re.findall(r"`([a-z0-9-]+)`", "".join(re.findall(r"^(\| `.+?) \|.*$", PRESETS_TABLE, re.MULTILINE)))
    assert sorted(listed) == sorted(path.stem for path in (ROOT / "training" / "presets").glob("*.toml"))


def test_the_page_on_deployment_names_every_setting_and_its_default() -> None:
    variables = dict(re.findall(r"^\| `(LITELENS_\w+)` \| (.+?) \|", DEPLOY, re.MULTILINE))
    source = (ROOT / "lambda" / "settings.py").read_text()
    assert set(variables) == set(re.findall(r"LITELENS_[A-Z_]+", source))
    assert variables["LITELENS_MAX_BYTES"] == str(Limits().bytes)
    assert variables["LITELENS_MAX_PIXELS"] == str(Limits().pixels)
    assert variables["LITELENS_MAX_UPLOAD_BYTES"] == str(DEFAULT_MAX_UPLOAD_BYTES)
    # The limits are two settings; the memory that decoding may take is none.
    assert len(variables) == len(Settings.__dataclass_fields__) + 1


def test_the_page_on_deployment_names_every_parameter_and_its_default() -> None:
    rows = re.findall(r"^\| (`[A-Z]\w+`.*?) \| (.+?) \|", PARAMETERS, re.MULTILINE)
    listed = {
        name: value
        for names, values in rows
        for name, value in zip(*(names.replace("`", "").split(", "), values.split(", ")), strict=True)
    }
    assert listed == {name: str(made["Default"]) or "none" for name, made in parameters().items()}


def test_the_readme_calls_every_route() -> None:
    called = set(re.findall(r"\$API(/[a-z0-9./]+)", README))
    routes = {operation.path.replace("/{id}", "/") for operation in OPERATIONS}
    assert called == routes | {"/openapi.json", "/docs"}


def test_the_readme_names_every_image_type() -> None:
    for text in IMAGE_TYPES:
        assert text in README


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_verb_that_a_page_names_exists(page: Path) -> None:
    verbs = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert verbs_in(page) <= verbs


def test_pages_name_make_verbs() -> None:
    assert {"run", "test", "check"} <= verbs_in(ROOT / "README.md")
    assert {"rollback", "redrive", "tail"} <= verbs_in(ROOT / "docs" / "runbook.md")
    assert {"train", "classify", "deploy"} <= verbs_in(ROOT / "docs" / "train.md")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_to_a_file_and_to_a_heading_in_it(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{link} leads nowhere"
        assert not anchor or anchor in anchors(target), f"{link} leads to no heading"


def test_every_page_is_linked_from_the_readme() -> None:
    linked = {(ROOT / link.partition("#")[0]).resolve() for link in links(ROOT / "README.md")}
    assert {page for page in PAGES if page.name != "README.md"} <= linked


def test_every_query_for_the_logs_is_linked_from_the_runbook() -> None:
    queries = {f"../infra/queries/{path.name}" for path in (ROOT / "infra" / "queries").glob("*.txt")}
    assert queries == {link for link in links(ROOT / "docs" / "runbook.md") if "/queries/" in link}


def test_every_alarm_names_a_section_of_the_runbook() -> None:
    templates = "".join(path.read_text() for path in (ROOT / "infra").glob("*.yaml"))
    named = re.findall(r"AlarmDescription: .*? See docs/runbook\.md#(\S+)$", templates, re.MULTILINE)
    assert len(named) == templates.count("AlarmDescription: ") > 0
    assert set(named) <= anchors(ROOT / "docs" / "runbook.md")


def test_the_readme_is_read_in_one_sitting() -> None:
    assert len(README.splitlines()) < 200


def test_make_alone_lists_every_verb_with_one_line() -> None:
    done = subprocess.run(["make"], cwd=ROOT, check=True, capture_output=True, text=True)
    listed = re.findall(r"^  make ([a-z]+) +\S.*$", done.stdout, re.MULTILINE)
    (phony,) = re.findall(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert listed == phony.split()


def test_the_gateway_passes_the_types_that_are_read_as_binary() -> None:
    listed = [name.replace("~1", "/") for name in re.findall(r"^ +- (\w+~1[\w-]+)$", TEMPLATE, re.MULTILINE)]
    assert listed == list(BINARY_TYPES)
    assert [name.removeprefix("image/").upper() for name in IMAGE_TYPES] == list(FORMATS)


def test_the_template_builds_with_the_dockerfiles_defaults() -> None:
    dockerfile = (ROOT / "lambda" / "Dockerfile").read_text()
    defaults = dict(re.findall(r"^ARG ([A-Z_]+)=(.+)$", dockerfile, re.MULTILINE))
    assert f"        BASE_IMAGE: {defaults['BASE_IMAGE']}\n" in TEMPLATE
    for name in ("Engine", "Model"):
        assert f"        {name.upper()}: !Ref {name}\n" in TEMPLATE
        assert defaults[name.upper()] == parameters()[name]["Default"]


def test_the_same_model_is_the_default_of_every_tool() -> None:
    (of_make,) = re.findall(r"^BUNDLE \?= models/(.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    deployed = re.findall(r'"Model=(.+?)"', (ROOT / "samconfig.toml").read_text())
    assert {of_make, parameters()["Model"]["Default"], *deployed} == {DEFAULT_MODEL}
    assert len(deployed) == 2


def test_the_readme_has_the_figures_that_were_measured() -> None:
    contest = json.loads((ROOT / "benchmarks" / "results.json").read_text())["contest"]
    accuracies = {each["contestant"]: each for each in contest["accuracies"] if each["side"] == 224}
    timings = [each for each in contest["timings"] if (each["side"], each["threads"]) == (224, 1)]
    assert len(timings) >= 7
    for timing in timings:
        name, accuracy = timing["contestant"], accuracies[timing["contestant"]]
        cells = [f"{timing['ratio']:.2f}", f"{accuracy['top1']:.1%}", f"{accuracy['peak_megabytes']:.0f} MB"]
        assert f"| {name} | {' | '.join(cells)} |" in README


def command_lines(program: str) -> list[tuple[str, list[str]]]:
    """The calls of a program in all pages' blocks of shell: the page, and the arguments."""
    found = []
    for page in PAGES:
        for block in re.findall(r"^ *```sh\n(.*?)^ *```", page.read_text(), re.MULTILINE | re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                if call := re.search(rf"(?:^|/){program} ([^|>]*)", line.strip()):
                    found.append((page.name, shlex.split(call[1], comments=True)))
    return found


@pytest.mark.parametrize(("page", "arguments"), command_lines("litelens"))
def test_a_pages_call_of_litelens_is_understood(page: str, arguments: list[str]) -> None:
    assert client_parser().parse_args(arguments), page


@pytest.mark.parametrize(("page", "arguments"), command_lines("python -m training"))
def test_a_pages_call_of_training_is_understood(page: str, arguments: list[str]) -> None:
    given = training_parser().parse_args(arguments)
    assert load_preset(given.preset or BROUGHT, given.set), page


def test_pages_call_both_programs() -> None:
    assert {arguments[0] for _, arguments in command_lines("litelens")} >= {"classify", "upload", "results", "backfill"}
    assert len(command_lines("python -m training")) >= 3
