"""The table of results in DynamoDB: one for each revision of an object and each model, found by object or by time."""

import heapq
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from adapters.calls import ask, aws_client
from adapters.deadline import Deadline

# A day's results are spread over so many partitions, each of which takes 1,000 writes a second:
# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/bp-partition-key-design.html
SHARDS = 8
BY_DAY = "by_day"

_SERVICE = "The table of results"


@dataclass(frozen=True)
class ResultId:
    """What was classified by what: an object's revision, which is its version id or else its etag, and the model."""

    bucket: str
    key: str
    revision: str
    model: str


class Results:
    """The results in a table, each a JSON document. Methods raise StorageError. May be used by several threads."""

    def __init__(self, table: str) -> None:
        self._table = table

    def find(self, result_id: ResultId, deadline: Deadline) -> bytes | None:
        """The final result, if there is one; one that was saved before is always seen."""
        found = self._ask("get_item", deadline, Key=_primary_key(result_id), ConsistentRead=True)
        return _document(found["Item"]) if "Item" in found and found["Item"]["is_final"]["BOOL"] else None

    def of_object(self, bucket: str, key: str, deadline: Deadline) -> list[bytes]:
        """All results of an object, newest first: few, since each is of another revision or by another model."""
        items = self._pages(
            lambda: deadline,
            KeyConditionExpression="image = :image",
            ExpressionAttributeValues={":image": {"S": f"{bucket}/{key}"}},
            ConsistentRead=True,
        )
        return [_document(item) for item in sorted(items, key=lambda item: str(item["time"]["S"]), reverse=True)]

    def save(
        self,
        result_id: ResultId,
        document: bytes,
        at: datetime,
        days: int,
        deadline: Deadline,
        *,
        is_final: bool = True,
    ) -> bytes:
        """Keep the result for so many days, unless there is a final one already; returns the one that is there then."""
        item = {
            **_primary_key(result_id),
            "day": {"S": f"{at.date()}#{zlib.crc32(result_id.key.encode()) % SHARDS}"},
            "key": {"S": result_id.key},
            "time": {"S": at.isoformat()},
            "document": {"S": document.decode()},
            "is_final": {"BOOL": is_final},
            "expires_at": {"N": str(int((at + timedelta(days=days)).timestamp()))},
        }
        return document if self._put(item, deadline) else self.find(result_id, deadline) or document

    def list(self, first: date, last: date, prefix: str, seconds: float) -> Iterator[bytes]:
        """The results of these days (UTC) for keys that begin with `prefix`, newest day first, in a day by key.

        `seconds` is what the next results may take to come, or to turn out to be none.
        """
        for back in range((last - first).days + 1):
            day = last - timedelta(days=back)
            shards = (self._of_shard(f"{day}#{shard}", prefix, seconds) for shard in range(SHARDS))
            for item in heapq.merge(*shards, key=lambda item: str(item["key"]["S"]).encode()):
                yield _document(item)

    def _of_shard(self, day: str, prefix: str, seconds: float) -> Iterator[dict[str, Any]]:
        """In the order of keys, as bytes."""
        condition, names, values = "#day = :day", {"#day": "day"}, {":day": {"S": day}}
        if prefix:
            condition += " AND begins_with(#key, :prefix)"
            names["#key"] = "key"
            values[":prefix"] = {"S": prefix}
        return self._pages(
            lambda: Deadline.after(seconds),
            IndexName=BY_DAY,
            KeyConditionExpression=condition,
            ExpressionAttributeNames=names,
            ExpressionAttributeValues=values,
        )

    def _put(self, item: dict[str, Any], deadline: Deadline) -> bool:
        """Whether the item was put; False when there is a final one already."""
        client = aws_client("dynamodb")

        def attempt() -> bool:
            try:
                client.put_item(
                    TableName=self._table,
                    Item=item,
                    ConditionExpression="attribute_not_exists(image) OR is_final = :no",
                    ExpressionAttributeValues={":no": {"BOOL": False}},
                )
            except client.exceptions.ConditionalCheckFailedException:
                return False
            return True

        return ask(attempt, deadline, _SERVICE)

    def _pages(self, deadline: Callable[[], Deadline], **query: Any) -> Iterator[dict[str, Any]]:
        """Each page has a deadline of its own."""
        while True:
            page = self._ask("query", deadline(), **query)
            yield from page["Items"]
            if "LastEvaluatedKey" not in page:
                return
            query["ExclusiveStartKey"] = page["LastEvaluatedKey"]

    def _ask(self, operation: str, deadline: Deadline, **parameters: Any) -> Any:
        call = getattr(aws_client("dynamodb"), operation)
        return ask(lambda: call(TableName=self._table, **parameters), deadline, _SERVICE)


def _primary_key(result_id: ResultId) -> dict[str, Any]:
    return {
        "image": {"S": f"{result_id.bucket}/{result_id.key}"},
        "revision": {"S": f"{result_id.revision}#{result_id.model}"},
    }


def _document(item: dict[str, Any]) -> bytes:
    return str(item["document"]["S"]).encode()
