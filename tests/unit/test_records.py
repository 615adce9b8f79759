"""What the handlers write for CloudWatch: metrics, and log lines that belong together."""

import base64
import dataclasses
import json
import os
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from aws import error, failing_aws, still_clock
from bulk import UPLOAD_REQUEST_ID, Context, Put, batch, left, new_settings, new_table, notification, put, record
from converse import answer, converse_server
from PIL import Image
from support import (
    CAT,
    DEFAULT_BUNDLE,
    ROCKET,
    ROOT,
    LambdaContext,
    classify_bytes,
    classify_json,
    encoded,
    event,
    recorded_event,
)
from written import Written, units, written_from_now_on

from adapters.errors import StorageUnavailable
from handlers import api, batches
from handlers.records import metrics, record_batch, record_in_progress
from litelens.bundle import load_bundle
from litelens.classifier import Classifier
from litelens.engines import LiteRT
from litelens.images import Limits
from settings import Settings

Handle = Callable[[dict[str, Any]], dict[str, Any]]

PHOTO = ROCKET.read_bytes()
PHOTO_BASE64 = base64.b64encode(PHOTO).decode()
REQUEST_ID = recorded_event("health")["requestContext"]["requestId"]
TRACE = "1-5e66d96f-7491f09xmpl79d18acf3d050"
SECRET = "zanzibar"
QUERIES = sorted((ROOT / "infra" / "queries").iterdir())
METRICS_PAGE = (ROOT / "docs" / "metrics.md").read_text()

OF_AN_IMAGE = {
    "Classified": "Count",
    "Decode": "Milliseconds",
    "Inference": "Milliseconds",
    "Classification": "Milliseconds",
    "ImageBytes": "Bytes",
    "ImageMegapixels": "None",
    "Entropy": "None",
    "Uncertain": "Count",
}


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Written:
    return written_from_now_on(monkeypatch)


@pytest.fixture
def settings(moto_server: str) -> Settings:
    return new_settings()


def told(arrived: Put, upload_request_id: str = UPLOAD_REQUEST_ID) -> dict[str, Any]:
    """S3's record of an object that this request put."""
    return record(arrived) | {"responseElements": {"x-amz-request-id": upload_request_id}}


def backfill(*puts: Put) -> dict[str, Any]:
    items = [{"Key": arrived.key, "Etag": f'"{arrived.etag}"'} for arrived in puts]
    return {"BatchInput": {"bucket": puts[0].bucket}, "Items": items}


def small(width: int) -> bytes:
    return encoded(Image.new("RGB", (width, 4), "gray"), "PNG")


class TestRequests:
    def test_an_image_has_its_metrics_in_their_units(self, handle: Handle, written: Written) -> None:
        handle(classify_bytes(PHOTO))
        (line,) = written.emitted()
        (log,) = written.logged("classified")
        prediction = Classifier(load_bundle(DEFAULT_BUNDLE), Limits(), threads=1).classify(PHOTO)
        assert units(line).items() >= (OF_AN_IMAGE | {"Requests": "Count", "Duration": "Milliseconds"}).items()
        assert line["Requests"] == line["Classified"] == line["Uncertain"] == [1.0]
        assert line["ImageBytes"] == [len(PHOTO)]
        assert line["ImageMegapixels"] == [640 * 427 / 1_000_000]
        assert line["Entropy"] == [pytest.approx(prediction.entropy, abs=1e-4)]
        times = log["timing_ms"]
        parts = [line["Decode"], line["Inference"], line["Classification"]]
        assert parts == [[times["decode"]], [times["inference"]], [times["total"]]]
        assert line["Duration"][0] > times["total"]

    def test_each_image_of_a_request_has_its_own(self, handle: Handle, written: Written) -> None:
        gray = encoded(Image.new("RGB", (1000, 500), "gray"), "PNG")
        images = [PHOTO_BASE64, base64.b64encode(gray).decode(), base64.b64encode(b"hello").decode()]
        handle(classify_json({"images": [{"image": image} for image in images]}))
        assert written.values("ImageMegapixels") == [0.27328, 0.5]
        assert all(len(written.values(name)) == 2 for name in OF_AN_IMAGE)
        assert written.values("Refused") == written.values("Requests") == [1.0]

    @pytest.mark.parametrize("asked", ["0", "1"])
    def test_what_is_uncertain_is_told_by_the_models_threshold_and_not_the_requests(
        self, handle: Handle, written: Written, asked: str
    ) -> None:
        handle(classify_bytes(PHOTO, threshold=asked))
        assert written.values("Uncertain") == [1.0]
        assert written.logged("classified")[0]["uncertain"] is True

    def test_an_image_that_the_model_is_sure_of_is_not_uncertain(self, handle: Handle, written: Written) -> None:
        handle(classify_bytes(CAT.read_bytes()))
        assert written.values("Uncertain") == [0.0]

    def test_every_request_has_a_line_with_its_id_its_route_and_its_engine(
        self, handle: Handle, written: Written
    ) -> None:
        for request in (recorded_event("health"), classify_bytes(PHOTO), classify_bytes(b"hello")):
            handle(request | {"resource": "/v1/classify"})
        for line in written.emitted():
            assert (line["request_id"], line["route"]) == (REQUEST_ID, "/v1/classify")
            assert (line["engine"], line["function_request_id"]) == ("litert", LambdaContext.aws_request_id)
        assert {line["engine"] for line in written.logged()} == {"litert"}
        assert len(written.emitted()) == len(written.values("Duration")) == 3

    def test_lines_have_the_trace_where_lambda_traces(
        self, handle: Handle, written: Written, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("_X_AMZN_TRACE_ID", raising=False)
        handle(classify_bytes(PHOTO))
        assert not any("xray_trace_id" in line for line in written.lines())
        written.forget()
        monkeypatch.setenv("_X_AMZN_TRACE_ID", f"Root={TRACE};Parent=53995c3f42cd8ad8;Sampled=1")
        handle(classify_bytes(PHOTO))
        assert [line["xray_trace_id"] for line in written.lines()] == [TRACE, TRACE]

    def test_an_error_of_ours_has_the_code_that_its_answer_has(
        self, written: Written, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        handler = api.create_handler(Settings(DEFAULT_BUNDLE, Limits(), threads=1))
        monkeypatch.setattr(LiteRT, "run", None)
        handler(classify_bytes(PHOTO), LambdaContext())
        (line,) = written.logged("failed")
        assert (line["code"], line["status"], line["request_id"]) == ("internal_error", 500, REQUEST_ID)
        assert written.values("Failed") == [1.0]

    def test_where_metrics_are_off_none_is_ever_printed(
        self, handle: Handle, written: Written, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("POWERTOOLS_METRICS_DISABLED", "true")
        for _ in range(101):
            handle(recorded_event("health"))
        assert written.getvalue() == ""
        monkeypatch.delenv("POWERTOOLS_METRICS_DISABLED")
        handle(recorded_event("health"))
        assert written.values("Requests") == [1.0]


TWO_REQUESTS = """
from handlers.api import handler
from support import LambdaContext, recorded_event
for _ in range(2):
    handler(recorded_event("health"), LambdaContext())
"""


@pytest.mark.parametrize(("configured", "namespace"), [({}, "litelens"), ({"NAMESPACE": "shop-prod"}, "shop-prod")])
def test_a_new_environment_counts_one_cold_start_by_service_alone(configured: dict[str, str], namespace: str) -> None:
    variables = {f"POWERTOOLS_METRICS_{name}": value for name, value in configured.items()}
    path = os.pathsep.join(str(ROOT / folder) for folder in ("lambda", "tests"))
    done = subprocess.run(
        [sys.executable, "-c", TWO_REQUESTS],
        env={**os.environ, "PYTHONPATH": path, "POWERTOOLS_SERVICE_NAME": "api", **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    for line in (first, second):
        (described,) = line["_aws"]["CloudWatchMetrics"]
        assert (described["Namespace"], described["Dimensions"], line["service"]) == (namespace, [["service"]], "api")
    assert units(first)["ColdStarts"] == "Count"
    assert first["ColdStarts"] == [1.0]
    assert "ColdStarts" not in second


class TestUploads:
    def test_ten_messages_at_once_keep_their_ids_apart(self, settings: Settings, written: Written) -> None:
        handler = batches.create_handler(settings)
        for turn in range(3):
            written.forget()
            widths = range(4 + 10 * turn, 14 + 10 * turn)
            puts = [put(settings, f"uploads/{width}.png", small(width)) for width in widths]
            bodies = [
                notification(told(arrived, f"UPLOAD{width}")) for arrived, width in zip(puts, widths, strict=True)
            ]
            assert left(handler(batch(*bodies), Context())) == []
            lines = written.logged("classified")
            assert len(lines) == 10
            for line in lines:
                assert line["upload_request_id"] == f"UPLOAD{line['width']}"
                assert line["message_id"] == str(widths.index(line["width"]))
                assert line["request_id"] == line["function_request_id"] == Context.aws_request_id

    def test_objects_of_one_message_share_its_id_but_not_their_uploads(
        self, settings: Settings, written: Written
    ) -> None:
        puts = [put(settings, f"uploads/{width}.png", small(width)) for width in (4, 5)]
        body = notification(told(puts[0], "UPLOAD4"), told(puts[1], "UPLOAD5"))
        batches.create_handler(settings)(batch("hello", body), Context())
        lines = written.logged("classified")
        assert {(line["message_id"], line["upload_request_id"]) for line in lines} == {
            ("1", "UPLOAD4"),
            ("1", "UPLOAD5"),
        }
        (failed,) = written.logged("failed")
        assert (failed["message_id"], failed["code"]) == ("0", "internal_error")
        assert "upload_request_id" not in failed

    def test_what_fails_is_found_by_its_upload(self, settings: Settings, written: Written) -> None:
        bodies = [
            notification(told(put(settings, "uploads/a", b"hello"), "UPLOADA")),
            notification(told(Put("elsewhere", "uploads/b", "etag"), "UPLOADB")),
        ]
        assert left(batches.create_handler(settings)(batch(*bodies), Context())) == ["1"]
        codes = {line["upload_request_id"]: line["code"] for line in written.logged("refused")}
        assert codes == {"UPLOADA": "not_an_image", "UPLOADB": "bucket_not_allowed"}

    def test_lines_of_the_next_invocation_have_nothing_of_the_last(self, settings: Settings, written: Written) -> None:
        arrived = put(settings, "uploads/a", PHOTO)
        handler = batches.create_handler(settings)
        handler(batch(*[notification(told(arrived))] * 10), Context())
        written.forget()
        handler(backfill(*[arrived] * 10), Context())
        assert len(written.logged("classified")) == 10
        for line in written.logged():
            assert not {"message_id", "upload_request_id"} & line.keys()

    def test_a_message_that_comes_again_is_a_suppressed_duplicate(self, settings: Settings, written: Written) -> None:
        body = notification(told(put(settings, "uploads/a", PHOTO)))
        handler = batches.create_handler(settings)
        handler(batch(body), Context())
        assert written.values("Duplicates") == []
        written.forget()
        handler(batch(body), Context())
        assert written.values("Duplicates") == [1.0]
        assert written.values("Classified") == []
        (line,) = written.logged("duplicate")
        assert (line["message_id"], line["upload_request_id"]) == ("0", UPLOAD_REQUEST_ID)
        assert line["request_id"] == Context.aws_request_id

    def test_so_is_one_whose_result_is_found_though_nobody_remembers_it(
        self, settings: Settings, written: Written
    ) -> None:
        body = notification(told(put(settings, "uploads/a", PHOTO)))
        batches.create_handler(settings)(batch(body), Context())
        forgetful = dataclasses.replace(settings, idempotency_table=new_table("IdempotencyTable"))
        batches.create_handler(forgetful)(batch(body), Context())
        assert written.values("Duplicates") == [1.0]
        assert written.values("Classified") == [1.0]
        assert [line["upload_request_id"] for line in written.logged("duplicate")] == [UPLOAD_REQUEST_ID]


class TestBackfills:
    def test_of_more_images_than_a_line_of_metrics_holds_none_is_lost(
        self, settings: Settings, written: Written
    ) -> None:
        good, bad = put(settings, "good.png", small(8)), put(settings, "bad.png", b"hello")
        objects = [bad if number % 4 == 0 else good for number in range(280)]
        batches.create_handler(settings)(backfill(*objects), Context())
        assert written.values("Records") == [280.0]
        assert {name: len(written.values(name)) for name in OF_AN_IMAGE} == dict.fromkeys(OF_AN_IMAGE, 210)
        assert len(written.values("Refused")) == 70
        assert len(written.logged("classified")) == 210
        assert len(written.emitted()) > 1
        assert all(len(line[name]) <= 100 for line in written.emitted() for name in units(line))
        assert all(line["function_request_id"] == Context.aws_request_id for line in written.emitted())
        assert len(written.values("Duration")) == 1

    def test_no_line_is_logged_in_the_middle_of_one_of_metrics(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Interrupted(Written):
            """Another thread logs while what Powertools prints has no end yet."""

            other = threading.Thread(target=record_in_progress, args=["request"])

            def write(self, text: str) -> int:
                count = super().write(text)
                if not text.endswith("\n"):
                    self.other.start()
                    self.other.join(0.5)
                return count

        written = Interrupted()
        written_from_now_on(monkeypatch, written)
        for number in range(100):
            record_batch(number)
        written.other.join()
        metric, log = written.lines()
        assert metric["Records"] == [float(number) for number in range(100)]
        assert log["message"] == "in progress"

    def test_one_that_is_given_up_counts_what_failed(self, settings: Settings, written: Written) -> None:
        handler = batches.create_handler(settings)
        with pytest.MonkeyPatch.context() as patch, failing_aws(error(503, "SlowDown")):
            still_clock(patch)
            with pytest.raises(StorageUnavailable):
                handler(backfill(Put(settings.upload_bucket or "", "cat.jpg", "etag")), Context())
        assert written.values("Failed") == [1.0]
        assert [(line["code"], line["status"]) for line in written.logged("failed")] == [("storage_unavailable", 503)]


@pytest.fixture(scope="module")
def everything(moto_server: str) -> Iterator[Written]:
    """All that is written of each way in, with a secret wherever a client can put one."""
    with pytest.MonkeyPatch.context() as patch, converse_server() as bedrock:
        for name, value in bedrock.environment.items():
            patch.setenv(name, value)
        patch.setenv("_X_AMZN_TRACE_ID", f"Root={TRACE};Parent=53995c3f42cd8ad8;Sampled=1")
        bedrock.script(answer(SECRET))
        settings = new_settings(event_bus="default", describe_model="amazon.nova-lite-v1:0")
        handle, take = api.create_handler(settings), batches.create_handler(settings)
        written = written_from_now_on(patch)
        begin_service(patch, "api")
        for request in requests():
            handle(request, LambdaContext())
        with patch.context() as broken:
            broken.setattr(LiteRT, "run", None)
            handle(classify_bytes(PHOTO), LambdaContext())
        begin_service(patch, "bulk")
        puts = [put(settings, f"uploads/{SECRET}{number}.jpg", body) for number, body in enumerate((PHOTO, b"hello"))]
        bodies = [notification(told(arrived)) for arrived in puts]
        for _ in range(2):
            take(batch(*bodies, SECRET, notification(told(Put(SECRET, SECRET, "etag")))), Context())
        take(backfill(*puts, Put(SECRET, SECRET, "etag")), Context(seconds=12))
        yield written


def begin_service(patch: pytest.MonkeyPatch, name: str) -> None:
    """From now on this is a new execution environment of that function."""
    patch.setattr(metrics, "service", name)
    patch.setattr("aws_lambda_powertools.logging.logger.is_cold_start", True)


def requests() -> list[dict[str, Any]]:
    made = [
        classify_bytes(PHOTO, top_k="1"),
        classify_bytes(SECRET.encode()),
        classify_json({"image": base64.b64encode(SECRET.encode()).decode()}),
        classify_json({"image": SECRET}),
        classify_json({SECRET: 1}),
        classify_json({"s3": {"bucket": SECRET, "key": SECRET}}),
        classify_bytes(PHOTO, heatmap="true", heatmap_label=SECRET),
        event("GET", f"/v1/results/{SECRET}"),
        event("GET", f"/{SECRET}"),
        event("POST", "/v1/describe", json.dumps({"image": PHOTO_BASE64, "question": SECRET}), "application/json"),
    ]
    for request in made:
        request["headers"] |= {"x-api-key": SECRET, "Authorization": SECRET, "User-Agent": SECRET}
    return made


def test_nothing_that_is_written_has_what_a_client_sent_or_the_name_of_an_object(everything: Written) -> None:
    text = everything.getvalue()
    for leak in (SECRET, base64.b64encode(SECRET.encode()).decode()[:10], PHOTO_BASE64[:40], "uploads/", ".jpg", ".py"):
        assert leak not in text
    messages = {line["message"] for line in everything.logged()}
    assert messages == {"classified", "refused", "failed", "described", "duplicate"}


def documented_metrics() -> dict[str, tuple[str, str]]:
    """The unit and the service of each metric in the table of docs/metrics.md."""
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (api|bulk|both) \|", METRICS_PAGE, re.MULTILINE)
    return {name: (unit, service) for name, unit, service in rows}


def test_the_page_lists_every_metric_with_its_unit_and_service(everything: Written) -> None:
    services: dict[tuple[str, str], set[str]] = {}
    for line in everything.emitted():
        for metric in units(line).items():
            services.setdefault(metric, set()).add(line["service"])
    emitted = {
        name: (unit, "both" if len(among) == 2 else next(iter(among))) for (name, unit), among in services.items()
    }
    named_after = {name for name in emitted if name.startswith(("Format", "Code"))}
    assert {name: emitted[name] for name in emitted.keys() - named_after} == documented_metrics()
    assert {emitted[name][0] for name in named_after} == {"Count"}


def test_formats_and_codes_have_metrics_named_after_them(everything: Written) -> None:
    lines = everything.logged()
    for field, prefix in (("format", "Format"), ("code", "Code")):
        counted = Counter(line[field] for line in lines if field in line)
        assert counted
        for value, count in counted.items():
            name = prefix + (value if field == "format" else "".join(map(str.capitalize, value.split("_"))))
            assert sum(everything.values(name)) == count


def test_the_page_has_every_query() -> None:
    blocks = re.findall(r"^```\n(.+?)^```$", METRICS_PAGE, re.MULTILINE | re.DOTALL)
    assert sorted(blocks) == sorted(path.read_text() for path in QUERIES)


WORDS = {"fields", "filter", "stats", "sort", "limit", "by", "as", "and", "desc", "ispresent", "count", "avg", "pct"}


def fields_named(query: str) -> set[str]:
    """The fields that a query names, but for those that it makes itself."""
    unquoted = re.sub(r'"[^"]*"', "", query)
    made = set(re.findall(r" as (\w+)", unquoted))
    return set(re.findall(r"@?[A-Za-z_][\w.]*", unquoted)) - WORDS - made


def flattened(value: Any, name: str = "") -> set[str]:
    """The fields that Logs Insights finds in a line of JSON.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_AnalyzeLogData-discoverable-fields.html
    """
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list):
        inner = [(str(number), each) for number, each in enumerate(value)]
    else:
        return {name}
    return {found for key, each in inner for found in flattened(each, f"{name}.{key}" if name else key)}


@pytest.mark.parametrize("query", QUERIES, ids=lambda path: path.stem)
def test_every_field_that_a_query_names_is_in_the_lines(everything: Written, query: Any) -> None:
    named = fields_named(query.read_text())
    assert len(named) >= 2
    found = {field for line in everything.lines() for field in flattened(line)}
    assert named <= found | {"@timestamp"}
    values = {line.get("message") for line in everything.lines()} | {"REQUEST_ID"}
    assert set(re.findall(r'"([^"]*)"', query.read_text())) <= values
