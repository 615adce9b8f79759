"""The texts of the page, read from web/text.js."""

import re

from support import ROOT

_SOURCE = (ROOT / "web" / "text.js").read_text()


def page_text(key: str) -> str:
    """Return the text with this key; the key must be unique and its text without variables."""
    (text,) = re.findall(rf'^ +{key}:\s+"(.+)",$', _SOURCE, re.MULTILINE)
    return str(text)
