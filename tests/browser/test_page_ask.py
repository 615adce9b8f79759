"""Questions about a photo, which a server that speaks Bedrock's language answers."""

import base64
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from aws import AWS_TEXT
from converse import MALFORMED, ConverseServer, Received, answer, failure, refusal
from page_actions import SAMPLES, card, choose_photos, open_view, wait_for_results, with_key
from PIL import Image
from playwright.sync_api import BrowserContext, FilePayload, Locator, Page, Request, Route, expect
from servers import API_KEY, Deployment
from support import CAT, ROCKET

DESCRIBE = "**/v1/describe"
NO_MODEL = "This deployment has no language model to ask."
REFUSED = "The language model refuses to answer. Ask something else, or choose another photo."
UNAVAILABLE = "The language model cannot be reached. Ask again in a moment."
THROTTLED = "The language model gets too many questions. Wait a moment, then ask again."


@pytest.fixture
def converse(deployment: Deployment) -> Iterator[ConverseServer]:
    """The language model, which nobody has asked yet."""
    usual = answer("A rocket beside its tower.")
    deployment.converse.requests.clear()
    deployment.converse.script(usual)
    yield deployment.converse
    deployment.converse.script(usual)


@pytest.fixture
def asking(context: BrowserContext, deployment: Deployment, converse: ConverseServer) -> Page:
    """The page of a deployment with a language model, its key entered."""
    page = context.new_page()
    with_key(page, API_KEY)
    page.goto(deployment.url)
    return page


def about(page: Page, *photos: Path | FilePayload) -> None:
    """Open Ask with these photos."""
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


def asked(request: Received) -> list[tuple[str, str]]:
    """Return the roles and texts that the language model received."""
    return [(message["role"], message["content"][-1]["text"]) for message in request.document["messages"]]


def seen(request: Received) -> Image.Image:
    """The photo that the language model was shown."""
    content: list[dict[str, Any]] = request.document["messages"][0]["content"]
    return Image.open(BytesIO(base64.b64decode(content[0]["image"]["source"]["bytes"])))


def test_ask_is_offered_where_there_is_a_language_model(asking: Page) -> None:
    expect(asking.get_by_role("navigation").get_by_role("link", name="Ask")).to_be_visible()
    choose_photos(asking, ROCKET)
    expect(card(asking, "rocket.jpg").get_by_role("link", name="Ask")).to_be_visible()


def test_ask_is_not_offered_without_a_language_model(page: Page) -> None:
    choose_photos(page, ROCKET)
    wait_for_results(page, "rocket.jpg")
    expect(page.get_by_role("link", name="Model")).to_be_visible()
    expect(page.get_by_role("link", name="Ask")).to_have_count(0)
    page.goto(f"{page.url}#ask")
    expect(page.get_by_role("main")).to_contain_text(NO_MODEL)
    expect(question(page)).to_have_count(0)


def test_a_language_model_is_not_denied_before_that_is_known(context: BrowserContext, deployment: Deployment) -> None:
    page = context.new_page()
    held: list[Route] = []
    page.route("**/v1/model", lambda route: held.append(route))
    page.goto(f"{deployment.url}/#ask")
    expect(page.get_by_text("Loading the model")).to_be_visible()
    expect(page.get_by_text(NO_MODEL)).to_have_count(0)
    held.pop().continue_()
    expect(page.get_by_role("alert")).to_contain_text("The API key is missing or wrong.")
    expect(page.get_by_text(NO_MODEL)).to_have_count(0)


def test_without_a_photo_ask_tells_to_choose_one(asking: Page) -> None:
    open_view(asking, "Ask")
    expect(asking.get_by_text("Add a photo under Classify first")).to_be_visible()
    asking.get_by_role("link", name="Choose photos").click()
    expect(asking.get_by_role("button", name="Choose photos")).to_be_visible()


def test_a_question_is_answered(asking: Page, converse: ConverseServer) -> None:
    converse.script(answer("A rocket on its pad."))
    about(asking, ROCKET)
    ask_model(asking, "What is it?")
    expect(conversation(asking)).to_have_text(["You: What is it?", "A rocket on its pad."])
    expect(asking.get_by_text("Answered by a-model")).to_be_visible()
    expect(question(asking)).to_have_value("")
    (request,) = converse.requests
    assert asked(request) == [("user", "What is it?")]


def test_a_follow_up_question_carries_the_conversation_so_far(asking: Page, converse: ConverseServer) -> None:
    converse.script(answer("A rocket."), answer("White."))
    about(asking, ROCKET)
    ask_model(asking, "What is it?")
    expect(conversation(asking).last).to_contain_text("A rocket.")
    ask_model(asking, "Its colour?")
    expect(conversation(asking)).to_have_text(["You: What is it?", "A rocket.", "You: Its colour?", "White."])
    assert asked(converse.requests[-1]) == [
        ("user", "What is it?"),
        ("assistant", "A rocket."),
        ("user", "Its colour?"),
    ]


def test_each_photo_has_a_conversation_of_its_own(asking: Page, converse: ConverseServer) -> None:
    converse.script(answer("A rocket."), answer("A cat."))
    about(asking, ROCKET, CAT)
    ask_model(asking, "What is it?")
    expect(conversation(asking).last).to_contain_text("A rocket.")
    asking.get_by_role("radio", name="cat.jpg").check()
    expect(conversation(asking)).to_have_count(0)
    ask_model(asking, "And this?")
    expect(conversation(asking)).to_have_text(["You: And this?", "A cat."])
    assert asked(converse.requests[-1]) == [("user", "And this?")]
    asking.get_by_role("radio", name="rocket.jpg").check()
    expect(conversation(asking)).to_have_text(["You: What is it?", "A rocket."])


def test_the_chosen_photo_is_the_one_that_is_asked_about(asking: Page, converse: ConverseServer) -> None:
    choose_photos(asking, ROCKET, SAMPLES / "photographer.jpg", CAT)
    wait_for_results(asking, "photographer.jpg")
    card(asking, "photographer.jpg").get_by_role("link", name="Ask").click()
    expect(asking.get_by_role("radio", name="photographer.jpg")).to_be_checked()
    for name in ("photographer.jpg", "cat.jpg", "rocket.jpg"):
        asking.get_by_role("radio", name=name).check()
        ask_model(asking, "What is it?")
        expect(conversation(asking).last).to_contain_text("A rocket beside its tower.")
    assert [seen(request).size for request in converse.requests] == [(470, 470), (330, 290), (640, 427)]


def test_enter_sends_and_shift_enter_makes_a_new_line(asking: Page, converse: ConverseServer) -> None:
    about(asking, ROCKET)
    question(asking).press_sequentially("  ")
    question(asking).press("Enter")
    question(asking).fill("")
    question(asking).press_sequentially("What is it?")
    question(asking).press("Shift+Enter")
    question(asking).press_sequentially("And where?")
    expect(question(asking)).to_have_value("What is it?\nAnd where?")
    question(asking).press("Enter")
    expect(conversation(asking).last).to_contain_text("A rocket beside its tower.")
    (request,) = converse.requests
    assert asked(request) == [("user", "What is it?\nAnd where?")]


def test_no_answer_becomes_a_sentence_and_the_question_can_be_asked_again(
    asking: Page, converse: ConverseServer
) -> None:
    refused = [refusal("guardrail_intervened"), failure("AccessDeniedException"), MALFORMED]
    converse.script(*refused, answer("A rocket."))
    about(asking, ROCKET)
    ask_model(asking, "What is it?")
    for number, sentence in enumerate([REFUSED, UNAVAILABLE, UNAVAILABLE], 1):
        expect(conversation(asking)).to_contain_text([sentence])
        expect(conversation(asking)).to_have_count(1)
        assert len(converse.requests) == number
        assert AWS_TEXT not in asking.content()
        # Nobody need type it again.
        expect(question(asking)).to_have_value("What is it?")
        asking.get_by_role("button", name="Send").click()
    expect(conversation(asking)).to_have_text(["You: What is it?", "A rocket."])
    assert asked(converse.requests[-1]) == [("user", "What is it?")]


def test_a_language_model_that_is_asked_too_often_can_be_asked_again(asking: Page, converse: ConverseServer) -> None:
    problem = {"code": "describe_throttled", "status": 503, "detail": "", "request_id": "an-id"}
    asking.route(DESCRIBE, lambda route: route.fulfill(status=503, json=problem), times=1)
    about(asking, ROCKET)
    ask_model(asking, "What is it?")
    expect(conversation(asking).last).to_contain_text(THROTTLED)
    asking.get_by_role("button", name="Send").click()
    expect(conversation(asking)).to_have_text(["You: What is it?", "A rocket beside its tower."])


def test_a_question_can_be_cancelled_while_it_is_thought_about(asking: Page, converse: ConverseServer) -> None:
    # The server would take no other question until this one's time is up.
    held: list[Route] = []
    asking.route(DESCRIBE, lambda route: held.append(route), times=1)
    about(asking, ROCKET, CAT)
    ask_model(asking, "What is it?")
    expect(conversation(asking).last).to_contain_text("Looking at the photo")
    expect(asking.get_by_role("button", name="Send")).to_have_count(0)
    with asking.expect_event("requestfailed", is_question):
        asking.get_by_role("button", name="Cancel").click()
    expect(conversation(asking)).to_have_count(0)
    expect(question(asking)).to_have_value("What is it?")
    asking.get_by_role("button", name="Send").click()
    expect(conversation(asking)).to_have_text(["You: What is it?", "A rocket beside its tower."])
    assert len(converse.requests) == 1


def is_question(request: Request) -> bool:
    return request.url.endswith("/v1/describe")


def test_another_photo_can_be_asked_about_meanwhile(asking: Page, converse: ConverseServer) -> None:
    held: list[Route] = []
    asking.route(DESCRIBE, lambda route: held.append(route), times=1)
    converse.script(answer("A cat."), answer("A rocket."))
    about(asking, ROCKET, CAT)
    ask_model(asking, "What is it?")
    expect(conversation(asking).last).to_contain_text("Looking at the photo")
    asking.get_by_role("radio", name="cat.jpg").check()
    ask_model(asking, "And this?")
    expect(conversation(asking)).to_have_text(["You: And this?", "A cat."])
    held.pop().continue_()
    asking.get_by_role("radio", name="rocket.jpg").check()
    expect(conversation(asking)).to_have_text(["You: What is it?", "A rocket."])


def test_a_half_written_question_stays_with_its_photo(asking: Page) -> None:
    about(asking, ROCKET, CAT)
    question(asking).fill("How high is")
    asking.get_by_role("radio", name="cat.jpg").check()
    expect(question(asking)).to_have_value("")
    open_view(asking, "Classify")
    open_view(asking, "Ask")
    asking.get_by_role("radio", name="rocket.jpg").check()
    expect(question(asking)).to_have_value("How high is")


def test_an_answer_with_html_is_shown_as_text(asking: Page, converse: ConverseServer) -> None:
    html = '<img src="x" onerror="document.title = 1"><b>bold</b> & **so**'
    converse.script(answer(html))
    about(asking, ROCKET)
    ask_model(asking, "<i>What</i> is it?")
    expect(conversation(asking)).to_have_text(["You: <i>What</i> is it?", html])
    expect(conversation(asking).locator("img, b, i")).to_have_count(0)


def test_a_photo_that_is_found_too_large_is_sent_once_more_made_smaller(asking: Page) -> None:
    questions: list[Request] = []
    asking.on("request", lambda request: questions.append(request) if is_question(request) else None)
    problem = {"code": "image_too_large", "status": 413, "detail": "", "request_id": "an-id"}
    asking.route(DESCRIBE, lambda route: route.fulfill(status=413, json=problem), times=1)
    about(asking, ROCKET)
    ask_model(asking, "What is it?")
    expect(conversation(asking)).to_have_text(["You: What is it?", "A rocket beside its tower."])
    assert len(questions) == 2
