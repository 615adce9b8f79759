"""The view Ask: questions about a photo, answered by a fake Bedrock."""

import base64
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from aws import AWS_TEXT
from converse import MALFORMED, ConverseServer, Received, answer, failure, refusal
from page_actions import SAMPLES, card, choose_photos, open_view, wait_for_results, with_key
from page_text import page_text
from PIL import Image
from playwright.sync_api import BrowserContext, FilePayload, Locator, Page, Request, Route, expect
from servers import API_KEY, Deployment
from support import CAT, ROCKET

DESCRIBE = "**/v1/describe"
NO_MODEL = page_text("askMissing")
REFUSED = page_text("describe_refused")
UNAVAILABLE = page_text("describe_unavailable")
THROTTLED = page_text("describe_throttled")


@pytest.fixture
def converse(deployment: Deployment) -> Iterator[ConverseServer]:
    """The server that stands in for the language model, without earlier requests."""
    usual = answer("A rocket beside its tower.")
    deployment.converse.requests.clear()
    deployment.converse.script(usual)
    yield deployment.converse
    deployment.converse.script(usual)


@pytest.fixture
def ask_page(context: BrowserContext, deployment: Deployment, converse: ConverseServer) -> Page:
    """The page of a deployment with a language model, after its key was entered."""
    page = context.new_page()
    with_key(page, API_KEY)
    page.goto(deployment.url)
    return page


def open_ask(page: Page, *photos: Path | FilePayload) -> None:
    """Choose photos, then open the view Ask."""
    choose_photos(page, *photos)
    open_view(page, "Ask")


def question(page: Page) -> Locator:
    return page.get_by_label("Your question")


def ask_model(page: Page, what: str) -> None:
    question(page).fill(what)
    page.get_by_role("button", name="Send").click()


def conversation(page: Page) -> Locator:
    """Return the texts of the conversation, in order."""
    return page.get_by_role("log", name="Conversation").get_by_role("paragraph")


def messages_of(request: Received) -> list[tuple[str, str]]:
    """Return the roles and texts that the language model received."""
    return [(message["role"], message["content"][-1]["text"]) for message in request.document["messages"]]


def photo_of(request: Received) -> Image.Image:
    """Return the photo that the language model received."""
    content: list[dict[str, Any]] = request.document["messages"][0]["content"]
    return Image.open(BytesIO(base64.b64decode(content[0]["image"]["source"]["bytes"])))


def test_ask_is_offered_if_the_deployment_has_a_language_model(ask_page: Page) -> None:
    expect(ask_page.get_by_role("navigation").get_by_role("link", name="Ask")).to_be_visible()
    choose_photos(ask_page, ROCKET)
    expect(card(ask_page, "rocket.jpg").get_by_role("link", name="Ask")).to_be_visible()


def test_ask_is_not_offered_without_a_language_model(page: Page) -> None:
    choose_photos(page, ROCKET)
    wait_for_results(page, "rocket.jpg")
    expect(page.get_by_role("link", name="Model")).to_be_visible()
    expect(page.get_by_role("link", name="Ask")).to_have_count(0)
    page.goto(f"{page.url}#ask")
    expect(page.get_by_role("main")).to_contain_text(NO_MODEL)
    expect(question(page)).to_have_count(0)


def test_a_missing_language_model_is_reported_only_when_that_is_known(
    context: BrowserContext, deployment: Deployment
) -> None:
    page = context.new_page()
    held: list[Route] = []
    page.route("**/v1/model", lambda route: held.append(route))
    page.goto(f"{deployment.url}/#ask")
    expect(page.get_by_text("Loading the model")).to_be_visible()
    expect(page.get_by_text(NO_MODEL)).to_have_count(0)
    held.pop().continue_()
    expect(page.get_by_role("alert")).to_contain_text(page_text("forbidden"))
    expect(page.get_by_text(NO_MODEL)).to_have_count(0)


def test_ask_without_a_photo_links_to_the_choice_of_one(ask_page: Page) -> None:
    open_view(ask_page, "Ask")
    expect(ask_page.get_by_text("Add a photo under Classify first")).to_be_visible()
    ask_page.get_by_role("link", name="Choose photos").click()
    expect(ask_page.get_by_role("button", name="Choose photos")).to_be_visible()


def test_a_question_is_answered(ask_page: Page, converse: ConverseServer) -> None:
    converse.script(answer("A rocket on its pad."))
    open_ask(ask_page, ROCKET)
    ask_model(ask_page, "What is it?")
    expect(conversation(ask_page)).to_have_text(["You: What is it?", "A rocket on its pad."])
    expect(ask_page.get_by_text("Answered by a-model")).to_be_visible()
    expect(question(ask_page)).to_have_value("")
    (request,) = converse.requests
    assert messages_of(request) == [("user", "What is it?")]


def test_a_follow_up_question_is_sent_with_the_conversation(ask_page: Page, converse: ConverseServer) -> None:
    converse.script(answer("A rocket."), answer("White."))
    open_ask(ask_page, ROCKET)
    ask_model(ask_page, "What is it?")
    expect(conversation(ask_page).last).to_contain_text("A rocket.")
    ask_model(ask_page, "Its colour?")
    expect(conversation(ask_page)).to_have_text(["You: What is it?", "A rocket.", "You: Its colour?", "White."])
    assert messages_of(converse.requests[-1]) == [
        ("user", "What is it?"),
        ("assistant", "A rocket."),
        ("user", "Its colour?"),
    ]


def test_each_photo_has_its_own_conversation(ask_page: Page, converse: ConverseServer) -> None:
    converse.script(answer("A rocket."), answer("A cat."))
    open_ask(ask_page, ROCKET, CAT)
    ask_model(ask_page, "What is it?")
    expect(conversation(ask_page).last).to_contain_text("A rocket.")
    ask_page.get_by_role("radio", name="cat.jpg").check()
    expect(conversation(ask_page)).to_have_count(0)
    ask_model(ask_page, "And this?")
    expect(conversation(ask_page)).to_have_text(["You: And this?", "A cat."])
    assert messages_of(converse.requests[-1]) == [("user", "And this?")]
    ask_page.get_by_role("radio", name="rocket.jpg").check()
    expect(conversation(ask_page)).to_have_text(["You: What is it?", "A rocket."])


def test_a_question_is_sent_with_the_chosen_photo(ask_page: Page, converse: ConverseServer) -> None:
    choose_photos(ask_page, ROCKET, SAMPLES / "photographer.jpg", CAT)
    wait_for_results(ask_page, "photographer.jpg")
    card(ask_page, "photographer.jpg").get_by_role("link", name="Ask").click()
    expect(ask_page.get_by_role("radio", name="photographer.jpg")).to_be_checked()
    for name in ("photographer.jpg", "cat.jpg", "rocket.jpg"):
        ask_page.get_by_role("radio", name=name).check()
        ask_model(ask_page, "What is it?")
        expect(conversation(ask_page).last).to_contain_text("A rocket beside its tower.")
    assert [photo_of(request).size for request in converse.requests] == [(470, 470), (330, 290), (640, 427)]


def test_enter_sends_and_shift_enter_makes_a_new_line(ask_page: Page, converse: ConverseServer) -> None:
    open_ask(ask_page, ROCKET)
    question(ask_page).press_sequentially("  ")
    question(ask_page).press("Enter")
    question(ask_page).fill("")
    question(ask_page).press_sequentially("What is it?")
    question(ask_page).press("Shift+Enter")
    question(ask_page).press_sequentially("And where?")
    expect(question(ask_page)).to_have_value("What is it?\nAnd where?")
    question(ask_page).press("Enter")
    expect(conversation(ask_page).last).to_contain_text("A rocket beside its tower.")
    (request,) = converse.requests
    assert messages_of(request) == [("user", "What is it?\nAnd where?")]


def test_a_failure_is_reported_and_the_question_can_be_sent_again(ask_page: Page, converse: ConverseServer) -> None:
    refused = [refusal("guardrail_intervened"), failure("AccessDeniedException"), MALFORMED]
    converse.script(*refused, answer("A rocket."))
    open_ask(ask_page, ROCKET)
    ask_model(ask_page, "What is it?")
    for number, sentence in enumerate([REFUSED, UNAVAILABLE, UNAVAILABLE], 1):
        expect(conversation(ask_page)).to_contain_text([sentence])
        expect(conversation(ask_page)).to_have_count(1)
        assert len(converse.requests) == number
        assert AWS_TEXT not in ask_page.content()
        # The question stays in its field.
        expect(question(ask_page)).to_have_value("What is it?")
        ask_page.get_by_role("button", name="Send").click()
    expect(conversation(ask_page)).to_have_text(["You: What is it?", "A rocket."])
    assert messages_of(converse.requests[-1]) == [("user", "What is it?")]


def test_a_throttled_question_is_reported_and_can_be_sent_again(ask_page: Page, converse: ConverseServer) -> None:
    problem = {"code": "describe_throttled", "status": 503, "detail": "", "request_id": "an-id"}
    ask_page.route(DESCRIBE, lambda route: route.fulfill(status=503, json=problem), times=1)
    open_ask(ask_page, ROCKET)
    ask_model(ask_page, "What is it?")
    expect(conversation(ask_page).last).to_contain_text(THROTTLED)
    ask_page.get_by_role("button", name="Send").click()
    expect(conversation(ask_page)).to_have_text(["You: What is it?", "A rocket beside its tower."])


def test_a_question_can_be_cancelled_before_it_is_answered(ask_page: Page, converse: ConverseServer) -> None:
    # The request is held here, because the server would answer no other question meanwhile.
    held: list[Route] = []
    ask_page.route(DESCRIBE, lambda route: held.append(route), times=1)
    open_ask(ask_page, ROCKET, CAT)
    ask_model(ask_page, "What is it?")
    expect(conversation(ask_page).last).to_contain_text("Looking at the photo")
    expect(ask_page.get_by_role("button", name="Send")).to_have_count(0)
    with ask_page.expect_event("requestfailed", is_question):
        ask_page.get_by_role("button", name="Cancel").click()
    expect(conversation(ask_page)).to_have_count(0)
    expect(question(ask_page)).to_have_value("What is it?")
    ask_page.get_by_role("button", name="Send").click()
    expect(conversation(ask_page)).to_have_text(["You: What is it?", "A rocket beside its tower."])
    assert len(converse.requests) == 1


def is_question(request: Request) -> bool:
    return request.url.endswith("/v1/describe")


def test_a_question_about_another_photo_can_be_sent_meanwhile(ask_page: Page, converse: ConverseServer) -> None:
    held: list[Route] = []
    ask_page.route(DESCRIBE, lambda route: held.append(route), times=1)
    converse.script(answer("A cat."), answer("A rocket."))
    open_ask(ask_page, ROCKET, CAT)
    ask_model(ask_page, "What is it?")
    expect(conversation(ask_page).last).to_contain_text("Looking at the photo")
    ask_page.get_by_role("radio", name="cat.jpg").check()
    ask_model(ask_page, "And this?")
    expect(conversation(ask_page)).to_have_text(["You: And this?", "A cat."])
    held.pop().continue_()
    ask_page.get_by_role("radio", name="rocket.jpg").check()
    expect(conversation(ask_page)).to_have_text(["You: What is it?", "A rocket."])


def test_a_half_written_question_stays_with_its_photo(ask_page: Page) -> None:
    open_ask(ask_page, ROCKET, CAT)
    question(ask_page).fill("How high is")
    ask_page.get_by_role("radio", name="cat.jpg").check()
    expect(question(ask_page)).to_have_value("")
    open_view(ask_page, "Classify")
    open_view(ask_page, "Ask")
    ask_page.get_by_role("radio", name="rocket.jpg").check()
    expect(question(ask_page)).to_have_value("How high is")


def test_an_answer_with_html_is_shown_as_text(ask_page: Page, converse: ConverseServer) -> None:
    html = '<img src="x" onerror="document.title = 1"><b>bold</b> & **so**'
    converse.script(answer(html))
    open_ask(ask_page, ROCKET)
    ask_model(ask_page, "<i>What</i> is it?")
    expect(conversation(ask_page)).to_have_text(["You: <i>What</i> is it?", html])
    expect(conversation(ask_page).locator("img, b, i")).to_have_count(0)


def test_a_photo_that_the_api_finds_too_large_is_shrunk_and_sent_once_more(ask_page: Page) -> None:
    questions: list[Request] = []
    ask_page.on("request", lambda request: questions.append(request) if is_question(request) else None)
    problem = {"code": "image_too_large", "status": 413, "detail": "", "request_id": "an-id"}
    ask_page.route(DESCRIBE, lambda route: route.fulfill(status=413, json=problem), times=1)
    open_ask(ask_page, ROCKET)
    ask_model(ask_page, "What is it?")
    expect(conversation(ask_page)).to_have_text(["You: What is it?", "A rocket beside its tower."])
    assert len(questions) == 2
