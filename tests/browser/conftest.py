from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page
from screen import CHROMIUM, DEVICES, browsing
from servers import serving
from support import CIFAR_BUNDLE, require


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Not for the whole session: Playwright keeps an event loop running, in which no other test could start its own."""
    require(CHROMIUM, "there is no chromium here")
    with browsing() as browser:
        yield browser


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    """The devices that a test is run on, one after the other."""
    return str(request.param)


@pytest.fixture
def context(chromium: Browser, device: str) -> Iterator[BrowserContext]:
    """A browser that has seen nothing yet; what breaks in a page or is kept from it by its policy fails the test."""
    trouble: list[str] = []
    with chromium.new_context(**DEVICES[device], accept_downloads=True) as context:
        context.set_default_timeout(60_000)
        context.on("weberror", lambda raised: trouble.append(str(raised.error)))
        context.on("console", lambda said: trouble.append(said.text) if "Content Security" in said.text else None)
        yield context
    assert trouble == []


@pytest.fixture(scope="session")
def measured_port() -> Iterator[int]:
    """The port of a server with the bundle whose accuracy was measured, and so with all charts."""
    with serving(LITELENS_BUNDLE=str(CIFAR_BUNDLE)) as port:
        yield port


@pytest.fixture
def page(context: BrowserContext, port: int) -> Page:
    """The page as `make run` serves it, with its model known."""
    page = context.new_page()
    with page.expect_response("**/v1/model"):
        page.goto(f"http://127.0.0.1:{port}/")
    return page
