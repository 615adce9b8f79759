"""What is written down twice must say the same."""

import json
import re
import subprocess

from support import BUNDLE, ROOT
from template import gateway_codes, parameters

from handlers import problems
from handlers.bodies import BINARY_TYPES, IMAGE_TYPES
from handlers.openapi import OPERATIONS
from litelens.images import FORMATS, Limits
from settings import DEFAULT_MAX_UPLOAD_BYTES, Settings

README = (ROOT / "README.md").read_text()
API = (ROOT / "docs" / "api.md").read_text()
TRAIN = (ROOT / "docs" / "train.md").read_text()
DEPLOY = (ROOT / "docs" / "deploy.md").read_text()
PARAMETERS = DEPLOY.partition("| parameter |")[2].partition("\n\n")[0]
PRESETS_TABLE = TRAIN.partition("| preset |")[2].partition("\n\n")[0]
TEMPLATE = (ROOT / "template.yaml").read_text()


def test_the_page_on_the_api_lists_every_problem_with_its_status() -> None:
    listed = dict(re.findall(r"^\| `(\w+)` \| (\d{3}) \|", API, re.MULTILINE))
    kinds = {kind.code: kind.status.value for kind in [*problems.KINDS.values(), problems.INTERNAL]}
    assert len(listed) == len(re.findall(r"^\| `\w+` \| \d{3} \|", API, re.MULTILINE))
    assert listed == {code: str(status) for code, status in (kinds | gateway_codes()).items()}


def test_the_readme_states_the_bundled_models_accuracy() -> None:
    metrics = json.loads((BUNDLE / "manifest.json").read_text())["metrics"]
    assert f"{metrics['int8_top1']:.1%} top-1" in README
    assert f"{metrics['fp32_top1']:.1%} in fp32" in README
    assert f"agree on {metrics['agreement']:.1%}" in README


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


def test_every_make_verb_in_the_readme_exists() -> None:
    verbs = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`?\bmake ([a-z]+)\b", README + TRAIN + DEPLOY)) <= verbs | {"alone"}


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


def test_the_readme_has_the_figures_that_were_measured() -> None:
    contest = json.loads((ROOT / "benchmarks" / "results.json").read_text())["contest"]
    accuracies = {each["contestant"]: each for each in contest["accuracies"] if each["side"] == 224}
    timings = [each for each in contest["timings"] if (each["side"], each["threads"]) == (224, 1)]
    assert len(timings) >= 7
    for timing in timings:
        name, accuracy = timing["contestant"], accuracies[timing["contestant"]]
        cells = [f"{timing['ratio']:.2f}", f"{accuracy['top1']:.1%}", f"{accuracy['peak_megabytes']:.0f} MB"]
        assert f"| {name} | {' | '.join(cells)} |" in README
