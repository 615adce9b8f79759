"""The choice of a model on the page."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from bundles import add_bundle
from page_actions import card, choose_photos, labels, open_view, wait_for_results
from page_text import page_text
from playwright.sync_api import Locator, Page, expect
from servers import run_server
from support import CAT

from litelens.core.bundle import MANIFEST


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def port(models: Path) -> Iterator[int]:
    """The port of a server with the default model and the models in the folder."""
    with run_server(LITELENS_MODELS=str(models)) as port:
        yield port


@pytest.fixture
def pets(models: Path) -> Iterator[Path]:
    """A second model, and a broken one."""
    bundle = add_bundle(models, "pets")
    (add_bundle(models, "broken") / MANIFEST).write_text("{")
    yield bundle
    shutil.rmtree(models / "broken")
    shutil.rmtree(bundle, ignore_errors=True)


def load(page: Page) -> None:
    with page.expect_response("**/v1/models"):
        page.reload()


def choice(page: Page) -> Locator:
    return page.get_by_role("combobox", name="Model")


def test_with_one_model_there_is_no_choice(page: Page) -> None:
    choose_photos(page, CAT)
    wait_for_results(page, "cat.jpg")
    expect(choice(page)).to_have_count(0)


@pytest.mark.usefixtures("pets")
def test_all_models_that_can_be_used_are_offered(page: Page) -> None:
    load(page)
    offered = choice(page)
    expect(offered.get_by_role("option")).to_have_text(["everyday", "pets"])
    expect(offered).to_have_value("everyday")


@pytest.mark.usefixtures("pets")
def test_photos_are_classified_again_with_another_model(page: Page) -> None:
    load(page)
    choose_photos(page, CAT)
    wait_for_results(page, "cat.jpg")
    expect(labels(card(page, "cat.jpg")).first).to_contain_text("Egyptian cat")
    with page.expect_response(lambda response: "/v1/classify?model=pets" in response.url):
        choice(page).select_option("pets")
    wait_for_results(page, "cat.jpg")
    expect(labels(card(page, "cat.jpg")).first).not_to_contain_text("Egyptian cat")
    with page.expect_response(lambda response: "model=pets" in response.url and "heatmap_label" in response.url):
        labels(card(page, "cat.jpg")).first.click()
    # The heat map of this model has two rows and columns.
    expect(card(page, "cat.jpg").get_by_text(page_text("coarse"))).to_be_visible()
    expect(card(page, "cat.jpg").locator("img[data-label]")).to_have_count(0)
    open_view(page, "Model")
    expect(page.get_by_role("main")).to_contain_text("cifar100-resnet50")


@pytest.mark.usefixtures("pets")
def test_the_tab_remembers_the_model(page: Page) -> None:
    load(page)
    choice(page).select_option("pets")
    load(page)
    expect(choice(page)).to_have_value("pets")


def test_the_default_model_replaces_one_that_is_gone(page: Page, pets: Path) -> None:
    load(page)
    choice(page).select_option("pets")
    shutil.rmtree(pets)
    load(page)
    expect(choice(page)).to_have_value("everyday")
    choose_photos(page, CAT)
    wait_for_results(page, "cat.jpg")
    expect(labels(card(page, "cat.jpg")).first).to_contain_text("Egyptian cat")
