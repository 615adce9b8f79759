"""Accessibility: the page works with a screen reader, without a mouse, and with other sizes and colours."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from converse import answer, failure
from page_actions import (
    SAMPLES,
    card,
    choose_photos,
    connect,
    failed_row,
    labels,
    open_controls,
    open_view,
    wait_for_results,
)
from page_text import page_text
from playwright.sync_api import BrowserContext, FilePayload, Locator, Page, Route, expect
from servers import API_KEY, Deployment, run_server
from support import CIFAR_BUNDLE

# WCAG 2.2 up to AA, and good practice. The page does not claim AAA, and the remaining rules of axe are experimental.
RULES = {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
# The themes differ only in colours.
COLOUR_RULES = {"type": "rule", "values": ["color-contrast", "link-in-text-block"]}
# The rules that apply to every view.
ALWAYS_APPLY = {
    "color-contrast",
    "heading-order",
    "html-has-lang",
    "landmark-one-main",
    "page-has-heading-one",
    "region",
    "target-size",
}

IN_A_DIALOG = {"color-contrast", "target-size"}

# From the narrowest width in WCAG to a wide desktop. Phones have no wider ones.
WIDTHS = {"desk": (320, 375, 768, 1280, 2560), "phone": (320, 375)}

FONT_SIZE = "(element) => getComputedStyle(element).fontSize"

LONG_NAME = "holiday-in-the-mountains-" * 9 + "IMG_20260711_183012_" * 2
LONG_WORD = "Donaudampfschifffahrtselektrizitaetenhauptbetriebswerk"
BROKEN: FilePayload = {"name": "broken.jpg", "mimeType": "image/jpeg", "buffer": b"no image at all"}

ONLY_ON_A_DESK = pytest.mark.parametrize("device", ["desk"])

# Returns the focused element, and whether it has a visible outline and is not covered.
READ_FOCUS = """
() => {
  const focused = document.activeElement;
  const style = getComputedStyle(focused);
  const { left, top, width, height } = focused.getBoundingClientRect();
  const above = document.elementFromPoint(left + width / 2, top + height / 2);
  return {
    name: `${focused.localName} ${focused.getAttribute("aria-label") ?? focused.textContent.trim().slice(0, 40)}`,
    isNowhere: focused === document.body,
    isSeen: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2 && focused.contains(above),
  };
}
"""

# Returns texts and controls that end outside the window, except in regions that scroll.
READ_CUT_OFF = """
() => [...document.querySelectorAll("a, button, input, select, textarea, progress, h1, h2, h3, p, dt, dd, span")]
  .filter((element) => element.checkVisibility() && !element.closest("[role=region][tabindex='0'], .unseen, .skip"))
  .filter((element) => {
    const { left, right } = element.getBoundingClientRect();
    return left < 0 || right > document.documentElement.clientWidth + 0.5;
  })
  .map((element) => element.outerHTML.slice(0, 120))
"""

# Returns elements whose text does not fit into them.
READ_SPILLED = """
() => [...document.querySelectorAll("a, button, button > span, summary, h1, h3, dd, dt, article p:not(.name)")]
  .filter((element) => element.checkVisibility() && !element.matches(".unseen"))
  .filter((element) => getComputedStyle(element).display !== "inline")
  .filter(({ scrollWidth, clientWidth, scrollHeight, clientHeight }) =>
    scrollWidth > clientWidth + 1 || scrollHeight > clientHeight + 1)
  .map((element) => element.outerHTML.slice(0, 120))
"""


# Returns controls that are smaller than a finger; a checkbox is as large as its label.
READ_SMALL_CONTROLS = """
() => [...document.querySelectorAll("a:not(.skip), button, input:not(label input), select, summary, label:has(input)")]
  .filter((element) => element.checkVisibility())
  .map((element) => [element.getBoundingClientRect(), element.outerHTML.slice(0, 120)])
  .filter(([{ width, height }]) => width < 44 || height < 44)
  .map(([{ width, height }, name]) => `${width} x ${height}: ${name}`)
"""

# Sets the position of the bars that stay in view while the page scrolls.
SET_BARS = """
(position) => document.querySelectorAll(".top, .dock").forEach((bar) => { bar.style.position = position; })
"""


def violations(page: Page, rules: dict[str, Any], required: set[str] = ALWAYS_APPLY) -> list[str]:
    # Bars cover controls in part, which can be scrolled from under them; for axe, such a control is too small.
    page.evaluate(SET_BARS, "static")
    found = Axe().run(page, options={"runOnly": rules}).response
    page.evaluate(SET_BARS, "")
    applied = {rule["id"] for rule in [*found["passes"], *found["violations"]]}
    assert applied & {"color-contrast"} if rules is COLOUR_RULES else applied >= required
    return [f"{rule['id']}: {node['html']}" for rule in found["violations"] for node in rule["nodes"]]


def assert_no_violations(page: Page, required: set[str] = ALWAYS_APPLY) -> None:
    page.emulate_media(color_scheme="light")
    assert violations(page, RULES, required) == []
    page.emulate_media(color_scheme="dark")
    assert violations(page, COLOUR_RULES) == []


def photo(name: str, sample: str = "cat") -> FilePayload:
    return {"name": name, "mimeType": "image/jpeg", "buffer": (SAMPLES / f"{sample}.jpg").read_bytes()}


def show_heat_map(page: Page, name: str) -> None:
    labels(card(page, name)).first.click()
    expect(card(page, name).locator(".heat-key")).not_to_contain_text("…")


def compare(page: Page, *names: str) -> None:
    for name in names:
        card(page, name).get_by_role("checkbox").check()
    page.get_by_role("link", name=f"Compare {len(names)}").click()


def visit_views(page: Page) -> Iterator[str]:
    """Open each view and yield its name; photos have very long names, one has a heat map and one has failed."""
    expect(page.get_by_role("button", name="Choose photos")).to_be_visible()
    yield "nothing yet"
    names = [f"{LONG_NAME}1.jpg", f"{LONG_WORD}{LONG_WORD}.jpg"]
    choose_photos(page, photo(names[0]))
    wait_for_results(page, names[0])
    show_heat_map(page, names[0])
    yield "one answer"
    choose_photos(
        page, photo(names[1], "coffee"), {**BROKEN, "name": f"{LONG_NAME}2.jpg"}, photo("4.jpg"), photo("5.jpg")
    )
    wait_for_results(page, *names, "4.jpg", "5.jpg")
    failed_row(page, f"{LONG_NAME}2.jpg").wait_for()
    open_controls(page)
    page.get_by_role("slider", name=page_text("threshold")).fill("0.5")
    yield "answers"
    compare(page, *names)
    page.get_by_label("Heat map of").select_option(index=1)
    yield "comparison"
    open_view(page, "Model")
    expect(page.get_by_role("table")).to_be_visible()
    yield "model"
    open_view(page, "Settings")
    yield "settings"


@pytest.fixture(scope="module")
def server_with_long_names(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The port of a server whose model has very long class names, half of them without spaces."""
    bundle = tmp_path_factory.mktemp("wordy") / "bundle"
    bundle.mkdir()
    for file in ("model.tflite", "head.npz"):
        (bundle / file).symlink_to(CIFAR_BUNDLE / file)
    manifest = json.loads((CIFAR_BUNDLE / "manifest.json").read_text())
    metrics = json.loads((CIFAR_BUNDLE / "metrics.json").read_text())
    long = {
        name: f"{name}{LONG_WORD}" if index % 2 else f"{name}_that_is_told_apart_by_more_words_than_anyone_reads"
        for index, name in enumerate(manifest["labels"])
    }
    manifest["labels"] = list(long.values())
    manifest["groups"] = {long[name]: f"{group} {LONG_WORD}" for name, group in manifest["groups"].items()}
    del manifest["golden"]
    metrics["classes"] = [{**measured, "label": long[measured["label"]]} for measured in metrics["classes"]]
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    (bundle / "metrics.json").write_text(json.dumps(metrics))
    with run_server(LITELENS_BUNDLE=str(bundle)) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def page_with_long_names(context: BrowserContext, server_with_long_names: str) -> Page:
    page = context.new_page()
    page.goto(server_with_long_names)
    return page


@pytest.fixture
def ask_page(context: BrowserContext, deployment: Deployment) -> Iterator[Page]:
    """The page of a deployment with a language model, after its key was entered."""
    page = context.new_page()
    page.goto(deployment.url)
    connect(page, key=API_KEY)
    expect(page.get_by_text("Connected")).to_be_visible()
    yield page
    deployment.converse.script(answer("A rocket beside its tower."))


def ask_model(page: Page, question: str) -> None:
    page.get_by_label("Your question").fill(question)
    page.get_by_role("button", name="Send").click()


def test_axe_finds_no_violation_without_photos(page: Page) -> None:
    expect(page.get_by_role("button", name="Try the sample: a cat")).to_be_visible()
    assert_no_violations(page)


def test_axe_finds_no_violation_while_photos_are_classified(page: Page) -> None:
    page.route("**/v1/classify*", lambda _: None)
    choose_photos(page, *(photo(f"{number}.jpg") for number in range(5)))
    expect(page.get_by_role("progressbar")).to_have_count(5)
    expect(page.get_by_text("Waiting for its turn")).to_be_visible()
    assert_no_violations(page)


def test_axe_finds_no_violation_in_answers_heat_maps_failures_and_comparisons(page: Page) -> None:
    page.route("**/v1/classify*", lambda route: route.abort(), times=1)
    choose_photos(page, photo("unreachable.jpg"))
    expect(card(page, "unreachable.jpg")).to_contain_text(page_text("unreachable"))
    choose_photos(page, photo("cat.jpg"), photo("coffee.jpg", "coffee"), BROKEN)
    wait_for_results(page, "cat.jpg", "coffee.jpg")
    failed_row(page, "broken.jpg").wait_for()
    show_heat_map(page, "cat.jpg")
    assert_no_violations(page)
    compare(page, "cat.jpg", "coffee.jpg")
    page.get_by_label("Heat map of").select_option("Egyptian cat")
    expect(page.get_by_text("Heat map: Egyptian cat", exact=True)).to_have_count(2)
    assert_no_violations(page)


def test_axe_finds_no_violation_over_the_page(page: Page) -> None:
    choose_photos(page, photo("cat.jpg"), photo("coffee.jpg", "coffee"))
    wait_for_results(page, "cat.jpg", "coffee.jpg")
    page.get_by_role("button", name="Enlarge: cat.jpg").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert_no_violations(page, IN_A_DIALOG)
    page.keyboard.press("Escape")
    card(page, "cat.jpg").get_by_role("button", name="Code").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert_no_violations(page, IN_A_DIALOG)
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Save", exact=True).click()
    assert_no_violations(page)
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Clear", exact=True).click()
    expect(page.get_by_role("button", name="Undo")).to_be_visible()
    assert_no_violations(page)


def test_axe_finds_no_violation_in_empty_views(page: Page) -> None:
    page.goto(f"{page.url}#compare")
    expect(page.get_by_text(page_text("nothingToCompare"))).to_be_visible()
    assert_no_violations(page)
    open_view(page, "Classify")
    names = [f"{number}.jpg" for number in range(5)]
    choose_photos(page, *map(photo, names))
    wait_for_results(page, *names)
    open_controls(page)
    page.get_by_label("Show").select_option("failed")
    expect(page.get_by_text(page_text("nothingShown"))).to_be_visible()
    assert_no_violations(page)


@pytest.mark.parametrize(("served", "sought", "found"), [("port", "wild cats", 8), ("measured_port", "trees", 5)])
def test_axe_finds_no_violation_in_the_view_model(
    context: BrowserContext, request: pytest.FixtureRequest, served: str, sought: str, found: int
) -> None:
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{request.getfixturevalue(served)}/#model")
    # A few rows are enough, since axe is slow for many.
    page.get_by_label("Find a class").fill(sought)
    expect(page.get_by_role("rowheader")).to_have_count(found)
    assert_no_violations(page)
    page.get_by_label("Find a class").fill("no class at all")
    expect(page.get_by_text(page_text("noClass"))).to_be_visible()
    assert_no_violations(page)


def test_axe_finds_no_violation_in_settings_and_problems(page: Page) -> None:
    open_view(page, "Settings")
    expect(page.get_by_text("Connected")).to_be_visible()
    assert_no_violations(page)
    page.route("**/v1/model", lambda route: route.abort())
    page.get_by_role("button", name="Save and connect").click()
    expect(page.get_by_role("alert")).to_contain_text(page_text("unreachable"))
    assert_no_violations(page)
    open_view(page, "Classify")
    expect(page.get_by_role("alert")).to_contain_text(page_text("unreachable"))
    assert_no_violations(page)


def test_axe_finds_no_violation_in_a_conversation(ask_page: Page, deployment: Deployment) -> None:
    assert_no_violations(ask_page)
    open_view(ask_page, "Ask")
    assert_no_violations(ask_page)
    open_view(ask_page, "Classify")
    choose_photos(ask_page, photo("cat.jpg"), photo("coffee.jpg", "coffee"))
    wait_for_results(ask_page, "cat.jpg", "coffee.jpg")
    open_view(ask_page, "Ask")
    deployment.converse.script(answer("A rocket."), failure("AccessDeniedException"))
    ask_model(ask_page, "What is it?")
    expect(ask_page.get_by_text("Answered by a-model")).to_be_visible()
    ask_model(ask_page, "And why?")
    expect(ask_page.get_by_role("log")).to_contain_text(page_text("describe_unavailable"))
    assert_no_violations(ask_page)
    ask_page.route("**/v1/describe", lambda _: None)
    ask_model(ask_page, "And now?")
    expect(ask_page.get_by_text("Looking at the photo")).to_be_visible()
    assert_no_violations(ask_page)


@ONLY_ON_A_DESK
def test_axe_finds_real_violations(page: Page) -> None:
    expect(page.get_by_role("button", name="Choose photos")).to_be_visible()
    page.evaluate(
        "document.querySelector('main').insertAdjacentElement('beforeend', document.createElement('button'))"
        ".style.cssText = 'inline-size: 9px; block-size: 9px; padding: 0'"
    )
    page.get_by_text(page_text("privacy")).evaluate("(text) => { text.style.color = '#ccc' }")
    found = {violation.partition(":")[0] for violation in violations(page, RULES)}
    assert found == {"button-name", "color-contrast"}


@pytest.mark.parametrize("device", ["phone"])
def test_controls_are_as_large_as_a_finger(page: Page) -> None:
    assert page.evaluate(READ_SMALL_CONTROLS) == []
    names = [f"{number}.jpg" for number in range(5)]
    choose_photos(page, *map(photo, names), BROKEN)
    wait_for_results(page, *names)
    failed_row(page, "broken.jpg").wait_for()
    show_heat_map(page, "0.jpg")
    open_controls(page)
    assert page.evaluate(READ_SMALL_CONTROLS) == []
    for view in ("Teach", "Model", "Settings"):
        open_view(page, view)
        expect(page.get_by_role("main").locator("button:visible").first).to_be_visible()
        assert page.evaluate(READ_SMALL_CONTROLS) == []


@ONLY_ON_A_DESK
def test_a_headline_breaks_between_words(page: Page) -> None:
    def rename(route: Route) -> None:
        answer = route.fetch().json()
        answer["predictions"][0] |= {"label": "offshore drilling rig", "confidence": 0.275}
        route.fulfill(json=answer)

    page.route("**/v1/classify?*", rename)
    # With so many photos, a card is narrow.
    choose_photos(page, *(photo(f"{number}.jpg") for number in range(5)))
    wait_for_results(page, "4.jpg")
    lines = (
        card(page, "4.jpg")
        .locator(".headline .label")
        .evaluate(
            """(label) => {
            const text = [...label.childNodes].find(({ data }) => data?.startsWith("offshore"));
            const word = document.createRange();
            word.setStart(text, 0);
            word.setEnd(text, "offshore".length);
            return word.getClientRects().length;
        }"""
        )
    )
    assert lines == 1


def tab_to(page: Page, target: Locator, key: str = "Tab") -> None:
    """Press the key until the target has the focus; each focused element must be visible."""
    # Until the page is drawn, the key leads out of it.
    expect(target).to_be_visible()
    for _ in range(100):
        page.keyboard.press(key)
        assert_focus_is_visible(page)
        if target.evaluate("(element) => element === document.activeElement"):
            return
    raise AssertionError(f"{target} is not reached by {key}")


def assert_focus_is_visible(page: Page) -> None:
    focus = page.evaluate(READ_FOCUS)
    assert focus["isSeen"], focus


@ONLY_ON_A_DESK
def test_the_view_classify_works_with_the_keyboard_alone(page: Page) -> None:
    keyboard = page.keyboard
    tab_to(page, page.get_by_role("button", name="Try the sample: a cat"))
    keyboard.press("Enter")
    wait_for_results(page, "cat.jpg")

    names = [f"coffee {number}.jpg" for number in range(4)]
    with page.expect_file_chooser() as chooser:
        tab_to(page, page.get_by_role("button", name="Add photos"))
        keyboard.press("Enter")
    chooser.value.set_files([photo(name, "coffee") for name in names])
    wait_for_results(page, *names)

    tab_to(page, page.get_by_role("button", name="Sort and filter"), "Shift+Tab")
    keyboard.press("Enter")
    slider = page.get_by_role("slider", name=page_text("threshold"))
    tab_to(page, slider)
    before = float(slider.input_value())
    keyboard.press("ArrowLeft")
    expect(slider).to_have_value(f"{before - 0.01:.2f}")
    keyboard.press("End")
    expect(page.locator(".headline").get_by_text(page_text("unsure"), exact=True)).to_have_count(5)

    tab_to(page, page.get_by_label("Sort by"), "Shift+Tab")
    for order in ("name", "label", "surest"):
        keyboard.press("ArrowDown")
        expect(page.get_by_label("Sort by")).to_have_value(order)

    # Coffee is surest and comes before the cat.
    label = labels(card(page, "cat.jpg")).nth(1)
    tab_to(page, page.get_by_role("button", name="Clear", exact=True))
    tab_to(page, label, "Shift+Tab")
    keyboard.press("Space")
    expect(label).to_have_attribute("aria-pressed", "true")
    expect(card(page, "cat.jpg").get_by_text("Heat map: tabby cat", exact=True)).to_be_visible()
    keyboard.press("Enter")
    expect(label).to_have_attribute("aria-pressed", "false")
    keyboard.press("3")
    expect(labels(card(page, "cat.jpg")).nth(2)).to_have_attribute("aria-pressed", "true")

    for name, key in (("cat.jpg", "Tab"), (names[-1], "Shift+Tab")):
        tab_to(page, page.get_by_role("checkbox", name=f"Compare: {name}"), key)
        keyboard.press("Space")
        expect(page.get_by_role("checkbox", name=f"Compare: {name}")).to_be_checked()

    tab_to(page, page.get_by_role("link", name="Compare 2"))
    keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Compare photos")).to_be_focused()
    tab_to(page, page.get_by_role("link", name="Back to all photos"))
    keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Classify photos")).to_be_focused()
    expect(page.get_by_role("checkbox", name="Compare: cat.jpg")).to_be_checked()

    tab_to(page, page.get_by_role("button", name=f"Remove: {names[0]}"))
    keyboard.press("Enter")
    expect(card(page, names[0])).to_have_count(0)
    expect(card(page, "cat.jpg")).to_be_visible()


@ONLY_ON_A_DESK
def test_the_focus_is_always_visible(page: Page) -> None:
    for view in visit_views(page):
        page.evaluate("document.activeElement.blur()")
        stops = 0
        while True:
            page.keyboard.press("Tab")
            focus = page.evaluate(READ_FOCUS)
            if focus["isNowhere"]:
                break
            assert focus["isSeen"], (view, focus)
            stops += 1
            assert stops < 100, f"the focus does not come to an end in {view}"
        assert stops > 2, view


@ONLY_ON_A_DESK
def test_a_link_skips_to_the_content(page: Page) -> None:
    first_control = page.get_by_role("button", name="Choose photos")
    expect(first_control).to_be_visible()
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to the content")
    expect(skip).to_be_focused()
    expect(skip).to_be_in_viewport(ratio=1)
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()
    expect(skip).not_to_be_in_viewport()
    page.keyboard.press("Tab")
    expect(first_control).to_be_focused()
    expect(page).to_have_title("Classify photos · litelens")


def test_opening_a_view_moves_the_focus_to_its_heading(page: Page) -> None:
    headings = {"Model": "The model", "Settings": "Settings", "Classify": "Classify photos"}
    for view, heading in headings.items():
        page.get_by_role("navigation").get_by_role("link", name=view).press("Enter")
        expect(page.get_by_role("heading", name=heading, level=1)).to_be_focused()
        expect(page).to_have_title(f"{heading} · litelens")
    page.go_back()
    expect(page.get_by_role("heading", name="Settings", level=1)).to_be_focused()


def test_every_result_and_failure_is_announced_to_screen_readers(page: Page) -> None:
    announcements = record_announcements(page)
    names = ["first.jpg", "second.jpg", "third.jpg", "fourth.jpg", "fifth.jpg"]
    choose_photos(page, *map(photo, names), BROKEN)
    wait_for_results(page, *names)
    failed_row(page, "broken.jpg").wait_for()
    confidence = labels(card(page, "third.jpg")).first.locator("span").last.inner_text()
    for name in names:
        answer = f"{name}: Egyptian cat, {page_text('sure')}, {confidence}."
        assert any(text.startswith(answer) for text in announcements()), name
    problem = failed_row(page, "broken.jpg").locator(".bad").inner_text()
    assert any(text.startswith(f"broken.jpg: {problem}") for text in announcements())
    # Each announcement ends with the number of photos that are left, except the last.
    left = [f" {count} photos are left." for count in (5, 4, 3, 2)] + [" 1 photo is left.", "."]
    assert len(announcements()) == len(left)
    assert all(text.endswith(end) for text, end in zip(announcements(), left, strict=True))
    assert "left" not in announcements()[-1]


def test_cancelled_and_refused_photos_are_announced_to_screen_readers(page: Page) -> None:
    announcements = record_announcements(page)
    page.route("**/v1/classify*", lambda _: None, times=1)
    choose_photos(page, photo("slow.jpg"))
    card(page, "slow.jpg").get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("status")).to_have_text("slow.jpg: cancelled.")
    page.route("**/v1/classify*", lambda route: route.abort(), times=1)
    failed_row(page, "slow.jpg").get_by_role("button", name="Try again").click()
    expect(page.get_by_role("status")).to_have_text(f"slow.jpg: {page_text('unreachable')}")
    assert len([sentence for sentence in announcements() if sentence]) == 2


def record_announcements(page: Page) -> Any:
    """Return a function that returns the page's announcements from now on."""
    page.get_by_role("button", name="Choose photos").wait_for()
    status = page.get_by_role("status")
    status.evaluate(
        "(status) => { window.said = []; new MutationObserver(() => window.said.push(status.textContent))"
        ".observe(status, { childList: true, characterData: true, subtree: true }) }"
    )
    return lambda: page.evaluate("window.said")


def test_nothing_overflows_sideways_at_any_width(page_with_long_names: Page, device: str) -> None:
    height = 900
    for view in visit_views(page_with_long_names):
        for width in WIDTHS[device]:
            page_with_long_names.set_viewport_size({"width": width, "height": height})
            assert_fits(page_with_long_names, f"{view} at {width}")


def test_compared_photos_have_columns_of_equal_width_whatever_their_names(page: Page, device: str) -> None:
    names = ["a.jpg", f"{LONG_NAME}.jpg", f"{LONG_WORD}.jpg"]
    choose_photos(page, photo(names[0]), photo(names[1], "coffee"), photo(names[2], "photographer"))
    wait_for_results(page, *names)
    compare(page, *names)
    columns = page.get_by_role("columnheader")
    expect(columns).to_have_text(names)
    widths = {round(columns.nth(index).bounding_box()["width"]) for index in range(3)}  # type: ignore[index]
    assert len(widths) == 1


def test_a_conversation_does_not_overflow_sideways(ask_page: Page, deployment: Deployment, device: str) -> None:
    deployment.converse.script(answer(f"It is {LONG_WORD * 3}. {'It is a rocket. ' * 30}"))
    open_view(ask_page, "Classify")
    choose_photos(ask_page, *(photo(f"{LONG_NAME}{number}.jpg") for number in range(8)))
    open_view(ask_page, "Ask")
    ask_model(ask_page, f"{LONG_WORD * 3}?")
    expect(ask_page.get_by_role("log")).to_contain_text("It is a rocket.")
    for width in WIDTHS[device]:
        ask_page.set_viewport_size({"width": width, "height": 900})
        assert_fits(ask_page, f"ask at {width}")


def assert_fits(page: Page, where: str) -> None:
    width = page.evaluate("document.scrollingElement.clientWidth")
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width, where
    assert page.evaluate(READ_CUT_OFF) == [], where


@ONLY_ON_A_DESK
def test_text_has_the_browsers_font_size_and_fits_at_twice_the_size(page: Page) -> None:
    assert page.get_by_role("navigation").evaluate(FONT_SIZE) == "16px"
    page.context.new_cdp_session(page).send("Page.setFontSizes", {"fontSizes": {"standard": 32}})
    for view in visit_views(page):
        assert page.get_by_role("navigation").evaluate(FONT_SIZE) == "32px", view
        assert_fits(page, view)
        assert page.evaluate(READ_SPILLED) == [], view


def brightness(page: Page) -> float:
    """Return the brightness of the page's background, from 0 to 1."""
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return sum(map(int, colour.removeprefix("rgb(").removesuffix(")").split(", "))) / (3 * 255)


def test_the_theme_follows_the_device_until_one_is_chosen(page: Page) -> None:
    page.emulate_media(color_scheme="light")
    assert brightness(page) > 0.9
    page.emulate_media(color_scheme="dark")
    assert brightness(page) < 0.1


def test_a_chosen_theme_overrides_the_device(page: Page) -> None:
    open_view(page, "Settings")
    for theme, other, is_light in (("light", "dark", True), ("dark", "light", False)):
        page.emulate_media(color_scheme=other)  # type: ignore[arg-type]
        page.get_by_label("Theme").select_option(theme)
        assert (brightness(page) > 0.5) == is_light
        page.reload()
        expect(page.get_by_label("Theme")).to_have_value(theme)
        assert (brightness(page) > 0.5) == is_light
    page.get_by_label("Theme").select_option("like the device")
    assert brightness(page) > 0.5
    page.reload()
    expect(page.get_by_label("Theme")).to_have_value("auto")
    assert brightness(page) > 0.5


@ONLY_ON_A_DESK
def test_nothing_moves_with_reduced_motion(page: Page) -> None:
    moving = (
        "[...document.querySelectorAll('*')].filter((element) => {"
        " const { transitionDuration, animationDuration } = getComputedStyle(element);"
        " return [transitionDuration, animationDuration].some((duration) => !/^0s(, 0s)*$/.test(duration)) }).length"
    )
    choose_photos(page, photo("cat.jpg"))
    wait_for_results(page, "cat.jpg")
    page.emulate_media(reduced_motion="no-preference")
    assert page.evaluate(moving) > 0
    page.emulate_media(reduced_motion="reduce")
    assert page.evaluate(moving) == 0
