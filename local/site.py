"""The page in web/ as infra/site.yaml has CloudFront serve it: from its root, compressed, with the same headers."""

import hashlib
import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent / "web"

# CloudFront's compressible types, of those that there are here.
COMPRESSIBLE = ("text/", "image/svg+xml", "application/json")

# A page on this machine may be pointed at any API by its settings, and sends uploads to an AWS on another port.
HEADERS: Mapping[str, str] = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        "connect-src 'self' https: http://127.0.0.1:* http://localhost:*; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types lit-html"
    ),
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}

_TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
}


@dataclass(frozen=True)
class SiteFile:
    """A file of the page, and the tag that its content has."""

    content_type: str
    body: bytes

    @property
    def tag(self) -> str:
        return f'"{hashlib.sha256(self.body).hexdigest()[:32]}"'


def read_site_file(path: str, root: Path = ROOT) -> SiteFile | None:
    """What is at this path of the site, read anew so that changes show at once; None if nothing is there."""
    file = {_path_of(file, root): file for file in root.rglob("*") if file.is_file()}.get(path)
    if file is None:
        return None
    guessed, _ = mimetypes.guess_type(file.name)
    return SiteFile(_TYPES.get(file.suffix, guessed or "application/octet-stream"), file.read_bytes())


def _path_of(file: Path, root: Path) -> str:
    relative = file.relative_to(root).as_posix()
    return "/" if relative == "index.html" else f"/{relative}"
