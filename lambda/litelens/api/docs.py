"""The API's documentation page: Swagger UI for /openapi.json, with the files that Powertools contains."""

import html
from pathlib import Path

import aws_lambda_powertools

from litelens.api.problems import UnknownPath

# The files are found without importing their package, because that would import pydantic.
_ASSETS = Path(aws_lambda_powertools.__file__).parent / "event_handler" / "openapi" / "swagger_ui"

_START = """
const root = location.pathname.replace(/\\/docs\\/?$/, "");
SwaggerUIBundle({
  url: root + "/openapi.json", dom_id: "#docs", deepLinking: true,
  presets: [SwaggerUIBundle.presets.apis, SwaggerUIBundle.SwaggerUIStandalonePreset],
});
"""
_TYPES = {
    "swagger-ui-bundle.min.js": "text/javascript; charset=utf-8",
    "swagger-ui.min.css": "text/css; charset=utf-8",
    "start.js": "text/javascript; charset=utf-8",
}

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>litelens API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="{root}/docs/swagger-ui.min.css">
</head>
<body>
<div id="docs"></div>
<script src="{root}/docs/swagger-ui-bundle.min.js"></script>
<script src="{root}/docs/start.js"></script>
</body>
</html>
"""


def page(root: str) -> str:
    """Return the HTML of the page, for an API with this root path."""
    return _PAGE.replace("{root}", html.escape(root))


def read_asset(name: str) -> tuple[str, str]:
    """Return a file of the page and its content type; raises UnknownPath."""
    if name not in _TYPES:
        raise UnknownPath("There is no such file.")
    text = _START if name == "start.js" else (_ASSETS / name).read_text("utf-8")
    return text, _TYPES[name]
