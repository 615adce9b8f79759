"""Photos in, labels out, on the page as people use it."""

from playwright.sync_api import Page, expect
from screen import SAMPLES, add, card, done, labels


def test_a_chosen_photo_shows_its_labels_with_confidences(page: Page) -> None:
    add(page, SAMPLES / "rocket.jpg")
    done(page, "rocket.jpg")
    expect(labels(card(page, "rocket.jpg")).first).to_contain_text("%")
