"""The whole stack with its nested templates, with and without each optional part: its parts fit together."""

import ast
import json
import re
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from typing import Any

import msgspec
import pytest
from support import ROOT, anchors
from template import TEMPLATE, dependencies, parameters, synthesize, synthesize_nested

from litelens.api.response_schemas import Problem
from litelens.aws.results_table import BY_DAY
from litelens_client import prices

KEY = "arn:aws:kms:eu-central-1:123456789012:key/one"

# The parameters that turn on each optional part.
OPTIONS: dict[str, dict[str, str]] = {
    "nothing": {},
    "page": {"Page": "true"},
    "events": {"EventBus": "default"},
    "traces": {"Tracing": "Active"},
    "signed requests": {"Access": "iam"},
    "tokens": {"Access": "jwt", "JwtIssuer": "https://login.example.com", "JwtAudience": "litelens"},
    "results as objects": {"Results": "objects"},
    "results in the table and as objects": {"Results": "both"},
    "no log lines for results": {"LogResults": "none"},
    "an HTTP API with signatures": {"FrontDoor": "http", "Access": "iam"},
    "a function URL": {"FrontDoor": "url", "Access": "iam"},
    "protected data": {"ProtectData": "true"},
    "a key of its own": {"KmsKeyArn": KEY},
    "a boundary": {"PermissionsBoundary": "arn:aws:iam::123456789012:policy/boundary"},
    "image buckets": {"ImageBuckets": "photos,scans"},
    "encrypted image buckets": {"ImageBuckets": "photos", "ImageBucketKeys": KEY},
    "inventories": {"ImageBuckets": "photos", "InventoryBucket": "inventories"},
    "other sites": {"CorsOrigin": "https://example.com"},
    "a language model": {"DescribeModel": "us.amazon.nova-lite-v1:0"},
    "snapshots": {"SnapStart": "true"},
    "Arm": {"Architecture": "arm64", "Engine": "litert"},
    "alarms by e-mail": {"AlarmEmail": "operator@example.com"},
    "a budget": {"AlarmEmail": "operator@example.com", "MonthlyBudget": "50"},
    "a firewall": {"Waf": "true"},
    "a domain": {"DomainName": "api.example.com", "CertificateArn": "arn:aws:acm:eu-central-1:1:certificate/one"},
    "a zone": {
        "DomainName": "api.example.com",
        "CertificateArn": "arn:aws:acm:eu-central-1:1:certificate/one",
        "HostedZoneId": "Z0",
    },
}
OPTIONS["an HTTP API with tokens"] = {"FrontDoor": "http", **OPTIONS["tokens"]}
OPTIONS["an HTTP API with only a domain"] = {
    **OPTIONS["an HTTP API with tokens"],
    **OPTIONS["a zone"],
    "DisableExecuteApi": "true",
    "CorsOrigin": "https://example.com",
}
OPTIONS["only a domain"] = {**OPTIONS["a zone"], "DisableExecuteApi": "true", "Page": "true"}
# All that can be combined: a page needs API keys.
OPTIONS["everything"] = {
    name: text
    for option, part in OPTIONS.items()
    if option not in ("signed requests", "tokens", "only a domain", "results as objects")
    if "FrontDoor" not in part
    for name, text in part.items()
}
# The parameters of each front door.
DOORS = {"rest": {}, "http": OPTIONS["an HTTP API with signatures"], "url": OPTIONS["a function URL"]}
RUNBOOK = ROOT / "docs" / "runbook.md"

# The permissions that a role needs for a call of boto3. An upload is put with the permissions of the role that signed
# its form. HeadObject needs GetObject. Without ListBucket, S3 answers that a missing object is forbidden.
PERMISSIONS = {
    "get_object": {"s3:GetObject", "s3:GetObjectVersion", "s3:ListBucket"},
    "head_object": {"s3:GetObject", "s3:ListBucket"},
    "put_object": {"s3:PutObject"},
    "generate_presigned_post": {"s3:PutObject"},
    "get_item": {"dynamodb:GetItem"},
    "put_item": {"dynamodb:PutItem"},
    "query": {"dynamodb:Query"},
    "put_events": {"events:PutEvents"},
    "converse": {"bedrock:InvokeModel"},
    "invoke": {"lambda:InvokeFunction"},
    "put_lifecycle_event_hook_execution_status": {"codedeploy:PutLifecycleEventHookExecutionStatus"},
}
# The permissions that Lambda's poller needs in the function's role.
POLLER = {"sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"}
# What every function needs, and what it needs with traces and with keys of KMS.
RUNNING = {"logs:CreateLogStream", "logs:PutLogEvents"}
TRACES = {"xray:PutTraceSegments", "xray:PutTelemetryRecords"}
KMS = {"kms:Decrypt", "kms:GenerateDataKey"}
USED = {
    "ApiFunction": {"get_object", "head_object", "generate_presigned_post", "query", "converse"},
    "BulkFunction": {"get_object", "put_object", "get_item", "put_item", "query", "put_events"},
    "VerifyFunction": {"invoke", "put_lifecycle_event_hook_execution_status"},
}


def stacks(**parameters: str) -> dict[str, dict[str, Any]]:
    """Return the resources of the stack, under the name "", and of each nested stack, under its name."""
    return _stacks(tuple(parameters.items()))


@cache
def _stacks(parameters: tuple[tuple[str, str], ...]) -> dict[str, dict[str, Any]]:
    whole = synthesize(**dict(parameters))["Resources"]
    nested = [name for name, made in whole.items() if made["Type"] == "AWS::CloudFormation::Stack"]
    return {"": whole} | {name: synthesize_nested(name, **dict(parameters))["Resources"] for name in nested}


def of_type(kind: str, **parameters: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the names and properties of the resources of this type in all stacks."""
    for resources in stacks(**parameters).values():
        yield from ((name, made["Properties"]) for name, made in resources.items() if made["Type"] == kind)


def alarms(**parameters: str) -> dict[str, dict[str, Any]]:
    return dict(of_type("AWS::CloudWatch::Alarm", **parameters))


def metrics_of(alarm: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the metrics that an alarm uses, each with namespace, name and dimensions."""
    measured = [made["MetricStat"]["Metric"] for made in alarm.get("Metrics", []) if "MetricStat" in made]
    yield from measured or [{name: alarm[name] for name in ("Namespace", "MetricName", "Dimensions")}]


def boto3_calls() -> set[str]:
    """Return the methods of boto3's clients that litelens.aws names, called or passed on as text."""
    found = set()
    for path in (ROOT / "lambda/litelens/aws").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            named = node.attr if isinstance(node, ast.Attribute) else getattr(node, "value", None)
            if isinstance(named, str) and named in PERMISSIONS:
                found.add(named)
    return found


def allowed(function: str) -> set[str]:
    roles = dict(of_type("AWS::IAM::Role", **OPTIONS["everything"]))
    role = roles[function.replace("Function", "Role")]
    documents = [policy["PolicyDocument"] for policy in role["Policies"]]
    actions = [made["Action"] for document in documents for made in document["Statement"]]
    return {action for each in actions for action in ([each] if isinstance(each, str) else each)}


@pytest.mark.parametrize("option", OPTIONS)
def test_every_reference_to_a_nested_stack_exists(option: str) -> None:
    resources = stacks(**OPTIONS[option])[""]
    document = json.dumps([resources, synthesize(**OPTIONS[option])["Outputs"]])
    for nested, output in re.findall(r"\b([A-Z]\w+)\.Outputs\.(\w+)", document):
        assert nested in resources, f"{nested} does not exist with {option}"
        assert output in synthesize_nested(nested, **OPTIONS[option])["Outputs"]


@pytest.mark.parametrize("option", OPTIONS)
def test_every_alarm_notifies_the_topic_when_it_starts_and_when_it_ends(option: str) -> None:
    made = alarms(**OPTIONS[option])
    assert len(made) >= 10
    assert all(alarm["AlarmActions"] == alarm["OKActions"] == ["AlarmTopic"] for alarm in made.values())
    (topic,) = dict(of_type("AWS::SNS::Topic", **OPTIONS[option])).values()
    email = OPTIONS[option].get("AlarmEmail")
    assert topic["Subscription"] == ([{"Protocol": "email", "Endpoint": email}] if email else [])


def test_cloudwatch_may_publish_to_the_topic_for_this_account_only() -> None:
    (policy,) = dict(of_type("AWS::SNS::TopicPolicy")).values()
    (statement,) = policy["PolicyDocument"]["Statement"]
    assert statement["Principal"] == {"Service": "cloudwatch.amazonaws.com"}
    assert statement["Action"] == "sns:Publish"
    assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": "123456789012"}}


@pytest.mark.parametrize("name", alarms(**OPTIONS["everything"]))
def test_an_alarms_description_links_to_its_section_of_the_runbook(name: str) -> None:
    description = alarms(**OPTIONS["everything"])[name]["AlarmDescription"]
    found = re.fullmatch(r".+\. See docs/runbook\.md#([a-z-]+)", description)
    assert found, description
    assert found[1] in anchors(RUNBOOK)


@pytest.mark.parametrize("name", alarms(**OPTIONS["everything"]))
def test_the_dimensions_of_an_alarm_name_existing_resources(name: str) -> None:
    resources = stacks(**OPTIONS["everything"])
    names = {
        "FunctionName": {"ApiFunction", "Bulk.Outputs.BulkFunctionName"},
        "QueueName": {"Storage.Outputs.ImagesQueueName", "Storage.Outputs.ImagesDeadLettersName"},
        "StateMachineArn": {"Backfill.Outputs.StateMachineArn"},
        "TableName": {"Storage.Outputs.ResultsTableName"},
        "GlobalSecondaryIndexName": {BY_DAY},
        "ApiName": {resources[""]["Api"]["Properties"]["Body"]["info"]["title"]},
        "Stage": {resources[""]["ApiliveStage"]["Properties"]["StageName"]},
        "service": {"api", "bulk"},
        "Resource": {"ApiFunction:live"},
        "ExecutedVersion": {resources[""]["Release"]["Properties"]["Parameters"]["ApiVersion"]},
    }
    for metric in metrics_of(alarms(**OPTIONS["everything"])[name]):
        for dimension in metric["Dimensions"]:
            assert dimension["Value"] in names[dimension["Name"]]


def test_alarms_and_dashboard_use_metrics_that_the_functions_emit() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    emitted = set(re.findall(r"^\| `(\w+)` \| \w+ \|", page, re.MULTILINE))
    namespace = "litelens"
    watched = {
        metric["MetricName"]
        for alarm in alarms(**OPTIONS["everything"]).values()
        for metric in metrics_of(alarm)
        if metric["Namespace"] == namespace
    }
    shown = {
        metric[1]
        for widget in dashboard()
        for metric in widget["properties"].get("metrics", [])
        if metric[0] == namespace
    }
    assert watched == {"Uncertain"}
    assert {"Uncertain", "Entropy", "Decode", "Inference", "ColdStarts", "Duplicates"} <= shown
    assert watched | shown <= emitted


def test_the_namespace_of_the_functions_metrics_is_the_stacks_name() -> None:
    for name, function in of_type("AWS::Lambda::Function"):
        namespace = function["Environment"]["Variables"].get("POWERTOOLS_METRICS_NAMESPACE")
        assert namespace == (None if name == "VerifyFunction" else "litelens")


def dashboard(**parameters: str) -> list[dict[str, Any]]:
    ((_, made),) = of_type("AWS::CloudWatch::Dashboard", **parameters)
    return list(json.loads(made["DashboardBody"])["widgets"])


def test_the_dashboards_widgets_do_not_overlap() -> None:
    cells = [
        (widget["x"] + across, widget["y"] + down)
        for widget in dashboard()
        for across in range(widget["width"])
        for down in range(widget["height"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(across for across, _ in cells) < 24


def test_the_dashboards_queries_are_the_documented_ones() -> None:
    documented = {" ".join(path.read_text().split()) for path in (ROOT / "infra" / "queries").glob("*.txt")}
    queries = [widget["properties"]["query"] for widget in dashboard() if widget["type"] == "log"]
    logs = "SOURCE 'ApiLogs' | SOURCE 'Bulk.Outputs.BulkLogsName' | "
    assert len(queries) >= 3
    assert all(query.startswith(logs) and query.removeprefix(logs) in documented for query in queries)


def test_the_cost_alarm_uses_the_prices_of_the_cost_estimate() -> None:
    for architecture, price in (("x86_64", prices.LAMBDA_GB_SECOND), ("arm64", prices.LAMBDA_ARM_GB_SECOND)):
        made = alarms(Architecture=architecture, MemorySize="2048", EventBus="default", Results="both")["CostAlarm"]
        (expression,) = (metric["Expression"] for metric in made["Metrics"] if "Expression" in metric)
        # One hour: 1,000 seconds and 300 invocations of the API, 500 seconds and 100 invocations of bulk, 200 requests,
        # 900 uploads.
        values = {"api": 1_000_000.0, "bulk": 500_000.0, "answers": 300.0, "batches": 100.0, "requests": 200.0}
        values |= {"uploads": 900.0, "results": 1800.0, "index": 1700.0}
        dollars = evaluate(expression, values)
        expected = 1500 * 2 * price + 400 * prices.LAMBDA_REQUEST + 200 * prices.API_REQUEST
        expected += 900 * (prices.S3_PUT + prices.S3_GET) + 100 * (prices.EVENT + prices.S3_PUT)
        expected += 3500 * prices.TABLE_WRITE
        assert dollars == pytest.approx(expected)


def evaluate(expression: str, values: dict[str, float]) -> float:
    """Return the value of an alarm's expression."""
    functions = {"IF": lambda condition, yes, no: yes if condition else no}
    return float(eval(re.sub(r"FILL\((\w+), 0\)", r"\1", expression), functions, values))


def test_the_cost_alarm_counts_no_events_for_the_batches_of_a_backfill() -> None:
    names = ("api", "bulk", "answers", "batches", "requests", "uploads", "results", "index")
    backfill = dict.fromkeys(names, 0.0) | {"batches": 1000.0}
    dollars = evaluate(expression(EventBus="default", Results="both"), backfill)
    assert dollars == pytest.approx(1000 * prices.LAMBDA_REQUEST)


def expression(**parameters: str) -> str:
    """Return the expression of the cost alarm."""
    (found,) = (made["Expression"] for made in alarms(**parameters)["CostAlarm"]["Metrics"] if "Expression" in made)
    return str(found)


def test_the_cost_alarm_counts_no_events_without_a_bus() -> None:
    assert f"{prices.EVENT:f}" in expression(EventBus="default")
    assert f"{prices.EVENT:f}" not in expression()


@pytest.mark.parametrize(
    ("door", "price"), [("rest", prices.API_REQUEST), ("http", prices.HTTP_API_REQUEST), ("url", 0.0)]
)
def test_the_cost_alarm_has_the_price_of_a_request_to_the_front_door(door: str, price: float) -> None:
    found = re.search(r"FILL\(requests, 0\) \* ([0-9.]+)", expression(**DOORS[door]))
    assert found
    assert float(found[1]) == pytest.approx(price)


@pytest.mark.parametrize(
    ("door", "namespace", "dimensions", "names"),
    [
        (
            "rest",
            "AWS/ApiGateway",
            {"ApiName": "litelens", "Stage": "live"},
            {"requests": "Count", "errors": "5XXError", "refusals": "4XXError", "latency": "Latency"},
        ),
        (
            "http",
            "AWS/ApiGateway",
            {"ApiId": "HttpApi.Outputs.ApiId", "Stage": "$default"},
            {"requests": "Count", "errors": "5xx", "refusals": "4xx", "latency": "Latency"},
        ),
        (
            "url",
            "AWS/Lambda",
            {"FunctionName": "ApiFunction"},
            {
                "requests": "UrlRequestCount",
                "errors": "Url5xxCount",
                "refusals": "Url4xxCount",
                "latency": "UrlRequestLatency",
            },
        ),
    ],
)
def test_alarms_and_dashboard_watch_the_front_door(
    door: str, namespace: str, dimensions: dict[str, str], names: dict[str, str]
) -> None:
    made = alarms(**DOORS[door])
    watched = {
        alarm: {
            (
                metric["Namespace"],
                metric["MetricName"],
                tuple((each["Name"], each["Value"]) for each in metric["Dimensions"]),
            )
            for metric in metrics_of(made[alarm])
        }
        for alarm in ("ErrorsAlarm", "SlowAlarm", "CostAlarm")
    }
    metric = {name: (namespace, names[name], tuple(dimensions.items())) for name in names}
    assert watched["ErrorsAlarm"] == {metric["errors"], metric["requests"]}
    assert watched["SlowAlarm"] == {metric["latency"], metric["requests"]}
    assert metric["requests"] in watched["CostAlarm"]
    shown = {
        tuple(part for part in row if isinstance(part, str))
        for widget in dashboard(**DOORS[door])
        for row in widget["properties"].get("metrics", [])
    }
    flat = [part for pair in dimensions.items() for part in pair]
    assert {(namespace, name, *flat) for name in names.values()} <= shown


def test_an_alarm_has_at_most_the_ten_metrics_that_cloudwatch_allows() -> None:
    for made in alarms(**OPTIONS["everything"]).values():
        assert len(list(metrics_of(made))) <= 10


@pytest.mark.parametrize("option", OPTIONS)
def test_every_resource_can_be_created_after_those_that_it_refers_to(option: str) -> None:
    graph = dependencies(TEMPLATE, OPTIONS[option])
    order = list(TopologicalSorter(graph).static_order())
    assert set(order) == set(synthesize(**OPTIONS[option])["Resources"])
    for name, made in synthesize(**OPTIONS[option])["Resources"].items():
        if made["Type"] == "AWS::CloudFormation::Stack":
            nested, handed = ROOT / made["Properties"]["TemplateURL"], made["Properties"]["Parameters"]
            assert list(TopologicalSorter(dependencies(nested, handed)).static_order()), name


def test_a_budget_writes_to_the_address_of_the_alarms() -> None:
    (budget,) = dict(of_type("AWS::Budgets::Budget", **OPTIONS["a budget"])).values()
    assert budget["Budget"]["BudgetLimit"] == {"Amount": "50", "Unit": "USD"}
    addresses = {
        subscriber["Address"] for made in budget["NotificationsWithSubscribers"] for subscriber in made["Subscribers"]
    }
    assert addresses == {"operator@example.com"}
    assert not list(of_type("AWS::Budgets::Budget"))


@pytest.mark.parametrize("protected", [True, False])
def test_tables_are_protected_if_asked_for(protected: bool) -> None:
    tables = dict(of_type("AWS::DynamoDB::Table", ProtectData=str(protected).lower()))
    assert len(tables) == 1
    for table in tables.values():
        assert table["DeletionProtectionEnabled"] is protected
        assert table["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": protected}


def test_a_key_of_its_own_encrypts_uploads_results_queues_and_logs() -> None:
    encrypted = {
        "AWS::DynamoDB::Table": lambda made: made["SSESpecification"]["KMSMasterKeyId"],
        "AWS::SQS::Queue": lambda made: made["KmsMasterKeyId"],
        "AWS::Logs::LogGroup": lambda made: made["KmsKeyId"],
    }
    for kind, key in encrypted.items():
        found = dict(of_type(kind, **OPTIONS["a key of its own"]))
        assert found
        assert {key(made) for made in found.values()} == {KEY}


def test_dashboards_of_two_regions_have_different_names() -> None:
    ((_, made),) = of_type("AWS::CloudWatch::Dashboard")
    assert "eu-central-1" in made["DashboardName"]


@pytest.mark.parametrize("function", USED)
def test_a_function_has_exactly_the_permissions_that_it_uses(function: str) -> None:
    permissions = set().union(*(PERMISSIONS[call] for call in USED[function]))
    if function == "BulkFunction":
        permissions |= POLLER
    if function != "VerifyFunction":
        permissions |= TRACES | KMS
    assert allowed(function) == permissions | RUNNING


def test_the_functions_permissions_cover_exactly_their_calls_to_aws() -> None:
    assert boto3_calls() == set().union(*USED.values()) == set(PERMISSIONS)


@pytest.mark.parametrize("option", OPTIONS)
def test_every_event_source_handles_failures(option: str) -> None:
    """A queue has a dead-letter queue, a backfill retries; API Gateway and CodeDeploy get the error themselves."""
    queues = dict(of_type("AWS::SQS::Queue", **OPTIONS[option]))
    for _, source in of_type("AWS::Lambda::EventSourceMapping", **OPTIONS[option]):
        assert source["EventSourceArn"] == "Storage.Outputs.ImagesQueueArn"
        assert source["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
        assert queues["ImagesQueue"]["RedrivePolicy"]["deadLetterTargetArn"] == "ImagesDeadLetters.Arn"
    for _, bucket in of_type("AWS::S3::Bucket", **OPTIONS[option]):
        assert bucket.get("NotificationConfiguration", {}).keys() <= {"QueueConfigurations"}
    for _, machine in of_type("AWS::StepFunctions::StateMachine", **OPTIONS[option]):
        states = json.loads(machine["DefinitionString"])["States"]
        maps = [state for state in states.values() if state["Type"] == "Map"]
        tasks = [task for state in maps for task in state["ItemProcessor"]["States"].values()]
        assert tasks
        assert all(task["Retry"] for task in tasks)
        assert all("ToleratedFailurePercentagePath" in state for state in maps)
    permissions = {made["Principal"] for _, made in of_type("AWS::Lambda::Permission", **OPTIONS[option])}
    assert permissions == (set() if OPTIONS[option].get("FrontDoor") == "url" else {"apigateway.amazonaws.com"})
    assert not list(of_type("AWS::Events::Rule", **OPTIONS[option]))


def invoked_by_requests(whole: dict[str, dict[str, Any]]) -> set[str]:
    """Return what the front door invokes: the function and its alias."""
    if "ApiFunctionUrl" in whole[""]:
        made = whole[""]["ApiFunctionUrl"]["Properties"]
        return {f"{made['TargetFunctionArn']}.Arn:{made['Qualifier']}"}
    if "HttpApi" in whole:
        uris = [whole["HttpApi"]["Function"]["Properties"]["IntegrationUri"]]
        handed = whole[""]["HttpApi"]["Properties"]["Parameters"]["FunctionArn"]
        assert handed == "ApiFunction.Arn"
    else:
        uris = [
            operation["x-amazon-apigateway-integration"]["uri"]
            for operations in whole[""]["Api"]["Properties"]["Body"]["paths"].values()
            for operation in operations.values()
            if operation["x-amazon-apigateway-integration"]["type"] == "aws_proxy"
        ]
    return {re.sub(".*:lambda:path/2015-03-31/functions/(.*)/invocations", r"\1", uri) for uri in uris}


@pytest.mark.parametrize("option", OPTIONS)
def test_requests_uploads_and_backfills_go_to_the_live_alias(option: str) -> None:
    whole = stacks(**OPTIONS[option])
    assert invoked_by_requests(whole) == {"ApiFunction.Arn:live"}
    assert whole["Bulk"]["BulkSource"]["Properties"]["FunctionName"] == "BulkFunctionAliaslive"
    assert (
        synthesize_nested("Bulk", **OPTIONS[option])["Outputs"]["BulkFunctionArn"]["Value"] == "BulkFunctionAliaslive"
    )
    if "Backfill" in whole:
        handed = whole[""]["Backfill"]["Properties"]["Parameters"]
        assert handed["BulkFunctionArn"] == "Bulk.Outputs.BulkFunctionArn"


@pytest.mark.parametrize("strategy", parameters()["Deployment"]["AllowedValues"])
def test_a_release_is_tested_shifts_traffic_and_is_rolled_back_by_alarms(strategy: str) -> None:
    resources = stacks(Deployment=strategy)[""]
    update = resources["ApiFunctionAliaslive"]["UpdatePolicy"]["CodeDeployLambdaAliasUpdate"]
    assert update["BeforeAllowTrafficHook"] == "Release.Outputs.VerifyFunctionArn"
    group = resources["ApiFunctionDeploymentGroup"]["Properties"]
    assert group["DeploymentConfigName"] == f"CodeDeployDefault.Lambda{strategy}"
    assert group["AlarmConfiguration"] == {
        "Enabled": True,
        "Alarms": [{"Name": f"Release.Outputs.{name}AlarmName"} for name in ("Errors", "Slow", "VersionErrors")],
    }
    assert set(group["AutoRollbackConfiguration"]["Events"]) >= {"DEPLOYMENT_FAILURE", "DEPLOYMENT_STOP_ON_ALARM"}
    handed = resources["Release"]["Properties"]["Parameters"]
    assert re.fullmatch(r"ApiFunctionVersion\w+", handed["ApiVersionArn"])


def test_codedeploy_may_only_move_the_alias_and_invoke_the_hook() -> None:
    group = stacks()[""]["ApiFunctionDeploymentGroup"]["Properties"]
    assert group["ServiceRoleArn"] == "Release.Outputs.ReleaseRoleArn"
    (policy,) = dict(of_type("AWS::IAM::Role"))["ReleaseRole"]["Policies"]
    allowed = {made["Sid"]: made["Resource"] for made in policy["PolicyDocument"]["Statement"]}
    function = "arn:aws:lambda:eu-central-1:123456789012:function:ApiFunction"
    assert allowed == {
        "ShiftTraffic": [function, f"{function}:*"],
        "VerifyTheNewVersion": "VerifyFunction.Arn",
        "WatchAlarms": "*",
    }
    assert "CodeDeployServiceRole" not in stacks()[""]


def test_the_bulk_function_is_released_after_the_api() -> None:
    tags = {tag["Key"]: tag["Value"] for tag in stacks()[""]["Bulk"]["Properties"]["Tags"]}
    assert tags["released-after"] == "ApiFunctionAliaslive"


def test_changed_settings_change_the_image_and_so_publish_a_version() -> None:
    dockerfile = (ROOT / "lambda" / "Dockerfile").read_text()
    build, _, image = dockerfile.rpartition("\nFROM ")
    assert "COPY samconfig.toml /tmp/samconfig.toml\nRUN sha256sum < /tmp/samconfig.toml > settings.sha256\n" in build
    assert "COPY --from=build /task ${LAMBDA_TASK_ROOT}\n" in image
    assert "!samconfig.toml" in (ROOT / ".dockerignore").read_text().splitlines()


@pytest.mark.parametrize(("file", "pattern"), [(".gitignore", "/models/.*"), (".dockerignore", "models/.*")])
def test_drafts_and_half_written_bundles_are_neither_committed_nor_sent_to_docker(file: str, pattern: str) -> None:
    assert pattern in (ROOT / file).read_text().splitlines()


@pytest.mark.parametrize("option", ["nothing", "snapshots"])
def test_snapstart_applies_to_published_versions_if_it_is_on(option: str) -> None:
    applied = {name: made.get("SnapStart") for name, made in of_type("AWS::Lambda::Function", **OPTIONS[option])}
    wanted = "PublishedVersions" if option == "snapshots" else "None"
    assert applied == {
        "ApiFunction": {"ApplyOn": wanted},
        "BulkFunction": {"ApplyOn": wanted},
        "VerifyFunction": None,
    }


@pytest.mark.parametrize("option", OPTIONS)
def test_all_logs_go_to_log_groups_with_the_configured_retention(option: str) -> None:
    functions = dict(of_type("AWS::Lambda::Function", **OPTIONS[option]))
    groups = dict(of_type("AWS::Logs::LogGroup", LogRetention="7", **OPTIONS[option]))
    assert {made["LoggingConfig"]["LogGroup"] for made in functions.values()} == groups.keys()
    assert all(str(group["RetentionInDays"]) == "7" for group in groups.values())


@pytest.mark.parametrize("option", OPTIONS)
def test_data_is_encrypted_at_rest(option: str) -> None:
    for _, queue in of_type("AWS::SQS::Queue", **OPTIONS[option]):
        assert queue["SqsManagedSseEnabled"] is ("KmsMasterKeyId" not in queue)
    for _, bucket in of_type("AWS::S3::Bucket", **OPTIONS[option]):
        assert bucket["BucketEncryption"]


def test_resources_with_data_have_a_deletion_policy() -> None:
    kinds = ("AWS::S3::Bucket", "AWS::DynamoDB::Table", "AWS::SQS::Queue", "AWS::Logs::LogGroup")
    for resources in stacks(**OPTIONS["everything"]).values():
        kept = {name: made for name, made in resources.items() if made["Type"] in kinds}
        assert all({"DeletionPolicy", "UpdateReplacePolicy"} <= made.keys() for made in kept.values()), kept.keys()


def test_the_firewall_limits_each_address_and_blocks_addresses_with_a_bad_reputation() -> None:
    made = dict(of_type("AWS::WAFv2::WebACL", Waf="true", WafRate="500"))["WebAcl"]
    (blocked,) = (rule["Action"]["Block"]["CustomResponse"] for rule in made["Rules"] if "Action" in rule)
    assert blocked["ResponseCode"] == 429
    assert [header["Name"] for header in blocked["ResponseHeaders"]] == ["Retry-After"]
    problem = msgspec.json.decode(
        made["CustomResponseBodies"][blocked["CustomResponseBodyKey"]]["Content"], type=Problem
    )
    assert (problem.status, problem.code) == (429, "too_many_requests")
    rate, reputation = (rule["Statement"] for rule in made["Rules"])
    assert rate == {"RateBasedStatement": {"AggregateKeyType": "IP", "Limit": "500"}}
    assert reputation["ManagedRuleGroupStatement"]["Name"] == "AWSManagedRulesAmazonIpReputationList"
    (association,) = dict(of_type("AWS::WAFv2::WebACLAssociation", Waf="true")).values()
    assert association["ResourceArn"] == "arn:aws:apigateway:eu-central-1::/restapis/Api/stages/ApiliveStage"


def test_a_domain_of_an_http_api_maps_to_its_stage() -> None:
    only = OPTIONS["an HTTP API with only a domain"]
    (mapping,) = dict(of_type("AWS::ApiGatewayV2::ApiMapping", **only)).values()
    assert mapping == {
        "DomainName": "Name",
        "ApiId": "HttpApi.Outputs.ApiId",
        "Stage": "HttpApi.Outputs.ApiStage",
    }
    assert not list(of_type("AWS::ApiGateway::BasePathMapping", **only))
    (api,) = dict(of_type("AWS::ApiGatewayV2::Api", **only)).values()
    assert api["DisableExecuteApiEndpoint"] is True


def test_a_domain_maps_to_the_stage_without_a_base_path() -> None:
    (mapping,) = dict(of_type("AWS::ApiGateway::BasePathMapping", **OPTIONS["a zone"])).values()
    assert mapping == {"DomainName": "Name", "RestApiId": "Api", "Stage": "ApiliveStage"}
    (name,) = dict(of_type("AWS::ApiGateway::DomainName", **OPTIONS["a zone"])).values()
    assert name["SecurityPolicy"] == "TLS_1_2"
    assert not list(of_type("AWS::Route53::RecordSet", **OPTIONS["a domain"]))
    assert list(of_type("AWS::Route53::RecordSet", **OPTIONS["a zone"]))
