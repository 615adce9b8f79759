"""The wheel: its content, and the command that it installs, outside the checkout and without a network."""

import email
import importlib.metadata
import os
import subprocess
import sys
import sysconfig
import urllib.request
import venv
import zipfile
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from support import CAT, DEFAULT_BUNDLE, ROOT, free_port, running

from litelens_client import __version__
from litelens_client.page import PageFiles

# Ends a process that connects to another machine or looks up its name.
OFFLINE = """
import os, sys

def end_if_remote(event, arguments):
    hosts = {"socket.connect": lambda: arguments[1], "socket.getaddrinfo": lambda: arguments}
    if event in hosts and (host := hosts[event]()[0]) not in ("127.0.0.1", "localhost", None):
        os.write(2, f"{event}: {host}".encode())
        os._exit(70)

sys.addaudithook(end_if_remote)
"""
# Names of this process's variables that could lead the command to the checkout or to AWS.
INHERITED = ("API_KEY", "AWS_", "LITELENS_", "PYTHON")
# The program behind `make openapi`, and declarations for TypeScript.
NOT_IN_WHEEL = {
    "litelens/api/openapi.py",
    "litelens_client/data/web/vendor/lit-html/directive-helpers.d.ts",
    "litelens_client/data/web/vendor/lit-html/directive.d.ts",
    "litelens_client/data/web/vendor/lit-html/directives/live.d.ts",
    "litelens_client/data/web/vendor/lit-html/directives/repeat.d.ts",
    "litelens_client/data/web/vendor/lit-html/lit-html.d.ts",
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, f"--wheel-dir={folder}", str(ROOT)], check=True)
    (path,) = folder.iterdir()
    return path


@pytest.fixture(scope="module")
def litelens(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command in an environment that has the wheel, the packages that it requires, and no others."""
    environment = tmp_path_factory.mktemp("an environment")
    venv.create(environment, symlinks=True)
    pip = [sys.executable, "-m", "pip", "--python", str(environment / "bin" / "python"), "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", "--no-index", str(wheel)], check=True)
    site_packages = Path(sysconfig.get_path("purelib", "venv", {"base": str(environment)}))
    (installed,) = importlib.metadata.distributions(path=[str(site_packages)])
    for distribution in dependencies(installed):
        link(distribution, site_packages)
    (site_packages / "offline.py").write_text(OFFLINE)
    (site_packages / "offline.pth").write_text("import offline\n")
    return environment / "bin" / "litelens"


def dependencies(distribution: Distribution) -> list[Distribution]:
    """Return the packages that a package requires without extras, directly or not, as this process has them."""
    found: dict[str, Distribution] = {}
    waiting = [distribution]
    while waiting:
        for requirement in map(Requirement, waiting.pop().requires or ()):
            wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if wanted and requirement.name not in found:
                found[requirement.name] = importlib.metadata.distribution(requirement.name)
                waiting.append(found[requirement.name])
    return list(found.values())


def link(distribution: Distribution, site_packages: Path) -> None:
    """Link an installed package's modules and metadata into another folder."""
    assert distribution.files
    for name in {file.parts[0] for file in distribution.files} - {"..", "__pycache__"}:
        if not (site_packages / name).exists():
            (site_packages / name).symlink_to(str(distribution.locate_file(name)))


@pytest.fixture
def elsewhere(tmp_path: Path) -> dict[str, Any]:
    """Options of a process outside the checkout, in a folder with modules that must not be imported."""
    for name in ("litelens", "numpy", "settings"):
        (tmp_path / f"{name}.py").write_text("raise AssertionError(__file__)\n")
    (tmp_path / "cat.jpg").write_bytes(CAT.read_bytes())
    return {"cwd": tmp_path, "env": {n: value for n, value in os.environ.items() if not n.startswith(INHERITED)}}


def files(folder: Path, place: str) -> dict[str, bytes]:
    """Return the files in a folder of the checkout by the names that they have in the wheel."""
    paths = [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return {f"{place}/{path.relative_to(folder).as_posix()}": path.read_bytes() for path in paths}


def test_the_wheel_holds_both_packages_the_everyday_bundle_and_the_page(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    metadata = {name for name in held if name.startswith(f"litelens-{__version__}.dist-info/")}
    in_checkout = {
        **files(ROOT / "lambda" / "litelens", "litelens"),
        **files(ROOT / "client" / "litelens_client", "litelens_client"),
        **files(DEFAULT_BUNDLE, f"litelens_client/data/{DEFAULT_BUNDLE.name}"),
        **files(ROOT / "web", "litelens_client/data/web"),
    }
    assert in_checkout.keys() >= NOT_IN_WHEEL
    assert {name: held[name] for name in held.keys() - metadata} == {
        name: content for name, content in in_checkout.items() if name not in NOT_IN_WHEEL
    }


def test_the_wheel_says_that_both_packages_have_types(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        assert {"litelens/py.typed", "litelens_client/py.typed"} <= set(archive.namelist())


def test_the_metadata_has_the_version_the_licences_and_the_extras(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        metadata = email.message_from_bytes(archive.read(f"litelens-{__version__}.dist-info/METADATA"))
    assert metadata["Version"] == __version__
    assert metadata["License-Expression"] == "Apache-2.0 AND BSD-3-Clause"
    assert metadata.get_all("License-File") == ["LICENSE", "web/vendor/lit-html/LICENSE"]
    assert metadata.get_all("Provides-Extra") == ["openvino", "quantize"]


def test_the_installed_command_classifies_outside_the_checkout_and_offline(
    litelens: Path, elsewhere: dict[str, Any]
) -> None:
    done = subprocess.run([litelens, "classify", "cat.jpg"], **elsewhere, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Egyptian cat" in done.stdout


def test_the_installed_command_ends_with_an_exit_code(litelens: Path, elsewhere: dict[str, Any]) -> None:
    assert subprocess.run([litelens, "classify", "no.jpg"], **elsewhere, capture_output=True).returncode == 1


def test_the_installed_command_serves_the_page_and_the_api(litelens: Path, elsewhere: dict[str, Any]) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    index = PageFiles(ROOT / "web").find("/")
    assert index
    with running([str(litelens), "serve", "--port", str(port)], ready=url, **elsewhere):
        with urllib.request.urlopen(f"{url}/", timeout=60) as page:
            assert page.read() == index.content
        request = urllib.request.Request(f"{url}/v1/classify", CAT.read_bytes(), {"Content-Type": "image/jpeg"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert b"Egyptian cat" in answer.read()
