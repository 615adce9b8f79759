"""Accessibility: the page works with a screen reader, without a mouse, and with other sizes and colours."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from converse import answer, failure
from page_actions import SAMPLES, card, choose_photos, connect, labels, open_view, wait_for_results
from playwright.sync_api import BrowserContext, FilePayload, Locator, Page, expect
from servers import API_KEY, Deployment, run_server
from support import CIFAR_BUNDLE

# All of WCAG 2.2 up to AA, and what is good practice beside it. AAA is not promised anywhere, and axe calls the rules
# that it has beyond these experimental.
RULES = {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
# Light and dark differ in nothing else.
COLOUR_RULES = {"type": "rule", "values": ["color-contrast", "link-in-text-block"]}
# Of the many, those on what every view has.
ALWAYS_APPLY = {
    "color-contrast",
    "heading-order",
    "html-has-lang",
    "landmark-one-main",
    "page-has-heading-one",
    "region",
    "target-size",
}

# From the smallest phone that WCAG asks for to a wide desk; a phone has no more than its own.
WIDTHS = {"desk": (320, 375, 768, 1280, 2560), "phone": (320, 375)}

FONT_SIZE = "(element) => getComputedStyle(element).fontSize"

LONG_NAME = "holiday-in-the-mountains-" * 9 + "IMG_20260711_183012_" * 2
LONG_WORD = "Donaudampfschifffahrtselektrizitaetenhauptbetriebswerk"
BROKEN: FilePayload = {"name": "broken.jpg", "mimeType": "image/jpeg", "buffer": b"no image at all"}

ONLY_ON_A_DESK = pytest.mark.parametrize("device", ["desk"])

# What has the focus: whether that is seen, and nothing lies over it.
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

# Texts and controls that end outside the window, except where people can scroll to them.
READ_CUT_OFF = """
() => [...document.querySelectorAll("a, button, input, select, textarea, progress, h1, h2, h3, p, dt, dd, span")]
  .filter((element) => element.checkVisibility() && !element.closest("[role=region][tabindex='0'], .unseen, .skip"))
  .filter((element) => {
    const { left, right } = element.getBoundingClientRect();
    return left < 0 || right > document.documentElement.clientWidth + 0.5;
  })
  .map((element) => element.outerHTML.slice(0, 120))
"""

# Buttons and links whose text does not fit into them.
READ_SPILLED = """
() => [...document.querySelectorAll("a, button, button > span, summary, h1, h3, dd, dt, article p")]
  .filter((element) => element.checkVisibility() && !element.matches(".unseen"))
  .filter((element) => getComputedStyle(element).display !== "inline")
  .filter(({ scrollWidth, clientWidth, scrollHeight, clientHeight }) =>
    scrollWidth > clientWidth + 1 || scrollHeight > clientHeight + 1)
  .map((element) => element.outerHTML.slice(0, 120))
"""


def violations(page: Page, rules: dict[str, Any]) -> list[str]:
    found = Axe().run(page, options={"runOnly": rules}).response
    applied = {rule["id"] for rule in [*found["passes"], *found["violations"]]}
    assert applied & {"color-contrast"} if rules is COLOUR_RULES else applied >= ALWAYS_APPLY
    return [f"{rule['id']}: {node['html']}" for rule in found["violations"] for node in rule["nodes"]]


def assert_axe_finds_nothing(page: Page) -> None:
    page.emulate_media(color_scheme="light")
    assert violations(page, RULES) == []
    page.emulate_media(color_scheme="dark")
    assert violations(page, COLOUR_RULES) == []


def photo(name: str, sample: str = "cat") -> FilePayload:
    return {"name": name, "mimeType": "image/jpeg", "buffer": (SAMPLES / f"{sample}.jpg").read_bytes()}


def show_heat_map(page: Page, name: str) -> None:
    labels(card(page, name)).first.click()
    expect(card(page, name).get_by_text("Heat map:")).not_to_contain_text("…")


def compare(page: Page, *names: str) -> None:
    for name in names:
        card(page, name).get_by_role("checkbox").check()
    page.get_by_role("link", name=f"Compare {len(names)} photos").click()


def walk(page: Page) -> Iterator[str]:
    """Each view in turn, with photos of very long names: answered, with a heat map, failed, compared."""
    expect(page.get_by_role("button", name="Choose photos")).to_be_visible()
    yield "nothing yet"
    names = [f"{LONG_NAME}1.jpg", f"{LONG_WORD}{LONG_WORD}.jpg"]
    choose_photos(page, photo(names[0]), photo(names[1], "coffee"), {**BROKEN, "name": f"{LONG_NAME}2.jpg"})
    wait_for_results(page, *names)
    expect(card(page, f"{LONG_NAME}2.jpg").get_by_role("button", name="Try again")).to_be_visible()
    show_heat_map(page, names[0])
    summary = page.get_by_text("Threshold, order and filters")
    if not page.get_by_label("Sort by").is_visible():
        summary.click()
    page.get_by_role("slider", name="Uncertain below").fill("0.5")
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
def wordy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The port of a server whose model has very long class names, half of them without spaces."""
    bundle = tmp_path_factory.mktemp("wordy") / "bundle"
    bundle.mkdir()
    (bundle / "model.tflite").symlink_to(CIFAR_BUNDLE / "model.tflite")
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
def wordy_page(context: BrowserContext, wordy: str) -> Page:
    page = context.new_page()
    page.goto(wordy)
    return page


@pytest.fixture
def asking(context: BrowserContext, deployment: Deployment) -> Iterator[Page]:
    """The page of a deployment with a language model, its key entered."""
    page = context.new_page()
    page.goto(deployment.url)
    connect(page, key=API_KEY)
    expect(page.get_by_text("Connected")).to_be_visible()
    yield page
    deployment.converse.script(answer("A rocket beside its tower."))


def ask_model(page: Page, question: str) -> None:
    page.get_by_label("Your question").fill(question)
    page.get_by_role("button", name="Send").click()


def test_axe_finds_nothing_before_there_is_a_photo(page: Page) -> None:
    expect(page.get_by_role("button", name="Try the sample: a cat")).to_be_visible()
    assert_axe_finds_nothing(page)


def test_axe_finds_nothing_while_photos_are_under_way(page: Page) -> None:
    page.route("**/v1/classify*", lambda _: None)
    choose_photos(page, *(photo(f"{number}.jpg") for number in range(5)))
    expect(page.get_by_role("progressbar")).to_have_count(5)
    expect(page.get_by_text("Waiting for its turn")).to_be_visible()
    assert_axe_finds_nothing(page)


def test_axe_finds_nothing_in_answers_heat_maps_failures_and_comparisons(page: Page) -> None:
    page.route("**/v1/classify*", lambda route: route.abort(), times=1)
    choose_photos(page, photo("unreachable.jpg"))
    expect(card(page, "unreachable.jpg")).to_contain_text("cannot be reached")
    choose_photos(page, photo("cat.jpg"), photo("coffee.jpg", "coffee"), BROKEN)
    wait_for_results(page, "cat.jpg", "coffee.jpg")
    expect(card(page, "broken.jpg")).to_contain_text("not a supported photo")
    show_heat_map(page, "cat.jpg")
    assert_axe_finds_nothing(page)
    compare(page, "cat.jpg", "coffee.jpg")
    page.get_by_label("Heat map of").select_option("Egyptian cat")
    expect(page.get_by_text("Heat map: Egyptian cat", exact=True)).to_have_count(2)
    assert_axe_finds_nothing(page)


def test_axe_finds_nothing_where_nothing_is_left_to_show(page: Page) -> None:
    page.goto(f"{page.url}#compare")
    expect(page.get_by_text("To compare photos")).to_be_visible()
    assert_axe_finds_nothing(page)
    open_view(page, "Classify")
    choose_photos(page, photo("cat.jpg"))
    wait_for_results(page, "cat.jpg")
    if not page.get_by_label("Show").is_visible():
        page.get_by_text("Threshold, order and filters").click()
    page.get_by_label("Show").select_option("failed")
    expect(page.get_by_text("No photo matches these filters.")).to_be_visible()
    assert_axe_finds_nothing(page)


@pytest.mark.parametrize(("served", "sought", "found"), [("port", "wild cats", 8), ("measured_port", "trees", 5)])
def test_axe_finds_nothing_in_the_model(
    context: BrowserContext, request: pytest.FixtureRequest, served: str, sought: str, found: int
) -> None:
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{request.getfixturevalue(served)}/#model")
    # All rows are alike, and axe takes its time for each.
    page.get_by_label("Find a class").fill(sought)
    expect(page.get_by_role("rowheader")).to_have_count(found)
    assert_axe_finds_nothing(page)
    page.get_by_label("Find a class").fill("no class at all")
    expect(page.get_by_text("No class matches.")).to_be_visible()
    assert_axe_finds_nothing(page)


def test_axe_finds_nothing_in_settings_and_problems(page: Page) -> None:
    open_view(page, "Settings")
    expect(page.get_by_text("Connected")).to_be_visible()
    assert_axe_finds_nothing(page)
    page.route("**/v1/model", lambda route: route.abort())
    page.get_by_role("button", name="Save and connect").click()
    expect(page.get_by_role("alert")).to_contain_text("The service cannot be reached.")
    assert_axe_finds_nothing(page)
    open_view(page, "Classify")
    expect(page.get_by_role("alert")).to_contain_text("The service cannot be reached.")
    assert_axe_finds_nothing(page)


def test_axe_finds_nothing_in_a_conversation(asking: Page, deployment: Deployment) -> None:
    assert_axe_finds_nothing(asking)
    open_view(asking, "Ask")
    assert_axe_finds_nothing(asking)
    open_view(asking, "Classify")
    choose_photos(asking, photo("cat.jpg"), photo("coffee.jpg", "coffee"))
    wait_for_results(asking, "cat.jpg", "coffee.jpg")
    open_view(asking, "Ask")
    deployment.converse.script(answer("A rocket."), failure("AccessDeniedException"))
    ask_model(asking, "What is it?")
    expect(asking.get_by_text("Answered by a-model")).to_be_visible()
    ask_model(asking, "And why?")
    expect(asking.get_by_role("log")).to_contain_text("cannot be reached")
    assert_axe_finds_nothing(asking)
    asking.route("**/v1/describe", lambda _: None)
    ask_model(asking, "And now?")
    expect(asking.get_by_text("Looking at the photo")).to_be_visible()
    assert_axe_finds_nothing(asking)


@ONLY_ON_A_DESK
def test_axe_would_find_what_is_wrong(page: Page) -> None:
    expect(page.get_by_role("button", name="Choose photos")).to_be_visible()
    page.evaluate(
        "document.querySelector('main').insertAdjacentElement('beforeend', document.createElement('button'))"
        ".style.cssText = 'inline-size: 9px; block-size: 9px; padding: 0'"
    )
    page.get_by_text("Photos go to the service").evaluate("(text) => { text.style.color = '#ccc' }")
    found = {violation.partition(":")[0] for violation in violations(page, RULES)}
    assert found == {"button-name", "color-contrast"}


def tab_to(page: Page, target: Locator, key: str = "Tab") -> None:
    """Go on by this key until the target has the focus, which is seen all the way."""
    for _ in range(60):
        page.keyboard.press(key)
        assert_focus_is_seen(page)
        if target.evaluate("(element) => element === document.activeElement"):
            return
    raise AssertionError(f"{target} is not reached by {key}")


def assert_focus_is_seen(page: Page) -> None:
    focus = page.evaluate(READ_FOCUS)
    assert focus["isSeen"], focus


@ONLY_ON_A_DESK
def test_all_of_classify_is_usable_with_the_keyboard_alone(page: Page) -> None:
    keyboard = page.keyboard
    tab_to(page, page.get_by_role("button", name="Try the sample: a cat"))
    keyboard.press("Enter")
    wait_for_results(page, "cat.jpg")

    with page.expect_file_chooser() as chooser:
        tab_to(page, page.get_by_role("button", name="Choose photos"))
        keyboard.press("Enter")
    chooser.value.set_files(SAMPLES / "coffee.jpg")
    wait_for_results(page, "coffee.jpg")

    slider = page.get_by_role("slider", name="Uncertain below")
    tab_to(page, slider)
    before = float(slider.input_value())
    keyboard.press("ArrowLeft")
    expect(slider).to_have_value(f"{before - 0.01:.2f}")
    keyboard.press("Home")
    expect(page.get_by_text("Certain", exact=True)).to_have_count(2)

    tab_to(page, page.get_by_label("Sort by"))
    for order in ("name", "label", "surest"):
        keyboard.press("ArrowDown")
        expect(page.get_by_label("Sort by")).to_have_value(order)

    label = labels(card(page, "cat.jpg")).nth(1)
    tab_to(page, label)
    keyboard.press("Space")
    expect(label).to_have_attribute("aria-pressed", "true")
    expect(card(page, "cat.jpg").get_by_text("Heat map: tabby cat", exact=True)).to_be_visible()
    keyboard.press("Enter")
    expect(label).to_have_attribute("aria-pressed", "false")

    # The page shows the photos in reverse order: coffee comes before the cat.
    for name, key in (("cat.jpg", "Tab"), ("coffee.jpg", "Shift+Tab")):
        tab_to(page, page.get_by_role("checkbox", name=f"Compare: {name}"), key)
        keyboard.press("Space")
        expect(page.get_by_role("checkbox", name=f"Compare: {name}")).to_be_checked()

    tab_to(page, page.get_by_role("link", name="Compare 2 photos"), "Shift+Tab")
    keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Compare photos")).to_be_focused()
    tab_to(page, page.get_by_role("link", name="Back to all photos"))
    keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Classify photos")).to_be_focused()
    expect(page.get_by_role("checkbox", name="Compare: cat.jpg")).to_be_checked()

    tab_to(page, page.get_by_role("button", name="Remove: coffee.jpg"))
    keyboard.press("Enter")
    expect(card(page, "coffee.jpg")).to_have_count(0)
    expect(card(page, "cat.jpg")).to_be_visible()


@ONLY_ON_A_DESK
def test_the_focus_is_seen_wherever_it_goes(page: Page) -> None:
    for view in walk(page):
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
def test_the_content_is_one_key_away(page: Page) -> None:
    expect(page.get_by_role("button", name="Choose photos")).to_be_visible()
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to the content")
    expect(skip).to_be_focused()
    expect(skip).to_be_in_viewport(ratio=1)
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()
    expect(skip).not_to_be_in_viewport()
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Choose photos")).to_be_focused()
    expect(page).to_have_title("Classify photos · litelens")


def test_another_view_begins_at_its_heading(page: Page) -> None:
    headings = {"Model": "The model", "Settings": "Settings", "Classify": "Classify photos"}
    for view, heading in headings.items():
        page.get_by_role("navigation").get_by_role("link", name=view).press("Enter")
        expect(page.get_by_role("heading", name=heading, level=1)).to_be_focused()
        expect(page).to_have_title(f"{heading} · litelens")
    page.go_back()
    expect(page.get_by_role("heading", name="Settings", level=1)).to_be_focused()


def test_a_screen_reader_is_told_of_every_result_and_failure(page: Page) -> None:
    said = hear(page)
    names = ["first.jpg", "second.jpg", "third.jpg", "fourth.jpg", "fifth.jpg"]
    choose_photos(page, *map(photo, names), BROKEN)
    wait_for_results(page, *names)
    expect(card(page, "broken.jpg").get_by_role("button", name="Try again")).to_be_visible()
    confidence = labels(card(page, "third.jpg")).first.locator("span").last.inner_text()
    for name in names:
        assert any(text.startswith(f"{name}: Egyptian cat, {confidence}.") for text in said()), name
    assert any(text.startswith("broken.jpg: This file is not a supported photo.") for text in said())
    # As each comes, so many are left; the last one is.
    left = [f" {count} photos are left." for count in (5, 4, 3, 2)] + [" 1 photo is left.", "."]
    assert len(said()) == len(left)
    assert all(text.endswith(end) for text, end in zip(said(), left, strict=True))
    assert "left" not in said()[-1]


def test_a_screen_reader_is_told_what_was_cancelled_and_what_was_refused(page: Page) -> None:
    said = hear(page)
    page.route("**/v1/classify*", lambda _: None, times=1)
    choose_photos(page, photo("slow.jpg"))
    card(page, "slow.jpg").get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("status")).to_have_text("slow.jpg: cancelled.")
    page.route("**/v1/classify*", lambda route: route.abort(), times=1)
    card(page, "slow.jpg").get_by_role("button", name="Try again").click()
    expect(page.get_by_role("status")).to_have_text(
        "slow.jpg: The service cannot be reached. Check the connection and the endpoint in Settings, then try again."
    )
    assert len([sentence for sentence in said() if sentence]) == 2


def hear(page: Page) -> Any:
    """A function that tells all that a screen reader was given to say of its own accord since now."""
    page.get_by_role("button", name="Choose photos").wait_for()
    status = page.get_by_role("status")
    status.evaluate(
        "(status) => { window.said = []; new MutationObserver(() => window.said.push(status.textContent))"
        ".observe(status, { childList: true, characterData: true, subtree: true }) }"
    )
    return lambda: page.evaluate("window.said")


def test_nothing_overflows_sideways_at_any_width(wordy_page: Page, device: str) -> None:
    height = 900
    for view in walk(wordy_page):
        for width in WIDTHS[device]:
            wordy_page.set_viewport_size({"width": width, "height": height})
            assert_fits(wordy_page, f"{view} at {width}")


def test_photos_are_compared_on_one_scale_whatever_they_are_called(page: Page, device: str) -> None:
    names = ["a.jpg", f"{LONG_NAME}.jpg", f"{LONG_WORD}.jpg"]
    choose_photos(page, photo(names[0]), photo(names[1], "coffee"), photo(names[2], "photographer"))
    wait_for_results(page, *names)
    compare(page, *names)
    columns = page.get_by_role("columnheader")
    expect(columns).to_have_text(names)
    widths = {round(columns.nth(index).bounding_box()["width"]) for index in range(3)}  # type: ignore[index]
    assert len(widths) == 1


def test_a_conversation_does_not_overflow_sideways(asking: Page, deployment: Deployment, device: str) -> None:
    deployment.converse.script(answer(f"It is {LONG_WORD * 3}. {'It is a rocket. ' * 30}"))
    open_view(asking, "Classify")
    choose_photos(asking, *(photo(f"{LONG_NAME}{number}.jpg") for number in range(8)))
    open_view(asking, "Ask")
    ask_model(asking, f"{LONG_WORD * 3}?")
    expect(asking.get_by_role("log")).to_contain_text("It is a rocket.")
    for width in WIDTHS[device]:
        asking.set_viewport_size({"width": width, "height": 900})
        assert_fits(asking, f"ask at {width}")


def assert_fits(page: Page, where: str) -> None:
    width = page.evaluate("document.scrollingElement.clientWidth")
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width, where
    assert page.evaluate(READ_CUT_OFF) == [], where


@ONLY_ON_A_DESK
def test_text_is_as_large_as_the_browser_is_set_to_and_twice_the_size_fits(page: Page) -> None:
    assert page.get_by_role("navigation").evaluate(FONT_SIZE) == "16px"
    page.context.new_cdp_session(page).send("Page.setFontSizes", {"fontSizes": {"standard": 32}})
    for view in walk(page):
        assert page.get_by_role("navigation").evaluate(FONT_SIZE) == "32px", view
        assert_fits(page, view)
        assert page.evaluate(READ_SPILLED) == [], view


def brightness(page: Page) -> float:
    """Of the page's ground, from 0 to 1."""
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return sum(map(int, colour.removeprefix("rgb(").removesuffix(")").split(", "))) / (3 * 255)


def test_the_theme_follows_the_device_until_one_is_chosen(page: Page) -> None:
    page.emulate_media(color_scheme="light")
    assert brightness(page) > 0.9
    page.emulate_media(color_scheme="dark")
    assert brightness(page) < 0.1


def test_a_chosen_theme_holds_whatever_the_device_says(page: Page) -> None:
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
def test_nothing_moves_for_those_who_do_not_want_it(page: Page) -> None:
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
