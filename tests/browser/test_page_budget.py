"""The page's budget: bytes and requests over the network, counted as Lighthouse does."""

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import pytest
from page_actions import DEVICES, open_view
from playwright.sync_api import Browser, Page
from support import ROOT

from litelens_client.page import IMMUTABLE, PAGE_HEADERS, REVALIDATED

MOST_BYTES = 120_000
MOST_REQUESTS = 50

# Playwright says on the console that it blocks the service worker.
WORKER = "Service Worker registration blocked"

WEB = ROOT / "web"
FILES = {f"/{file.relative_to(WEB).as_posix()}" for file in WEB.rglob("*")}
VERSION = re.compile(r"/v-[0-9a-f]{12}(?=/)")
SAMPLES = {path for path in FILES if path.startswith("/samples/")}
# What the page requests last, in any order.
LAST_PATHS = {"/worker.js", "/v1/model", "/v1/models", "/v1/draft", *SAMPLES}


@dataclass(frozen=True)
class Exchange:
    """A request and its response."""

    url: str
    status: int
    headers: dict[str, str]
    bytes: int

    @property
    def path(self) -> str:
        """The path without the folder of the version."""
        return _path(self.url)

    @property
    def is_versioned(self) -> bool:
        return VERSION.match(urlsplit(self.url).path) is not None


class Wire:
    """The requests of a page over the network. Chromium reports a request, its response and its end in any order."""

    def __init__(self, page: Page) -> None:
        self._sent: dict[str, Any] = {}
        self._kept: dict[str, Any] = {}
        self._received: dict[str, Any] = {}
        self._answered: dict[str, Any] = {}
        self._finished: dict[str, Any] = {}
        self._page = page
        session = page.context.new_cdp_session(page)
        for name, events in (
            ("requestWillBeSent", self._sent),
            ("requestServedFromCache", self._kept),
            ("responseReceived", self._received),
            ("responseReceivedExtraInfo", self._answered),
            ("loadingFinished", self._finished),
        ):
            session.on(f"Network.{name}", partial(_keep, events))
        session.send("Network.enable")

    @property
    def exchanges(self) -> list[Exchange]:
        """Return all exchanges so far; raises KeyError if one has not ended, or has failed."""
        return [
            self._exchange(request_id)
            for request_id, event in self._sent.items()
            if not _is_for_the_tab(event) and not self._is_from_cache(request_id)
        ]

    def wait(self) -> list[Exchange]:
        """Wait until the page is loaded, and return all exchanges."""
        for _ in range(600):
            with suppress(KeyError):
                exchanges = self.exchanges
                if {_path(event["request"]["url"]) for event in self._sent.values()} >= LAST_PATHS:
                    return exchanges
            self._page.wait_for_timeout(100)
        raise AssertionError("the page is not loaded")

    def forget(self) -> None:
        self._sent.clear()

    def _is_from_cache(self, request_id: str) -> bool:
        # Only responses from the network have extra information.
        return request_id in self._kept or not self._received[request_id]["hasExtraInfo"]

    def _exchange(self, request_id: str) -> Exchange:
        answered = self._answered[request_id]
        return Exchange(
            url=self._sent[request_id]["request"]["url"],
            status=answered["statusCode"],
            headers={name.lower(): value for name, value in answered["headers"].items()},
            bytes=int(self._finished[request_id]["encodedDataLength"]),
        )


def _path(url: str) -> str:
    return VERSION.sub("", urlsplit(url).path, count=1)


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
        page.goto(f"http://127.0.0.1:{port}/")
        first = wire.wait()
        wire.forget()
        page.reload()
        again = wire.wait()
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


def test_browsers_keep_the_files_of_a_version_and_revalidate_the_others(visit: Visit) -> None:
    kept = {exchange.path: exchange.headers["cache-control"] for exchange in visit.first if exchange.is_versioned}
    assert set(kept.values()) == {IMMUTABLE}
    assert kept.keys() >= {"/main.js", "/style.css", "/views/page.js", *SAMPLES}
    others = {exchange.path: exchange.headers["cache-control"] for exchange in visit.first if not exchange.is_versioned}
    assert others.keys() & (FILES | {"/"}) == {"/", "/worker.js"}
    assert others["/"] == others["/worker.js"] == REVALIDATED


def test_a_reload_requests_only_what_may_have_changed_and_gets_nothing_that_has_not(visit: Visit) -> None:
    again = {exchange.path: exchange.status for exchange in visit.again}
    assert again.keys() == {exchange.path for exchange in visit.first if not exchange.is_versioned}
    assert set(again.values()) == {304}


def test_the_console_stays_empty(visit: Visit) -> None:
    assert visit.console_messages == []
