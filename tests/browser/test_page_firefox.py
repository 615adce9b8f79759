"""The page's main features in Firefox, with Mozilla's own protocol; the other tests of the page run in Chromium."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from class_folders import photo
from marionette_driver import By
from marionette_driver import errors as firefox_errors
from marionette_driver.keys import Keys
from marionette_driver.marionette import Marionette
from marionette_driver.wait import Wait
from page_text import page_text
from servers import run_server
from support import CAT, ROCKET, SAMPLES, encoded, free_port, require

FIREFOX = shutil.which("firefox-esr") or shutil.which("firefox")

WAIT_SECONDS = 60

# Errors of scripts and violations of the page's policy, as they are in the browser's console, without Firefox' own.
READ_ERRORS = """
return Services.console.getMessageArray()
    .filter((message) => message instanceof Ci.nsIScriptError && !(message.flags & Ci.nsIScriptError.warningFlag))
    .filter(({ sourceName }) => sourceName && !/^(chrome|resource):/.test(sourceName))
    .map(String);
"""
CLEAR_CONSOLE = "Services.console.reset()"

READ_COLOUR = "return getComputedStyle(document.body).backgroundColor"
READ_KEPT = """
const [done] = arguments;
const opened = indexedDB.open("litelens");
opened.onsuccess = () => {
    const all = opened.result.transaction("photos").objectStore("photos").getAll();
    all.onsuccess = () => {
        opened.result.close();
        done(all.result.filter(({ progress }) => progress?.stage === "done").map(({ file }) => file.name));
    };
};
"""


class Firefox:
    """A window of Firefox with the page."""

    def __init__(self, marionette: Marionette, url: str) -> None:
        self.marionette = marionette
        self.url = url

    def open(self, path: str = "") -> None:
        self.marionette.navigate(f"{self.url}{path}")

    def run(self, script: str, *arguments: Any) -> Any:
        return self.marionette.execute_script(script, script_args=arguments, sandbox=None)

    def errors(self) -> list[str]:
        with self.marionette.using_context("chrome"):
            return list(self.marionette.execute_script(READ_ERRORS))

    def clear_errors(self) -> None:
        with self.marionette.using_context("chrome"):
            self.marionette.execute_script(CLEAR_CONSOLE)

    def find(self, selector: str, text: str = "", within: float = WAIT_SECONDS) -> Any:
        """Wait for the first visible element that matches the selector and contains the text."""

        def visible() -> Any:
            found = self.marionette.find_elements(By.CSS_SELECTOR, selector)
            return next((each for each in found if text in each.text and each.is_displayed()), None)

        return self.wait(visible, f"{selector} with {text!r}", within)

    def wait(self, found: Callable[[], Any], what: str, within: float = WAIT_SECONDS) -> Any:
        """Wait until a function returns something; elements may be replaced while it runs."""
        ignored = (firefox_errors.NoSuchElementException, firefox_errors.StaleElementException)
        return Wait(self.marionette, within, ignored_exceptions=ignored).until(lambda _: found(), message=what)

    def press(self, selector: str, text: str = "") -> None:
        self.find(selector, text).click()

    def choose(self, selector: str, *files: Path) -> None:
        """Choose files for an input, which the page hides behind a button."""
        script = "const found = document.querySelector(arguments[0]); if (found) found.hidden = false; return found"
        for file in files:
            # The first photo can change the view, and with it the input.
            self.wait(lambda: self.run(script, selector), selector).send_keys(str(file))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Marionette]:
    require(FIREFOX, "there is no firefox on this machine")
    log = tmp_path_factory.mktemp("firefox") / "firefox.log"
    browser = Marionette(bin=FIREFOX, headless=True, port=free_port(), gecko_log=str(log))
    try:
        browser.start_session()
        yield browser
        browser.quit()
    finally:
        # Not when Python ends, because modules that it needs are gone then.
        browser.cleanup()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("server")
    with run_server(LITELENS_MODELS=str(folder / "models"), XDG_CACHE_HOME=str(folder / "cache")) as port:
        yield f"http://127.0.0.1:{port}/"


@pytest.fixture
def firefox(browser: Marionette, url: str) -> Iterator[Firefox]:
    """The page in a window without photos. Script errors and violations of the page's policy fail the test."""
    firefox = Firefox(browser, url)
    browser.set_window_rect(width=1280, height=900)
    firefox.clear_errors()
    firefox.open("#settings")
    firefox.press("main button", page_text("forget"))
    firefox.find("main button", page_text("choose"))
    yield firefox
    assert firefox.errors() == []


def classify(firefox: Firefox, *photos: Path) -> None:
    firefox.choose("input[data-picker=files]", *photos)
    for file in photos:
        firefox.find(f'article[aria-label="{file.name}"] .headline')


def test_errors_and_violations_would_be_noticed(firefox: Firefox) -> None:
    firefox.run(
        "const style = document.createElement('style'); style.textContent = 'a {}'; document.head.append(style)"
    )
    firefox.wait(lambda: any("Content-Security-Policy" in error for error in firefox.errors()), "a violation")
    firefox.run("setTimeout(() => { throw new Error('an error of a script') })")
    firefox.wait(lambda: any("an error of a script" in error for error in firefox.errors()), "an error")
    firefox.clear_errors()


def test_a_photo_gets_its_label(firefox: Firefox) -> None:
    classify(firefox, CAT)
    article = firefox.find('article[aria-label="cat.jpg"]')
    assert "cat" in article.find_element(By.CSS_SELECTOR, ".headline").text
    assert len(article.find_elements(By.CSS_SELECTOR, ".bar")) == 5
    shown = "return document.querySelector('article img').naturalWidth"
    firefox.wait(lambda: firefox.run(shown) == 330, "the photo")


def test_a_heat_map_appears_on_the_photo_when_a_label_is_pressed(firefox: Firefox) -> None:
    classify(firefox, ROCKET)
    firefox.press("article .bar")
    heat = firefox.find("article img.heat")
    photo = firefox.find("article .frame img")
    assert heat.rect["width"] > 0
    assert photo.rect["x"] - 1 <= heat.rect["x"]
    assert heat.rect["x"] + heat.rect["width"] <= photo.rect["x"] + photo.rect["width"] + 1
    firefox.press("article .bar[aria-pressed=true]")
    firefox.wait(lambda: not firefox.marionette.find_elements(By.CSS_SELECTOR, "img.heat"), "no heat map")


def test_photos_and_answers_survive_a_reload(firefox: Firefox) -> None:
    classify(firefox, CAT, SAMPLES / "coffee.jpg")
    kept = ["cat.jpg", "coffee.jpg"]
    firefox.wait(lambda: firefox.marionette.execute_async_script(READ_KEPT) == kept, "the photos in the database")
    firefox.marionette.refresh()
    for name in kept:
        firefox.find(f'article[aria-label="{name}"] .headline')
    requests = "return performance.getEntriesByType('resource').filter(({ name }) => name.includes('classify?')).length"
    assert firefox.run(requests) == 0


def test_every_view_opens(firefox: Firefox) -> None:
    for view in ("Teach", "Model", "Settings", "Classify"):
        firefox.press("nav a", view)
        firefox.find("nav a[aria-current=page]", view)
    firefox.press("nav a", "Model")
    firefox.find("main h2")


def test_the_page_is_dark_if_the_system_is_and_fits_a_narrow_window(firefox: Firefox) -> None:
    light = firefox.run(READ_COLOUR)
    preference = "layout.css.prefers-color-scheme.content-override"
    firefox.marionette.set_pref(preference, 0)
    try:
        firefox.wait(lambda: firefox.run(READ_COLOUR) != light, "a dark page")
        firefox.marionette.set_window_rect(width=450, height=740)
        classify(firefox, CAT)
        firefox.press("article .bar")
        firefox.find("article img.heat")
        assert firefox.run("return document.documentElement.scrollWidth - innerWidth") <= 0
    finally:
        firefox.marionette.clear_pref(preference)


def test_two_classes_are_learned_from_files_and_recognized(firefox: Firefox, tmp_path: Path) -> None:
    firefox.press("nav a", "Teach")
    for number, label in enumerate(("cat", "coffee"), start=1):
        field = firefox.find(f'input[aria-label="Name of class {number}"]')
        field.send_keys(label, Keys.ENTER)
        files = []
        for index in range(6):
            files.append(tmp_path / f"{label}-{index}.png")
            files[-1].write_bytes(encoded(photo(label, index), "PNG", compress_level=1))
        firefox.choose(f'article[aria-label="{label}"] input[type=file]', *files)
        thumbnails = f'article[aria-label="{label}"] .teach-thumbs img'
        firefox.wait(
            lambda selector=thumbnails: len(firefox.marionette.find_elements(By.CSS_SELECTOR, selector)) == 6, label
        )
    firefox.press("main button", "Learn")
    firefox.find("main button", "Keep it")
    firefox.choose("input[data-picker=teach-try]", tmp_path / "coffee-0.png")
    assert "coffee" in firefox.find(".teach-answer").text.casefold()
