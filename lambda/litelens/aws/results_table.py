"""The results table in DynamoDB: one result for each revision of an object and each model, by object or by day."""

import heapq
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from litelens.aws.clients import Deadline, aws_client, call_with_retry

# A day's results are spread over this many partitions, each of which takes 1,000 writes a second:
# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/bp-partition-key-design.html
SHARDS = 8
BY_DAY = "by_day"

_SERVICE = "The results table"


@dataclass(frozen=True)
class ResultId:
    """The identity of a result: an object's revision (its version id, or else its ETag) and the model's name."""

    bucket: str
    key: str
    revision: str
    model: str


class ResultsTable:
    """A table of results, each a JSON document. Methods raise StorageError. Safe for use by several threads."""

    def __init__(self, name: str) -> None:
        self._name = name

    def find(self, result_id: ResultId, deadline: Deadline) -> bytes | None:
        """Return the final result, or None. The read is strongly consistent."""
        found = self._call("get_item", deadline, Key=_primary_key(result_id), ConsistentRead=True)
        return _document(found["Item"]) if "Item" in found and found["Item"]["is_final"]["BOOL"] else None

    def count(self, bucket: str, key: str, most: int, deadline: Deadline) -> int:
        """Return the number of results of an object, but not more than `most`. The read is strongly consistent."""
        page = self._call(
            "query",
            deadline,
            KeyConditionExpression="image = :image",
            ExpressionAttributeValues={":image": {"S": f"{bucket}/{key}"}},
            Select="COUNT",
            ConsistentRead=True,
            Limit=most,
        )
        return int(page["Count"])

    def find_all(self, bucket: str, key: str, deadline: Deadline) -> list[bytes]:
        """Return all results of an object, newest first: one for each revision and model."""
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
        """Save the result for this many days, unless the table has a final one; return the one that it has now."""
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
        """Yield the results of these days (UTC) for keys with this prefix: newest day first, and by key within a day.

        Each page of a query may take this many `seconds`.
        """
        for back in range((last - first).days + 1):
            day = last - timedelta(days=back)
            shards = (self._query_shard(f"{day}#{shard}", prefix, seconds) for shard in range(SHARDS))
            for item in heapq.merge(*shards, key=lambda item: str(item["key"]["S"]).encode()):
                yield _document(item)

    def _query_shard(self, day: str, prefix: str, seconds: float) -> Iterator[dict[str, Any]]:
        """Yield the items of one partition, in byte order of their keys."""
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
        """Put the item; return False if the table has a final result already."""
        client = aws_client("dynamodb")

        def attempt() -> bool:
            try:
                client.put_item(
                    TableName=self._name,
                    Item=item,
                    ConditionExpression="attribute_not_exists(image) OR is_final = :no",
                    ExpressionAttributeValues={":no": {"BOOL": False}},
                )
            except client.exceptions.ConditionalCheckFailedException:
                return False
            return True

        return call_with_retry(attempt, deadline, _SERVICE)

    def _pages(self, deadline: Callable[[], Deadline], **query: Any) -> Iterator[dict[str, Any]]:
        """Yield the items of all pages; `deadline` returns the deadline of each page."""
        while True:
            page = self._call("query", deadline(), **query)
            yield from page["Items"]
            if "LastEvaluatedKey" not in page:
                return
            query["ExclusiveStartKey"] = page["LastEvaluatedKey"]

    def _call(self, operation: str, deadline: Deadline, **parameters: Any) -> Any:
        method = getattr(aws_client("dynamodb"), operation)
        return call_with_retry(lambda: method(TableName=self._name, **parameters), deadline, _SERVICE)


def _primary_key(result_id: ResultId) -> dict[str, Any]:
    return {
        "image": {"S": f"{result_id.bucket}/{result_id.key}"},
        "revision": {"S": f"{result_id.revision}#{result_id.model}"},
    }


def _document(item: dict[str, Any]) -> bytes:
    return str(item["document"]["S"]).encode()
