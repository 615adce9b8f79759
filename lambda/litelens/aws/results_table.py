"""The results table in DynamoDB: one result for each revision of an object and each model, by object or by day.

A result costs two write units of 1 KB, one in the table and one in its index. To fit, its JSON document is compressed
with a dictionary of what documents have in common. Results of earlier versions of litelens are plain text.
"""

import heapq
import time
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

# What the documents of results have in common, the most frequent parts last. It must not change, because stored results
# cannot be read with another dictionary.
_DICTIONARY = (
    b'"uncertain":true,"present":false,"unfamiliar":false,"embedding":{"backbone":"","dimension":1280,"base64":""}'
    b'{"status":"failed","problem":{"type":"urn:litelens:problem:","title":"","status":4,"detail":"","code":"",'
    b'"request_id":"""present":true,"index":,"confidence":0.0,"group":"{"bucket":"litelens-uploads-","key":"uploads/'
    b'","revision":"","model":{"name":"everyday","version":"1.0.0"},"time":"2026-+00:00","result":{"status":"done",'
    b'"image":{"format":"JPEG","width":,"height":},"predictions":[{"label":"","index":"},{"label":"","index":'
    b',"confidence":0.0"}],"uncertain":false,"timing_ms":{"decode":,"inference":,"total":},"group":{"label":"'
)

# Only results that can still change have the attribute is_final.
_FINAL, _NOT_FINAL = {"BOOL": True}, {"BOOL": False}


@dataclass(frozen=True)
class ResultId:
    """The identity of a result: an object's revision (its version id, or else its ETag) and the model's name."""

    bucket: str
    key: str
    revision: str
    model: str


class ResultsTable:
    """A table of results, each a JSON document. Methods raise StorageError. Safe for use by several threads.

    A result that has expired does not count, because DynamoDB deletes it only days later.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def find(self, result_id: ResultId, deadline: Deadline) -> bytes | None:
        """Return the final result, or None. The read is strongly consistent."""
        found = self._call("get_item", deadline, Key=_primary_key(result_id), ConsistentRead=True)
        item = found.get("Item")
        return document_of(item) if item and _is_live(item) and item.get("is_final", _FINAL) == _FINAL else None

    def find_all(self, bucket: str, key: str, deadline: Deadline) -> list[bytes]:
        """Return all results of an object, newest first: one for each revision and model."""
        items = self._pages(
            lambda: deadline,
            KeyConditionExpression="image = :image",
            ExpressionAttributeValues={":image": {"S": f"{bucket}/{key}"}},
            ConsistentRead=True,
        )
        return [document_of(item) for item in sorted(items, key=lambda item: str(item["time"]["S"]), reverse=True)]

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
        """Save the result for this many days, unless the table has a final one; return the one that it has now.

        This is a single conditional write, so that of several concurrent results for the same id the first one stays.
        """
        key = _primary_key(result_id)
        item = {
            **key,
            "day": {"S": f"{at.date()}#{zlib.crc32(result_id.key.encode()) % SHARDS}"},
            "key": {"S": result_id.key},
            "time": {"S": at.isoformat()},
            "document": {"B": _compress(document, key)},
            "expires_at": {"N": str(int((at + timedelta(days=days)).timestamp()))},
        }
        if not is_final:
            item["is_final"] = _NOT_FINAL
        earlier = self._put(item, at, deadline)
        return document_of(earlier) if earlier else document

    def list(self, first: date, last: date, prefix: str, seconds: float) -> Iterator[bytes]:
        """Yield the results of these days (UTC) for keys with this prefix: newest day first, and by key within a day.

        Each page of a query may take this many `seconds`.
        """
        for back in range((last - first).days + 1):
            day = last - timedelta(days=back)
            shards = (self._query_shard(f"{day}#{shard}", prefix, seconds) for shard in range(SHARDS))
            for item in heapq.merge(*shards, key=lambda item: str(item["key"]["S"]).encode()):
                yield document_of(item)

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

    def _put(self, item: dict[str, Any], at: datetime, deadline: Deadline) -> dict[str, Any] | None:
        """Put the item; if the table has a final result that has not expired, return that one's item instead."""
        client = aws_client("dynamodb")

        def attempt() -> dict[str, Any] | None:
            try:
                client.put_item(
                    TableName=self._name,
                    Item=item,
                    ConditionExpression="attribute_not_exists(image) OR is_final = :no OR expires_at < :now",
                    ExpressionAttributeValues={":no": _NOT_FINAL, ":now": {"N": str(int(at.timestamp()))}},
                    # Without this, the earlier item would have to be read.
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                )
            except client.exceptions.ConditionalCheckFailedException as error:
                return dict(error.response["Item"])
            return None

        return call_with_retry(attempt, deadline, _SERVICE)

    def _pages(self, deadline: Callable[[], Deadline], **query: Any) -> Iterator[dict[str, Any]]:
        """Yield the items of all pages that have not expired; `deadline` returns the deadline of each page."""
        while True:
            page = self._call("query", deadline(), **query)
            yield from filter(_is_live, page["Items"])
            if "LastEvaluatedKey" not in page:
                return
            query["ExclusiveStartKey"] = page["LastEvaluatedKey"]

    def _call(self, operation: str, deadline: Deadline, **parameters: Any) -> Any:
        method = getattr(aws_client("dynamodb"), operation)
        return call_with_retry(lambda: method(TableName=self._name, **parameters), deadline, _SERVICE)


def _is_live(item: dict[str, Any]) -> bool:
    return int(item["expires_at"]["N"]) >= time.time()


def _primary_key(result_id: ResultId) -> dict[str, Any]:
    return {
        "image": {"S": f"{result_id.bucket}/{result_id.key}"},
        "revision": {"S": f"{result_id.revision}#{result_id.model}"},
    }


def _compress(document: bytes, key: dict[str, Any]) -> bytes:
    compressor = zlib.compressobj(zlib.Z_BEST_COMPRESSION, wbits=-zlib.MAX_WBITS, zdict=_dictionary(key))
    return compressor.compress(document) + compressor.flush()


def document_of(item: dict[str, Any]) -> bytes:
    """Return the JSON document of an item."""
    document = item["document"]
    if "S" in document:
        return str(document["S"]).encode()
    decompressor = zlib.decompressobj(-zlib.MAX_WBITS, zdict=_dictionary(item))
    return decompressor.decompress(document["B"]) + decompressor.flush()


def _dictionary(item: dict[str, Any]) -> bytes:
    """Return the dictionary of an item's document, which repeats the item's key."""
    return f"{item['image']['S']}{item['revision']['S']}".encode() + _DICTIONARY
