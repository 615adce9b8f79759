"""The page's files, in folders named by their content, and the folder that `make site` uploads.

index.html names the files in a folder such as `v-0123456789ab/`. The name is a hash of all files, so browsers and
CloudFront may keep what is in it for a year. Only index.html and the service worker have addresses that stay, and are
revalidated before each use.

This module needs only the standard library: `python -m litelens_client.page web build/site` writes the folder that is
uploaded.
"""

import hashlib
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

INDEX = "index.html"
WORKER = "worker.js"

IMMUTABLE = "public, max-age=31536000, immutable"
REVALIDATED = "no-cache"

# The security headers of infra/site.yaml. A page on this machine may also call any API that is set in its settings, and
# upload to a local AWS on another port.
PAGE_HEADERS: Mapping[str, str] = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        "connect-src 'self' https: http://127.0.0.1:* http://localhost:*; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types lit-html litelens"
    ),
    "cross-origin-opener-policy": "same-origin",
    # To teach a model, the page here may use the webcam.
    "permissions-policy": "camera=(self), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}

# Not from the tables of the system, which may have types that browsers do not accept for a module or a style sheet.
PAGE_TYPES: Mapping[str, str] = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".jpg": "image/jpeg",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

_HASH_DIGITS = 12

# The path of a file that is not hidden and, on every system, inside the folder: no `..`, no backslash, no drive.
_FILE_PATH = re.compile(r"(/[a-z0-9_-][a-z0-9_.-]*)+", re.IGNORECASE | re.ASCII)
_VERSIONED_PATH = re.compile(rf"/(v-[0-9a-f]{{{_HASH_DIGITS}}})/(.+)")

# References of index.html to other files: neither to other hosts, nor to places in the page.
_REFERENCE = re.compile(r'(\s(?:href|src)=")(?![a-z]+:|[/#])')


@dataclass(frozen=True)
class PageFile:
    """A file of the page as it is served."""

    content: bytes
    media_type: str
    cache_control: str


@dataclass(frozen=True)
class Page:
    """The contents of all files at one time, by their paths in the folder."""

    files: Mapping[str, bytes]

    @cached_property
    def version(self) -> str:
        """The name of the folder that these files are served in."""
        digest = hashlib.sha256()
        for path, content in sorted(self.files.items()):
            digest.update(path.encode() + b"\0" + hashlib.sha256(content).digest())
        return f"v-{digest.hexdigest()[:_HASH_DIGITS]}"

    @cached_property
    def assets(self) -> Mapping[str, bytes]:
        """The files of the version's folder: all but index.html and the worker."""
        return {path: content for path, content in self.files.items() if path not in (INDEX, WORKER)}

    @property
    def index(self) -> bytes:
        """index.html with references to the files of this version; raises KeyError if there is no index.html."""
        return _REFERENCE.sub(rf"\g<1>{self.version}/", self.files[INDEX].decode()).encode()


class PageFiles:
    """The files of a folder as a server sends them; index.html always names the version that the folder has now.

    Files of that version come from memory, so that their addresses have one content even if they are edited meanwhile.
    Those of other versions, for pages that are still open, and those without a version come from the folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._page = Page({})

    def find(self, path: str) -> PageFile | None:
        """Return the file at the path of a request; None if there is no such file."""
        if not _FILE_PATH.fullmatch(path) and path != "/":
            return None
        if path in ("/", f"/{INDEX}"):
            self._page = read_page(self._folder)
            return _page_file(INDEX, self._page.index, REVALIDATED) if INDEX in self._page.files else None
        if versioned := _VERSIONED_PATH.fullmatch(path):
            return self._find_versioned(*versioned.groups())
        return self._read(path[1:])

    def _find_versioned(self, version: str, name: str) -> PageFile | None:
        if version != self._page.version:
            self._page = read_page(self._folder)
        if version != self._page.version or name not in self._page.assets:
            return self._read(name)
        return _page_file(name, self._page.assets[name], IMMUTABLE)

    def _read(self, name: str) -> PageFile | None:
        try:
            return _page_file(name, (self._folder / name).read_bytes(), REVALIDATED)
        except OSError:
            return None


def read_page(folder: Path) -> Page:
    """Read all files that are not hidden, except TypeScript's declarations; files that cannot be read are left out."""
    files: dict[str, bytes] = {}
    for file in folder.rglob("*"):
        path = file.relative_to(folder)
        if any(part.startswith(".") for part in path.parts) or path.name.endswith(".d.ts") or not file.is_file():
            continue
        try:
            files[path.as_posix()] = file.read_bytes()
        except OSError:
            continue
    return Page(files)


def write_site(page: Page, folder: Path) -> None:
    """Write the files to upload: the version's folder, and beside it index.html and the worker.

    Removes versions that an earlier call wrote there. Raises KeyError if the page lacks index.html or the worker.
    """
    unversioned = {INDEX: page.index, WORKER: page.files[WORKER]}
    versioned = {f"{page.version}/{path}": content for path, content in page.assets.items()}
    for earlier in folder.glob("v-" + "[0-9a-f]" * _HASH_DIGITS):
        shutil.rmtree(earlier)
    for path, content in {**versioned, **unversioned}.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


def main(arguments: list[str]) -> None:
    """Write the folder to upload; ends the process if that is not possible."""
    if len(arguments) != 2:
        sys.exit("Name the folder of the page and the one to write: python -m litelens_client.page web build/site")
    source, target = map(Path, arguments)
    try:
        write_site(read_page(source), target)
    except KeyError as error:
        sys.exit(f"There is no page to upload: {source / error.args[0]} is missing.")
    except OSError as error:
        sys.exit(f"{target} cannot be written ({error.strerror}); name another folder.")


def _page_file(name: str, content: bytes, cache_control: str) -> PageFile:
    return PageFile(content, PAGE_TYPES.get(Path(name).suffix, "application/octet-stream"), cache_control)


if __name__ == "__main__":
    main(sys.argv[1:])
