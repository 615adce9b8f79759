"""The bucket, queues and tables of infra/storage.yaml on moto, and the configuration of infra/bulk.yaml's function."""

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

# moto does not support aliases, nor policies of buckets and queues. It would run the function of an event source
# mapping in Docker.
_SKIPPED_TYPES = {
    "AWS::Lambda::Alias",
    "AWS::Lambda::EventSourceMapping",
    "AWS::Lambda::Version",
    "AWS::S3::BucketPolicy",
    "AWS::SQS::QueuePolicy",
}


@dataclass(frozen=True)
class Function:
    """The function's configuration in the template: handler, environment variables, and timeout in seconds."""

    handler: str
    variables: Mapping[str, str]
    timeout: int


@dataclass(frozen=True)
class EventSource:
    """The event source mapping: batches of up to `batch_size` messages, collected within `window` seconds."""

    queue_url: str
    queue_arn: str
    batch_size: int
    window: int
    reports_failures: bool


@dataclass(frozen=True)
class Storage:
    """The created resources, and the configuration of the function that uses them."""

    bucket: str
    results_table: str
    dead_letters_url: str
    source: EventSource
    function: Function


@dataclass(frozen=True)
class _Stack:
    """A stack: its resources after SAM's transform, the physical ids of the created ones, and its outputs."""

    resources: Mapping[str, Any]
    physical_ids: Mapping[str, str]
    outputs: Mapping[str, str]

    def properties(self, kind: str) -> dict[str, Any]:
        """Return the properties of the only resource of this type."""
        (found,) = (resource["Properties"] for resource in self.resources.values() if resource["Type"] == kind)
        return dict(found)


def create_storage(endpoint: str, name: str, parameters: Mapping[str, str]) -> Storage:
    """Create the storage as the stack `name` and the function as `name`-bulk, on the AWS at `endpoint`.

    Parameters that are not given have template.yaml's defaults.
    """
    client = client_at(endpoint, "cloudformation")
    whole = yaml_parse(_STACK.read_text())
    values = {key: str(parameters.get(key, made["Default"])) for key, made in whole["Parameters"].items()}
    values["AWS::StackName"] = name
    storage = _create_stack(client, name, whole["Resources"]["Storage"], _Values(values, {}))
    outputs = {"Storage": storage.outputs}
    bulk = _create_stack(client, f"{name}-bulk", whole["Resources"]["Bulk"], _Values(values, outputs))
    queue_arn = storage.outputs["ImagesQueueArn"]
    # moto creates the bucket without its notifications.
    notified = storage.properties("AWS::S3::Bucket")["NotificationConfiguration"]["QueueConfigurations"]
    client_at(endpoint, "s3").put_bucket_notification_configuration(
        Bucket=storage.physical_ids["UploadBucket"],
        NotificationConfiguration={"QueueConfigurations": [_notification(queue, queue_arn) for queue in notified]},
    )
    mapping = bulk.properties("AWS::Lambda::EventSourceMapping")
    return Storage(
        bucket=storage.physical_ids["UploadBucket"],
        results_table=storage.physical_ids["ResultsTable"],
        dead_letters_url=storage.physical_ids["ImagesDeadLetters"],
        source=EventSource(
            queue_url=storage.physical_ids["ImagesQueue"],
            queue_arn=queue_arn,
            batch_size=mapping["BatchSize"],
            window=mapping["MaximumBatchingWindowInSeconds"],
            reports_failures="ReportBatchItemFailures" in mapping["FunctionResponseTypes"],
        ),
        function=_function(endpoint, bulk),
    )


@dataclass(frozen=True)
class _Values:
    """The values that template.yaml passes to nested stacks: its parameters, and the outputs of other nested stacks."""

    parameters: Mapping[str, str]
    outputs: Mapping[str, Mapping[str, str]]

    def resolve(self, node: Any) -> str:
        """Return the value of a literal, a Ref, a Fn::GetAtt of an output, or a Fn::Join of a list parameter."""
        if not isinstance(node, Mapping):
            return str(node)
        ((function, argument),) = node.items()
        if function == "Fn::GetAtt":
            stack, output = argument
            return self.outputs[stack][output.removeprefix("Outputs.")]
        if function == "Fn::Join":
            # List parameters are text already.
            return self.resolve(argument[1])
        return self.parameters[argument]


def _create_stack(client: "CloudFormationClient", name: str, nested: Mapping[str, Any], values: _Values) -> _Stack:
    """Create a nested application of template.yaml as a stack of its own."""
    template = _transform(ROOT / nested["Properties"]["Location"])
    passed = {key: values.resolve(node) for key, node in nested["Properties"]["Parameters"].items()}
    resources = {
        key: resource for key, resource in template["Resources"].items() if resource["Type"] not in _SKIPPED_TYPES
    }
    # Other outputs refer to skipped resources.
    outputs = {
        key: output for key, output in template["Outputs"].items() if _referenced_resource(output["Value"]) in resources
    }
    client.create_stack(
        StackName=name,
        TemplateBody=json.dumps({**template, "Resources": resources, "Outputs": outputs}),
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in passed.items()],
        Capabilities=["CAPABILITY_IAM"],
    )
    (described,) = client.describe_stacks(StackName=name)["Stacks"]
    created = client.describe_stack_resources(StackName=name)["StackResources"]
    return _Stack(
        template["Resources"],
        {each["LogicalResourceId"]: each["PhysicalResourceId"] for each in created},
        {each["OutputKey"]: each["OutputValue"] for each in described.get("Outputs", [])},
    )


def _referenced_resource(value: Mapping[str, Any]) -> str:
    """Return the name of the resource in an output's Ref or Fn::GetAtt."""
    ((_, argument),) = value.items()
    return argument if isinstance(argument, str) else str(argument[0])


def _transform(path: Path) -> dict[str, Any]:
    """Load a template and apply SAM's transform."""
    document = yaml_parse(path.read_text())
    for resource in document["Resources"].values():
        if resource["Type"] == "AWS::Serverless::Function":
            # The transform needs an image here, which `sam build` would fill in.
            resource["Properties"]["ImageUri"] = "registry.example/litelens:latest"
    logging.getLogger("samtranslator").setLevel(logging.ERROR)
    return dict(Translator({}, Parser(), boto_session=aws_session()).translate(document, {}))


def _notification(declared: Mapping[str, Any], queue_arn: str) -> "QueueConfigurationTypeDef":
    """Convert a notification from CloudFormation's form to S3's."""
    return {
        "QueueArn": queue_arn,
        "Events": [declared["Event"]],
        "Filter": {"Key": {"FilterRules": declared["Filter"]["S3Key"]["Rules"]}},
    }


def _function(endpoint: str, bulk: _Stack) -> Function:
    """Return the configuration of the created bulk function."""
    client = client_at(endpoint, "lambda")
    configuration = client.get_function_configuration(FunctionName=bulk.physical_ids["BulkFunction"])
    (handler,) = bulk.properties("AWS::Lambda::Function")["ImageConfig"]["Command"]
    variables = {key: str(value) for key, value in configuration["Environment"]["Variables"].items()}
    return Function(handler, variables, int(configuration["Timeout"]))
