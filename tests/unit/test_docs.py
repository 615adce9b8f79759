"""What is written down twice must say the same."""

import json
import re
import subprocess
from collections.abc import Callable
from typing import Any

from support import BUNDLE, ROOT, answer_of, event

from handlers import problems
from handlers.requests import IMAGE_TYPES
from litelens.images import FORMATS, Limits
from settings import Settings

README = (ROOT / "README.md").read_text()
PRESETS_TABLE = README.partition("| preset |")[2].partition("\n\n")[0]
TEMPLATE = (ROOT / "template.yaml").read_text()


def test_the_readme_lists_every_problem_with_its_status() -> None:
    listed = dict(re.findall(r"^\| `(\w+)` \| (\d{3}) \|", README, re.MULTILINE))
    kinds = [*problems.KINDS.values(), problems.INTERNAL]
    assert listed == {kind.code: str(kind.status.value) for kind in kinds}


def test_the_readme_states_the_bundled_models_accuracy() -> None:
    metrics = json.loads((BUNDLE / "manifest.json").read_text())["metrics"]
    assert f"{metrics['int8_top1']:.1%} top-1" in README
    assert f"{metrics['fp32_top1']:.1%} in fp32" in README
    assert f"agree on {metrics['agreement']:.1%}" in README


def test_the_readme_lists_every_preset() -> None:
    listed = re.findall(r"`([a-z0-9-]+)`", "".join(re.findall(r"^(\| `.+?) \|.*$", PRESETS_TABLE, re.MULTILINE)))
    assert sorted(listed) == sorted(path.stem for path in (ROOT / "training" / "presets").glob("*.toml"))


def test_the_readme_names_every_setting_and_its_default() -> None:
    variables = dict(re.findall(r"^\| `(LITELENS_\w+)` \| (.+?) \|", README, re.MULTILINE))
    source = (ROOT / "lambda" / "settings.py").read_text()
    assert set(variables) == set(re.findall(r"LITELENS_[A-Z_]+", source))
    assert variables["LITELENS_MAX_BYTES"] == str(Limits().bytes)
    assert variables["LITELENS_MAX_PIXELS"] == str(Limits().pixels)
    assert len(variables) == len(Settings.__dataclass_fields__) + len(Limits.__dataclass_fields__) - 1


def test_the_readme_names_every_route_and_image_type(handle: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    known = re.findall(r"/v1/\w+", answer_of(handle(event("GET", "/nothing")))["detail"])
    assert len(known) == 3
    for text in (*known, *IMAGE_TYPES):
        assert text in README


def test_every_make_verb_in_the_readme_exists() -> None:
    verbs = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`?\bmake ([a-z]+)\b", README)) <= verbs | {"alone"}


def test_make_alone_lists_every_verb_with_one_line() -> None:
    done = subprocess.run(["make"], cwd=ROOT, check=True, capture_output=True, text=True)
    listed = re.findall(r"^  make ([a-z]+) +\S.*$", done.stdout, re.MULTILINE)
    (phony,) = re.findall(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert listed == phony.split()


def test_the_gateway_passes_the_types_that_are_read_as_binary() -> None:
    listed = re.findall(r"^ +- image~1(\w+)$", TEMPLATE, re.MULTILINE)
    assert [f"image/{name}" for name in listed] == list(IMAGE_TYPES)
    assert [name.upper() for name in listed] == list(FORMATS)


def test_the_template_builds_with_the_dockerfiles_defaults() -> None:
    dockerfile = (ROOT / "lambda" / "Dockerfile").read_text()
    for name in ("BASE_IMAGE", "MODEL"):
        (value,) = re.findall(rf"^ARG {name}=(.+)$", dockerfile, re.MULTILINE)
        assert f"        {name}: {value}\n" in TEMPLATE
