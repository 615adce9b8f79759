"""The software bill of materials, compared with the packages in the image."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from container.conftest import build_image
from packaging.utils import canonicalize_name
from support import ROOT

from litelens.core.engines import ENGINES


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """The engine in the image."""
    return str(request.param)


@pytest.fixture(scope="module")
def components(engine: str) -> list[dict[str, Any]]:
    """Return the output of `make sbom` for an engine."""
    subprocess.run(["make", "sbom", f"ENGINE={engine}"], cwd=ROOT, check=True, timeout=600)
    bill = json.loads((ROOT / "build" / "sbom.json").read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    return list(bill["components"])


def test_the_bill_lists_exactly_the_packages_in_the_image(
    docker: str, engine: str, components: list[dict[str, Any]]
) -> None:
    script = "cd $LAMBDA_TASK_ROOT && ls -d *.dist-info"
    command = [docker, "run", "--rm", "--network=none", "--entrypoint=sh", build_image(docker, engine), "-c", script]
    folders = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout.split()
    installed = {tuple(folder.removesuffix(".dist-info").rsplit("-", 1)) for folder in folders}
    assert {(canonicalize_name(each["name"]), each["version"]) for each in components} == {
        (canonicalize_name(name), version) for name, version in installed
    }


def test_each_component_has_the_hash_of_a_locked_file_and_a_licence(
    engine: str, components: list[dict[str, Any]]
) -> None:
    lock = Path(ROOT, "requirements", f"image-{engine}.txt").read_text()
    for each in components:
        (entry,) = re.findall(
            rf"^{canonicalize_name(each['name'])}=={re.escape(each['version'])}\b.*(?:\n    .+)+", lock, re.M
        )
        (found,) = each["hashes"]
        assert found["alg"] == "SHA-256"
        assert f"--hash=sha256:{found['content']}" in entry
        assert each["licenses"]
        assert each["purl"].startswith("pkg:pypi/")
