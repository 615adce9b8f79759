"""The view Settings: the endpoint and the key."""

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from page_actions import SAMPLES, card, choose_photos, connect, labels, open_view, wait_for_results, with_key
from page_text import page_text
from playwright.sync_api import Browser, BrowserContext, Locator, Page, Request, Route, expect
from servers import API_KEY, Deployment, run_server
from support import CAT, DEFAULT_BUNDLE, ROCKET, free_port

from litelens.core.bundle import load_bundle

FORBIDDEN = page_text("forbidden")
UNREACHABLE = page_text("unreachable")
NOT_LITELENS = page_text("not_litelens")
BLOCKED = page_text("endpoint_blocked")
KEY_WRONG = page_text("keyWrong")
MODEL = f"everyday {load_bundle(DEFAULT_BUNDLE).version}"
ENDPOINT_WRONG = page_text("endpointWrong")

# The tab Teach asks servers on this machine whether they have it.
DRAFT = "/v1/draft"


@pytest.fixture
def page_without_key(context: BrowserContext, deployment: Deployment) -> Page:
    """The page of a deployment that requires a key, before one is entered."""
    page = context.new_page()
    page.goto(deployment.url)
    return page


@pytest.fixture(scope="module")
def other_deployment(port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The endpoint of another deployment, with another model, which allows the page of the first one."""
    bundle = Path(shutil.copytree(DEFAULT_BUNDLE, tmp_path_factory.mktemp("elsewhere") / "bundle"))
    manifest = json.loads((bundle / "manifest.json").read_text())
    (bundle / "manifest.json").write_text(json.dumps(manifest | {"version": "9.9.9"}))
    variables = {"LITELENS_CORS_ORIGIN": f"http://127.0.0.1:{port}", "LITELENS_BUNDLE": str(bundle), "API_KEY": API_KEY}
    with run_server(**variables) as another:
        yield f"http://127.0.0.1:{another}"


@contextmanager
def serve_html(body: str, status: int = 200) -> Iterator[str]:
    """Serve this body at all paths until the block ends; yields the address."""

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


def connection_status(page: Page) -> Locator:
    """Return the message about the connection in Settings."""
    return page.get_by_role("main").get_by_role("status")


def requests_of(page: Page) -> list[Request]:
    """Return the list of all requests that the page sends from now on."""
    requests: list[Request] = []
    page.on("request", lambda request: requests.append(request))
    return requests


def api_requests(requests: list[Request]) -> list[str]:
    return [request.url for request in requests if "/v1/" in request.url]


def test_a_missing_key_is_reported_with_a_link_to_settings(page_without_key: Page) -> None:
    expect(page_without_key.get_by_role("alert")).to_contain_text(FORBIDDEN)
    page_without_key.get_by_role("alert").get_by_role("link", name="Open Settings").click()
    expect(page_without_key.get_by_role("heading", name="Settings")).to_be_focused()
    expect(page_without_key.get_by_role("alert")).to_have_text(FORBIDDEN)
    expect(page_without_key.get_by_label("API key")).to_be_visible()


def test_a_wrong_key_is_reported_and_the_right_one_connects(page_without_key: Page) -> None:
    connect(page_without_key, key="wrong")
    expect(page_without_key.get_by_role("alert")).to_have_text(FORBIDDEN)
    connect(page_without_key, key=f" {API_KEY} ")
    expect(connection_status(page_without_key)).to_have_text(f"Connected: {MODEL}.")
    open_view(page_without_key, "Model")
    expect(page_without_key.get_by_role("main")).to_contain_text(MODEL)
    expect(page_without_key.get_by_role("alert")).to_have_count(0)


def test_a_key_is_kept_only_in_its_tab(page_without_key: Page, context: BrowserContext) -> None:
    requests = requests_of(page_without_key)
    connect(page_without_key, key=API_KEY)
    expect(connection_status(page_without_key)).to_contain_text("Connected")
    page_without_key.reload()
    expect(connection_status(page_without_key)).to_contain_text("Connected")
    assert API_KEY not in page_without_key.evaluate("JSON.stringify(localStorage) + document.cookie + location.href")
    assert API_KEY not in str(context.cookies())
    assert not any(API_KEY in request.url for request in requests)
    another = context.new_page()
    another.goto(page_without_key.url)
    expect(another.get_by_role("alert")).to_have_text(FORBIDDEN)
    expect(another.get_by_label("API key")).to_have_value("")


def test_a_key_is_sent_only_with_requests_to_the_api(context: BrowserContext, deployment: Deployment) -> None:
    page = context.new_page()
    with_key(page, API_KEY)
    requests = requests_of(page)
    page.goto(deployment.url)
    page.get_by_role("button", name="Try the sample: a cat").click()
    wait_for_results(page, "cat.jpg")
    labels(card(page, "cat.jpg")).first.click()
    expect(page.get_by_text("Heat map: Egyptian cat", exact=True)).to_be_visible()
    carrying = {request.url for request in requests if request.headers.get("x-api-key") == API_KEY}
    paths = {url.removeprefix(deployment.url).partition("?")[0] for url in carrying}
    assert paths - {DRAFT} == {"/v1/model", "/v1/models", "/v1/classify"}
    assert carrying == set(api_requests(requests))
    assert len(requests) > len(api_requests(requests))


def test_photos_that_failed_without_a_key_go_on_by_themselves_with_it(page_without_key: Page) -> None:
    choose_photos(page_without_key, ROCKET, SAMPLES / "coffee.jpg")
    expect(card(page_without_key, "rocket.jpg")).to_contain_text(FORBIDDEN)
    expect(card(page_without_key, "coffee.jpg")).to_contain_text(FORBIDDEN)
    card(page_without_key, "rocket.jpg").get_by_role("link", name="Open Settings").click()
    connect(page_without_key, key=API_KEY)
    expect(connection_status(page_without_key)).to_contain_text("Connected")
    open_view(page_without_key, "Classify")
    wait_for_results(page_without_key, "rocket.jpg", "coffee.jpg")


def test_an_invalid_key_is_refused_in_its_field(page: Page) -> None:
    for key in ("two words", "schlüssel", "key\u200b"):
        connect(page, key=key)
        expect(page.get_by_label("API key")).to_be_focused()
        assert validation_message(page.get_by_label("API key")) == KEY_WRONG
    assert page.evaluate("sessionStorage.length") == 0
    page.get_by_label("API key").fill("a-key")
    assert validation_message(page.get_by_label("API key")) == ""
    page.get_by_role("button", name="Save and connect").click()
    expect(connection_status(page)).to_contain_text("Connected")


def test_an_invalid_endpoint_is_refused_in_its_field(page: Page) -> None:
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


def test_all_requests_go_to_the_endpoint_in_the_settings(page: Page, other_deployment: str, port: int) -> None:
    connect(page, endpoint=f"{other_deployment}/", key=API_KEY)
    requests = requests_of(page)
    expect(connection_status(page)).to_have_text("Connected: everyday 9.9.9.")
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
    urls = api_requests(requests)
    assert all(url.startswith(f"{other_deployment}/v1/") for url in urls)
    assert [sum(path in url for url in urls) for path in ("/classify?", "/report")] == [2, 1]
    requests.clear()
    connect(page, endpoint="")
    expect(connection_status(page)).to_have_text(f"Connected: {MODEL}.")
    # Results of one model are not shown together with those of another.
    open_view(page, "Classify")
    wait_for_results(page, "cat.jpg")
    paths = ("model", "models", "classify?")
    urls = [url for url in api_requests(requests) if not url.endswith(DRAFT)]
    assert set(urls) == {f"http://127.0.0.1:{port}/v1/{path}" for path in paths}


def test_a_key_is_not_sent_to_a_new_endpoint(page: Page, other_deployment: str) -> None:
    connect(page, key=API_KEY)
    expect(connection_status(page)).to_contain_text("Connected")
    requests = requests_of(page)
    page.get_by_label("Endpoint").fill(other_deployment)
    page.get_by_role("button", name="Save and connect").click()
    expect(page.get_by_role("alert")).to_have_text(FORBIDDEN)
    expect(page.get_by_label("API key")).to_have_value("")
    assert api_requests(requests) == [f"{other_deployment}/v1/model"]
    assert not any("x-api-key" in request.headers for request in requests)


def test_a_late_answer_of_the_previous_endpoint_is_ignored(page: Page, other_deployment: str) -> None:
    held: list[Route] = []
    page.route("**/v1/model", lambda route: held.append(route), times=1)
    connect(page)
    expect(connection_status(page)).to_have_text("Connecting …")
    connect(page, endpoint=other_deployment, key=API_KEY)
    expect(connection_status(page)).to_have_text("Connected: everyday 9.9.9.")
    with page.expect_response("**/v1/model"):
        held.pop().continue_()
    open_view(page, "Model")
    expect(page.get_by_role("main")).to_contain_text("everyday 9.9.9")


def test_an_endpoint_that_does_not_allow_this_page_is_reported(page: Page, deployment: Deployment) -> None:
    connect(page, endpoint=deployment.url, key=API_KEY)
    expect(page.get_by_role("alert")).to_have_text(UNREACHABLE)


def test_an_unreachable_endpoint_is_reported_and_another_one_can_be_entered(page: Page) -> None:
    connect(page, endpoint=f"http://127.0.0.1:{free_port()}")
    expect(page.get_by_role("alert")).to_have_text(UNREACHABLE)
    open_view(page, "Classify")
    expect(page.get_by_role("alert")).to_contain_text(UNREACHABLE)
    connect(page)
    expect(connection_status(page)).to_contain_text("Connected")


def test_uncertain_results_stay_uncertain_without_a_connection(page: Page) -> None:
    choose_photos(page, ROCKET)
    expect(card(page, "rocket.jpg").get_by_text(page_text("unsure"), exact=True)).to_be_visible()
    page.route("**/v1/model", lambda route: route.abort("connectionreset"))
    connect(page)
    expect(page.get_by_role("alert")).to_have_text(UNREACHABLE)
    open_view(page, "Classify")
    expect(card(page, "rocket.jpg").get_by_text(page_text("unsure"), exact=True)).to_be_visible()


def test_an_endpoint_that_is_not_litelens_is_reported(page: Page) -> None:
    for body, status in (("<h1>Hello</h1>", 200), ('{"hello": "world"}', 200), ("null", 200), ("<h1>Gone</h1>", 404)):
        with serve_html(body, status) as url:
            connect(page, endpoint=url)
            expect(page.get_by_role("alert")).to_have_text(NOT_LITELENS)
        connect(page)
        expect(connection_status(page)).to_contain_text("Connected")


def test_an_endpoint_that_the_pages_policy_forbids_is_reported(chromium: Browser, port: int) -> None:
    # Not with the fixture `context`, which fails for each violation of the policy.
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
    """Serve the page as CloudFront does if no other endpoint is allowed."""
    response = route.fetch()
    policy = response.headers["content-security-policy"]
    allowed = next(part for part in policy.split("; ") if part.startswith("connect-src"))
    headers = response.headers | {"content-security-policy": policy.replace(allowed, "connect-src 'self'")}
    route.fulfill(response=response, headers=headers)
