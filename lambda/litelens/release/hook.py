"""Test a new version before it gets traffic: send it the golden images of each model, and tell CodeDeploy the result.

https://docs.aws.amazon.com/codedeploy/latest/userguide/reference-appspec-file-structure-hooks.html
"""

import base64
import statistics
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from aws_lambda_powertools.utilities.typing import LambdaContext

from litelens.api.response_schemas import ClassifyAnswer, Model
from litelens.aws.clients import Deadline
from litelens.aws.codedeploy import Version, report_hook_result
from litelens.aws.errors import VersionError
from litelens.core.bundle import Bundle
from litelens.core.errors import BundleError
from litelens.core.golden import GoldenImage, mismatch
from litelens.core.registry import find_bundles, read_bundle
from litelens.settings import Settings, SettingsError, read_settings, required
from litelens.telemetry import logger

Handler = Callable[[dict[str, Any], LambdaContext], None]

# Seconds of the invocation that are reserved for reporting to CodeDeploy, which otherwise waits for an hour, and for
# writing the log.
_RESERVED_SECONDS = 15.0
_LAST_SECONDS = 1.0

_PATH = "/v1/classify"


def create_handler(read_settings: Callable[[], Settings]) -> Handler:
    """Return a Lambda handler for CodeDeploy's hook before traffic.

    The handler reads the settings in each invocation, so that invalid settings are reported to CodeDeploy too. Raises
    StorageError if CodeDeploy cannot be reached.
    """

    @logger.inject_lambda_context(clear_state=True)
    def handle(event: dict[str, Any], context: LambdaContext) -> None:
        end = Deadline.after(context.get_remaining_time_in_millis() / 1000 - _LAST_SECONDS)
        deployment, execution = event["DeploymentId"], event["LifecycleEventHookExecutionId"]
        findings = _verify(read_settings, Deadline(end.at - _RESERVED_SECONDS))
        for finding in findings:
            logger.error(finding, deployment=deployment)
        report_hook_result(deployment, execution, succeeded=not findings, deadline=end)
        logger.info(
            f"The version {'failed' if findings else 'passed'}; CodeDeploy has the result.", deployment=deployment
        )

    return handle


class _WrongAnswer(Exception):
    """The version's response is wrong; the message is a finding."""


def _verify(read_settings: Callable[[], Settings], deadline: Deadline) -> list[str]:
    """Return the findings, one sentence each, including any reason why the version could not be tested."""
    try:
        settings = read_settings()
        version = Version(required(settings, "verified_function"))
        folders = find_bundles(settings.bundle, settings.models)
        bundles = [read_bundle(name, folder) for name, folder in folders.items()]
        # All golden images are read before the first one is sent.
        tests = [(bundle, _events(bundle)) for bundle in bundles]
        return [
            f"{bundle.name}: {finding}"
            for bundle, events in tests
            for finding in _check_model(bundle, events, version, deadline, settings.verified_milliseconds)
        ]
    except (BundleError, SettingsError) as error:
        return [f"The version was not tested: {error}."]
    except Exception as error:
        logger.exception("unexpected")
        return [f"The test stopped with {type(error).__name__}; the version may be good or bad."]


def _events(bundle: Bundle) -> list[tuple[GoldenImage, dict[str, Any]]]:
    """Return the golden images with their events. The first is there twice, because loading the model takes time."""
    return [(image, _event(image, bundle)) for image in (*bundle.golden[:1], *bundle.golden)]


def _check_model(
    bundle: Bundle,
    events: Sequence[tuple[GoldenImage, dict[str, Any]]],
    version: Version,
    deadline: Deadline,
    limit: int,
) -> list[str]:
    """Send the events and return the findings. `limit` is the longest time for a golden image, in milliseconds."""
    if not bundle.golden:
        return ["The model was not tested, because it has no golden images; see docs/train.md for how to add them."]
    findings: list[str] = []
    milliseconds: list[float] = []
    for image, event in events:
        try:
            answer = _parse(image, version.invoke(event, deadline))
        except VersionError as error:
            findings.append(f"{image.file}: {error}")
            break
        except _WrongAnswer as error:
            findings.append(str(error))
            continue
        milliseconds.append(answer.timing_ms.total)
        findings += _check_answer(image, answer, bundle)
    findings += _check_times(milliseconds[1:], limit)
    return list(dict.fromkeys(findings))


def _event(image: GoldenImage, bundle: Bundle) -> dict[str, Any]:
    """Return API Gateway's REST proxy event for a request with this image, to this model and for all labels.

    https://docs.aws.amazon.com/apigateway/latest/developerguide/set-up-lambda-proxy-integrations.html
    """
    headers = {"Content-Type": image.media_type}
    query = {"model": bundle.name, "top_k": str(len(bundle.labels))}
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
    """The part of a function's response that API Gateway requires."""

    status: int = msgspec.field(name="statusCode")
    body: str


class _Problem(msgspec.Struct):
    code: str


def _parse(image: GoldenImage, response: Any) -> ClassifyAnswer:
    """Return the answer in the response; raises _WrongAnswer if there is none."""
    try:
        parsed = msgspec.convert(response, _Response)
        if parsed.status == 200:
            return msgspec.json.decode(parsed.body, type=ClassifyAnswer)
        code = msgspec.json.decode(parsed.body, type=_Problem).code
    except (msgspec.MsgspecError, ValueError) as error:
        raise _WrongAnswer(f"{image.file}: the response does not match the API's schema.") from error
    raise _WrongAnswer(f"{image.file}: the response has the status {parsed.status} ({code}) and not 200.")


def _check_answer(image: GoldenImage, answer: ClassifyAnswer, bundle: Bundle) -> list[str]:
    expected = Model(bundle.name, bundle.version)
    if answer.model != expected:
        return [f"The version serves {answer.model.full_name} and not {expected.full_name}, which its image contains."]
    finding = mismatch(image, {label.label: label.confidence for label in answer.predictions})
    return [finding] if finding else []


def _check_times(milliseconds: list[float], limit: int) -> list[str]:
    """Return a finding if the median time of the warm invocations is above the limit."""
    if not milliseconds or (median := statistics.median(milliseconds)) <= limit:
        return []
    return [
        f"The version is too slow: the median of {len(milliseconds)} warm invocations is {median:,.1f} ms; "
        f"LITELENS_VERIFIED_MILLISECONDS allows {limit:,}."
    ]


handler = create_handler(read_settings)
