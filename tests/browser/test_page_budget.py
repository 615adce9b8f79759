"""The page's budget: bytes and requests over the network, counted as Lighthouse does."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import pytest
from page_actions import DEVICES, open_view
from playwright.sync_api import Browser, Page
from support import ROOT

from litelens_client.serve import PAGE_HEADERS

MOST_BYTES = 120_000
MOST_REQUESTS = 50

# Playwright says on the console that it blocks the service worker.
WORKER = "Service Worker registration blocked"

WEB = ROOT / "web"
FILES = {f"/{file.relative_to(WEB).as_posix()}" for file in WEB.rglob("*")}
SAMPLES = {path for path in FILES if path.startswith("/samples/")}


@dataclass(frozen=True)
class Exchange:
    """A request and its response."""

    url: str
    status: int
    headers: dict[str, str]
    bytes: int

    @property
    def path(self) -> str:
        return urlsplit(self.url).path


class Wire:
    """The requests of a page. Chromium reports a request, its response and its end in any order."""

    def __init__(self, page: Page) -> None:
        self._sent: dict[str, Any] = {}
        self._answered: dict[str, Any] = {}
        self._finished: dict[str, Any] = {}
        session = page.context.new_cdp_session(page)
        for name, events in (
            ("requestWillBeSent", self._sent),
            ("responseReceivedExtraInfo", self._answered),
            ("loadingFinished", self._finished),
        ):
            session.on(f"Network.{name}", partial(_keep, events))
        session.send("Network.enable")

    @property
    def exchanges(self) -> list[Exchange]:
        """Return all exchanges so far; raises KeyError if one has not ended, or has failed."""
        return [self._exchange(request_id) for request_id, event in self._sent.items() if not _is_for_the_tab(event)]

    def forget(self) -> None:
        self._sent.clear()

    def _exchange(self, request_id: str) -> Exchange:
        answered = self._answered[request_id]
        return Exchange(
            url=self._sent[request_id]["request"]["url"],
            status=answered["statusCode"],
            headers={name.lower(): value for name, value in answered["headers"].items()},
            bytes=int(self._finished[request_id]["encodedDataLength"]),
        )


def _keep(events: dict[str, Any], event: Any) -> None:
    events[event["requestId"]] = event


def _is_for_the_tab(event: Any) -> bool:
    """Return whether the browser requests the icon for its tab, at any time; the page itself requests it too."""
    return bool(event["type"] == "Other") and event["request"]["url"].endswith("/favicon.svg")


@dataclass(frozen=True)
class Visit:
    """The exchanges of the first load without a cache and of a reload, and the console's messages during both."""

    first: list[Exchange]
    again: list[Exchange]
    inline: int
    console_messages: list[str]


@pytest.fixture(scope="module", params=DEVICES)
def visit(request: pytest.FixtureRequest, chromium: Browser, port: int) -> Iterator[Visit]:
    with chromium.new_context(**DEVICES[request.param], service_workers="block") as context:
        page = context.new_page()
        console_messages: list[str] = []
        page.on(
            "console", lambda message: console_messages.append(message.text) if WORKER not in message.text else None
        )
        page.on("pageerror", lambda error: console_messages.append(str(error)))
        wire = Wire(page)
        page.goto(f"http://127.0.0.1:{port}/", wait_until="networkidle")
        first = wire.exchanges
        wire.forget()
        page.reload(wait_until="networkidle")
        again = wire.exchanges
        inline = page.locator("script:not([src]), style").count()
        for view in ("Model", "Settings", "Classify"):
            open_view(page, view)
        yield Visit(first, again, inline, console_messages)


def test_the_first_load_stays_within_its_budget(visit: Visit) -> None:
    # The model and the samples were loaded and counted too.
    assert {exchange.path for exchange in visit.first} >= {"/", "/main.js", "/style.css", "/v1/model", *SAMPLES}
    assert sum(exchange.bytes for exchange in visit.first if exchange.path not in SAMPLES) < MOST_BYTES
    assert len(visit.first) <= MOST_REQUESTS


def test_the_first_load_requests_each_file_once_and_successfully(visit: Visit) -> None:
    paths = [exchange.path for exchange in visit.first]
    assert sorted(paths) == sorted(set(paths))
    # The tab may have loaded the icon already.
    assert {exchange.path: exchange.status for exchange in visit.first if exchange.status not in (200, 304)} == {}


def test_scripts_styles_and_json_are_compressed(visit: Visit) -> None:
    larger = {path for path in FILES if path.endswith((".js", ".css")) and (WEB / path[1:]).stat().st_size >= 1024}
    ours = {exchange.path: exchange for exchange in visit.first if exchange.path in larger | {"/v1/model"}}
    assert len(ours) > 20
    assert {exchange.headers.get("content-encoding") for exchange in ours.values()} == {"gzip"}
    assert ours["/style.css"].bytes < (WEB / "style.css").stat().st_size / 2


def test_nothing_comes_from_another_host(visit: Visit, port: int) -> None:
    assert {urlsplit(exchange.url)[:2] for exchange in visit.first} == {("http", f"127.0.0.1:{port}")}


def test_every_file_of_the_page_has_the_security_headers(visit: Visit) -> None:
    ours = [exchange for exchange in visit.first if exchange.path in FILES | {"/"}]
    assert len(ours) > 30
    for exchange in ours:
        assert exchange.headers.items() >= PAGE_HEADERS.items(), exchange.path


def test_no_script_and_no_style_is_inline(visit: Visit) -> None:
    source = (WEB / "index.html").read_text()
    assert re.findall(r"<script(?![^>]*\ssrc=)[^>]*>|<style|\sstyle=|\son\w+=|javascript:", source) == []
    assert visit.inline == 0
    policy = dict(part.strip().partition(" ")[::2] for part in PAGE_HEADERS["content-security-policy"].split(";"))
    assert (policy["default-src"], policy["script-src"], policy["style-src"]) == ("'none'", "'self'", "'self'")


def test_a_reload_fetches_nothing_that_has_not_changed(visit: Visit) -> None:
    assert {exchange.path for exchange in visit.again} == {exchange.path for exchange in visit.first}
    assert {exchange.path: exchange.status for exchange in visit.again if exchange.status != 304} == {}


def test_the_console_stays_empty(visit: Visit) -> None:
    assert visit.console_messages == []
