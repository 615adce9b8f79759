"""infra/storage.yaml on moto, its bucket, queues and tables, and what infra/bulk.yaml says of the function for them."""

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

ROOT = Path(__file__).parent.parent

_STACK = ROOT / "template.yaml"

# moto knows no policies of buckets and queues and no aliases, and would run a function in Docker that is mapped to a
# queue.
_LEFT_OUT = {
    "AWS::Lambda::Alias",
    "AWS::Lambda::EventSourceMapping",
    "AWS::Lambda::Version",
    "AWS::S3::BucketPolicy",
    "AWS::SQS::QueuePolicy",
}


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


@dataclass(frozen=True)
class _Stack:
    """A stack's resources after SAM's transform, what moto calls those that it made, and the stack's outputs."""

    resources: Mapping[str, Any]
    made: Mapping[str, str]
    outputs: Mapping[str, str]

    def properties(self, kind: str) -> dict[str, Any]:
        """The properties of the only resource of this type."""
        (found,) = (resource["Properties"] for resource in self.resources.values() if resource["Type"] == kind)
        return dict(found)


def create_storage(endpoint: str, name: str, parameters: Mapping[str, str]) -> Storage:
    """The storage, and what uses it, as stacks of this name and `name`-bulk on the AWS at `endpoint`.

    Other parameters than those given have the defaults of template.yaml.
    """
    client = client_at(endpoint, "cloudformation")
    whole = yaml_parse(_STACK.read_text())
    values = {key: str(parameters.get(key, made["Default"])) for key, made in whole["Parameters"].items()}
    values["AWS::StackName"] = name
    storage = _create_stack(client, name, whole["Resources"]["Storage"], _Values(values, {}))
    outputs = {"Storage": storage.outputs}
    bulk = _create_stack(client, f"{name}-bulk", whole["Resources"]["Bulk"], _Values(values, outputs))
    queue_arn = storage.outputs["ImagesQueueArn"]
    # moto makes the bucket without its notifications.
    notified = storage.properties("AWS::S3::Bucket")["NotificationConfiguration"]["QueueConfigurations"]
    client_at(endpoint, "s3").put_bucket_notification_configuration(
        Bucket=storage.made["UploadBucket"],
        NotificationConfiguration={"QueueConfigurations": [_notification(queue, queue_arn) for queue in notified]},
    )
    mapping = bulk.properties("AWS::Lambda::EventSourceMapping")
    return Storage(
        bucket=storage.made["UploadBucket"],
        results_table=storage.made["ResultsTable"],
        dead_letters_url=storage.made["ImagesDeadLetters"],
        source=EventSource(
            queue_url=storage.made["ImagesQueue"],
            queue_arn=queue_arn,
            batch_size=mapping["BatchSize"],
            window=mapping["MaximumBatchingWindowInSeconds"],
            reports_failures="ReportBatchItemFailures" in mapping["FunctionResponseTypes"],
        ),
        function=_function(endpoint, bulk),
    )


@dataclass(frozen=True)
class _Values:
    """What template.yaml hands to stacks that it nests: its own parameters, and the outputs of other such stacks."""

    parameters: Mapping[str, str]
    outputs: Mapping[str, Mapping[str, str]]

    def of(self, node: Any) -> str:
        if not isinstance(node, Mapping):
            return str(node)
        ((function, argument),) = node.items()
        if function == "Fn::GetAtt":
            stack, output = argument
            return self.outputs[stack][output.removeprefix("Outputs.")]
        if function == "Fn::Join":
            # Lists are given as text already.
            return self.of(argument[1])
        return self.parameters[argument]


def _create_stack(client: "CloudFormationClient", name: str, nested: Mapping[str, Any], values: _Values) -> _Stack:
    """The application that template.yaml nests, as a stack of its own."""
    template = _transformed(ROOT / nested["Properties"]["Location"])
    handed = {key: values.of(node) for key, node in nested["Properties"]["Parameters"].items()}
    resources = {key: made for key, made in template["Resources"].items() if made["Type"] not in _LEFT_OUT}
    # Others name resources that are not made here.
    outputs = {key: made for key, made in template["Outputs"].items() if _named(made["Value"]) in resources}
    client.create_stack(
        StackName=name,
        TemplateBody=json.dumps({**template, "Resources": resources, "Outputs": outputs}),
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in handed.items()],
        Capabilities=["CAPABILITY_IAM"],
    )
    (described,) = client.describe_stacks(StackName=name)["Stacks"]
    made = client.describe_stack_resources(StackName=name)["StackResources"]
    return _Stack(
        template["Resources"],
        {each["LogicalResourceId"]: each["PhysicalResourceId"] for each in made},
        {each["OutputKey"]: each["OutputValue"] for each in described.get("Outputs", [])},
    )


def _named(value: Mapping[str, Any]) -> str:
    """The resource that an output refers to, or has an attribute of."""
    ((_, named),) = value.items()
    return named if isinstance(named, str) else str(named[0])


def _transformed(path: Path) -> dict[str, Any]:
    document = yaml_parse(path.read_text())
    for resource in document["Resources"].values():
        if resource["Type"] == "AWS::Serverless::Function":
            # sam build puts the image that it built here, and the transform asks for one.
            resource["Properties"]["ImageUri"] = "registry.example/litelens:latest"
    logging.getLogger("samtranslator").setLevel(logging.ERROR)
    return dict(Translator({}, Parser(), boto_session=aws_session()).translate(document, {}))


def _notification(declared: Mapping[str, Any], queue_arn: str) -> "QueueConfigurationTypeDef":
    """CloudFormation's way to write a notification as S3's."""
    return {
        "QueueArn": queue_arn,
        "Events": [declared["Event"]],
        "Filter": {"Key": {"FilterRules": declared["Filter"]["S3Key"]["Rules"]}},
    }


def _function(endpoint: str, bulk: _Stack) -> Function:
    client = client_at(endpoint, "lambda")
    made = client.get_function_configuration(FunctionName=bulk.made["BulkFunction"])
    (handler,) = bulk.properties("AWS::Lambda::Function")["ImageConfig"]["Command"]
    variables = {key: str(value) for key, value in made["Environment"]["Variables"].items()}
    return Function(handler, variables, int(made["Timeout"]))
