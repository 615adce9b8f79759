"""The stand-in for AWS's base image: it has no program that AWS's image lacks."""

import re
import subprocess

import pytest
from container.conftest import BASE_IMAGE
from support import ROOT

STAND_IN = "litelens-base:"
# Programs that are not in Amazon Linux 2023's minimal container, and that a Dockerfile may be tempted to use.
MISSING = {
    *("find", "xargs", "which", "tar", "gzip", "gunzip", "zcat", "xz", "bzip2", "zip", "unzip", "ps", "top", "free"),
    *("kill", "less", "more", "diff", "cmp", "patch", "file", "hostname", "mount", "su", "sudo", "useradd", "passwd"),
    *("perl", "make", "gcc", "cc", "ld", "git", "wget", "vi", "apt-get", "dpkg", "yum", "jq", "tree", "clear"),
}
# Prints the programs of the image that belong to none of the packages in its arguments.
FOREIGN_PROGRAMS = """
import sys
from pathlib import Path
lists = [Path(f"/var/lib/dpkg/info/{package}.list") for package in sys.argv[1:]]
owned = {path for each in lists for path in each.read_text().splitlines()}
folders = [Path(prefix) / name for prefix in ("/usr", "/usr/local") for name in ("bin", "sbin")]
programs = {str(path) for folder in folders for path in folder.iterdir()}
print(*sorted(programs - owned))
"""


@pytest.fixture(scope="module")
def stand_in(docker: str) -> str:
    if not BASE_IMAGE.startswith(STAND_IN):
        pytest.skip("the tests of images use AWS's base image")
    return BASE_IMAGE


def kept_packages() -> list[str]:
    """Return the packages whose programs .ci/base-image keeps."""
    kept = re.search(r'^kept="(.+)"$', (ROOT / ".ci" / "base-image").read_text(), re.MULTILINE)
    assert kept
    return kept[1].split()


def output_of(docker: str, image: str, *command: str) -> str:
    """Run a command in a new container and return its output."""
    started = [docker, "run", "--rm", "--network=none", f"--entrypoint={command[0]}", image, *command[1:]]
    return subprocess.run(started, check=True, capture_output=True, text=True, timeout=120).stdout


def test_the_stand_in_lacks_the_programs_that_awss_image_lacks(docker: str, stand_in: str) -> None:
    # `type -P` ignores what the shell itself knows, such as kill.
    script = 'for name; do type -P "$name" || true; done'
    assert output_of(docker, stand_in, "bash", "-c", script, "bash", *sorted(MISSING)) == ""


def test_the_stand_in_has_only_the_programs_of_the_packages_that_the_script_keeps(docker: str, stand_in: str) -> None:
    foreign = output_of(docker, stand_in, "python3", "-c", FOREIGN_PROGRAMS, *kept_packages()).split()
    # The link to bash, which is sh on AWS too.
    assert foreign == ["/usr/bin/sh"]


def test_a_dockerfile_that_uses_a_missing_program_fails(docker: str, stand_in: str) -> None:
    build = [docker, "build", "--network=none", "-"]
    environment = {"DOCKER_BUILDKIT": "0"}
    for command, succeeds in (("ls / | sort", True), ("find / -name nothing", False)):
        dockerfile = f"FROM {stand_in}\nRUN {command}\n"
        done = subprocess.run(build, input=dockerfile, env=environment, capture_output=True, text=True, timeout=120)
        assert (done.returncode == 0) == succeeds, done.stderr
