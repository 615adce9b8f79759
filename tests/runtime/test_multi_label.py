"""A multi-label classifier that is learned from a table of labels, as people run it, and served by the API."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from class_folders import BASE, photo
from PIL import Image
from servers import ENVIRONMENT, run_server
from support import encoded

from litelens_client import Client

COUNT = 10


def both(number: int) -> Image.Image:
    """Return a photo with a cat on the left and coffee on the right."""
    image = Image.new("RGB", (192, 96))
    image.paste(photo("cat", number), (0, 0))
    image.paste(photo("coffee", number), (96, 0))
    return image.resize((96, 96), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    photos = folder / "photos"
    photos.mkdir()
    rows = ["file,labels"]
    for number in range(COUNT):
        for name, image, labels in (
            ("cat", photo("cat", number), "cat"),
            ("coffee", photo("coffee", number), "coffee"),
            ("both", both(number), "cat;coffee"),
        ):
            image.save(photos / f"{name}-{number}.png")
            rows.append(f"{name}-{number}.png,{labels}")
    (photos / "labels.csv").write_text("\n".join(rows))
    environment = {**ENVIRONMENT, "XDG_CACHE_HOME": str(folder / "cache"), "LITELENS_MODELS": ""}
    command = [sys.executable, "-m", "litelens_client", "learn", "photos/labels.csv", "--name", "scenes", "--json"]
    done = subprocess.run([*command, "--base", str(BASE)], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["metrics"]["mean_average_precision"] > 0.8
    return folder / "models" / "scenes"


@pytest.fixture(scope="module")
def client(bundle: Path) -> Iterator[Client]:
    with run_server(LITELENS_BUNDLE=str(bundle)) as port:
        yield Client(f"http://127.0.0.1:{port}")


def test_the_api_says_of_each_label_whether_it_is_present(client: Client) -> None:
    right = 0
    for number in range(40, 44):
        for image, labels in (
            (photo("cat", number), {"cat"}),
            (photo("coffee", number), {"coffee"}),
            (both(number), {"cat", "coffee"}),
        ):
            answer = client.classify(encoded(image, "PNG"))
            assert {each.label for each in answer.predictions} == {"cat", "coffee"}
            right += {each.label for each in answer.labels} == labels
    assert right >= 9


def test_the_threshold_of_a_request_is_that_of_all_labels(client: Client) -> None:
    answer = client.classify(encoded(photo("cat", 41), "PNG"), threshold=0)
    assert [each.present for each in answer.predictions] == [True, True]
