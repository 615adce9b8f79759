"""A photo that has several labels: the page shows all that are present."""

import csv
import io
import re
from typing import Any

import pytest
from page_actions import SAMPLES, card, choose_photos, labels
from page_text import page_text
from playwright.sync_api import FilePayload, Page, Route, expect

at_the_desk = pytest.mark.parametrize("device", ["desk"], indirect=True)


def answer(page: Page, **confidences: tuple[float, bool]) -> None:
    """Let all answers have these labels, each with its confidence and whether it is present."""

    def change(route: Route) -> None:
        response = route.fetch()
        document: dict[str, Any] = response.json()
        document.pop("group", None)
        document["predictions"] = [
            {"label": label, "index": index, "confidence": confidence, "present": present}
            for index, (label, (confidence, present)) in enumerate(confidences.items())
        ]
        route.fulfill(response=response, json=document)

    page.route("**/v1/classify*", change)


def photo() -> FilePayload:
    return {"name": "0.jpg", "mimeType": "image/jpeg", "buffer": (SAMPLES / "cat.jpg").read_bytes()}


@at_the_desk
def test_all_labels_that_are_present_are_the_answer(page: Page) -> None:
    answer(page, beach=(0.9, True), dog=(0.6, True), cat=(0.5, False), snow=(0.1, False))
    choose_photos(page, photo())
    expect(labels(card(page, "0.jpg"))).to_have_count(4)
    headline = card(page, "0.jpg").get_by_role("heading")
    expect(headline).to_contain_text("beach", ignore_case=True)
    expect(headline).to_contain_text("dog", ignore_case=True)
    expect(headline).not_to_contain_text("cat", ignore_case=True)
    page.get_by_role("button", name="Save", exact=True).click()
    with page.expect_download() as download:
        page.get_by_role("button", name=re.compile("CSV")).click()
    (row,) = csv.DictReader(io.StringIO(download.value.path().read_text()))
    assert (row["label"], row["confidence"]) == ("beach;dog", "0.9;0.6")


@at_the_desk
def test_a_label_and_a_confidence_belong_together_in_the_filter(page: Page) -> None:
    answer(page, beach=(0.9, True), dog=(0.6, True), cat=(0.5, False))
    choose_photos(page, *(photo() | {"name": f"{number}.jpg"} for number in range(5)))
    expect(labels(card(page, "4.jpg"))).to_have_count(3)
    page.get_by_role("button", name="Sort and filter").click()
    page.get_by_label(page_text("labelFilter")).select_option("dog")
    least = page.get_by_label(page_text("leastConfidence"))
    least.fill("0.6")
    expect(card(page, "4.jpg")).to_be_visible()
    least.fill("0.7")
    expect(card(page, "4.jpg")).to_have_count(0)
    page.get_by_label(page_text("labelFilter")).select_option("beach")
    expect(card(page, "4.jpg")).to_be_visible()


@at_the_desk
def test_a_photo_without_any_of_the_labels_is_said_to_have_none(page: Page) -> None:
    answer(page, beach=(0.2, False), dog=(0.1, False))
    choose_photos(page, photo())
    expect(labels(card(page, "0.jpg"))).to_have_count(2)
    expect(card(page, "0.jpg").get_by_role("heading")).to_have_text(page_text("none"))
