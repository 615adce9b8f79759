"""Two thousand uploads while workers are killed and the table of results refuses to answer: nothing is lost or doubled."""

import hashlib
import io
import json
import random
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from bulk import notification
from PIL import Image
from stacks import bodies_in, put, until, visible, waiting
from support import BUNDLE, LambdaContext, answer_of, classify_bytes, encoded

from adapters.uploads import RESULTS, result_key
from handlers.api import handler
from local.emulator import ExecutionEnvironment, InvocationFailed
from local.stack import Stack, Timeouts, local_stack

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

OBJECTS, SENT_AGAIN, BROKEN, KILLS = 1800, 200, 180, 5

# When a message comes again, the record that a killed invocation left must have run out, which it does with the time
# that the invocation had.
TIMEOUTS = Timeouts(function=15, visibility=25)

# Messages in the queue at a time; moto looks at all of them whenever some are asked for.
BACKLOG = 40

POISON = [
    "",
    "not JSON",
    '{"Records": "none"}',
    '{"Records": [{"eventName": "ObjectCreated:Put"}]}',
    notification({"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "photos"}, "object": {"key": "a.jpg"}}}),
]


@dataclass(frozen=True)
class Upload:
    """An object, and what has to become of it: a label, or a problem's code."""

    key: str
    body: bytes
    expected: str


class Throttle:
    """Refuses what is asked of one of DynamoDB's tables, so many times, as a table does that has no capacity left."""

    def __init__(self) -> None:
        self.table = ""
        self.left = 0

    def __call__(self, application: "WSGIApplication") -> "WSGIApplication":
        def throttled(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
            if self.left <= 0 or not str(environ.get("HTTP_X_AMZ_TARGET")).startswith("DynamoDB_"):
                return application(environ, start_response)
            body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
            environ["wsgi.input"] = io.BytesIO(body)
            if json.loads(body)["TableName"] != self.table:
                return application(environ, start_response)
            self.left -= 1
            start_response("400 Bad Request", [("Content-Type", "application/x-amz-json-1.0")])
            return [b'{"__type": "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException"}']

        return throttled


class Victim:
    """A worker that is watched, so that it can be killed in the middle of its work."""

    def __init__(self, worker: ExecutionEnvironment) -> None:
        self._worker = worker
        self._begun = self._ended = self.failed = 0

    def invoke(self, event: Any) -> Any:
        self._begun += 1
        try:
            return self._worker.invoke(event)
        except InvocationFailed:
            self.failed += 1
            raise
        finally:
            self._ended += 1

    def interrupt(self, chance: random.Random) -> None:
        """Kill it while it has a batch in hand."""
        before = self.failed
        while self.failed == before:
            until(lambda: self._begun > self._ended, pause=0.01)
            invocation = self._begun
            time.sleep(chance.uniform(0, 0.4))
            self._worker.kill()
            until(lambda: self._ended >= invocation, pause=0.01)


def test_nothing_is_lost_and_nothing_is_doubled() -> None:
    chance = random.Random(5)
    throttle = Throttle()
    uploads = make_uploads(chance)
    with local_stack(BUNDLE, workers=2, timeouts=TIMEOUTS, middleware=throttle) as stack:
        victims = [Victim(worker) for worker in stack.workers]
        kills = {chance.randrange(len(uploads) * 3 // 10, len(uploads) * 8 // 10) for _ in range(KILLS)}
        assert len(kills) == KILLS
        with replace(stack, workers=victims).polling():
            send_poison(stack)
            for number, upload in enumerate(sent(uploads, chance)):
                put(stack, upload.key, upload.body)
                if number % 10 == 0:
                    until(lambda: visible(stack) < BACKLOG)
                if number == len(uploads) // 5:
                    throttle.table, throttle.left = stack.storage.results_table, 200
                if number in kills:
                    chance.choice(victims).interrupt(chance)
            until(lambda: waiting(stack) == 0, within=600, pause=1)
        assert throttle.left <= 0
        assert sum(victim.failed for victim in victims) >= KILLS
        assert_all_is_there(stack, uploads)
        assert sorted(bodies_in(stack.client("sqs"), stack.storage.dead_letters_url)) == sorted(POISON)
