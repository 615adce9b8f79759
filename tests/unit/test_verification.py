"""A rehearsal of releases: the hook's handler against versions that run the API's, good ones and bad ones."""

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
from aws import AWS_TEXT, Clock, still_clock
from bulk import Context
from release_server import VERSION, Release, Reply, Respond, codedeploy_error, refusing, release_of, running
from support import DEFAULT_BUNDLE, answer_of

from adapters.errors import StorageError
from handlers.records import logger
from handlers.verification import create_handler
from litelens.bundle import load_bundle
from litelens.errors import BundleError
from litelens.images import Limits
from settings import Settings, SettingsError

EVENT = {"DeploymentId": "d-7", "LifecycleEventHookExecutionId": "hook-7"}
FILES = [image.file for image in load_bundle(DEFAULT_BUNDLE).golden]

# As much as no machine takes, for tests that are not about time.
AN_HOUR = 3_600_000


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A copy of the bundled model that a test may damage."""
    return shutil.copytree(DEFAULT_BUNDLE, tmp_path / "bundle")


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> StringIO:
    """What the handlers log."""
    stream = StringIO()
    monkeypatch.setattr(logger.registered_handler, "stream", stream)
    return stream


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return still_clock(monkeypatch)


def settings_of(bundle: Path, milliseconds: int = AN_HOUR) -> Settings:
    return Settings(bundle, Limits(), 1, verified_function=VERSION, verified_milliseconds=milliseconds)


def serving(settings: Settings) -> Respond:
    """The API's handler for that bundle, made when it is first invoked, as Lambda does; again after it failed."""
    from handlers import api

    made: list[Callable[..., Any]] = []

    def handle(event: Any, context: Any) -> Any:
        if not made:
            made.append(api.create_handler(settings))
        return made[0](event, context)

    return running(handle)


def changed(respond: Callable[..., Any], change: Callable[[dict[str, Any]], object]) -> Respond:
    """The same version, but for a change in the JSON that it answers with."""

    def respond_changed(event: Any) -> Any:
        reply = respond(event)
        response = json.loads(reply.body)
        answer = answer_of(response)
        change(answer)
        response["body"] = json.dumps(answer)
        return dataclasses.replace(reply, body=json.dumps(response).encode())

    return respond_changed


def findings(written: StringIO) -> list[str]:
    """The errors in the log, in order."""
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    assert all(line["deployment"] == "d-7" for line in lines if line["level"] == "ERROR" and line["message"][0] != "u")
    return [line["message"] for line in lines if line["level"] == "ERROR"]


def verify(settings: Settings, seconds: float = 300) -> None:
    create_handler(lambda: settings)(EVENT, Context(seconds))


def rehearse(settings: Settings, respond: Respond | None = None) -> Release:
    """The release of that bundle, or of another version, once it was verified."""
    with release_of(respond or serving(settings)) as release:
        verify(settings)
    return release


def change_manifest(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def swap_labels(manifest: dict[str, Any]) -> None:
    """The labels in the wrong order, as of a model that was trained with another one."""
    manifest["labels"].reverse()


def test_a_good_bundle_succeeds(written: StringIO) -> None:
    assert rehearse(settings_of(DEFAULT_BUNDLE)).status == "Succeeded"
    assert findings(written) == []
    assert "CodeDeploy was told that the version passed." in written.getvalue()


def test_a_good_bundle_succeeds_by_the_other_engine(written: StringIO) -> None:
    by_openvino = dataclasses.replace(settings_of(DEFAULT_BUNDLE), engine="openvino")
    assert rehearse(by_openvino).status == "Succeeded"
    assert findings(written) == []


def test_every_golden_image_is_sent_as_it_is_the_first_one_twice() -> None:
    events = rehearse(settings_of(DEFAULT_BUNDLE)).events
    sent = [base64.b64decode(event["body"]) for event in events]
    assert sent == [(DEFAULT_BUNDLE / "golden" / file).read_bytes() for file in [FILES[0], *FILES]]
    assert [event["headers"]["Content-Type"] for event in events] == [
        "image/jpeg",
        *("image/jpeg", "image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp"),
    ]


def test_a_bundle_with_the_labels_in_another_order_fails(bundle: Path, written: StringIO) -> None:
    change_manifest(bundle, swap_labels)
    assert rehearse(settings_of(bundle)).status == "Failed"
    found = findings(written)
    assert [finding.partition(":")[0] for finding in found] == FILES
    assert "more than 0.1 from the expected" in found[1]


def test_a_model_that_does_not_load_fails_with_what_the_function_said(bundle: Path, written: StringIO) -> None:
    model = (bundle / "model.tflite").read_bytes()
    settings = settings_of(DEFAULT_BUNDLE)
    (bundle / "model.tflite").write_bytes(model[:-1])
    assert rehearse(settings, serving(settings_of(bundle))).status == "Failed"
    (found,) = findings(written)
    assert found.startswith(
        f"{FILES[0]}: The version ended with an error instead of an answer: BundleError: {bundle}/model.tflite has the "
    )


def test_a_bundle_that_the_hook_cannot_read_either_fails(bundle: Path, written: StringIO) -> None:
    (bundle / "manifest.json").write_text("{")
    release = rehearse(settings_of(bundle))
    assert (release.status, release.events) == ("Failed", [])
    (found,) = findings(written)
    assert found.startswith(f"The version was not tried: {bundle}/manifest.json is not valid JSON")


def test_a_golden_image_that_is_corrupt_fails(bundle: Path, written: StringIO) -> None:
    path = bundle / "golden" / "transparent.png"
    path.write_bytes(path.read_bytes()[:1000])
    assert rehearse(settings_of(bundle)).status == "Failed"
    assert findings(written) == ["transparent.png: the answer has the status 422 (corrupt_image) and not 200."]


def test_a_golden_image_that_is_missing_fails(bundle: Path, written: StringIO) -> None:
    path = bundle / "golden" / "photo.gif"
    path.unlink()
    release = rehearse(settings_of(bundle))
    assert (release.status, release.events) == ("Failed", [])
    assert findings(written) == [f"The version was not tried: {path} cannot be read: No such file or directory."]


def test_a_version_that_is_too_slow_fails(written: StringIO) -> None:
    settings = settings_of(DEFAULT_BUNDLE, 500)
    slow = changed(serving(settings), lambda answer: answer["timing_ms"].update(total=500.4))
    assert rehearse(settings, slow).status == "Failed"
    assert findings(written) == [
        "The version is too slow: half of 6 warm answers took 500.4 ms or more; LITELENS_VERIFIED_MILLISECONDS "
        "allows 500."
    ]


def test_a_first_answer_may_be_slow_and_one_of_the_warm_ones() -> None:
    settings = settings_of(DEFAULT_BUNDLE, 500)
    times = iter([9000.0, 400.0, 9000.0, 400.0, 400.0, 400.0, 400.0])
    uneven = changed(serving(settings), lambda answer: answer["timing_ms"].update(total=next(times)))
    assert rehearse(settings, uneven).status == "Succeeded"


def test_another_model_than_the_bundles_fails(bundle: Path, written: StringIO) -> None:
    change_manifest(bundle, lambda manifest: manifest.update(version="0.2.0"))
    assert rehearse(settings_of(DEFAULT_BUNDLE), serving(settings_of(bundle))).status == "Failed"
    assert findings(written) == ["The version serves everyday 0.2.0 and not everyday 1.0.0, which is in its image."]


def test_a_version_that_never_gets_ready_fails_at_the_deadline(clock: Clock, written: StringIO) -> None:
    release = rehearse(settings_of(DEFAULT_BUNDLE), refusing(409, "ResourceConflictException"))
    assert release.status == "Failed"
    assert len(release.events) > 3
    assert clock.now <= 1000 + 300
    assert findings(written) == [f"{FILES[0]}: Lambda could not have the version answer: ResourceConflictException."]


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
def test_a_version_that_gets_ready_is_asked_again(status: int, code: str, written: StringIO) -> None:
    settings = settings_of(DEFAULT_BUNDLE)
    refusals = iter([refusing(status, code)] * 3)
    ready = serving(settings)
    release = rehearse(settings, lambda event: next(refusals, ready)(event))
    assert release.status == "Succeeded"
    assert len(release.events) == 3 + 1 + len(FILES)
    assert findings(written) == []


def test_a_version_that_may_not_be_invoked_fails_at_once(written: StringIO) -> None:
    release = rehearse(settings_of(DEFAULT_BUNDLE), refusing(403, "AccessDeniedException"))
    assert (release.status, len(release.events)) == ("Failed", 1)
    assert AWS_TEXT not in written.getvalue()
    assert findings(written) == [f"{FILES[0]}: Lambda could not have the version answer: AccessDeniedException."]


@pytest.mark.parametrize(
    "answer",
    [None, [], "text", {"statusCode": 200}, {"statusCode": 200, "body": "{}"}, {"statusCode": 500, "body": ""}],
)
def test_an_answer_of_another_form_fails(answer: Any, written: StringIO) -> None:
    assert rehearse(settings_of(DEFAULT_BUNDLE), running(lambda *_: answer)).status == "Failed"
    assert findings(written) == [f"{file}: the answer is not of the documented form." for file in FILES]


def test_a_bundle_without_golden_images_fails(bundle: Path, written: StringIO) -> None:
    change_manifest(bundle, lambda manifest: manifest.pop("golden"))
    assert rehearse(settings_of(bundle)).status == "Failed"
    assert findings(written) == [
        "The version was not tried: everyday has no golden images; docs/train.md tells how it gets them."
    ]


def test_a_hook_without_a_version_fails(written: StringIO) -> None:
    assert rehearse(Settings(DEFAULT_BUNDLE, Limits(), 1)).status == "Failed"
    (found,) = findings(written)
    assert found.startswith("The version was not tried: LITELENS_VERIFIED_FUNCTION is not set")


@pytest.mark.parametrize("error", [SettingsError("no sense"), BundleError("no bundle")])
def test_an_environment_that_cannot_be_fails(error: Exception, written: StringIO) -> None:
    def read() -> Settings:
        raise error

    with release_of(refusing(500, "ServiceException")) as release:
        create_handler(read)(EVENT, Context())
    assert release.status == "Failed"
    assert findings(written) == [f"The version was not tried: {error}."]


def test_the_deployed_function_reads_the_environment_when_it_is_invoked(
    written: StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    from handlers.verify import handler

    monkeypatch.delenv("LITELENS_BUNDLE")
    with release_of(refusing(500, "ServiceException")) as release:
        handler(EVENT, Context())
    assert (release.status, release.events) == ("Failed", [])
    (found,) = findings(written)
    assert found.startswith("The version was not tried: LITELENS_BUNDLE is not set")
    monkeypatch.setenv("LITELENS_BUNDLE", str(DEFAULT_BUNDLE))
    monkeypatch.setenv("LITELENS_VERIFIED_FUNCTION", VERSION)
    monkeypatch.setenv("LITELENS_VERIFIED_MILLISECONDS", str(AN_HOUR))
    with release_of(serving(settings_of(DEFAULT_BUNDLE))) as release:
        handler(EVENT, Context(300))
    assert release.status == "Succeeded"


def test_an_error_that_nobody_expected_fails(written: StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("handlers.verification.Version.invoke", broken)
    assert rehearse(settings_of(DEFAULT_BUNDLE)).status == "Failed"
    assert findings(written) == [
        "unexpected",
        "The verification broke off by ZeroDivisionError; the version may be good or not.",
    ]


def test_what_has_no_time_left_for_the_version_still_tells_codedeploy(written: StringIO) -> None:
    settings = settings_of(DEFAULT_BUNDLE)
    with release_of(serving(settings)) as release:
        verify(settings, seconds=17)
    assert (release.status, release.events) == ("Failed", [])
    assert findings(written) == [f"{FILES[0]}: The version did not answer in time."]


def test_a_version_that_hangs_fails_before_the_hooks_own_time_is_over(written: StringIO) -> None:
    told = threading.Event()

    def hang(_: Any) -> Reply:
        told.wait(60)
        return Reply(200, b"{}")

    with release_of(hang) as release:
        verify(settings_of(DEFAULT_BUNDLE), seconds=19)
        told.set()
    assert release.status == "Failed"
    assert findings(written) == [f"{FILES[0]}: The version did not answer in time."]


@pytest.mark.usefixtures("clock")
def test_codedeploy_is_told_again_when_it_did_not_listen() -> None:
    settings = settings_of(DEFAULT_BUNDLE)
    with release_of(serving(settings), *[codedeploy_error("ThrottlingException")] * 2) as release:
        verify(settings)
    assert release.status == "Succeeded"


def test_codedeploy_need_not_be_told_twice(written: StringIO) -> None:
    settings = settings_of(DEFAULT_BUNDLE)
    with release_of(serving(settings), codedeploy_error("LifecycleEventAlreadyCompletedException")) as release:
        verify(settings)
    assert release.told == []
    assert findings(written) == []


def test_a_codedeploy_that_cannot_be_told_fails_the_hook() -> None:
    settings = settings_of(DEFAULT_BUNDLE)
    with (
        release_of(serving(settings), codedeploy_error("DeploymentDoesNotExistException")),
        pytest.raises(StorageError, match="CodeDeploy cannot be used"),
    ):
        verify(settings)


def test_no_image_is_in_the_log(written: StringIO) -> None:
    events = rehearse(settings_of(DEFAULT_BUNDLE)).events
    assert written.getvalue()
    assert not any(event["body"][:40] in written.getvalue() for event in events)
