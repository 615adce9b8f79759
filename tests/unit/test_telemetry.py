"""Metrics and log lines of the handlers, and the documentation and queries that use them."""

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
from aws import fake_clock, s3_error, scripted_aws
from bulk import (
    UPLOAD_REQUEST_ID,
    Context,
    StoredObject,
    batch,
    failed_ids,
    new_settings,
    notification,
    put,
    record,
)
from bundles import add_bundle, add_familiarity
from captured_logs import CapturedLogs, capture_logs, metric_units
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

from litelens.api import handler as api
from litelens.aws.errors import StorageUnavailable
from litelens.bulk import batches
from litelens.core.bundle import load_bundle
from litelens.core.classifier import Classifier
from litelens.core.engines import LiteRT
from litelens.core.images import Limits
from litelens.settings import Settings
from litelens.telemetry import metrics, record_batch, record_description, record_duplicate

Handle = Callable[[dict[str, Any]], dict[str, Any]]

PHOTO = ROCKET.read_bytes()
PHOTO_BASE64 = base64.b64encode(PHOTO).decode()
REQUEST_ID = recorded_event("health")["requestContext"]["requestId"]
MODEL = "{0.name}/{0.version}".format(load_bundle(DEFAULT_BUNDLE))
TRACE = "1-5e66d96f-7491f09xmpl79d18acf3d050"
SECRET = "zanzibar"
QUERIES = sorted((ROOT / "infra" / "queries").iterdir())
METRICS_PAGE = (ROOT / "docs" / "metrics.md").read_text()

IMAGE_METRICS = {
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
def logs(monkeypatch: pytest.MonkeyPatch) -> CapturedLogs:
    return capture_logs(monkeypatch)


@pytest.fixture
def settings(moto_server: str) -> Settings:
    return new_settings()


def record_of(stored: StoredObject, upload_request_id: str = UPLOAD_REQUEST_ID) -> dict[str, Any]:
    """Return S3's record of an object that was put by the request with this id."""
    return record(stored) | {"responseElements": {"x-amz-request-id": upload_request_id}}


def backfill(*puts: StoredObject) -> dict[str, Any]:
    items = [{"Key": stored.key, "Etag": f'"{stored.etag}"'} for stored in puts]
    return {"BatchInput": {"bucket": puts[0].bucket}, "Items": items}


def small(width: int) -> bytes:
    return encoded(Image.new("RGB", (width, 4), "gray"), "PNG")


class TestRequests:
    def test_an_image_emits_its_metrics_with_units(self, handle: Handle, logs: CapturedLogs) -> None:
        handle(classify_bytes(PHOTO))
        (line,) = logs.metric_lines()
        prediction = Classifier(load_bundle(DEFAULT_BUNDLE), Limits(), threads=1).classify(PHOTO)
        assert metric_units(line).items() >= (IMAGE_METRICS | {"Requests": "Count", "Duration": "Milliseconds"}).items()
        assert line["Requests"] == line["Classified"] == line["Uncertain"] == [1.0]
        assert line["ImageBytes"] == [len(PHOTO)]
        assert line["ImageMegapixels"] == [640 * 427 / 1_000_000]
        assert line["Entropy"] == [pytest.approx(prediction.entropy, abs=1e-4)]
        times = line["timing_ms"]
        parts = [line["Decode"], line["Inference"], line["Classification"]]
        assert parts == [[times["decode"]], [times["inference"]], [times["total"]]]
        assert line["Duration"][0] > times["total"]

    def test_a_request_with_one_image_writes_one_line(self, handle: Handle, logs: CapturedLogs) -> None:
        handle(classify_bytes(PHOTO))
        (line,) = logs.lines()
        assert line["message"] == "classified"

    def test_without_metrics_a_request_with_one_image_writes_a_log_line(
        self, handle: Handle, logs: CapturedLogs, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("POWERTOOLS_METRICS_DISABLED", "true")
        handle(classify_bytes(PHOTO))
        (line,) = logs.lines()
        assert (line["message"], line["level"], line["bytes"]) == ("classified", "INFO", len(PHOTO))

    def test_each_image_of_a_request_emits_its_own_metrics(self, handle: Handle, logs: CapturedLogs) -> None:
        gray = encoded(Image.new("RGB", (1000, 500), "gray"), "PNG")
        images = [PHOTO_BASE64, base64.b64encode(gray).decode(), base64.b64encode(b"hello").decode()]
        handle(classify_json({"images": [{"image": image} for image in images]}))
        assert logs.metric_values("ImageMegapixels") == [0.27328, 0.5]
        assert all(len(logs.metric_values(name)) == 2 for name in IMAGE_METRICS)
        assert logs.metric_values("Refused") == logs.metric_values("Requests") == [1.0]

    @pytest.mark.parametrize("threshold", ["0", "1"])
    def test_uncertain_answers_are_counted_by_the_models_threshold_and_not_the_requests(
        self, handle: Handle, logs: CapturedLogs, threshold: str
    ) -> None:
        handle(classify_bytes(PHOTO, threshold=threshold))
        assert logs.metric_values("Uncertain") == [1.0]
        assert logs.classified()[0]["uncertain"] is True

    def test_a_certain_answer_is_not_counted_as_uncertain(self, handle: Handle, logs: CapturedLogs) -> None:
        handle(classify_bytes(CAT.read_bytes()))
        assert logs.metric_values("Uncertain") == [0.0]

    def test_every_request_emits_a_line_with_its_id_route_and_engine(self, handle: Handle, logs: CapturedLogs) -> None:
        for request in (recorded_event("health"), classify_bytes(PHOTO), classify_bytes(b"hello")):
            handle(request | {"resource": "/v1/classify"})
        for line in logs.metric_lines():
            assert (line["request_id"], line["route"]) == (REQUEST_ID, "/v1/classify")
            assert (line["engine"], line["function_request_id"]) == ("litert", LambdaContext.aws_request_id)
        assert {line["engine"] for line in logs.log_lines()} == {"litert"}
        assert len(logs.metric_lines()) == len(logs.metric_values("Duration")) == 3

    def test_every_line_of_a_classification_names_the_model(self, handle: Handle, logs: CapturedLogs) -> None:
        for request in (classify_bytes(PHOTO), classify_bytes(b"hello")):
            handle(request)
        assert {line["model"] for line in logs.lines()} == {MODEL}

    def test_lines_have_the_id_of_a_trace_that_is_recorded(
        self, handle: Handle, logs: CapturedLogs, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("_X_AMZN_TRACE_ID", raising=False)
        handle(classify_bytes(b"hello"))
        monkeypatch.setenv("_X_AMZN_TRACE_ID", f"Root={TRACE};Parent=53995c3f42cd8ad8;Sampled=0")
        handle(classify_bytes(b"hello"))
        assert not any("xray_trace_id" in line for line in logs.lines())
        logs.clear()
        monkeypatch.setenv("_X_AMZN_TRACE_ID", f"Root={TRACE};Parent=53995c3f42cd8ad8;Sampled=1")
        handle(classify_bytes(b"hello"))
        assert [line["xray_trace_id"] for line in logs.lines()] == [TRACE, TRACE]
        logs.clear()
        monkeypatch.setenv("_X_AMZN_TRACE_ID", f"Root={TRACE};Parent=53995c3f42cd8ad8;Sampled=0")
        handle(classify_bytes(b"hello"))
        assert not any("xray_trace_id" in line for line in logs.lines())

    def test_an_internal_error_is_logged_with_the_code_of_its_answer(
        self, logs: CapturedLogs, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        handler = api.create_handler(Settings(DEFAULT_BUNDLE, Limits(), threads=1))
        monkeypatch.setattr(LiteRT, "run", None)
        handler(classify_bytes(PHOTO), LambdaContext())
        (line,) = logs.log_lines("failed")
        assert (line["code"], line["status"], line["request_id"]) == ("internal_error", 500, REQUEST_ID)
        assert logs.metric_values("Failed") == [1.0]

    def test_disabled_metrics_print_nothing(
        self, handle: Handle, logs: CapturedLogs, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("POWERTOOLS_METRICS_DISABLED", "true")
        for _ in range(101):
            handle(recorded_event("health"))
        assert logs.getvalue() == ""
        monkeypatch.delenv("POWERTOOLS_METRICS_DISABLED")
        handle(recorded_event("health"))
        assert logs.metric_values("Requests") == [1.0]


@pytest.mark.parametrize("text", ["a\nb", "a\r\nb", "\ud800", "\x00", "\u2028", "schön"])
def test_no_text_breaks_a_log_line(logs: CapturedLogs, text: str) -> None:
    record_description("model", 1, 1, text)
    assert logs.getvalue().encode().count(b"\n") == 1
    (line,) = [json.loads(line) for line in logs.getvalue().split("\n") if line]
    assert line["request_id"] == text.replace("\ud800", "?")


TWO_REQUESTS = """
from litelens.api.handler import handler
from support import LambdaContext, recorded_event
for _ in range(2):
    handler(recorded_event("health"), LambdaContext())
"""


@pytest.mark.parametrize(("configured", "namespace"), [({}, "litelens"), ({"NAMESPACE": "shop-prod"}, "shop-prod")])
def test_a_new_environment_counts_one_cold_start_with_the_service_as_its_only_dimension(
    configured: dict[str, str], namespace: str
) -> None:
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
    assert metric_units(first)["ColdStarts"] == "Count"
    assert first["ColdStarts"] == [1.0]
    assert "ColdStarts" not in second


class TestUploads:
    def test_every_line_names_the_model(self, settings: Settings, logs: CapturedLogs) -> None:
        handler = batches.create_handler(settings)
        for body in (small(4), b"hello"):
            handler(batch(notification(record_of(put(settings, "uploads/a.png", body)))), Context())
        assert {line["model"] for line in logs.lines()} == {MODEL}

    def test_concurrent_messages_log_their_own_ids(self, settings: Settings, logs: CapturedLogs) -> None:
        handler = batches.create_handler(settings)
        for turn in range(3):
            logs.clear()
            widths = range(4 + 10 * turn, 14 + 10 * turn)
            puts = [put(settings, f"uploads/{width}.png", small(width)) for width in widths]
            bodies = [
                notification(record_of(stored, f"UPLOAD{width}")) for stored, width in zip(puts, widths, strict=True)
            ]
            assert failed_ids(handler(batch(*bodies), Context())) == []
            lines = logs.classified()
            assert len(lines) == 10
            for line in lines:
                assert line["upload_request_id"] == f"UPLOAD{line['width']}"
                assert line["message_id"] == str(widths.index(line["width"]))
                assert line["request_id"] == line["function_request_id"] == Context.aws_request_id

    def test_objects_of_one_message_share_its_id_but_not_the_upload_request_id(
        self, settings: Settings, logs: CapturedLogs
    ) -> None:
        puts = [put(settings, f"uploads/{width}.png", small(width)) for width in (4, 5)]
        body = notification(record_of(puts[0], "UPLOAD4"), record_of(puts[1], "UPLOAD5"))
        batches.create_handler(settings)(batch("hello", body), Context())
        lines = logs.classified()
        assert {(line["message_id"], line["upload_request_id"]) for line in lines} == {
            ("1", "UPLOAD4"),
            ("1", "UPLOAD5"),
        }
        (failed,) = logs.log_lines("failed")
        assert (failed["message_id"], failed["code"]) == ("0", "internal_error")
        assert "upload_request_id" not in failed

    def test_a_failure_is_logged_with_its_upload_request_id(self, settings: Settings, logs: CapturedLogs) -> None:
        bodies = [
            notification(record_of(put(settings, "uploads/a", b"hello"), "UPLOADA")),
            notification(record_of(StoredObject("elsewhere", "uploads/b", "etag"), "UPLOADB")),
        ]
        assert failed_ids(batches.create_handler(settings)(batch(*bodies), Context())) == ["1"]
        codes = {line["upload_request_id"]: line["code"] for line in logs.log_lines("refused")}
        assert codes == {"UPLOADA": "not_an_image", "UPLOADB": "bucket_not_allowed"}

    def test_no_id_is_carried_over_to_the_next_invocation(self, settings: Settings, logs: CapturedLogs) -> None:
        stored = put(settings, "uploads/a", PHOTO)
        handler = batches.create_handler(settings)
        handler(batch(*[notification(record_of(stored))] * 10), Context())
        logs.clear()
        handler(backfill(*[stored] * 10), Context())
        assert len(logs.classified()) == 10
        for line in logs.log_lines():
            assert not {"message_id", "upload_request_id"} & line.keys()

    def test_a_message_that_is_delivered_again_is_counted_as_a_duplicate(
        self, settings: Settings, logs: CapturedLogs
    ) -> None:
        body = notification(record_of(put(settings, "uploads/a", PHOTO)))
        handler = batches.create_handler(settings)
        handler(batch(body), Context())
        assert logs.metric_values("Duplicates") == []
        logs.clear()
        handler(batch(body, delivery=2), Context())
        assert logs.metric_values("Duplicates") == [1.0]
        assert logs.metric_values("Classified") == []
        (line,) = logs.log_lines("duplicate")
        assert (line["message_id"], line["upload_request_id"]) == ("0", UPLOAD_REQUEST_ID)
        assert line["request_id"] == Context.aws_request_id

    def test_an_image_with_a_result_in_the_table_is_counted_as_a_duplicate(
        self, settings: Settings, logs: CapturedLogs
    ) -> None:
        body = notification(record_of(put(settings, "uploads/a", PHOTO)))
        for _ in range(2):
            batches.create_handler(settings)(batch(body), Context())
        assert logs.metric_values("Duplicates") == [1.0]
        assert [line["upload_request_id"] for line in logs.log_lines("duplicate")] == [UPLOAD_REQUEST_ID]

    def test_without_lines_for_results_a_batch_has_one_line_and_one_for_each_problem(
        self, settings: Settings, logs: CapturedLogs
    ) -> None:
        bodies = [notification(record_of(put(settings, f"uploads/{width}.png", small(width)))) for width in range(4, 9)]
        bodies.append(notification(record_of(put(settings, "uploads/a", b"hello"))))
        batches.create_handler(dataclasses.replace(settings, log_results=False))(batch(*bodies), Context())
        assert [line["message"] for line in logs.log_lines()] == ["refused"]
        assert len(logs.metric_lines()) == 1
        assert logs.metric_values("Classified") == [1.0] * 5


class TestBackfills:
    def test_no_metric_is_lost_if_a_batch_exceeds_one_line_of_metrics(
        self, settings: Settings, logs: CapturedLogs
    ) -> None:
        good, bad = put(settings, "good.png", small(8)), put(settings, "bad.png", b"hello")
        objects = [bad if number % 4 == 0 else good for number in range(280)]
        batches.create_handler(settings)(backfill(*objects), Context())
        assert logs.metric_values("Records") == [280.0]
        assert {name: len(logs.metric_values(name)) for name in IMAGE_METRICS} == dict.fromkeys(IMAGE_METRICS, 210)
        assert len(logs.metric_values("Refused")) == 70
        assert len(logs.classified()) == 210
        assert len(logs.metric_lines()) > 1
        assert all(len(line[name]) <= 100 for line in logs.metric_lines() for name in metric_units(line))
        assert all(line["function_request_id"] == Context.aws_request_id for line in logs.metric_lines())
        assert all(line["model"] == MODEL for line in logs.metric_lines())
        assert len(logs.metric_values("Duration")) == 1

    def test_a_log_line_never_interrupts_a_line_of_metrics(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Interrupted(CapturedLogs):
            """Lets another thread log while Powertools is in the middle of a line."""

            other = threading.Thread(target=record_duplicate)

            def write(self, text: str) -> int:
                count = super().write(text)
                if not text.endswith("\n"):
                    self.other.start()
                    self.other.join(0.5)
                return count

        logs = Interrupted()
        capture_logs(monkeypatch, logs)
        for number in range(100):
            record_batch(number)
        logs.other.join()
        metric, log = logs.lines()
        assert metric["Records"] == [float(number) for number in range(100)]
        assert log["message"] == "duplicate"

    def test_a_failed_batch_counts_its_failures(self, settings: Settings, logs: CapturedLogs) -> None:
        handler = batches.create_handler(settings)
        with pytest.MonkeyPatch.context() as patch, scripted_aws(s3_error(503, "SlowDown")):
            fake_clock(patch)
            with pytest.raises(StorageUnavailable):
                handler(backfill(StoredObject(settings.upload_bucket or "", "cat.jpg", "etag")), Context())
        assert logs.metric_values("Failed") == [1.0]
        assert [(line["code"], line["status"]) for line in logs.log_lines("failed")] == [("storage_unavailable", 503)]


@pytest.fixture(scope="module")
def all_output(moto_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CapturedLogs]:
    """The output of every entry point, with a secret wherever a client can put one; the model tells all it can."""
    bundle = add_bundle(tmp_path_factory.mktemp("models"), "everyday", DEFAULT_BUNDLE)
    with pytest.MonkeyPatch.context() as patch, converse_server() as bedrock:
        for name, value in bedrock.environment.items():
            patch.setenv(name, value)
        patch.setenv("_X_AMZN_TRACE_ID", f"Root={TRACE};Parent=53995c3f42cd8ad8;Sampled=1")
        bedrock.script(answer(SECRET))
        settings = dataclasses.replace(
            new_settings(event_bus="default", describe_model="amazon.nova-lite-v1:0"),
            bundle=add_familiarity(bundle, unfamiliar=False),
        )
        handle, take = api.create_handler(settings), batches.create_handler(settings)
        logs = capture_logs(patch)
        start_environment(patch, "api")
        for request in requests():
            handle(request, LambdaContext())
        with patch.context() as broken:
            broken.setattr(LiteRT, "run", None)
            handle(classify_bytes(PHOTO), LambdaContext())
        start_environment(patch, "bulk")
        puts = [put(settings, f"uploads/{SECRET}{number}.jpg", body) for number, body in enumerate((PHOTO, b"hello"))]
        bodies = [notification(record_of(stored)) for stored in puts]
        for _ in range(2):
            take(batch(*bodies, SECRET, notification(record_of(StoredObject(SECRET, SECRET, "etag")))), Context())
        take(backfill(*puts, StoredObject(SECRET, SECRET, "etag")), Context(seconds=12))
        yield logs


def start_environment(patch: pytest.MonkeyPatch, name: str) -> None:
    """Pretend that this process is a new execution environment of the function."""
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


def test_the_output_contains_nothing_that_clients_send_and_no_object_keys(all_output: CapturedLogs) -> None:
    text = all_output.getvalue()
    for leak in (SECRET, base64.b64encode(SECRET.encode()).decode()[:10], PHOTO_BASE64[:40], "uploads/", ".jpg", ".py"):
        assert leak not in text
    messages = {line["message"] for line in all_output.lines() if "message" in line}
    assert messages == {"classified", "refused", "failed", "described", "duplicate"}


def documented_metrics() -> dict[str, tuple[str, str]]:
    """Return the unit and the service of each metric in the table of docs/metrics.md."""
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (api|bulk|both) \|", METRICS_PAGE, re.MULTILINE)
    return {name: (unit, service) for name, unit, service in rows}


def test_the_documentation_lists_every_metric_with_its_unit_and_service(all_output: CapturedLogs) -> None:
    services: dict[tuple[str, str], set[str]] = {}
    for line in all_output.metric_lines():
        for metric in metric_units(line).items():
            services.setdefault(metric, set()).add(line["service"])
    emitted = {
        name: (unit, "both" if len(among) == 2 else next(iter(among))) for (name, unit), among in services.items()
    }
    named_after = {name for name in emitted if name.startswith(("Format", "Code"))}
    assert {name: emitted[name] for name in emitted.keys() - named_after} == documented_metrics()
    assert {emitted[name][0] for name in named_after} == {"Count"}


def test_formats_and_codes_have_metrics_named_after_them(all_output: CapturedLogs) -> None:
    lines = all_output.lines()
    for field, prefix in (("format", "Format"), ("code", "Code")):
        counted = Counter(line[field] for line in lines if field in line)
        assert counted
        for value, count in counted.items():
            name = prefix + (value if field == "format" else "".join(map(str.capitalize, value.split("_"))))
            assert sum(all_output.metric_values(name)) == count


def test_the_documentation_has_every_query() -> None:
    blocks = re.findall(r"^```\n(.+?)^```$", METRICS_PAGE, re.MULTILINE | re.DOTALL)
    assert sorted(blocks) == sorted(path.read_text() for path in QUERIES)


WORDS = {"fields", "filter", "stats", "sort", "limit", "by", "as", "and", "desc", "ispresent", "count", "avg", "pct"}


def field_names(query: str) -> set[str]:
    """Return the fields that a query names, without those that it defines itself."""
    unquoted = re.sub(r'"[^"]*"', "", query)
    made = set(re.findall(r" as (\w+)", unquoted))
    return set(re.findall(r"@?[A-Za-z_][\w.]*", unquoted)) - WORDS - made


def flattened(value: Any, name: str = "") -> set[str]:
    """Return the fields that Logs Insights finds in a line of JSON.

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
def test_every_field_that_a_query_names_is_in_the_output(all_output: CapturedLogs, query: Any) -> None:
    named = field_names(query.read_text())
    assert len(named) >= 2
    found = {field for line in all_output.lines() for field in flattened(line)}
    assert named <= found | {"@timestamp"}
    values = {line.get("message") for line in all_output.lines()} | {"REQUEST_ID"}
    assert set(re.findall(r'"([^"]*)"', query.read_text())) <= values
