"""The release hook, with good and bad versions that run the API's handler."""

import base64
import dataclasses
import json
import shutil
import threading
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from aws import AWS_TEXT, Clock, fake_clock
from bulk import Context
from release_server import VERSION, Release, Reply, Respond, codedeploy_error, refusing, release_of, running
from support import CIFAR_BUNDLE, DEFAULT_BUNDLE, answer_of

from litelens.aws.errors import StorageError
from litelens.core.bundle import load_bundle
from litelens.core.errors import BundleError
from litelens.core.images import Limits
from litelens.release.hook import create_handler
from litelens.settings import Settings, SettingsError
from litelens.telemetry import logger

EVENT = {"DeploymentId": "d-7", "LifecycleEventHookExecutionId": "hook-7"}
FILES = [image.file for image in load_bundle(DEFAULT_BUNDLE).golden]
FIRST = f"everyday: {FILES[0]}: "

# Longer than any machine takes, for tests that are not about time.
AN_HOUR = 3_600_000


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A copy of the default bundle that a test may damage."""
    return shutil.copytree(DEFAULT_BUNDLE, tmp_path / DEFAULT_BUNDLE.name)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> StringIO:
    """The log of the hook and of the version."""
    stream = StringIO()
    monkeypatch.setattr(logger.registered_handler, "stream", stream)
    return stream


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return fake_clock(monkeypatch)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with a copy of the default bundle, `everyday`, and of another one, `cifar`."""
    for name, bundle in (("everyday", DEFAULT_BUNDLE), ("cifar", CIFAR_BUNDLE)):
        shutil.copytree(bundle, tmp_path / "models" / name)
    return tmp_path / "models"


def settings_of(bundle: Path, milliseconds: int = AN_HOUR, models: Path | None = None) -> Settings:
    return Settings(bundle, Limits(), 1, models=models, verified_function=VERSION, verified_milliseconds=milliseconds)


def version_with(settings: Settings) -> Respond:
    """Return a version with the API's handler, which is created in the first invocation that succeeds, as in Lambda."""
    from litelens.api import handler as api

    made: list[Callable[..., Any]] = []

    def handle(event: Any, context: Any) -> Any:
        if not made:
            made.append(api.create_handler(settings))
        return made[0](event, context)

    return running(handle)


def with_change(respond: Callable[..., Any], change: Callable[[dict[str, Any]], object]) -> Respond:
    """Return the same version, with a change in the JSON of its answers."""

    def respond_with_change(event: Any) -> Any:
        reply = respond(event)
        response = json.loads(reply.body)
        answer = answer_of(response)
        change(answer)
        response["body"] = json.dumps(answer)
        return dataclasses.replace(reply, body=json.dumps(response).encode())

    return respond_with_change


def findings(log: StringIO) -> list[str]:
    """Return the hook's findings from the log, in order."""
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    errors = [line for line in lines if line["level"] == "ERROR" and line["message"] != "unexpected"]
    assert all(line["deployment"] == "d-7" for line in errors)
    return [line["message"] for line in errors]


def run_hook(settings: Settings, seconds: float = 300) -> None:
    create_handler(lambda: settings)(EVENT, Context(seconds))


def run_release(settings: Settings, respond: Respond | None = None) -> Release:
    """Run the hook for these settings, with this version or else a good one; return the release."""
    with release_of(respond or version_with(settings)) as release:
        run_hook(settings)
    return release


def change_manifest(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def swap_labels(manifest: dict[str, Any]) -> None:
    """Reverse the labels, as if the model had been trained with another order."""
    manifest["labels"].reverse()


def test_a_good_version_succeeds(log: StringIO) -> None:
    assert run_release(settings_of(DEFAULT_BUNDLE)).status == "Succeeded"
    assert findings(log) == []


def test_a_good_version_with_the_other_engine_succeeds(log: StringIO) -> None:
    by_openvino = dataclasses.replace(settings_of(DEFAULT_BUNDLE), engine="openvino")
    assert run_release(by_openvino).status == "Succeeded"
    assert findings(log) == []


def test_every_golden_image_is_sent_unchanged_and_the_first_one_twice() -> None:
    events = run_release(settings_of(DEFAULT_BUNDLE)).events
    sent = [base64.b64decode(event["body"]) for event in events]
    assert sent == [(DEFAULT_BUNDLE / "golden" / file).read_bytes() for file in [FILES[0], *FILES]]
    assert [event["headers"]["Content-Type"] for event in events] == [
        "image/jpeg",
        *("image/jpeg", "image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp"),
    ]


def test_the_golden_images_of_every_model_are_sent_to_that_model(models: Path, log: StringIO) -> None:
    release = run_release(settings_of(models / "everyday", models=models))
    assert (release.status, findings(log)) == ("Succeeded", [])
    for name in ("everyday", "cifar"):
        images = load_bundle(models / name).golden
        sent = [event for event in release.events if event["queryStringParameters"]["model"] == name]
        assert [base64.b64decode(event["body"]) for event in sent] == [
            image.read(models / name) for image in (images[0], *images)
        ]


def test_a_version_fails_if_one_of_its_models_does(models: Path, log: StringIO) -> None:
    change_manifest(models / "cifar", swap_labels)
    assert run_release(settings_of(models / "everyday", models=models)).status == "Failed"
    assert {finding.split(": ")[0] for finding in findings(log)} == {"cifar"}


def test_a_version_fails_if_one_of_its_bundles_cannot_be_read(models: Path, log: StringIO) -> None:
    (models / "cifar" / "manifest.json").write_text("{")
    release = run_release(settings_of(models / "everyday", models=models))
    assert (release.status, release.events) == ("Failed", [])
    (found,) = findings(log)
    assert f"{models}/cifar/manifest.json" in found


def test_a_version_with_the_labels_in_another_order_fails(bundle: Path, log: StringIO) -> None:
    change_manifest(bundle, swap_labels)
    assert run_release(settings_of(bundle)).status == "Failed"
    assert [finding.split(": ")[1] for finding in findings(log)] == FILES


def test_a_version_whose_model_does_not_load_fails_with_the_functions_error(bundle: Path, log: StringIO) -> None:
    model = (bundle / "model.tflite").read_bytes()
    settings = settings_of(DEFAULT_BUNDLE)
    (bundle / "model.tflite").write_bytes(model[:-1])
    assert run_release(settings, version_with(settings_of(bundle))).status == "Failed"
    (found,) = findings(log)
    assert found.startswith(FIRST)
    assert f"BundleError: {bundle}/model.tflite" in found


def test_a_version_fails_if_the_hook_cannot_read_its_bundle(bundle: Path, log: StringIO) -> None:
    (bundle / "manifest.json").write_text("{")
    release = run_release(settings_of(bundle))
    assert (release.status, release.events) == ("Failed", [])
    (found,) = findings(log)
    assert f"{bundle}/manifest.json" in found


def test_a_version_with_a_corrupt_golden_image_fails(bundle: Path, log: StringIO) -> None:
    path = bundle / "golden" / "transparent.png"
    path.write_bytes(path.read_bytes()[:1000])
    assert run_release(settings_of(bundle)).status == "Failed"
    (found,) = findings(log)
    assert found.startswith("everyday: transparent.png: ")
    assert "corrupt_image" in found


def test_a_version_with_a_missing_golden_image_fails(bundle: Path, log: StringIO) -> None:
    path = bundle / "golden" / "photo.gif"
    path.unlink()
    release = run_release(settings_of(bundle))
    assert (release.status, release.events) == ("Failed", [])
    (found,) = findings(log)
    assert str(path) in found


def test_a_slow_version_fails(log: StringIO) -> None:
    settings = settings_of(DEFAULT_BUNDLE, 500)
    slow = with_change(version_with(settings), lambda answer: answer["timing_ms"].update(total=500.4))
    assert run_release(settings, slow).status == "Failed"
    (found,) = findings(log)
    assert "LITELENS_VERIFIED_MILLISECONDS" in found


def test_the_first_answer_and_one_of_the_warm_ones_may_be_slow() -> None:
    settings = settings_of(DEFAULT_BUNDLE, 500)
    times = iter([9000.0, 400.0, 9000.0, 400.0, 400.0, 400.0, 400.0])
    uneven = with_change(version_with(settings), lambda answer: answer["timing_ms"].update(total=next(times)))
    assert run_release(settings, uneven).status == "Succeeded"


def test_a_version_with_another_model_than_the_hooks_fails(bundle: Path, log: StringIO) -> None:
    change_manifest(bundle, lambda manifest: manifest.update(version="0.2.0"))
    assert run_release(settings_of(DEFAULT_BUNDLE), version_with(settings_of(bundle))).status == "Failed"
    (found,) = findings(log)
    assert "everyday/0.2.0" in found


def test_a_version_that_never_becomes_ready_fails_at_the_deadline(clock: Clock, log: StringIO) -> None:
    release = run_release(settings_of(DEFAULT_BUNDLE), refusing(409, "ResourceConflictException"))
    assert release.status == "Failed"
    assert len(release.events) > 3
    assert clock.now <= 1000 + 300
    (found,) = findings(log)
    assert found.startswith(FIRST)
    assert "ResourceConflictException" in found


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (409, "ResourceConflictException"),
        (409, "SnapStartNotReadyException"),
        (408, "SnapStartTimeoutException"),
        (429, "TooManyRequestsException"),
        (500, "ServiceException"),
    ],
)
@pytest.mark.usefixtures("clock")
def test_a_version_that_is_not_ready_yet_is_retried(status: int, code: str, log: StringIO) -> None:
    settings = settings_of(DEFAULT_BUNDLE)
    refusals = iter([refusing(status, code)] * 3)
    ready = version_with(settings)
    release = run_release(settings, lambda event: next(refusals, ready)(event))
    assert release.status == "Succeeded"
    assert len(release.events) == 3 + 1 + len(FILES)
    assert findings(log) == []


def test_a_version_that_may_not_be_invoked_fails_at_once(log: StringIO) -> None:
    release = run_release(settings_of(DEFAULT_BUNDLE), refusing(403, "AccessDeniedException"))
    assert (release.status, len(release.events)) == ("Failed", 1)
    assert AWS_TEXT not in log.getvalue()
    (found,) = findings(log)
    assert "AccessDeniedException" in found


@pytest.mark.parametrize(
    "answer",
    [None, [], "text", {"statusCode": 200}, {"statusCode": 200, "body": "{}"}, {"statusCode": 500, "body": ""}],
)
def test_a_version_with_a_malformed_answer_fails(answer: Any, log: StringIO) -> None:
    assert run_release(settings_of(DEFAULT_BUNDLE), running(lambda *_: answer)).status == "Failed"
    assert [finding.split(": ")[1] for finding in findings(log)] == FILES


def test_a_version_without_golden_images_fails(bundle: Path, log: StringIO) -> None:
    change_manifest(bundle, lambda manifest: manifest.pop("golden"))
    assert run_release(settings_of(bundle)).status == "Failed"
    assert len(findings(log)) == 1


def test_a_hook_without_a_version_to_test_reports_a_failure(log: StringIO) -> None:
    assert run_release(Settings(DEFAULT_BUNDLE, Limits(), 1)).status == "Failed"
    (found,) = findings(log)
    assert "LITELENS_VERIFIED_FUNCTION" in found


@pytest.mark.parametrize("error", [SettingsError("a wrong setting"), BundleError("no bundle")])
def test_invalid_settings_are_reported_as_a_failure(error: Exception, log: StringIO) -> None:
    def read() -> Settings:
        raise error

    with release_of(refusing(500, "ServiceException")) as release:
        create_handler(read)(EVENT, Context())
    assert release.status == "Failed"
    (found,) = findings(log)
    assert str(error) in found


def test_the_deployed_hook_reads_its_environment_in_each_invocation(
    log: StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    from litelens.release.hook import handler

    monkeypatch.delenv("LITELENS_BUNDLE")
    with release_of(refusing(500, "ServiceException")) as release:
        handler(EVENT, Context())
    assert (release.status, release.events) == ("Failed", [])
    (found,) = findings(log)
    assert "LITELENS_BUNDLE" in found
    monkeypatch.setenv("LITELENS_BUNDLE", str(DEFAULT_BUNDLE))
    monkeypatch.setenv("LITELENS_VERIFIED_FUNCTION", VERSION)
    monkeypatch.setenv("LITELENS_VERIFIED_MILLISECONDS", str(AN_HOUR))
    with release_of(version_with(settings_of(DEFAULT_BUNDLE))) as release:
        handler(EVENT, Context(300))
    assert release.status == "Succeeded"


def test_an_unexpected_error_is_reported_as_a_failure(log: StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("litelens.release.hook.Version.invoke", broken)
    assert run_release(settings_of(DEFAULT_BUNDLE)).status == "Failed"
    (found,) = findings(log)
    assert "ZeroDivisionError" in found


def test_a_failure_is_reported_to_codedeploy_if_there_is_no_time_to_test_the_version(log: StringIO) -> None:
    settings = settings_of(DEFAULT_BUNDLE)
    with release_of(version_with(settings)) as release:
        run_hook(settings, seconds=17)
    assert (release.status, release.events) == ("Failed", [])
    (found,) = findings(log)
    assert found.startswith(FIRST)


def test_a_hanging_version_fails_before_the_hook_times_out(log: StringIO) -> None:
    is_over = threading.Event()

    def hang(_: Any) -> Reply:
        is_over.wait(60)
        return Reply(200, b"{}")

    with release_of(hang) as release:
        run_hook(settings_of(DEFAULT_BUNDLE), seconds=19)
        is_over.set()
    assert release.status == "Failed"
    (found,) = findings(log)
    assert found.startswith(FIRST)


@pytest.mark.usefixtures("clock")
def test_reporting_to_codedeploy_is_retried() -> None:
    settings = settings_of(DEFAULT_BUNDLE)
    with release_of(version_with(settings), *[codedeploy_error("ThrottlingException")] * 2) as release:
        run_hook(settings)
    assert release.status == "Succeeded"


def test_a_report_that_codedeploy_already_has_is_not_an_error(log: StringIO) -> None:
    settings = settings_of(DEFAULT_BUNDLE)
    with release_of(version_with(settings), codedeploy_error("LifecycleEventAlreadyCompletedException")) as release:
        run_hook(settings)
    assert release.reports == []
    assert findings(log) == []


def test_the_hook_fails_if_it_cannot_report_to_codedeploy() -> None:
    settings = settings_of(DEFAULT_BUNDLE)
    with (
        release_of(version_with(settings), codedeploy_error("DeploymentDoesNotExistException")),
        pytest.raises(StorageError, match="CodeDeploy"),
    ):
        run_hook(settings)


def test_no_image_is_in_the_log(log: StringIO) -> None:
    events = run_release(settings_of(DEFAULT_BUNDLE)).events
    assert log.getvalue()
    assert not any(event["body"][:40] in log.getvalue() for event in events)
