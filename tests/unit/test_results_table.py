"""ResultsTable on moto's DynamoDB, with the table that the template declares."""

import base64
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from aws import dynamodb_error, fake_clock, scripted_aws
from bulk import new_table, table_items
from support import DEFAULT_BUNDLE, SAMPLES

from litelens.api.response_schemas import BulkResult, Model, classification_of
from litelens.aws.clients import Deadline, aws_client
from litelens.aws.errors import StorageUnavailable
from litelens.aws.results_table import ResultId, ResultsTable
from litelens.core.bundle import load_bundle
from litelens.core.classifier import Classifier
from litelens.core.images import Limits

# 63 characters.
LONGEST_BUCKET = "a-bucket-name-of-sixty-three-characters-which-is-the-longest-on"
CAT = ResultId("photos", "uploads/cat.jpg", "etag", "model/1")
# Of today, because results that have expired do not count.
NOON = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)


@pytest.fixture
def table(moto_server: str) -> str:
    return new_table("ResultsTable")


@pytest.fixture
def results(table: str) -> ResultsTable:
    return ResultsTable(table)


def soon() -> Deadline:
    return Deadline.after(25)


def key_of(number: int) -> str:
    return f"uploads/{number:03}.jpg"


def test_a_saved_result_is_found(results: ResultsTable) -> None:
    assert results.find(CAT, soon()) is None
    assert results.save(CAT, b'{"it": "is"}', NOON, 30, soon(), is_final=True) == b'{"it": "is"}'
    assert results.find(CAT, soon()) == b'{"it": "is"}'


def test_the_first_final_result_is_kept(results: ResultsTable, table: str) -> None:
    results.save(CAT, b"first", NOON, 30, soon(), is_final=True)
    assert results.save(CAT, b"second", NOON, 30, soon(), is_final=True) == b"first"
    assert results.find(CAT, soon()) == b"first"
    assert len(table_items(table)) == 1


def test_a_result_that_is_not_final_is_replaced_by_a_final_one(results: ResultsTable, table: str) -> None:
    results.save(CAT, b"gone", NOON, 30, soon(), is_final=False)
    assert results.find(CAT, soon()) is None
    assert results.find_all("photos", "uploads/cat.jpg", soon()) == [b"gone"]
    assert results.save(CAT, b"back", NOON, 30, soon(), is_final=True) == b"back"
    assert results.save(CAT, b"gone again", NOON, 30, soon(), is_final=False) == b"back"
    assert results.find(CAT, soon()) == b"back"
    assert len(table_items(table)) == 1


def test_every_revision_and_every_model_has_its_own_result(results: ResultsTable) -> None:
    others = [
        CAT,
        ResultId("photos", "uploads/cat.jpg", "another", "model/1"),
        ResultId("photos", "uploads/cat.jpg", "etag", "model/2"),
        ResultId("scans", "uploads/cat.jpg", "etag", "model/1"),
    ]
    for number, other in enumerate(others):
        results.save(other, f"{number}".encode(), NOON + timedelta(seconds=number), 30, soon(), is_final=True)
    assert [results.find(other, soon()) for other in others] == [b"0", b"1", b"2", b"3"]
    assert results.find_all("photos", "uploads/cat.jpg", soon()) == [b"2", b"1", b"0"]


def test_a_result_of_an_earlier_version_is_read_and_kept(results: ResultsTable, table: str) -> None:
    results.save(CAT, b"{}", NOON, 30, soon())
    (item,) = table_items(table)
    earlier = item | {"document": {"S": '{"from": "before"}'}, "is_final": {"BOOL": True}}
    aws_client("dynamodb").put_item(TableName=table, Item=earlier)
    assert results.find(CAT, soon()) == b'{"from": "before"}'
    assert results.save(CAT, b'{"from": "now"}', NOON, 30, soon()) == b'{"from": "before"}'
    assert list(results.list(NOON.date(), NOON.date(), "", 25)) == [b'{"from": "before"}']


def test_a_result_that_was_stored_stays_readable(results: ResultsTable, table: str) -> None:
    document = (
        b'{"bucket":"photos","key":"uploads/cat.jpg","revision":"etag","result":{"status":"done","predictions":'
        b'[{"label":"cat","index":1,"confidence":0.9}],"uncertain":false}}'
    )
    results.save(CAT, document, NOON, 30, soon())
    (item,) = table_items(table)
    stored = base64.b64decode("QwrnAnBSxQhcaJJFDWNQAsYbSLj8DTQN4UdDdE9aYvNjbS0A")
    aws_client("dynamodb").put_item(TableName=table, Item=item | {"document": {"B": stored}})
    assert results.find(CAT, soon()) == document


@pytest.mark.parametrize("key_length", [40, 200])
def test_a_result_fits_into_one_write_unit_of_the_table_and_one_of_its_index(
    results: ResultsTable, table: str, key_length: int
) -> None:
    classifier = Classifier(load_bundle(DEFAULT_BUNDLE), Limits(), threads=1)
    key, model = f"uploads/{'k' * key_length}.jpg", Model("everyday", "1.1.0")
    revision = "9b2cf535f27731c974343645a3985328"
    for photo in SAMPLES.glob("*.jpg"):
        shown = classification_of(classifier.classify(photo.read_bytes()))
        result = BulkResult(LONGEST_BUCKET, key, revision, model, NOON.isoformat(), shown)
        result_id = ResultId(LONGEST_BUCKET, key, revision, f"{model.full_name}/{photo.stem}")
        results.save(result_id, msgspec.json.encode(result), NOON, 30, soon())
    sizes = [item_bytes(item) for item in table_items(table)]
    assert len(sizes) >= 3
    assert max(sizes) <= 1024


def item_bytes(item: dict[str, Any]) -> int:
    """Return the size of an item whose values are text, bytes and numbers of up to 38 digits.

    https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html
    """
    total = 0
    for name, value in item.items():
        ((kind, held),) = value.items()
        total += len(name.encode())
        total += (len(held) + 1) // 2 + 1 if kind == "N" else len(held if kind == "B" else held.encode())
    return total


def test_a_result_expires_after_its_days(results: ResultsTable, table: str) -> None:
    results.save(CAT, b"{}", NOON, 7, soon(), is_final=True)
    (item,) = table_items(table)
    assert item["expires_at"] == {"N": str(int((NOON + timedelta(days=7)).timestamp()))}


def test_a_result_that_has_expired_but_is_not_deleted_yet_gives_way_to_a_new_one(results: ResultsTable) -> None:
    long_ago = NOON - timedelta(days=10)
    results.save(CAT, b"expired", long_ago, 7, soon())
    assert results.find(CAT, soon()) is None
    assert results.find_all("photos", "uploads/cat.jpg", soon()) == []
    assert list(results.list(long_ago.date(), NOON.date(), "", 25)) == []
    assert results.save(CAT, b"new", NOON, 7, soon()) == b"new"
    assert results.find(CAT, soon()) == b"new"
    assert results.save(CAT, b"late", NOON, 7, soon()) == b"new"


def test_results_are_listed_by_prefix_and_day(results: ResultsTable) -> None:
    for number in range(40):
        for days in (0, 1, 5):
            at = NOON - timedelta(days=days)
            result_id = ResultId("photos", key_of(number), f"{days}", "model/1")
            results.save(result_id, f"{number} {days}".encode(), at, 30, soon(), is_final=True)
    today = NOON.date()
    listed = [text.decode().split() for text in results.list(today - timedelta(days=1), today, "uploads/01", 25)]
    assert [days for _, days in listed] == ["0"] * 10 + ["1"] * 10
    assert [int(number) for number, days in listed if days == "0"] == list(range(10, 20))
    everything = list(results.list(today - timedelta(days=9), today, "", 25))
    assert len(everything) == 120


def test_a_long_list_is_complete(results: ResultsTable) -> None:
    large = random.Random(5).randbytes(200_000)
    for number in range(60):
        results.save(ResultId("photos", key_of(number), "etag", "model/1"), large, NOON, 30, soon(), is_final=True)
    assert len(list(results.list(NOON.date(), NOON.date(), "uploads/", 25))) == 60


@pytest.mark.parametrize("key", ["uploads/" + "k" * 1016, "uploads/" + "ü" * 508, "uploads/a b+ü/%2F#.jpg"])
def test_any_valid_key_can_have_a_result(results: ResultsTable, key: str) -> None:
    result_id = ResultId(LONGEST_BUCKET, key, "e", "model/1")
    results.save(result_id, b"{}", NOON, 30, soon(), is_final=True)
    assert results.find_all(result_id.bucket, key, soon()) == [b"{}"]
    assert list(results.list(NOON.date(), NOON.date(), key, 25)) == [b"{}"]


def test_requests_to_a_throttled_table_are_retried_until_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = fake_clock(monkeypatch)
    throttled = dynamodb_error("ProvisionedThroughputExceededException")
    unavailable = pytest.raises(StorageUnavailable)
    with scripted_aws(throttled) as requests, unavailable:
        ResultsTable("results").find(CAT, soon())
    assert len(requests) > 3
    assert clock.pauses
