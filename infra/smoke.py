"""Classify a golden image with a deployed stack, through its URL and through its bucket: `make smoke ENV=dev`.

Reads the names of the stack's parts, its default model and the value of its API key from the stack STACK. The golden
image is that of the model's bundle in models/. The exit code is 1 if an answer is missing or is not the expected one.
"""

import os
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from litelens.api.response_schemas import Failure, ImageResult, Model
from litelens.aws.s3 import UPLOADS_PREFIX
from litelens.core.bundle import Bundle
from litelens.core.errors import BundleError
from litelens.core.golden import GOLDEN, GoldenImage, mismatch
from litelens.core.registry import read_bundle
from litelens_client.answers import ClassifyError, Failed
from litelens_client.api import ApiProblem, ApiUnreachable, Client
from litelens_client.aws import AwsError, aws_errors, create_client
from litelens_client.results import ResultsReader
from litelens_client.upload import Photo, Uploader

MODELS = Path(__file__).parent.parent / "models"

# Seconds until a new API must know its key. API Gateway refuses a new key for a while.
_URL_SECONDS = 60.0

# Seconds until an upload must have a result. A message that fails once is delivered again after six minutes.
_BUCKET_SECONDS = 420.0

# Seconds between two attempts.
_PAUSE = 2.0

_Found = TypeVar("_Found")


class SmokeError(Exception):
    """The stack cannot be tested, or gave no answer; the message says why."""


@dataclass(frozen=True)
class Deployment:
    """The parts of a deployed stack; `access` says who may call its API, and `model` is the default model's name."""

    url: str
    key_id: str
    bucket: str
    table: str
    access: str
    model: str


@dataclass(frozen=True)
class Sample:
    """A golden image of a bundle."""

    bundle: Bundle
    image: GoldenImage

    @property
    def path(self) -> Path:
        return self.bundle.folder / GOLDEN / self.image.file


@dataclass(frozen=True)
class Answered:
    """The answer for a sample, the model that gave it, and the time that it took, in milliseconds."""

    result: ImageResult
    model: Model
    milliseconds: float


def main() -> int:
    """Test the stack, print a sentence for each way to it, and return the exit code."""
    stack = os.environ["STACK"]
    try:
        deployment = read_deployment(stack)
        sample = read_sample(deployment.model)
    except (AwsError, SmokeError) as error:
        print(error, file=sys.stderr)
        return 1
    passed = check("bucket", sample, lambda: classify_upload(deployment, sample))
    if deployment.access == "key":
        passed &= check("URL", sample, lambda: classify_request(deployment, sample))
    else:
        print(f"URL: not tested, because the stack has Access={deployment.access} and this test has only an API key.")
    if not passed:
        print(_advice(stack), file=sys.stderr)
    return 0 if passed else 1


def read_deployment(stack: str) -> Deployment:
    """Read a stack's outputs and parameters; raises AwsError, or SmokeError if it is not a stack of litelens."""
    reasons = {"ValidationError": f"The stack {stack} does not exist in this account and region."}
    with aws_errors(f"The stack {stack} cannot be read", "cloudformation:DescribeStacks", reasons):
        (described,) = create_client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
    outputs = {each["OutputKey"]: each["OutputValue"] for each in described.get("Outputs", ())}
    parameters = {each["ParameterKey"]: each["ParameterValue"] for each in described.get("Parameters", ())}
    access = parameters.get("Access", "key")
    try:
        return Deployment(
            url=outputs["ApiUrl"],
            key_id=outputs["ApiKeyId"] if access == "key" else "",
            bucket=outputs["UploadBucketName"],
            table=outputs["ResultsTableName"],
            access=access,
            model=parameters["Model"].split(",")[0],
        )
    except KeyError as error:
        raise SmokeError(f"The stack {stack} has no {error.args[0]}; is it a litelens stack?") from error


def read_sample(model: str) -> Sample:
    """Return the golden image of a model whose best label has the greatest lead; raises SmokeError."""
    folder = MODELS / model
    try:
        bundle = read_bundle(model, folder)
    except BundleError as error:
        raise SmokeError(f"The stack serves the model {model}, whose golden images are needed here. {error}") from error
    if not bundle.golden:
        raise SmokeError(f"The model {model} has no golden images; docs/train.md says how to add them.")
    return Sample(bundle, max(bundle.golden, key=lambda image: image.lead))


def check(way: str, sample: Sample, classify: Callable[[], Answered]) -> bool:
    """Classify the sample in this way, print a sentence, and return whether the answer is the expected one."""
    try:
        answered = classify()
    except (AwsError, ClassifyError, SmokeError) as error:
        print(f"{way}: {error}", file=sys.stderr)
        return False
    wrong = mismatch(sample.image, {each.label: each.confidence for each in answered.result.predictions})
    if wrong:
        print(f"{way}: {wrong} {_models(sample.bundle, answered.model)}", file=sys.stderr)
        return False
    best = answered.result.predictions[0]
    print(
        f"{way}: {sample.image.file} is {best.label} ({best.confidence:.3f}; expected: {sample.image.label}, "
        f"{sample.image.confidence:.3f}), answered after {answered.milliseconds:,.0f} ms."
    )
    return True


def classify_request(deployment: Deployment, sample: Sample) -> Answered:
    """Send the sample to the API with its key; raises AwsError and ClassifyError."""
    api = Client(deployment.url, read_key(deployment.key_id), connections=1)
    deadline = time.monotonic() + _URL_SECONDS

    def classify() -> Answered | None:
        started = time.monotonic()
        try:
            answer = api.classify(sample.path)
        except (ApiProblem, ApiUnreachable) as error:
            if time.monotonic() > deadline or not _may_be_new(error):
                raise
            return None
        return Answered(answer, answer.model, _milliseconds_since(started))

    return _repeat(classify)


def classify_upload(deployment: Deployment, sample: Sample) -> Answered:
    """Upload the sample under a new key and wait for its result; raises AwsError and SmokeError."""
    reader = ResultsReader(deployment.table)
    # A photo that is already there would not be classified again.
    photo = Photo(str(sample.path), f"{UPLOADS_PREFIX}smoke/{uuid.uuid4()}{sample.path.suffix}")
    started = time.monotonic()
    (sent,) = Uploader(deployment.bucket, sample.path.stat().st_size, 1).upload_all([photo], may_list=False)
    if isinstance(sent, Failed):
        raise SmokeError(sent.detail)
    revision = sent.revision

    def find() -> Answered | None:
        found = reader.find(deployment.bucket, photo.key, revision)
        if found is None:
            if time.monotonic() - started > _BUCKET_SECONDS:
                raise SmokeError(f"{photo.key} has no result after {_BUCKET_SECONDS / 60:.0f} minutes.")
            return None
        if isinstance(found.result, Failure):
            raise SmokeError(f"{photo.key} could not be classified: {found.result.problem.detail}")
        return Answered(found.result, found.model, _milliseconds_since(started))

    return _repeat(find)


def read_key(key_id: str) -> str:
    """Return the value of an API key; raises AwsError."""
    reasons = {"NotFoundException": f"The API key {key_id} does not exist any more; deploy the stack again."}
    with aws_errors(f"The API key {key_id} cannot be read", "apigateway:GET", reasons):
        return str(create_client("apigateway").get_api_key(apiKey=key_id, includeValue=True)["value"])


def _repeat(attempt: Callable[[], _Found | None]) -> _Found:
    """Repeat until an attempt returns a value or raises an error."""
    while (found := attempt()) is None:
        time.sleep(_PAUSE)
    return found


def _may_be_new(error: ApiProblem | ApiUnreachable) -> bool:
    """Return whether the error can be that of an API or a key that AWS has just created."""
    return isinstance(error, ApiUnreachable) or error.code == "forbidden" or error.status >= 500


def _milliseconds_since(started: float) -> float:
    return (time.monotonic() - started) * 1000


def _models(bundle: Bundle, answered: Model) -> str:
    return f"The stack answered with {answered.full_name}; the golden image is of {bundle.name}/{bundle.version}."


def _advice(stack: str) -> str:
    environment = os.environ.get("ENV")
    target = f"ENV={environment}" if environment else f"STACK={stack}"
    return (
        f"The smoke test of {stack} failed. Run make logs {target} SINCE=15m, and see Errors, Bulk errors and Dead "
        f"letters in docs/runbook.md. To go back to the previous versions, run make rollback {target}."
    )


if __name__ == "__main__":
    sys.exit(main())
