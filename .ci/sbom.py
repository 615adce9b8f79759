"""Writes the software bill of materials (CycloneDX 1.6) of what lambda/Dockerfile installs for an engine.

Names, versions and hashes are those of lambda/requirements-ENGINE.txt. The package index tells which of a release's
files fits AWS's Python base image, and the licence that its author gave.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cyclonedx.factory.license import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import License, LicenseAcknowledgement
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent

# AWS's base image for Python 3.13: Amazon Linux 2023, which has glibc 2.34.
PYTHON = "3.13"
PLATFORMS = (*(f"manylinux_2_{minor}_x86_64" for minor in range(34, 16, -1)), "manylinux2014_x86_64")
IMAGE = {
    "implementation_name": "cpython",
    "os_name": "posix",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "platform_system": "Linux",
    "python_full_version": f"{PYTHON}.0",
    "python_version": PYTHON,
    "sys_platform": "linux",
}

# In characters: what is longer is a licence's whole text instead of its name.
_LONGEST_NAME = 100
_LICENCES = LicenseFactory()


def locked(text: str) -> Iterator[tuple[Requirement, set[str]]]:
    """The packages in a requirements file that the image installs, and the SHA-256 hashes of their files."""
    for entry in text.replace("\\\n", " ").splitlines():
        if entry.strip() and not entry.startswith("#"):
            requirement, *hashes = entry.split("--hash=sha256:")
            package = Requirement(requirement)
            if package.marker is None or package.marker.evaluate(IMAGE):
                yield package, {each.strip() for each in hashes}


def resolve(packages: list[Requirement]) -> list[dict[str, Any]]:
    """What pip would install of them in the image, as in its installation report."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"),
            *(
                "--dry-run",
                "--ignore-installed",
                "--only-binary=:all:",
                f"--target={folder}",
                f"--report={folder}/report",
            ),
            *(f"--python-version={PYTHON}", *(f"--platform={each}" for each in PLATFORMS)),
            *(f"{package.name}{package.specifier}" for package in packages),
        ]
        subprocess.run(command, check=True, stdout=sys.stderr)  # noqa: S603
        report = json.loads(Path(folder, "report").read_text())
    return list(report["install"])


def component(installed: dict[str, Any], hashes: set[str]) -> Component:
    """The package as CycloneDX has it. Raises ValueError if its file is not among those that the lock allows."""
    metadata = installed["metadata"]
    name, version = metadata["name"], metadata["version"]
    sha256 = installed["download_info"]["archive_info"]["hashes"]["sha256"]
    if sha256 not in hashes:
        raise ValueError(f"The index has another file of {name} {version} than the lock; run make lock.")
    filename = installed["download_info"]["url"].rpartition("/")[2]
    return Component(
        type=ComponentType.LIBRARY,
        name=name,
        version=version,
        purl=PackageURL("pypi", name=canonicalize_name(name), version=version, qualifiers={"file_name": filename}),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=sha256)],
        licenses=licences_of(metadata),
    )


def licences_of(metadata: dict[str, Any]) -> list[License]:
    """What the package's author gave, an SPDX expression where there is one; none where there is nothing."""
    given = metadata.get("license_expression") or metadata.get("license") or ""
    if len(given) > _LONGEST_NAME:
        given = ""
    classifiers = [each.rpartition(" :: ")[2] for each in metadata.get("classifier", []) if each.startswith("License ")]
    names = [given] if given else classifiers
    return [_LICENCES.make_from_string(name, license_acknowledgement=LicenseAcknowledgement.DECLARED) for name in names]


def make(engine: str) -> str:
    """The bill of materials of the image with this engine, as JSON that CycloneDX's schema allows."""
    packages = list(locked((ROOT / "lambda" / f"requirements-{engine}.txt").read_text()))
    hashes_of = {package.name: hashes for package, hashes in packages}
    bom = Bom()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    image = Component(
        type=ComponentType.CONTAINER,
        name=project["name"],
        version=project["version"],
        properties=[Property(name="litelens:engine", value=engine)],
    )
    bom.metadata.component = image
    for installed in resolve([package for package, _ in packages]):
        hashes = hashes_of[canonicalize_name(installed["metadata"]["name"])]
        bom.components.add(component(installed, hashes))
    bom.register_dependency(image, bom.components)
    text = make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=2)
    if error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        raise ValueError(f"CycloneDX refuses what was made: {error}")
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the software bill of materials of the container image.")
    parser.add_argument("engine", choices=["litert", "openvino"], help="the engine in the image")
    parser.add_argument("file", type=Path, help="where to write it")
    arguments = parser.parse_args()
    print(f"Asking the package index about what {arguments.engine} needs ...")
    arguments.file.parent.mkdir(exist_ok=True)
    arguments.file.write_text(make(arguments.engine) + "\n")
    print(f"{arguments.file} lists what the image with {arguments.engine} installs.")


if __name__ == "__main__":
    main()
