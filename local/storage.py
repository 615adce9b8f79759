"""infra/storage.yaml on moto: its bucket, queues and tables, and what it says of the function that works on them."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samtranslator.parser.parser import Parser  # type: ignore[import-untyped]
from samtranslator.translator.translator import Translator  # type: ignore[import-untyped]
from samtranslator.yaml_helper import yaml_parse  # type: ignore[import-untyped]

from local.aws import aws_session, client_at

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_s3.type_defs import QueueConfigurationTypeDef
    from mypy_boto3_sqs import SQSClient

ROOT = Path(__file__).parent.parent

_STACK, _STORAGE = ROOT / "template.yaml", ROOT / "infra" / "storage.yaml"

# moto knows no policies of buckets and queues, and would run a function in Docker that is mapped to a queue.
_LEFT_OUT = {"AWS::Lambda::EventSourceMapping", "AWS::S3::BucketPolicy", "AWS::SQS::QueuePolicy"}


@dataclass(frozen=True)
class Function:
    """The function as the template has it: its handler, its environment, and the seconds that it may take."""

    handler: str
    variables: Mapping[str, str]
    timeout: int


@dataclass(frozen=True)
class EventSource:
    """The queue as Lambda reads it: up to `batch_size` messages at a time, for which it waits `window` seconds."""

    queue_url: str
    queue_arn: str
    batch_size: int
    window: int
    reports_failures: bool


@dataclass(frozen=True)
class Storage:
    """What was made."""

    bucket: str
    results_table: str
    dead_letters_url: str
    source: EventSource
    function: Function


def create_storage(endpoint: str, name: str, parameters: Mapping[str, str]) -> Storage:
    """The storage as a stack of this name on the AWS at `endpoint`.

    Other parameters than those given have the defaults of template.yaml.
    """
    resources, made = _create_stack(client_at(endpoint, "cloudformation"), name, parameters)
    sqs = client_at(endpoint, "sqs")
    queue_arn = _queue_arn(sqs, made["ImagesQueue"])
    # moto makes the bucket without its notifications.
    notified = _properties(resources, "AWS::S3::Bucket")["NotificationConfiguration"]["QueueConfigurations"]
    client_at(endpoint, "s3").put_bucket_notification_configuration(
        Bucket=made["UploadBucket"],
        NotificationConfiguration={"QueueConfigurations": [_notification(queue, queue_arn) for queue in notified]},
    )
    mapping = _properties(resources, "AWS::Lambda::EventSourceMapping")
    return Storage(
        bucket=made["UploadBucket"],
        results_table=made["ResultsTable"],
        dead_letters_url=made["ImagesDeadLetters"],
        source=EventSource(
            queue_url=made["ImagesQueue"],
            queue_arn=queue_arn,
            batch_size=mapping["BatchSize"],
            window=mapping["MaximumBatchingWindowInSeconds"],
            reports_failures="ReportBatchItemFailures" in mapping["FunctionResponseTypes"],
        ),
        function=_function(endpoint, made["BulkFunction"], resources),
    )


def _create_stack(
    client: "CloudFormationClient", name: str, parameters: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """The template's resources after SAM's transform, and what moto calls those that it makes."""
    template = _transformed(_STORAGE)
    declared = yaml_parse(_STACK.read_text())["Parameters"]
    values = {key: str(parameters.get(key, declared[key]["Default"])) for key in template["Parameters"]}
    resources = {key: made for key, made in template["Resources"].items() if made["Type"] not in _LEFT_OUT}
    client.create_stack(
        StackName=name,
        # The outputs name resources that are not made here.
        TemplateBody=json.dumps({**template, "Resources": resources, "Outputs": {}}),
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in values.items()],
        Capabilities=["CAPABILITY_IAM"],
    )
    described = client.describe_stack_resources(StackName=name)["StackResources"]
    return template["Resources"], {each["LogicalResourceId"]: each["PhysicalResourceId"] for each in described}


def _transformed(path: Path) -> dict[str, Any]:
    document = yaml_parse(path.read_text())
    for resource in document["Resources"].values():
        if resource["Type"] == "AWS::Serverless::Function":
            # sam build puts the image that it built here, and the transform asks for one.
            resource["Properties"]["ImageUri"] = "registry.example/litelens:latest"
    logging.getLogger("samtranslator").setLevel(logging.ERROR)
    return dict(Translator({}, Parser(), boto_session=aws_session()).translate(document, {}))


def _properties(resources: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The properties of the only resource of this type."""
    (found,) = (resource["Properties"] for resource in resources.values() if resource["Type"] == kind)
    return dict(found)


def _notification(declared: Mapping[str, Any], queue_arn: str) -> "QueueConfigurationTypeDef":
    """CloudFormation's way to write a notification as S3's."""
    return {
        "QueueArn": queue_arn,
        "Events": [declared["Event"]],
        "Filter": {"Key": {"FilterRules": declared["Filter"]["S3Key"]["Rules"]}},
    }


def _queue_arn(client: "SQSClient", url: str) -> str:
    return client.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]


def _function(endpoint: str, name: str, resources: Mapping[str, Any]) -> Function:
    client = client_at(endpoint, "lambda")
    made = client.get_function_configuration(FunctionName=name)
    (handler,) = _properties(resources, "AWS::Lambda::Function")["ImageConfig"]["Command"]
    variables = {key: str(value) for key, value in made["Environment"]["Variables"].items()}
    return Function(handler, variables, int(made["Timeout"]))
