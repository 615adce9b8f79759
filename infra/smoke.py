"""Classify a golden image with a deployed stack, through its URL and through its bucket: `make smoke ENV=dev`.

Reads the names of the stack's parts, its default model and the value of its API key from the stack STACK. With
Access=iam, the caller's AWS credentials sign the request. With Access=jwt, only the API's health is read. The golden
image is that of the model's bundle in models/. The exit code is 1 if an answer is missing or is not the expected one,
and if the API does not refuse a request without credentials.
"""

import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import TypeVar

import msgspec
import urllib3

from litelens.api.response_schemas import BulkResult, Failure, HealthAnswer, ImageResult, Model
from litelens.aws.s3 import RESULTS_PREFIX, UPLOADS_PREFIX
from litelens.core.bundle import Bundle
from litelens.core.errors import BundleError
from litelens.core.golden import GOLDEN, GoldenImage, mismatch
from litelens.core.registry import read_bundle
from litelens_client.answers import ApiProblem, ClassifyError, Failed
from litelens_client.api import TIMEOUT_SECONDS, ApiUnreachable, Client
from litelens_client.aws import AwsError, aws_errors, create_client
from litelens_client.results import ResultsReader
from litelens_client.upload import Photo, Uploader

MODELS = Path(__file__).parent.parent / "models"

# Seconds until a new API must know its key. API Gateway refuses a new key for a while.
_URL_SECONDS = 60.0

# Seconds until an API that has only its own domain must answer. Name servers may need minutes for a new record.
_DOMAIN_SECONDS = 300.0

# Seconds until an upload must have a result. A message that fails once is delivered again after six minutes.
_BUCKET_SECONDS = 420.0

# The clock of this machine may be ahead of S3's.
_CLOCKS = timedelta(minutes=1)

# Seconds between two attempts.
_PAUSE = 2.0

_Found = TypeVar("_Found")


class SmokeError(Exception):
    """The stack cannot be tested, or gave no answer; the message says why."""


@dataclass(frozen=True)
class Deployment:
    """The parts of a deployed stack; `access` says who may call its API, and `model` is the default model's name.

    `table` is empty if results of uploads go to objects only.
    `domain` is the API's domain name if it has no other, or "". Its record points to `domain_target`.
    """

    url: str
    key_id: str
    bucket: str
    table: str
    access: str
    model: str
    domain: str
    domain_target: str


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
    """Test the stack, print a sentence for each test, and return the exit code."""
    stack = os.environ["STACK"]
    try:
        deployment = read_deployment(stack)
        sample = read_sample(deployment.model)
    except (AwsError, SmokeError) as error:
        print(error, file=sys.stderr)
        return 1
    passed = [
        report("bucket", lambda: check_bucket(deployment, sample)),
        report("URL", lambda: check_url(deployment, sample)),
        report("URL without credentials", lambda: check_refusal(deployment, sample)),
    ]
    if all(passed):
        return 0
    print(_advice(stack), file=sys.stderr)
    return 1


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
            table="" if parameters.get("Results") == "objects" else outputs["ResultsTableName"],
            access=access,
            model=parameters["Model"].split(",")[0],
            domain=parameters["DomainName"] if parameters.get("DisableExecuteApi") == "true" else "",
            domain_target=outputs.get("DomainTarget", ""),
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


def report(way: str, check: Callable[[], str]) -> bool:
    """Make a check, print its sentence or that of its error, and return whether it passed."""
    try:
        print(f"{way}: {check()}")
    except (AwsError, ClassifyError, SmokeError) as error:
        print(f"{way}: {error}", file=sys.stderr)
        return False
    return True


def compare(sample: Sample, answered: Answered) -> str:
    """Return a sentence about the answer; raises SmokeError if it is not the expected one."""
    wrong = mismatch(sample.image, {each.label: each.confidence for each in answered.result.predictions})
    if wrong:
        raise SmokeError(f"{wrong} {_models(sample.bundle, answered.model)}")
    best = answered.result.predictions[0]
    return (
        f"{sample.image.file} is {best.label} ({best.confidence:.3f}; expected: {sample.image.label}, "
        f"{sample.image.confidence:.3f}), answered after {answered.milliseconds:,.0f} ms."
    )


def check_bucket(deployment: Deployment, sample: Sample) -> str:
    """Classify the sample through the bucket; raises AwsError and SmokeError."""
    return compare(sample, classify_upload(deployment, sample))


def check_url(deployment: Deployment, sample: Sample) -> str:
    """Classify the sample or, with Access=jwt, only read the API's health.

    Raises AwsError, ClassifyError and SmokeError.
    """
    if deployment.access != "jwt":
        return compare(sample, classify_request(deployment, sample))
    model = _when_ready(deployment, lambda: read_health(deployment.url))
    if model.full_name != f"{sample.bundle.name}/{sample.bundle.version}":
        raise SmokeError(_models(sample.bundle, model))
    return f"{model.full_name} works. No image was classified, because this test has no token for Access=jwt."


def check_refusal(deployment: Deployment, sample: Sample) -> str:
    """Send the sample without credentials; raises ClassifyError, and SmokeError if the API classifies it."""
    try:
        Client(deployment.url, connections=1).classify(sample.path)
    except ApiProblem as problem:
        if problem.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            return f"The API refuses the request with {problem.status}, as it must."
        raise
    raise SmokeError(
        f"The API classified an image, although it must refuse it with Access={deployment.access}. Anyone can use this "
        "API at your expense."
    )


def classify_request(deployment: Deployment, sample: Sample) -> Answered:
    """Send the sample to the API with its key or with a signature; raises AwsError, ClassifyError and SmokeError."""
    api = create_api(deployment)

    def classify() -> Answered:
        started = time.monotonic()
        answer = api.classify(sample.path)
        return Answered(answer, answer.model, _milliseconds_since(started))

    return _when_ready(deployment, classify)


def create_api(deployment: Deployment) -> Client:
    """Return a client with the stack's key or, with Access=iam, the caller's AWS credentials.

    Raises AwsError, and SmokeError if there are no credentials.
    """
    if deployment.access == "key":
        return Client(deployment.url, read_key(deployment.key_id), connections=1)
    try:
        return Client(deployment.url, sign=True, connections=1)
    except ValueError as error:
        raise SmokeError(str(error)) from error


def read_health(url: str) -> Model:
    """Return the API's default model, which has classified an image; raises ApiProblem and ApiUnreachable."""
    try:
        response = urllib3.request("GET", f"{url}/v1/health", timeout=TIMEOUT_SECONDS, retries=False)
    except urllib3.exceptions.HTTPError as error:
        raise ApiUnreachable(f"{url}/v1/health cannot be reached.") from error
    try:
        if response.status == HTTPStatus.OK:
            return msgspec.json.decode(response.data, type=HealthAnswer).model
    except msgspec.DecodeError:
        pass
    detail = f"{url}/v1/health answered {response.status}, and not as litelens does."
    raise ApiProblem(f"http_{response.status}", detail, response.status)


def classify_upload(deployment: Deployment, sample: Sample) -> Answered:
    """Upload the sample under a new key and wait for its result; raises AwsError and SmokeError."""
    # A photo that is already there would not be classified again.
    photo = Photo(str(sample.path), f"{UPLOADS_PREFIX}smoke/{uuid.uuid4()}{sample.path.suffix}")
    started, started_at = time.monotonic(), datetime.now(UTC)
    (sent,) = Uploader(deployment.bucket, sample.path.stat().st_size, 1).upload_all([photo], may_list=False)
    if isinstance(sent, Failed):
        raise SmokeError(sent.detail)
    revision = sent.revision
    reader: ResultsReader | ResultObjects = (
        ResultsReader(deployment.table) if deployment.table else ResultObjects(deployment.bucket, started_at)
    )

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


class ResultObjects:
    """The objects of a bucket with the results of uploads since `since`. Each object is read once."""

    def __init__(self, bucket: str, since: datetime) -> None:
        """Create an S3 client; raises AwsError."""
        self._bucket = bucket
        self._since = since
        self._seen: set[str] = set()
        with self._errors():
            self._s3 = create_client("s3")

    def find(self, bucket: str, key: str, revision: str) -> BulkResult | None:
        """Return the result of this revision of an object if it is in a new object; raises AwsError."""
        with self._errors():
            for name in self._new_objects():
                self._seen.add(name)
                for line in self._s3.get_object(Bucket=self._bucket, Key=name)["Body"].iter_lines():
                    result = msgspec.json.decode(line, type=BulkResult)
                    if (result.bucket, result.key, result.revision) == (bucket, key, revision):
                        return result
        return None

    def _new_objects(self) -> Iterator[str]:
        pages = self._s3.get_paginator("list_objects_v2")
        # The results of an upload before midnight may be among those of the next day.
        for day in sorted({self._since.date(), datetime.now(UTC).date()}):
            for page in pages.paginate(Bucket=self._bucket, Prefix=f"{RESULTS_PREFIX}{day}/"):
                for entry in page.get("Contents", ()):
                    if entry["Key"] not in self._seen and entry["LastModified"] > self._since - _CLOCKS:
                        yield entry["Key"]

    def _errors(self) -> AbstractContextManager[None]:
        return aws_errors(f"The results in {self._bucket} cannot be read", "s3:GetObject and s3:ListBucket", {})


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


def _when_ready(deployment: Deployment, attempt: Callable[[], _Found]) -> _Found:
    """Repeat an attempt while the API may be too new.

    Raises the last error, or SmokeError if the record of the API's domain may be missing.
    """
    deadline = time.monotonic() + (_DOMAIN_SECONDS if deployment.domain else _URL_SECONDS)

    def attempt_again() -> _Found | None:
        try:
            return attempt()
        except (ApiProblem, ApiUnreachable) as error:
            if time.monotonic() <= deadline and _may_be_new(error):
                return None
            if deployment.domain and isinstance(error, ApiUnreachable):
                raise SmokeError(f"{error} {_record(deployment)}") from error
            raise

    return _repeat(attempt_again)


def _may_be_new(error: ApiProblem | ApiUnreachable) -> bool:
    """Return whether the error can be that of an API or a key that AWS has just created."""
    return isinstance(error, ApiUnreachable) or error.code == "forbidden" or error.status >= 500


def _milliseconds_since(started: float) -> float:
    return (time.monotonic() - started) * 1000


def _record(deployment: Deployment) -> str:
    return (
        f"The zone of {deployment.domain} must have a CNAME record that points to {deployment.domain_target}, the "
        "stack's output DomainTarget. If you have just added it, wait some minutes and run make smoke again."
    )


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
