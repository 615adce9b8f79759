"""The endpoint and the key: entered, refused, used, and forgotten with the tab."""

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from page_actions import SAMPLES, card, choose_photos, connect, labels, open_view, wait_for_results, with_key
from playwright.sync_api import Browser, BrowserContext, Locator, Page, Request, Route, expect
from servers import API_KEY, Deployment, run_server
from support import CAT, DEFAULT_BUNDLE, ROCKET, free_port

FORBIDDEN = "The API key is missing or wrong. Put a valid one into Settings, then try again."
UNREACHABLE = "The service cannot be reached. Check the connection and the endpoint in Settings, then try again."
NOT_LITELENS = "The endpoint is not a litelens API. Check it in Settings."
BLOCKED = "This page may not call that endpoint. Change it in Settings, or ask the page's operator to allow it."
KEY_WRONG = "A key has only letters, digits and punctuation, without spaces."
ENDPOINT_WRONG = "This is not the address of an API. It must begin with https:// and have no question mark."


@pytest.fixture
def locked(context: BrowserContext, deployment: Deployment) -> Page:
    """The page of a deployment that asks for a key, before one is entered."""
    page = context.new_page()
    page.goto(deployment.url)
    return page


@pytest.fixture(scope="module")
def elsewhere(port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The endpoint of another deployment, with another model, which lets pages of the first one in."""
    bundle = Path(shutil.copytree(DEFAULT_BUNDLE, tmp_path_factory.mktemp("elsewhere") / "bundle"))
    manifest = json.loads((bundle / "manifest.json").read_text())
    (bundle / "manifest.json").write_text(json.dumps(manifest | {"version": "9.9.9"}))
    variables = {"LITELENS_CORS_ORIGIN": f"http://127.0.0.1:{port}", "LITELENS_BUNDLE": str(bundle), "API_KEY": API_KEY}
    with run_server(**variables) as another:
        yield f"http://127.0.0.1:{another}"


@contextmanager
def site_with(body: str, status: int = 200) -> Iterator[str]:
    """The address of a site that is no litelens, and answers this to everyone."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Access-Control-Allow-Origin", "*")
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def connection(page: Page) -> Locator:
    """Return the message about the connection in Settings."""
    return page.get_by_role("main").get_by_role("status")


def requests_of(page: Page) -> list[Request]:
    """All requests of the page, as they are sent from now on."""
    requests: list[Request] = []
    page.on("request", lambda request: requests.append(request))
    return requests


def to_the_api(requests: list[Request]) -> list[str]:
    return [request.url for request in requests if "/v1/" in request.url]


def test_without_a_key_the_page_says_so_and_leads_to_settings(locked: Page) -> None:
    expect(locked.get_by_role("alert")).to_contain_text(FORBIDDEN)
    locked.get_by_role("alert").get_by_role("link", name="Open Settings").click()
    expect(locked.get_by_role("heading", name="Settings")).to_be_focused()
    expect(locked.get_by_role("alert")).to_have_text(FORBIDDEN)
    expect(locked.get_by_label("API key")).to_be_visible()


def test_a_wrong_key_is_told_and_the_right_one_connects(locked: Page) -> None:
    connect(locked, key="wrong")
    expect(locked.get_by_role("alert")).to_have_text(FORBIDDEN)
    connect(locked, key=f" {API_KEY} ")
    expect(connection(locked)).to_have_text("Connected: everyday 1.0.0.")
    open_view(locked, "Model")
    expect(locked.get_by_role("main")).to_contain_text("everyday 1.0.0")
    expect(locked.get_by_role("alert")).to_have_count(0)


def test_a_key_is_kept_in_its_tab_until_that_is_closed(locked: Page, context: BrowserContext) -> None:
    requests = requests_of(locked)
    connect(locked, key=API_KEY)
    expect(connection(locked)).to_contain_text("Connected")
    locked.reload()
    expect(connection(locked)).to_contain_text("Connected")
    assert API_KEY not in locked.evaluate("JSON.stringify(localStorage) + document.cookie + location.href")
    assert API_KEY not in str(context.cookies())
    assert not any(API_KEY in request.url for request in requests)
    another = context.new_page()
    another.goto(locked.url)
    expect(another.get_by_role("alert")).to_have_text(FORBIDDEN)
    expect(another.get_by_label("API key")).to_have_value("")


def test_a_key_is_sent_to_the_service_and_with_nothing_else(context: BrowserContext, deployment: Deployment) -> None:
    page = context.new_page()
    with_key(page, API_KEY)
    requests = requests_of(page)
    page.goto(deployment.url)
    page.get_by_role("button", name="Try the sample: a cat").click()
    wait_for_results(page, "cat.jpg")
    labels(card(page, "cat.jpg")).first.click()
    expect(page.get_by_text("Heat map: Egyptian cat", exact=True)).to_be_visible()
    carrying = {request.url for request in requests if request.headers.get("x-api-key") == API_KEY}
    assert {url.removeprefix(deployment.url).partition("?")[0] for url in carrying} == {"/v1/model", "/v1/classify"}
    assert carrying == set(to_the_api(requests))
    assert len(requests) > len(to_the_api(requests))


def test_photos_that_failed_without_a_key_can_be_tried_again_with_it(locked: Page) -> None:
    choose_photos(locked, ROCKET, SAMPLES / "coffee.jpg")
    expect(card(locked, "rocket.jpg")).to_contain_text(FORBIDDEN)
    expect(card(locked, "coffee.jpg")).to_contain_text(FORBIDDEN)
    card(locked, "rocket.jpg").get_by_role("link", name="Open Settings").click()
    connect(locked, key=API_KEY)
    expect(connection(locked)).to_contain_text("Connected")
    open_view(locked, "Classify")
    locked.get_by_role("button", name="Retry 2 failed").click()
    wait_for_results(locked, "rocket.jpg", "coffee.jpg")


def test_a_key_that_cannot_be_one_is_refused_in_its_field(page: Page) -> None:
    for key in ("two words", "schlüssel", "key\u200b"):
        connect(page, key=key)
        expect(page.get_by_label("API key")).to_be_focused()
        assert validation_message(page.get_by_label("API key")) == KEY_WRONG
    assert page.evaluate("sessionStorage.length") == 0
    page.get_by_label("API key").fill("a-key")
    assert validation_message(page.get_by_label("API key")) == ""
    page.get_by_role("button", name="Save and connect").click()
    expect(connection(page)).to_contain_text("Connected")


def test_an_endpoint_that_is_none_is_refused_in_its_field(page: Page) -> None:
    for endpoint in (
        "api.example.com",
        "ftp://api.example.com",
        "https:api.example.com",
        "https://api.example.com/live?stage=1",
        "https://api.example.com/live?",
        "https://me@api.example.com",
    ):
        connect(page, endpoint=endpoint)
        expect(page.get_by_label("Endpoint")).to_be_focused()
        assert validation_message(page.get_by_label("Endpoint")) == ENDPOINT_WRONG
    assert page.evaluate("sessionStorage.length") == 0


def validation_message(field: Locator) -> str:
    """Return the browser's validation message of a field."""
    return str(field.evaluate("field => field.validationMessage"))


def test_another_endpoint_is_used_for_everything(page: Page, elsewhere: str, port: int) -> None:
    connect(page, endpoint=f"{elsewhere}/", key=API_KEY)
    requests = requests_of(page)
    expect(connection(page)).to_have_text("Connected: everyday 9.9.9.")
    open_view(page, "Classify")
    choose_photos(page, CAT)
    wait_for_results(page, "cat.jpg")
    labels(card(page, "cat.jpg")).first.click()
    expect(page.get_by_text("Heat map: Egyptian cat", exact=True)).to_be_visible()
    open_view(page, "Model")
    expect(page.get_by_role("main")).to_contain_text("everyday 9.9.9")
    with page.expect_download() as report:
        page.get_by_role("button", name="The full report").click()
    assert report.value.suggested_filename == "report.html"
    asked = to_the_api(requests)
    assert all(url.startswith(f"{elsewhere}/v1/") for url in asked)
    assert [sum(path in url for url in asked) for path in ("/classify?", "/report")] == [2, 1]
    requests.clear()
    connect(page, endpoint="")
    expect(connection(page)).to_have_text("Connected: everyday 1.0.0.")
    # What one model said is not shown beside another's answers.
    open_view(page, "Classify")
    wait_for_results(page, "cat.jpg")
    assert to_the_api(requests) == [f"http://127.0.0.1:{port}/v1/{path}" for path in ("model", "classify?")]


def test_a_key_is_not_told_to_another_service_by_a_slip(page: Page, elsewhere: str) -> None:
    connect(page, key=API_KEY)
    expect(connection(page)).to_contain_text("Connected")
    requests = requests_of(page)
    page.get_by_label("Endpoint").fill(elsewhere)
    page.get_by_role("button", name="Save and connect").click()
    expect(page.get_by_role("alert")).to_have_text(FORBIDDEN)
    expect(page.get_by_label("API key")).to_have_value("")
    assert to_the_api(requests) == [f"{elsewhere}/v1/model"]
    assert not any("x-api-key" in request.headers for request in requests)


def test_a_late_answer_of_a_former_endpoint_is_not_taken_for_the_present_ones(page: Page, elsewhere: str) -> None:
    held: list[Route] = []
    page.route("**/v1/model", lambda route: held.append(route), times=1)
    connect(page)
    expect(connection(page)).to_have_text("Connecting …")
    connect(page, endpoint=elsewhere, key=API_KEY)
    expect(connection(page)).to_have_text("Connected: everyday 9.9.9.")
    with page.expect_response("**/v1/model"):
        held.pop().continue_()
    open_view(page, "Model")
    expect(page.get_by_role("main")).to_contain_text("everyday 9.9.9")


def test_an_endpoint_that_lets_this_page_not_in_is_told(page: Page, deployment: Deployment) -> None:
    connect(page, endpoint=deployment.url, key=API_KEY)
    expect(page.get_by_role("alert")).to_have_text(UNREACHABLE)


def test_an_endpoint_where_nothing_is_is_told_and_another_one_may_be_entered(page: Page) -> None:
    connect(page, endpoint=f"http://127.0.0.1:{free_port()}")
    expect(page.get_by_role("alert")).to_have_text(UNREACHABLE)
    open_view(page, "Classify")
    expect(page.get_by_role("alert")).to_contain_text(UNREACHABLE)
    connect(page)
    expect(connection(page)).to_contain_text("Connected")


def test_what_was_uncertain_stays_so_while_nothing_is_connected(page: Page) -> None:
    choose_photos(page, ROCKET)
    expect(card(page, "rocket.jpg")).to_contain_text("Uncertain: below 50.0%")
    page.route("**/v1/model", lambda route: route.abort("connectionreset"), times=1)
    connect(page)
    expect(page.get_by_role("alert")).to_have_text(UNREACHABLE)
    open_view(page, "Classify")
    expect(card(page, "rocket.jpg")).to_contain_text("Uncertain: below 50.0%")


def test_an_endpoint_that_is_not_litelens_is_told(page: Page) -> None:
    for body, status in (("<h1>Hello</h1>", 200), ('{"hello": "world"}', 200), ("null", 200), ("<h1>Gone</h1>", 404)):
        with site_with(body, status) as url:
            connect(page, endpoint=url)
            expect(page.get_by_role("alert")).to_have_text(NOT_LITELENS)
        connect(page)
        expect(connection(page)).to_contain_text("Connected")


def test_an_endpoint_that_the_pages_own_policy_forbids_is_told(chromium: Browser, port: int) -> None:
    # Without the fixture `context`, which takes what a policy keeps from a page for a mistake.
    with chromium.new_context() as context:
        page = context.new_page()
        page.route(f"http://127.0.0.1:{port}/", with_strict_policy)
        page.goto(f"http://127.0.0.1:{port}/")
        connect(page, endpoint="https://api.example.com")
        expect(page.get_by_role("alert")).to_have_text(BLOCKED)
        open_view(page, "Classify")
        choose_photos(page, ROCKET)
        expect(card(page, "rocket.jpg")).to_contain_text(BLOCKED)


def with_strict_policy(route: Route) -> None:
    """The page as CloudFront serves it where no other endpoint is allowed."""
    response = route.fetch()
    policy = response.headers["content-security-policy"]
    allowed = next(part for part in policy.split("; ") if part.startswith("connect-src"))
    headers = response.headers | {"content-security-policy": policy.replace(allowed, "connect-src 'self'")}
    route.fulfill(response=response, headers=headers)
