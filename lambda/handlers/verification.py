"""Trying a new version: golden images sent to it as API Gateway sends them, and CodeDeploy told what came of it.

https://docs.aws.amazon.com/codedeploy/latest/userguide/reference-appspec-file-structure-hooks.html
"""

import base64
import statistics
import uuid
from collections.abc import Callable
from typing import Any

import msgspec
from aws_lambda_powertools.utilities.typing import LambdaContext

from adapters.deadline import Deadline
from adapters.errors import VersionError
from adapters.releases import Version, tell_codedeploy
from handlers.answers import ClassifyAnswer, Model
from handlers.records import logger
from litelens.bundle import Bundle, load_bundle
from litelens.errors import BundleError
from litelens.golden import GoldenImage, complaint
from settings import Settings, SettingsError, required

Handler = Callable[[dict[str, Any], LambdaContext], None]

# Left of the invocation's time for telling CodeDeploy, which else would wait for an hour; and of that for the log.
_RESERVED_SECONDS = 15.0
_LAST_SECONDS = 1.0

_PATH = "/v1/classify"


def create_handler(read_settings: Callable[[], Settings]) -> Handler:
    """A Lambda handler for CodeDeploy's hook before traffic. It tells CodeDeploy even that it could not work itself.

    Settings are therefore read by each invocation. Raises StorageError when CodeDeploy cannot be told.
    """

    @logger.inject_lambda_context(clear_state=True)
    def handle(event: dict[str, Any], context: LambdaContext) -> None:
        end = Deadline.after(context.get_remaining_time_in_millis() / 1000 - _LAST_SECONDS)
        deployment, execution = event["DeploymentId"], event["LifecycleEventHookExecutionId"]
        found = _verify(read_settings, Deadline(end.at - _RESERVED_SECONDS))
        for finding in found:
            logger.error(finding, deployment=deployment)
        tell_codedeploy(deployment, execution, succeeded=not found, deadline=end)
        logger.info(f"CodeDeploy was told that the version {'failed' if found else 'passed'}.", deployment=deployment)

    return handle


class _WrongAnswer(Exception):
    """The version answered, but not as it should; the message is a finding."""


def _verify(read_settings: Callable[[], Settings], deadline: Deadline) -> list[str]:
    """What is wrong with the version, a sentence each; whatever keeps it from being tried is wrong too."""
    try:
        settings = read_settings()
        version = Version(required(settings, "verified_function"))
        return _findings(settings, load_bundle(settings.bundle), version, deadline)
    except (BundleError, SettingsError) as error:
        return [f"The version was not tried: {error}."]
    except Exception as error:
        logger.exception("unexpected")
        return [f"The verification broke off by {type(error).__name__}; the version may be good or not."]


def _findings(settings: Settings, bundle: Bundle, version: Version, deadline: Deadline) -> list[str]:
    if not bundle.golden:
        return [f"The version was not tried: {bundle.name} has no golden images; docs/train.md tells how it gets them."]
    # The first answer is cold, and its time tells nothing of those that follow.
    events = [(image, _event(image, bundle)) for image in (bundle.golden[0], *bundle.golden)]
    findings: list[str] = []
    milliseconds: list[float] = []
    for image, event in events:
        try:
            answer = _read(image, version.invoke(event, deadline))
        except VersionError as error:
            findings.append(f"{image.file}: {error}")
            break
        except _WrongAnswer as error:
            findings.append(str(error))
            continue
        milliseconds.append(answer.timing_ms.total)
        findings += _complaints(image, answer, bundle)
    findings += _slowness(milliseconds[1:], settings.verified_milliseconds)
    return list(dict.fromkeys(findings))


def _event(image: GoldenImage, bundle: Bundle) -> dict[str, Any]:
    """API Gateway's REST proxy event with the image's bytes, which asks for all labels.

    https://docs.aws.amazon.com/apigateway/latest/developerguide/set-up-lambda-proxy-integrations.html
    """
    headers, query = {"Content-Type": image.media_type}, {"top_k": str(len(bundle.labels))}
    return {
        "resource": _PATH,
        "path": _PATH,
        "httpMethod": "POST",
        "headers": headers,
        "multiValueHeaders": {name: [value] for name, value in headers.items()},
        "queryStringParameters": query,
        "multiValueQueryStringParameters": {name: [value] for name, value in query.items()},
        "pathParameters": None,
        "stageVariables": None,
        "requestContext": {
            "requestId": str(uuid.uuid4()),
            "path": _PATH,
            "resourcePath": _PATH,
            "httpMethod": "POST",
            "stage": "verify",
        },
        "body": base64.b64encode(image.read(bundle.folder)).decode(),
        "isBase64Encoded": True,
    }


class _Response(msgspec.Struct):
    """What API Gateway takes from a function."""

    status: int = msgspec.field(name="statusCode")
    body: str


class _Problem(msgspec.Struct):
    code: str


def _read(image: GoldenImage, response: Any) -> ClassifyAnswer:
    """The answer in the response; raises _WrongAnswer when it has none."""
    try:
        read = msgspec.convert(response, _Response)
        if read.status == 200:
            return msgspec.json.decode(read.body, type=ClassifyAnswer)
        code = msgspec.json.decode(read.body, type=_Problem).code
    except (msgspec.MsgspecError, ValueError) as error:
        raise _WrongAnswer(f"{image.file}: the answer is not of the documented form.") from error
    raise _WrongAnswer(f"{image.file}: the answer has the status {read.status} ({code}) and not 200.")


def _complaints(image: GoldenImage, answer: ClassifyAnswer, bundle: Bundle) -> list[str]:
    expected = Model(bundle.name, bundle.version)
    if answer.model != expected:
        return [f"The version serves {_named(answer.model)} and not {_named(expected)}, which is in its image."]
    found = complaint(image, {label.label: label.confidence for label in answer.predictions})
    return [found] if found else []


def _named(model: Model) -> str:
    return f"{model.name} {model.version}"


def _slowness(milliseconds: list[float], most: int) -> list[str]:
    """What is wrong with the times of the warm answers."""
    if not milliseconds or (median := statistics.median(milliseconds)) <= most:
        return []
    return [
        f"The version is too slow: half of {len(milliseconds)} warm answers took {median:,.1f} ms or more; "
        f"LITELENS_VERIFIED_MILLISECONDS allows {most:,}."
    ]
