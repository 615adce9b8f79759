"""All text of the page is in web/text.js, and its vendored files are unchanged."""

import hashlib
import html
import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support import ROOT, reported_errors
from template import gateway_codes

WEB = ROOT / "web"
TEXT = (WEB / "text.js").read_text()
VIEWS = [WEB / "main.js", *sorted((WEB / "views").glob("*.js"))]

TOKEN = re.compile(r"//[^\n]*|/\*.*?\*/|\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|[`{}]", re.DOTALL)
TEMPLATE_TOKEN = re.compile(r"\\.|\$\{|`", re.DOTALL)
EXPRESSION = "\N{BULLET}"
READ_BY_SCREEN_READERS = re.compile(
    r"\b(?:aria-label|aria-description|aria-roledescription|title|placeholder|alt|label|value)="
    r"(?:\"([^\"]*)\"|'([^']*)'|([^\s>\"']+))"
)

# These strings are not prose.
MEDIA_QUERIES = {"(min-width: 700px)", "(pointer: coarse)"}
JAVASCRIPT_NAMES = {"Files", "Enter"}

# For these codes the page shows the API's own detail. The page never causes them, or its user cannot do anything.
CODES_WITHOUT_SENTENCE = {
    "invalid_json",
    "invalid_multipart",
    "invalid_request",
    "invalid_base64",
    "invalid_option",
    "unsupported_media_type",
    "not_found",
    "method_not_allowed",
    "bucket_not_allowed",
    "object_access_denied",
    "object_not_found",
    "object_version_not_found",
    "result_not_found",
}

LIT_VERSION = "3.3.3"
LIT_FILES = {
    "LICENSE": "2b66f9390afde29edfe4314daff93f01fb182e1178053e228120178987e5db75",
    "directive-helpers.d.ts": "3ffdb1d9f183d75aa5b1fd3881f72cb5d50afd5852db13f8a1e5382cc0044f80",
    "directive-helpers.js": "f7fb1154b8f72ed2cc08b05eaeed71c99270e9ad2d48620ed24688a1af4c2b62",
    "directive.d.ts": "38e68fc600b21dcc36b2bf955848cbae2051f56742034bf68f1f47b1a37c10a3",
    "directive.js": "3344c4f41c69cd0701d3937e8f9ef90bd845614bf6456d0b8314b7c51d415b9d",
    "directives/live.d.ts": "f7f89f314c709c864bd5b96b660f03be271538664733c138cea6aa3cd2b69c82",
    "directives/live.js": "b305f9066319d838db797abd5a4d871537277e25f35332702bfce4452c020ecf",
    "directives/repeat.d.ts": "25f99f07f8fe189bedab93389438ac90b66fb6eae33a76634ed7a11d49715c44",
    "directives/repeat.js": "083140026ecd8665fedd15b17769f9d516252a9f1502f1e91e6967686ee82626",
    "lit-html.d.ts": "79d831bb717b5e64e92fcb612e1bda4b605d55d4137ca58f60720ad220f32033",
    "lit-html.js": "b878e7f95dec8a9b6e9b217faca6b6a11bad82ebc44c0caa77419ed83edd81f2",
}


@dataclass
class Script:
    """The parts of a script that can reach the screen. The script must not have regular expressions with quotes or
    brackets."""

    templates: list[str] = field(default_factory=list)
    strings: list[str] = field(default_factory=list)


def read_script(source: str) -> Script:
    script = Script()
    assert read_code(source, 0, script) == len(source)
    return script


def read_code(source: str, at: int, script: Script) -> int:
    """Read code up to the bracket that closes the one before `at`, or to the end; returns the position after it."""
    while token := TOKEN.search(source, at):
        at = token.end()
        match token[0][0]:
            case "}":
                return at
            case "{":
                at = read_code(source, at, script)
            case '"' | "'":
                script.strings.append(token[0][1:-1])
            case "`":
                text, at = read_template(source, at, script)
                is_markup = source[: token.start()].endswith(("html", "svg"))
                (script.templates if is_markup else script.strings).append(text)
    return len(source)


def read_template(source: str, at: int, script: Script) -> tuple[str, int]:
    """Return a template's own text and the position after it; reads the templates in its expressions too."""
    text = ""
    while token := TEMPLATE_TOKEN.search(source, at):
        text, at = text + source[at : token.start()], token.end()
        if token[0] == "`":
            return text, at
        if token[0] == "${":
            text, at = text + EXPRESSION, read_code(source, at, script)
    raise AssertionError("unterminated template")


def prose_in_markup(source: str) -> list[str]:
    """Return the text in templates that contains letters, except the page's name."""
    texts: list[str] = []
    for template in read_script(source).templates:
        texts += ["".join(value) for value in READ_BY_SCREEN_READERS.findall(template)]
        texts += re.sub(r"<[^>]*>", "\n", template).split("\n")
    return [text.strip() for text in texts if has_letters(html.unescape(text).replace("litelens", ""))]


def prose_in_code(source: str) -> list[str]:
    """Return the strings that look like prose: several words, or a capital letter."""
    strings = set(read_script(source).strings) - MEDIA_QUERIES - JAVASCRIPT_NAMES
    return [text for text in strings if re.search(r"[a-z]{2,}[,.:;]? +[A-Za-z]{2,}|^[A-Z][a-z]|[a-z][!?…]", text)]


def has_letters(text: str) -> bool:
    return any(letter.isalpha() for letter in text)


def codes_with_sentence() -> set[str]:
    """Return the codes for which text.js has a sentence."""
    (block,) = re.findall(r"^const problems = \{$(.+?)^\};$", TEXT, re.MULTILINE | re.DOTALL)
    codes = re.findall(r'^  (\w+):\s+"[A-Z].+\.",$', block, re.MULTILINE)
    assert len(codes) == len(re.findall(r"^  \w+:", block, re.MULTILINE))
    return set(codes)


def codes_of_the_api() -> set[str]:
    return {error.code for error in reported_errors()} | set(gateway_codes())


def codes_of_the_page() -> set[str]:
    """Return the codes of problems that the page itself detects."""
    lines = [line for file in WEB.glob("*.js") for line in file.read_text().splitlines() if "failure(" in line]
    return {code for line in lines for code in re.findall(r'"([a-z_]+)"', line)}


@pytest.mark.parametrize("file", VIEWS, ids=lambda file: file.name)
def test_no_view_contains_text(file: Path) -> None:
    assert prose_in_markup(file.read_text()) == []
    assert prose_in_code(file.read_text()) == []


@pytest.mark.parametrize(
    ("source", "prose"),
    [
        ("html`<p>Hello</p>`", "Hello"),
        ("html`<p>${text.count}: photos</p>`", f"{EXPRESSION}: photos"),
        ("html`<p>&Auml;</p>`", "&Auml;"),
        ("html`<b>1</b> of`", "of"),
        ("svg`<title>A chart</title>`", "A chart"),
        ('html`<img alt="A cat" />`', "A cat"),
        ("html`<input placeholder='Your name' />`", "Your name"),
        ("html`<nav aria-label=Views></nav>`", "Views"),
        ('html`<button @click=${() => { go(`a`); }} title="Go"></button>`', "Go"),
        ("html`<ul>${all.map((one) => html`<li>Item ${one}</li>`)}</ul>`", f"Item {EXPRESSION}"),
        ('html`<p>${isSure ? "" : html`<i class="small">not sure</i>`}</p>`', "not sure"),
    ],
)
def test_text_in_markup_is_found(source: str, prose: str) -> None:
    assert prose_in_markup(f"import x;\n// it's `\nfunction view() {{\n  return {source};\n}}\n") == [prose]


@pytest.mark.parametrize(
    "string", ['"Try again"', "'no photo yet'", "`${count} photos left`", '"Loading"', '"done!"', '"photos, all"']
)
def test_text_in_code_is_found(string: str) -> None:
    assert len(prose_in_code(f'const name = "a-name"; const classes = "bad"; show({string});')) == 1


def test_names_and_numbers_are_not_taken_for_text() -> None:
    source = """
        /* `Not` "this" {, */
        html`<p class="small row" title=${text.hello}>${text.hello} · 1 % ${number}<br /></p>`; // nor "Other Words"
        html`<span translate="no">litelens</span><img src="favicon.svg" alt="" />`;
    """
    assert prose_in_markup(source) == []
    assert prose_in_code(source) == []


def test_every_code_of_the_api_has_a_sentence_or_is_listed_as_an_exception() -> None:
    assert codes_of_the_api() - codes_with_sentence() == CODES_WITHOUT_SENTENCE


def test_every_code_of_the_page_has_a_sentence() -> None:
    # A user who cancels something needs no message.
    assert codes_of_the_page() - codes_with_sentence() == {"cancelled"}


def test_every_sentence_is_for_an_existing_code() -> None:
    assert codes_with_sentence() <= codes_of_the_api() | codes_of_the_page()


def test_lit_html_is_unchanged() -> None:
    folder = WEB / "vendor" / "lit-html"
    files = {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.rglob("*")
        if file.is_file()
    }
    assert files == LIT_FILES
    assert f'litHtmlVersions??=[]).push("{LIT_VERSION}")' in (folder / "lit-html.js").read_text()
