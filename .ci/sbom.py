"""Write the software bill of materials (CycloneDX 1.6) of the packages that lambda/Dockerfile installs for an engine.

Names, versions and hashes come from requirements/image-ENGINE.txt. The package index provides the file that fits AWS's
Python base image and the licence that its author declared.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
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
VERSION_FILE = ROOT / "client" / "litelens_client" / "__init__.py"

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

# In characters. A longer value is the text of a licence, not its name.
_MAX_LICENCE_NAME = 100
_LICENCES = LicenseFactory()


def read_lock(text: str) -> Iterator[tuple[Requirement, set[str]]]:
    """Yield each package in a lock file that the image installs, with the SHA-256 hashes of its files."""
    for entry in text.replace("\\\n", " ").splitlines():
        if entry.strip() and not entry.startswith("#"):
            requirement, *hashes = entry.split("--hash=sha256:")
            package = Requirement(requirement)
            if package.marker is None or package.marker.evaluate(IMAGE):
                yield package, {each.strip() for each in hashes}


def resolve(packages: list[Requirement]) -> list[dict[str, Any]]:
    """Return pip's installation report for these packages in the image."""
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


def create_component(installed: dict[str, Any], hashes: set[str]) -> Component:
    """Return a package as a CycloneDX component; raises ValueError if the lock does not contain its file."""
    metadata = installed["metadata"]
    name, version = metadata["name"], metadata["version"]
    sha256 = installed["download_info"]["archive_info"]["hashes"]["sha256"]
    if sha256 not in hashes:
        raise ValueError(f"The lock does not contain the index's file of {name} {version}; run make lock.")
    filename = installed["download_info"]["url"].rpartition("/")[2]
    return Component(
        type=ComponentType.LIBRARY,
        name=name,
        version=version,
        purl=PackageURL("pypi", name=canonicalize_name(name), version=version, qualifiers={"file_name": filename}),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=sha256)],
        licenses=declared_licences(metadata),
    )


def declared_licences(metadata: dict[str, Any]) -> list[License]:
    """Return the licences that the package's author declared, preferably as an SPDX expression."""
    declared = metadata.get("license_expression") or metadata.get("license") or ""
    if len(declared) > _MAX_LICENCE_NAME:
        declared = ""
    classifiers = [each.rpartition(" :: ")[2] for each in metadata.get("classifier", []) if each.startswith("License ")]
    names = [declared] if declared else classifiers
    return [_LICENCES.make_from_string(name, license_acknowledgement=LicenseAcknowledgement.DECLARED) for name in names]


def create_bom(engine: str) -> str:
    """Return the bill of materials of the image with this engine, as JSON that is valid by CycloneDX's schema."""
    packages = list(read_lock((ROOT / "requirements" / f"image-{engine}.txt").read_text()))
    hashes_of = {package.name: hashes for package, hashes in packages}
    bom = Bom()
    (version,) = re.findall(r'^__version__ = "(.+)"$', VERSION_FILE.read_text(), re.MULTILINE)
    image = Component(
        type=ComponentType.CONTAINER,
        name="litelens",
        version=version,
        properties=[Property(name="litelens:engine", value=engine)],
    )
    bom.metadata.component = image
    for installed in resolve([package for package, _ in packages]):
        hashes = hashes_of[canonicalize_name(installed["metadata"]["name"])]
        bom.components.add(create_component(installed, hashes))
    bom.register_dependency(image, bom.components)
    text = make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=2)
    if error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        raise ValueError(f"The bill of materials is not valid CycloneDX: {error}")
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the software bill of materials of the container image.")
    parser.add_argument("engine", choices=["litert", "openvino"], help="the engine in the image")
    parser.add_argument("file", type=Path, help="the file to write")
    arguments = parser.parse_args()
    print(f"Asking the package index about the packages for {arguments.engine} ...")
    arguments.file.parent.mkdir(exist_ok=True)
    arguments.file.write_text(create_bom(arguments.engine) + "\n")
    print(f"{arguments.file} lists the packages in the image with {arguments.engine}.")


if __name__ == "__main__":
    main()
