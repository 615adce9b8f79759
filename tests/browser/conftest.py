from collections.abc import Iterator

import pytest
from page_actions import CHROMIUM, DEVICES, launch_browser
from playwright.sync_api import Browser, BrowserContext, Page
from servers import run_server
from support import CIFAR_BUNDLE, require


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A browser for one module. Playwright runs an event loop, so during it no other test could start its own."""
    require(CHROMIUM, "there is no chromium on this machine")
    with launch_browser() as browser:
        yield browser


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    """The device of a test; each test runs on all devices."""
    return str(request.param)


@pytest.fixture
def context(chromium: Browser, device: str) -> Iterator[BrowserContext]:
    """A fresh browser context. Script errors and violations of the page's policy fail the test."""
    errors: list[str] = []
    # Requests of service workers escape Playwright's routes; the tests that need one allow it.
    with chromium.new_context(**DEVICES[device], accept_downloads=True, service_workers="block") as context:
        context.set_default_timeout(60_000)
        context.on("weberror", lambda raised: errors.append(str(raised.error)))
        context.on(
            "console", lambda message: errors.append(message.text) if "Content Security" in message.text else None
        )
        yield context
    assert errors == []


@pytest.fixture(scope="session")
def measured_port() -> Iterator[int]:
    """The port of a server with a bundle whose accuracy was measured, so that the page shows all charts."""
    with run_server(LITELENS_BUNDLE=str(CIFAR_BUNDLE)) as port:
        yield port


@pytest.fixture
def page(context: BrowserContext, port: int) -> Page:
    """The page of `make run`, after it has loaded its model."""
    page = context.new_page()
    with page.expect_response("**/v1/model"):
        page.goto(f"http://127.0.0.1:{port}/")
    return page
