"""All templates: they are valid, roles have no more permissions than needed, and the storage works on moto."""

import json
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from cfnlint.api import ManualArgs, lint_file
from samcli.yamlhelper import yaml_parse
from support import ROOT
from template import parameters, synthesize, synthesize_nested

from litelens.aws.results_table import BY_DAY
from litelens.aws.s3 import RESULTS_PREFIX, UPLOADS_PREFIX
from litelens.settings import read_settings
from local.storage import create_storage

TEMPLATES = [ROOT / "template.yaml", *sorted((ROOT / "infra").glob("*.yaml"))]
# Deployed apart from the stack, before it.
APART = {ROOT / "infra" / name for name in ("bootstrap.yaml", "images.yaml")}
ORIGIN = "https://example.com"
KEY = "arn:aws:kms:eu-central-1:123456789012:key/one"
EVERYTHING = {
    "CorsOrigin": ORIGIN,
    "ImageBuckets": "photos,scans",
    "DescribeModel": "us.amazon.nova-lite-v1:0",
    "EventBus": "images",
    "InventoryBucket": "inventories",
    "Results": "both",
    "Page": "true",
    "SnapStart": "true",
    "Tracing": "Active",
    "ProtectData": "true",
    "KmsKeyArn": KEY,
    "ImageBucketKeys": f"{KEY}-of-photos,{KEY}-of-scans",
    "PermissionsBoundary": "arn:aws:iam::123456789012:policy/boundary",
    "AlarmEmail": "operator@example.com",
    "MonthlyBudget": "50",
    "Waf": "true",
    "DomainName": "api.example.com",
    "CertificateArn": "arn:aws:acm:eu-central-1:123456789012:certificate/one",
    "HostedZoneId": "Z0",
}
# A page needs API keys, so it is off here.
TOKENS = EVERYTHING | {
    "Page": "false",
    "Access": "jwt",
    "JwtIssuer": "https://login.example.com",
    "JwtAudience": "litelens",
}
# AWS WAF does not protect HTTP APIs.
HTTP = TOKENS | {"FrontDoor": "http", "Waf": "false"}


def nested_stacks(**parameters: str) -> set[str]:
    resources = synthesize(**parameters)["Resources"]
    return {name for name, made in resources.items() if made["Type"] == "AWS::CloudFormation::Stack"}


APPLICATIONS = sorted(nested_stacks(**EVERYTHING) | nested_stacks(**TOKENS) | nested_stacks(**HTTP))

UPLOAD_BUCKET = "arn:aws:s3:::Storage.Outputs.UploadBucketName"
TABLE = "arn:aws:dynamodb:eu-central-1:123456789012:table/Storage.Outputs."

# Every resource ARN with a wildcard in a role's permissions, by the nested stack that creates the role.
STARRED = {
    "": {
        # X-Ray knows no resources.
        "*",
        "Storage.Outputs.UploadBucketArn/uploads/*",
        "arn:aws:s3:::photos/*",
        "arn:aws:s3:::scans/*",
        # A profile chooses the region of its model.
        "arn:aws:bedrock:*::foundation-model/amazon.nova-lite-v1:0",
    },
    "Storage": set(),
    "Authorizer": set(),
    "HttpApi": set(),
    "Bulk": {
        "*",
        f"{UPLOAD_BUCKET}/uploads/*",
        f"{UPLOAD_BUCKET}/results/*",
        "arn:aws:s3:::photos/*",
        "arn:aws:s3:::scans/*",
    },
    # SAM and CloudFormation choose the names of the application and the group. CloudWatch knows no resources for
    # DescribeAlarms.
    "Release": {
        "*",
        "arn:aws:lambda:eu-central-1:123456789012:function:ApiFunction:*",
        "arn:aws:codedeploy:eu-central-1:123456789012:deploymentgroup:litelens-ServerlessDeploymentApplication-*/*",
    },
    "Backfill": {
        "arn:aws:s3:::Storage.Outputs.UploadBucketName/backfills/*",
        "arn:aws:s3:::inventories/*",
        # Batches are executions of the state machine; their names are not known in advance.
        "arn:aws:states:eu-central-1:123456789012:execution:StateMachine.Name:*",
        "arn:aws:states:eu-central-1:123456789012:execution:StateMachine.Name/*:*",
    },
    "Site": set(),
    "Alarms": set(),
    "Dashboard": set(),
    "Firewall": set(),
    "Domain": set(),
}
BULK_STATEMENTS = {
    "ReceiveImages": (
        ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"],
        ["Storage.Outputs.ImagesQueueArn"],
    ),
    "WriteLogs": (["logs:CreateLogStream", "logs:PutLogEvents"], ["BulkLogs.Arn"]),
    "ReadUploads": (["s3:GetObject", "s3:GetObjectVersion"], [f"{UPLOAD_BUCKET}/uploads/*"]),
    "ListUploads": (["s3:ListBucket"], [UPLOAD_BUCKET]),
}
WRITE_RESULTS = {"WriteResults": (["s3:PutObject"], [f"{UPLOAD_BUCKET}/results/*"])}
KEEP_RESULTS = {
    "KeepResults": (["dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:Query"], [f"{TABLE}ResultsTableName"])
}
# Conditions that allow a service only on behalf of this account.
OF_THIS_ACCOUNT = [
    {"StringEquals": {"aws:SourceAccount": "123456789012"}},
    {
        "StringEquals": {"aws:SourceAccount": "123456789012"},
        "ArnEquals": {"aws:SourceArn": "arn:aws:s3:::litelens-uploads-0a1b2c3d-4e5f-6789-abcd-ef0123456789"},
    },
    {"StringEquals": {"aws:SourceArn": "arn:aws:cloudfront::123456789012:distribution/Distribution"}},
]
TLS_ONLY = {"Sid": "TlsOnly", "Effect": "Deny", "Principal": "*", "Condition": {"Bool": {"aws:SecureTransport": False}}}


def stack(application: str, **parameters: str) -> dict[str, Any]:
    """Return the resources of a nested application, or of the stack itself if the name is empty."""
    made = synthesize_nested(application, **parameters) if application else synthesize(**parameters)
    return dict(made["Resources"])


def everything(application: str) -> dict[str, str]:
    """Return parameters that turn on all that this nested stack can have."""
    return {"Authorizer": TOKENS, "HttpApi": HTTP}.get(application, EVERYTHING)


def storage(name: str, **parameters: str) -> dict[str, Any]:
    """Return the properties of a resource in infra/storage.yaml."""
    return dict(stack("Storage", **parameters)[name]["Properties"])


def bulk(name: str, **parameters: str) -> dict[str, Any]:
    """Return the properties of a resource in infra/bulk.yaml."""
    return dict(stack("Bulk", **parameters)[name]["Properties"])


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def statements(resources: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the statements of the roles in these resources, without managed policies."""
    roles = [made["Properties"] for made in resources.values() if made["Type"] == "AWS::IAM::Role"]
    apart = [made["Properties"] for made in resources.values() if made["Type"] == "AWS::IAM::Policy"]
    for policy in [*apart, *(policy for role in roles for policy in role.get("Policies", []))]:
        yield from as_list(policy["PolicyDocument"]["Statement"])


def resource_policies(resources: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the statements of the buckets' and queues' policies."""
    for made in resources.values():
        if made["Type"] in ("AWS::S3::BucketPolicy", "AWS::SQS::QueuePolicy"):
            yield from made["Properties"]["PolicyDocument"]["Statement"]


def buckets() -> list[tuple[str, str]]:
    """Return every bucket: the nested application that creates it, and its name there."""
    made = {application: stack(application, **everything(application)) for application in ["", *APPLICATIONS]}
    return [
        (within, name) for within in made for name in made[within] if made[within][name]["Type"] == "AWS::S3::Bucket"
    ]


def keys(table: dict[str, Any]) -> list[tuple[str, str]]:
    return [(made["AttributeName"], made["KeyType"]) for made in table["KeySchema"]]


def bulk_statements(**parameters: str) -> dict[str, tuple[list[str], list[str]]]:
    """Return BulkFunction's actions and resources by the statement's id."""
    role = {"BulkRole": stack("Bulk", **parameters)["BulkRole"]}
    assert all(made["Effect"] == "Allow" and "Condition" not in made for made in statements(role))
    return {made["Sid"]: (as_list(made["Action"]), as_list(made["Resource"])) for made in statements(role)}


def bulk_variables(**parameters: str) -> dict[str, str]:
    variables = bulk("BulkFunction", **parameters)["Environment"]["Variables"]
    return {name: str(text) for name, text in variables.items()}


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.name)
def test_cfn_lint_finds_no_mistake(template: Path) -> None:
    assert lint_file(template, config=ManualArgs(include_checks=["I"])) == []


def test_every_template_is_nested_in_the_stack_or_deployed_apart() -> None:
    whole = {
        name: made for given in (HTTP, TOKENS, EVERYTHING) for name, made in synthesize(**given)["Resources"].items()
    }
    nested = {ROOT / whole[name]["Properties"]["TemplateURL"] for name in APPLICATIONS}
    assert nested == set(TEMPLATES[1:]) - APART
    assert ROOT / "infra" / "storage.yaml" in nested


@pytest.mark.parametrize("application", ["", *APPLICATIONS])
def test_a_role_has_no_wildcards_except_those_listed_here(application: str) -> None:
    allowed = list(statements(stack(application, **everything(application))))
    has_roles = "AWS::IAM::Role" in {made["Type"] for made in stack(application, **everything(application)).values()}
    assert bool(allowed) is has_roles
    assert all(made["Effect"] == "Allow" for made in allowed)
    assert not [action for made in allowed for action in as_list(made["Action"]) if "*" in action]
    assert not [made for made in allowed if "NotAction" in made or "NotResource" in made]
    starred = {arn for made in allowed for arn in as_list(made["Resource"]) if "*" in arn}
    assert starred == STARRED[application]


@pytest.mark.parametrize("application", ["", *APPLICATIONS])
def test_a_role_has_the_boundary_and_no_managed_policy(application: str) -> None:
    resources = stack(application, **everything(application))
    types = {made["Type"] for made in resources.values()}
    assert {name for name in types if "IAM" in name} <= {"AWS::IAM::Role", "AWS::IAM::Policy"}
    roles = [made["Properties"] for made in resources.values() if made["Type"] == "AWS::IAM::Role"]
    assert not [role for role in roles if role.get("ManagedPolicyArns")]
    assert {role["PermissionsBoundary"] for role in roles} <= {EVERYTHING["PermissionsBoundary"]}


@pytest.mark.parametrize("application", ["", *APPLICATIONS])
def test_nobody_outside_the_account_has_access(application: str) -> None:
    resources = stack(application, **everything(application))
    allowed = [made for made in resource_policies(resources) if made["Effect"] == "Allow"]
    assert all(made["Principal"].keys() == {"Service"} for made in allowed)
    assert all(made["Condition"] in OF_THIS_ACCOUNT for made in allowed)


@pytest.mark.parametrize("application", APPLICATIONS)
def test_a_nested_stack_gets_each_parameter_from_the_parameter_of_the_same_name(application: str) -> None:
    given = everything(application)
    passed = synthesize(**given)["Resources"][application]["Properties"]["Parameters"]
    same = {name: text for name, text in passed.items() if name in parameters()}
    assert same == {name: given.get(name, parameters()[name]["Default"]) for name in same}
    assert application in ("Backfill", "Dashboard") or same


def test_without_optional_parts_the_bulk_function_may_only_classify_uploads() -> None:
    assert bulk_statements(EventBus="") == BULK_STATEMENTS | KEEP_RESULTS


@pytest.mark.parametrize(
    ("results", "statements", "table", "objects"),
    [
        ("table", KEEP_RESULTS, "Storage.Outputs.ResultsTableName", False),
        ("objects", WRITE_RESULTS, None, True),
        ("both", KEEP_RESULTS | WRITE_RESULTS, "Storage.Outputs.ResultsTableName", True),
    ],
)
def test_the_bulk_function_may_write_results_only_to_where_they_go(
    results: str, statements: dict[str, Any], table: str | None, objects: bool
) -> None:
    assert bulk_statements(Results=results) == BULK_STATEMENTS | statements
    settings = read_settings({"LITELENS_BUNDLE": "model", **bulk_variables(Results=results)})
    assert (settings.results_table, settings.result_objects) == (table, objects)


@pytest.mark.parametrize(("lines", "api", "bulk"), [("none", False, False), ("api", True, False), ("all", True, True)])
def test_functions_log_results_only_if_they_are_asked_to(lines: str, api: bool, bulk: bool) -> None:
    of_api = synthesize(LogResults=lines)["Resources"]["ApiFunction"]["Properties"]["Environment"]["Variables"]
    of_bulk = bulk_variables(LogResults=lines)
    assert [
        read_settings({"LITELENS_BUNDLE": "model", **{name: str(text) for name, text in variables.items()}}).log_results
        for variables in (of_api, of_bulk)
    ] == [api, bulk]


def test_the_bulk_function_may_send_events_to_its_bus_and_read_the_image_buckets() -> None:
    assert bulk_statements(EventBus="images", ImageBuckets="photos,scans") == {
        **BULK_STATEMENTS,
        **KEEP_RESULTS,
        "SendEvents": (["events:PutEvents"], ["arn:aws:events:eu-central-1:123456789012:event-bus/images"]),
        "ReadImages": (["s3:GetObject", "s3:GetObjectVersion"], ["arn:aws:s3:::photos/*", "arn:aws:s3:::scans/*"]),
        "ListImages": (["s3:ListBucket"], ["arn:aws:s3:::photos", "arn:aws:s3:::scans"]),
    }


def test_the_stack_has_a_bucket_for_uploads_and_one_for_the_page() -> None:
    assert sorted(buckets()) == [("Site", "Bucket"), ("Storage", "UploadBucket")]


@pytest.mark.parametrize(("application", "name"), buckets())
def test_a_bucket_is_private_encrypted_and_retained(application: str, name: str) -> None:
    made = stack(application, **everything(application))[name]
    bucket = made["Properties"]
    assert bucket["PublicAccessBlockConfiguration"] == {
        "BlockPublicAcls": True,
        "BlockPublicPolicy": True,
        "IgnorePublicAcls": True,
        "RestrictPublicBuckets": True,
    }
    assert bucket["OwnershipControls"] == {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    (encryption,) = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    # CloudFront reads the page's bucket, which contains nothing secret.
    wanted = (
        {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": KEY} if name == "UploadBucket" else {"SSEAlgorithm": "AES256"}
    )
    assert encryption["ServerSideEncryptionByDefault"] == wanted
    # A stack that could not be created leaves no bucket behind.
    assert (made["DeletionPolicy"], made["UpdateReplacePolicy"]) == ("RetainExceptOnCreate", "Retain")


def test_objects_in_the_upload_bucket_expire() -> None:
    rules = storage("UploadBucket", UploadDays="3", ResultDays="5")["LifecycleConfiguration"]["Rules"]
    assert {rule["Status"] for rule in rules} == {"Enabled"}
    kept = {rule["Prefix"]: rule["ExpirationInDays"] for rule in rules if "Prefix" in rule}
    assert kept == {"uploads/": "3", "results/": "5", "backfills/": "5"}
    (unfinished,) = [rule for rule in rules if "Prefix" not in rule]
    assert unfinished["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 1}
    assert "ExpirationInDays" not in unfinished


@pytest.mark.parametrize("origin", ["", ORIGIN])
def test_any_page_may_read_the_response_to_its_upload_form_and_nothing_else(origin: str) -> None:
    assert storage("UploadBucket", CorsOrigin=origin)["CorsConfiguration"] == {
        "CorsRules": [{"AllowedOrigins": ["*"], "AllowedMethods": ["POST"]}]
    }


@pytest.mark.parametrize("queue", ["ImagesQueue", "ImagesDeadLetters"])
def test_a_queue_is_encrypted_and_refuses_requests_without_tls(queue: str) -> None:
    assert storage(queue)["SqsManagedSseEnabled"] is True
    assert storage(queue, KmsKeyArn=KEY)["SqsManagedSseEnabled"] is False
    assert storage(queue, KmsKeyArn=KEY)["KmsMasterKeyId"] == KEY
    policy = storage(f"{queue}Policy")
    assert policy["Queues"] == [queue]
    *_, last = policy["PolicyDocument"]["Statement"]
    assert last == {**TLS_ONLY, "Action": "sqs:*", "Resource": f"{queue}.Arn"}


@pytest.mark.parametrize(("application", "name"), buckets())
def test_a_bucket_refuses_requests_without_tls(application: str, name: str) -> None:
    policy = stack(application, **everything(application))[f"{name}Policy"]["Properties"]
    assert policy["Bucket"] == name
    (denied,) = [made for made in policy["PolicyDocument"]["Statement"] if made["Effect"] == "Deny"]
    assert denied == {**TLS_ONLY, "Action": "s3:*", "Resource": [f"{name}.Arn", f"{name}.Arn/*"]}


def test_the_upload_buckets_policy_allows_nothing() -> None:
    (statement,) = storage("UploadBucketPolicy")["PolicyDocument"]["Statement"]
    assert statement["Effect"] == "Deny"


def test_s3_may_send_to_the_queue_and_nobody_to_the_dead_letter_queue() -> None:
    allowed = [made for made in resource_policies(stack("Storage")) if made["Effect"] == "Allow"]
    assert [(made["Principal"], made["Action"], made["Resource"]) for made in allowed] == [
        ({"Service": "s3.amazonaws.com"}, "sqs:SendMessage", "ImagesQueue.Arn")
    ]
    assert stack("Storage")["UploadBucket"]["DependsOn"] == "ImagesQueuePolicy"


def test_only_uploads_notify_the_queue_and_results_are_written_below_another_prefix() -> None:
    (notification,) = storage("UploadBucket")["NotificationConfiguration"].values()
    assert notification == [
        {
            "Event": "s3:ObjectCreated:*",
            "Queue": "ImagesQueue.Arn",
            "Filter": {"S3Key": {"Rules": [{"Name": "prefix", "Value": UPLOADS_PREFIX}]}},
        }
    ]
    written = [named for actions, named in bulk_statements(**EVERYTHING).values() if "s3:PutObject" in actions]
    assert written == [[f"{UPLOAD_BUCKET}/{RESULTS_PREFIX}*"]]
    assert not RESULTS_PREFIX.startswith(UPLOADS_PREFIX)


def test_a_message_is_hidden_for_six_times_the_timeout() -> None:
    timeouts = parameters()["BulkTimeout"]["AllowedValues"]
    hidden = {timeout: storage("ImagesQueue", BulkTimeout=str(timeout))["VisibilityTimeout"] for timeout in timeouts}
    assert hidden == {timeout: 6 * timeout for timeout in timeouts}
    assert bulk("BulkFunction", BulkTimeout="120")["Timeout"] == "120"


def test_a_message_that_fails_three_times_is_kept_for_fourteen_days() -> None:
    assert storage("ImagesQueue")["RedrivePolicy"] == {
        "deadLetterTargetArn": "ImagesDeadLetters.Arn",
        "maxReceiveCount": 3,
    }
    assert storage("ImagesDeadLetters")["MessageRetentionPeriod"] == 14 * 24 * 3600


def test_only_the_images_queue_sends_to_the_dead_letter_queue() -> None:
    arn = f"arn:aws:sqs:eu-central-1:123456789012:{storage('ImagesQueue')['QueueName']}"
    assert storage("ImagesDeadLetters")["RedriveAllowPolicy"] == {
        "redrivePermission": "byQueue",
        "sourceQueueArns": [arn],
    }


def test_the_queue_invokes_the_bulk_function_which_reports_failed_messages() -> None:
    assert bulk("BulkSource", BulkConcurrency="7") == {
        "EventSourceArn": "Storage.Outputs.ImagesQueueArn",
        "FunctionName": "BulkFunctionAliaslive",
        "BatchSize": 10,
        "MaximumBatchingWindowInSeconds": 1,
        "FunctionResponseTypes": ["ReportBatchItemFailures"],
        "ScalingConfig": {"MaximumConcurrency": "7"},
    }


def test_results_have_keys_for_image_and_day_and_expire() -> None:
    table = storage("ResultsTable")
    assert {made["AttributeType"] for made in table["AttributeDefinitions"]} == {"S"}
    assert keys(table) == [("image", "HASH"), ("revision", "RANGE")]
    (index,) = table["GlobalSecondaryIndexes"]
    assert (index["IndexName"], index["Projection"]) == (BY_DAY, {"ProjectionType": "ALL"})
    assert keys(index) == [("day", "HASH"), ("key", "RANGE")]
    assert table["TimeToLiveSpecification"] == {"AttributeName": "expires_at", "Enabled": True}
    assert table["BillingMode"] == "PAY_PER_REQUEST"


def test_parameters_become_the_bulk_functions_settings() -> None:
    options = {"ResultDays": "5", "StoreEmbeddings": "true", "MaxUploadBytes": "7", "MaxImagePixels": "9"}
    variables = bulk_variables(**EVERYTHING, **options)
    settings = read_settings({"LITELENS_BUNDLE": "model", **variables})
    assert settings.upload_bucket == "Storage.Outputs.UploadBucketName"
    assert settings.results_table == "Storage.Outputs.ResultsTableName"
    assert settings.event_bus == "images"
    assert settings.buckets == {"photos", "scans"}
    assert (settings.result_days, settings.max_upload_bytes, settings.limits.pixels) == (5, 7, 9)
    assert settings.store_embeddings


def test_optional_settings_of_the_bulk_function_are_off() -> None:
    settings = read_settings({"LITELENS_BUNDLE": "model", **bulk_variables(EventBus="")})
    assert (settings.event_bus, settings.buckets, settings.store_embeddings) == (None, frozenset(), False)


def test_every_setting_is_set_by_the_image_or_by_a_template() -> None:
    source = (ROOT / "lambda" / "litelens" / "settings.py").read_text()
    api = synthesize()["Resources"]["ApiFunction"]["Properties"]["Environment"]["Variables"]
    tokens = stack("Authorizer", **TOKENS)["AuthorizerFunction"]["Properties"]["Environment"]["Variables"]
    by_image = {"LITELENS_BUNDLE", "LITELENS_MODELS", "LITELENS_ENGINE", "LITELENS_THREADS"}
    verify = stack("Release")["VerifyFunction"]["Properties"]["Environment"]["Variables"]
    by_templates = {name for name in api | bulk_variables() | verify | tokens if name.startswith("LITELENS_")}
    assert set(re.findall(r'"(LITELENS_[A-Z_]+)"', source)) == by_image | by_templates


def test_each_function_has_its_own_metrics_service() -> None:
    api = synthesize()["Resources"]["ApiFunction"]["Properties"]["Environment"]["Variables"]
    assert (api["POWERTOOLS_SERVICE_NAME"], bulk_variables()["POWERTOOLS_SERVICE_NAME"]) == ("api", "bulk")


def test_messages_are_kept_for_the_maximum_of_fourteen_days() -> None:
    longest = 14 * 24 * 3600
    assert storage("ImagesQueue")["MessageRetentionPeriod"] == longest
    assert storage("ImagesDeadLetters")["MessageRetentionPeriod"] == longest


def test_all_functions_run_the_same_image_with_different_handlers() -> None:
    api = yaml_parse((ROOT / "template.yaml").read_text())["Resources"]["ApiFunction"]
    assert api["Metadata"]["DockerContext"] == "."
    for template, name, module in (
        ("bulk", "BulkFunction", "bulk.handler"),
        ("release", "VerifyFunction", "release.hook"),
        ("authorizer", "AuthorizerFunction", "access.handler"),
    ):
        made = yaml_parse((ROOT / "infra" / f"{template}.yaml").read_text())["Resources"][name]
        assert made["Metadata"] == api["Metadata"] | {"DockerContext": ".."}
        assert made["Properties"]["Architectures"] == api["Properties"]["Architectures"]
        assert made["Properties"]["ImageConfig"] == {"Command": [f"litelens.{module}.handler"]}
        assert (ROOT / "lambda" / "litelens" / f"{module.replace('.', '/')}.py").is_file()


def test_the_stack_has_the_outputs_of_its_storage() -> None:
    outputs = synthesize_nested("Storage")["Outputs"]
    passed_on = {name: made["Value"] for name, made in synthesize()["Outputs"].items() if name in outputs}
    assert passed_on == {name: f"Storage.Outputs.{name}" for name in passed_on}
    assert {"UploadBucketName", "ResultsTableName", "ImagesQueueUrl", "ImagesDeadLettersUrl"} <= passed_on.keys()


def test_an_upload_notifies_the_queue_and_a_result_does_not(moto_server: str) -> None:
    made = create_storage(moto_server, f"litelens-{uuid.uuid4()}", {})
    queue, url = boto3.client("sqs"), made.source.queue_url
    (setup,) = queue.receive_message(QueueUrl=url)["Messages"]
    assert json.loads(setup["Body"])["Event"] == "s3:TestEvent"
    for key in ("results/2026-11-30/one.jsonl", "backfills/one/manifest.json", "elsewhere", f"{UPLOADS_PREFIX}cat.jpg"):
        boto3.client("s3").put_object(Bucket=made.bucket, Key=key, Body=b"-")
    (message,) = queue.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]
    (record,) = json.loads(message["Body"])["Records"]
    assert (record["s3"]["bucket"]["name"], record["s3"]["object"]["key"]) == (
        made.bucket,
        "uploads%2Fcat.jpg",
    )
