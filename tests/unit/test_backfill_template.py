"""infra/backfill.yaml: the state machine has documented fields and stays within quotas; the role has no unneeded
permissions.

tests/runtime/test_backfill.py runs the state machine.
"""

import base64
import copy
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import pytest
from cfnlint.api import lint
from samcli.yamlhelper import yaml_parse
from step_functions import backfill_definition, backfill_resources
from support import DEFAULT_BUNDLE, ROOT
from template import parameters, synthesize

from litelens.api.response_schemas import (
    BulkResult,
    Classification,
    Embedding,
    GroupConfidence,
    LabelConfidence,
    Model,
    Photo,
    Timing,
)
from litelens.core.bundle import load_bundle
from litelens.core.classifier import DEFAULT_TOP_K

DECLARED = yaml_parse((ROOT / "infra" / "backfill.yaml").read_text())["Parameters"]
EXECUTIONS = "arn:aws:states:eu-central-1:123456789012:execution:StateMachine.Name"

# https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html
MAX_STATE_BYTES = 256 * 1024
EXPRESS_SECONDS = 5 * 60
MAX_CHILDREN = 10_000
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html and .../bucketnamingrules.html
LONGEST_KEY = "k" * 1024
LONGEST_BUCKET = "b" * 63

COMMON = {"Type", "Comment", "Next", "End", "InputPath", "OutputPath"}
# The fields of JSONPath states as these pages list them, in https://docs.aws.amazon.com/step-functions/latest/dg/.
FIELDS = {
    # statemachine-structure.html
    "machine": {"Comment", "QueryLanguage", "StartAt", "TimeoutSeconds", "Version", "States"},
    # state-pass.html, state-choice.html, state-task.html
    "Pass": COMMON | {"Assign", "Parameters", "Result", "ResultPath"},
    "Choice": (COMMON | {"Choices", "Default"}) - {"End", "Next"},
    "Task": COMMON
    | {"Resource", "Parameters", "Credentials", "ResultPath", "ResultSelector", "Retry", "Catch"}
    | {"TimeoutSeconds", "HeartbeatSeconds"},
    # state-map-distributed.html
    "Map": COMMON
    | {"ItemReader", "ItemsPath", "ItemSelector", "ItemBatcher", "ItemProcessor", "Label", "ResultWriter"}
    | {"MaxConcurrency", "MaxConcurrencyPath", "ToleratedFailureCount", "ToleratedFailureCountPath"}
    | {
        "ToleratedFailurePercentage",
        "ToleratedFailurePercentagePath",
        "ResultPath",
        "ResultSelector",
        "Retry",
        "Catch",
    },
    "ItemProcessor": {"ProcessorConfig", "StartAt", "States"},
    "ProcessorConfig": {"Mode", "ExecutionType"},
    # input-output-itemreader.html
    "ItemReader": {"Resource", "Parameters", "ReaderConfig"},
    "ReaderConfig": {"InputType", "ManifestType", "Transformation", "CSVDelimiter", "CSVHeaderLocation", "CSVHeaders"}
    | {"MaxItems", "MaxItemsPath", "ItemsPointer"},
    # input-output-itembatcher.html
    "ItemBatcher": {"MaxItemsPerBatch", "MaxItemsPerBatchPath", "MaxInputBytesPerBatch", "MaxInputBytesPerBatchPath"}
    | {"BatchInput"},
    # input-output-resultwriter.html
    "ResultWriter": {"Resource", "Parameters", "WriterConfig"},
    "WriterConfig": {"Transformation", "OutputType"},
    # concepts-error-handling.html
    "Retry": {"ErrorEquals", "IntervalSeconds", "MaxAttempts", "BackoffRate", "MaxDelaySeconds", "JitterStrategy"},
}


def state_machine(**parameters: str) -> dict[str, Any]:
    return dict(json.loads(backfill_definition(**parameters)))


def maps() -> list[dict[str, Any]]:
    return [state for state in state_machine()["States"].values() if state["Type"] == "Map"]


def tasks() -> list[dict[str, Any]]:
    return [task for made in maps() for task in made["ItemProcessor"]["States"].values()]


def undocumented_fields(states: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the fields that AWS does not document, each with its place."""
    for state in states.values():
        yield from _undocumented(state["Type"], state)
        for part in ("ItemReader", "ItemBatcher", "ItemProcessor", "ResultWriter"):
            yield from _undocumented(part, state.get(part, {}))
        for retrier in state.get("Retry", ()):
            yield from _undocumented("Retry", retrier)
        processor = state.get("ItemProcessor", {"States": {}})
        yield from undocumented_fields(processor["States"])
        yield from _undocumented("ProcessorConfig", processor.get("ProcessorConfig", {}))
        yield from _undocumented("ReaderConfig", state.get("ItemReader", {}).get("ReaderConfig", {}))
        yield from _undocumented("WriterConfig", state.get("ResultWriter", {}).get("WriterConfig", {}))


def _undocumented(place: str, fields: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield from ((place, name) for name in fields if name not in FIELDS[place])


def broken_rules(document: Mapping[str, Any]) -> list[str]:
    """Return the rules that a definition violates; in the template, cfn-lint does not check the definition's text."""
    resources = {"StateMachine": {"Type": "AWS::StepFunctions::StateMachine"}}
    made = {"RoleArn": "arn:aws:iam::123456789012:role/backfill", "DefinitionString": json.dumps(document)}
    template = {"Resources": {"StateMachine": resources["StateMachine"] | {"Properties": made}}}
    return [match.rule.id for match in lint(json.dumps(template), regions=["us-east-1"])]


def statements(**parameters: str) -> dict[str, tuple[Any, Any]]:
    """Return the role's actions and resources by the statement's id."""
    resources = backfill_resources(**parameters)
    (own,) = resources["Role"]["Properties"]["Policies"]
    apart = resources["RolePolicy"]["Properties"]
    assert apart["Roles"] == ["Role"]
    allowed = [*own["PolicyDocument"]["Statement"], *apart["PolicyDocument"]["Statement"]]
    assert all(made["Effect"] == "Allow" for made in allowed)
    return {made["Sid"]: (made["Action"], made["Resource"]) for made in allowed}


def test_aws_documents_every_field() -> None:
    assert state_machine().keys() <= FIELDS["machine"]
    assert list(undocumented_fields(state_machine()["States"])) == []


def test_an_undocumented_field_is_found() -> None:
    states = state_machine()["States"]
    states["Listing"]["ResultWriter"]["WriterConfig"]["Format"] = "JSONL"
    states["Listing"]["ItemProcessor"]["States"]["ClassifyListed"]["Retry"][0]["Jitter"] = "FULL"
    assert list(undocumented_fields(states)) == [("Retry", "Jitter"), ("WriterConfig", "Format")]


def test_cfn_lint_finds_no_mistake_in_the_state_machine() -> None:
    assert broken_rules(state_machine()) == []
    mistaken = copy.deepcopy(state_machine())
    mistaken["States"]["Listing"]["MaxParallel"] = 1
    assert broken_rules(mistaken) == ["E3601"]


def test_batches_are_express_executions_of_a_distributed_map() -> None:
    assert backfill_resources()["StateMachine"]["Properties"]["StateMachineType"] == "STANDARD"
    assert [made["ItemProcessor"]["ProcessorConfig"] for made in maps()] == [
        {"Mode": "DISTRIBUTED", "ExecutionType": "EXPRESS"}
    ] * 2


def test_listing_and_inventory_differ_only_in_their_reader_and_names() -> None:
    listing, inventory = maps()
    assert listing.pop("ItemReader") == {
        "Resource": "arn:aws:states:::s3:listObjectsV2",
        "Parameters": {"Bucket.$": "$.bucket", "Prefix.$": "$.prefix"},
    }
    assert inventory.pop("ItemReader") == {
        "Resource": "arn:aws:states:::s3:getObject",
        "ReaderConfig": {"InputType": "MANIFEST"},
        "Parameters": {"Bucket.$": "$.inventory.bucket", "Key.$": "$.inventory.key"},
    }
    assert (listing.pop("Label"), inventory.pop("Label")) == ("Listing", "Inventory")
    processors = [made.pop("ItemProcessor") for made in (listing, inventory)]
    assert listing == inventory
    names = [processor["StartAt"] for processor in processors]
    assert [list(processor["States"]) for processor in processors] == [[name] for name in names]
    # State names must be unique in a state machine, including its maps.
    assert len({*state_machine()["States"], *names}) == len(state_machine()["States"]) + 2
    assert tasks()[0] == tasks()[1]


def test_the_parameters_become_numbers_in_the_definition() -> None:
    given = state_machine(MaxConcurrency="7", BatchSize="5", ToleratedFailurePercentage="3")["States"]
    for name in ("Listing", "Inventory"):
        assert given[name]["MaxConcurrency"] == 7
        assert given[name]["ItemBatcher"] == {"MaxItemsPerBatch": 5, "BatchInput": {"bucket.$": "$.bucket"}}
        assert given[name]["ToleratedFailurePercentagePath"] == "$.tolerate"
    assert given["Defaults"]["Parameters"]["defaults"] == {"prefix": "", "tolerate": 3}


def test_results_are_json_lines_below_backfills_in_the_upload_bucket() -> None:
    for made in maps():
        assert made["ResultWriter"] == {
            "Resource": "arn:aws:states:::s3:putObject",
            "Parameters": {"Bucket": "uploads", "Prefix": "backfills"},
            "WriterConfig": {"Transformation": "FLATTEN", "OutputType": "JSONL"},
        }


def test_the_function_gets_the_batch_and_its_answer_is_the_output() -> None:
    for task in tasks():
        assert task["Resource"] == "arn:aws:states:::lambda:invoke"
        assert task["Parameters"] == {
            "FunctionName": "arn:aws:lambda:eu-central-1:123456789012:function:bulk",
            "Payload.$": "$",
        }
        assert task["OutputPath"] == "$.Payload"


def test_throttling_is_retried_for_longer_than_other_errors() -> None:
    throttled, failed = tasks()[0]["Retry"]
    assert throttled["ErrorEquals"] == ["Lambda.TooManyRequestsException"]
    assert failed["ErrorEquals"] == ["States.TaskFailed"]
    assert throttled["MaxAttempts"] > failed["MaxAttempts"]
    for retrier in (throttled, failed):
        assert (retrier["BackoffRate"], retrier["JitterStrategy"]) == (2, "FULL")


def test_all_attempts_fit_into_the_time_of_a_batch() -> None:
    throttled, failed = tasks()[0]["Retry"]
    timeout = parameters()["BulkTimeout"]["Default"]
    assert sum(pauses(throttled)) + timeout <= EXPRESS_SECONDS
    assert sum(pauses(failed)) + (1 + failed["MaxAttempts"]) * timeout <= EXPRESS_SECONDS


def pauses(retrier: Mapping[str, Any]) -> list[float]:
    """Return the longest possible pauses before each retry."""
    longest = retrier.get("MaxDelaySeconds", float("inf"))
    return [
        min(longest, retrier["IntervalSeconds"] * retrier["BackoffRate"] ** attempt)
        for attempt in range(retrier["MaxAttempts"])
    ]


def test_a_full_batch_fits_into_a_states_input_and_output() -> None:
    size = DECLARED["BatchSize"]["MaxValue"]
    listed = {
        "Etag": f'"{"e" * 40}"',
        "Key": LONGEST_KEY,
        "LastModified": 1668699881,
        "Size": 5_000_000_000_000,
        "StorageClass": "INTELLIGENT_TIERING",
    }
    batch = {"BatchInput": {"bucket": LONGEST_BUCKET}, "Items": [listed] * size}
    assert len(json.dumps(batch)) <= MAX_STATE_BYTES
    assert len(msgspec.json.encode([largest_result()] * size)) <= MAX_STATE_BYTES


def test_a_full_batch_of_results_with_embeddings_fits_into_a_states_output() -> None:
    passed = synthesize(ImageBuckets="photos", StoreEmbeddings="true")["Resources"]["Backfill"]["Properties"]
    assert passed["Parameters"]["BatchSize"] < DECLARED["BatchSize"]["MaxValue"]
    # ResNet-50 has the most features of all presets.
    embedding = Embedding("b" * 100, 2048, base64=base64.b64encode(bytes(4 * 2048)).decode())
    result = largest_result()
    shown = msgspec.structs.replace(result, result=msgspec.structs.replace(result.result, embedding=embedding))
    assert len(msgspec.json.encode([shown] * passed["Parameters"]["BatchSize"])) <= MAX_STATE_BYTES


def largest_result() -> BulkResult:
    """Return the largest possible result of the default model."""
    bundle = load_bundle(DEFAULT_BUNDLE)
    label = max(bundle.labels, key=len)
    group = max(bundle.groups or [""], key=len)
    shown = Classification(
        Photo("JPEG", 65_535, 65_535),
        [LabelConfidence(label, 10_000, 0.123456, group)] * DEFAULT_TOP_K,
        False,
        Timing(1234.567, 1234.567, 1234.567),
        GroupConfidence(group, 0.123456),
    )
    time = "2026-11-21T00:00:00.000000+00:00"
    return BulkResult(LONGEST_BUCKET, LONGEST_KEY, "v" * 40, Model(bundle.name, bundle.version), time, shown)


def test_parameters_cannot_exceed_the_quotas() -> None:
    bounds = {name: (made["MinValue"], made["MaxValue"]) for name, made in DECLARED.items() if "MaxValue" in made}
    assert bounds == {
        "MaxConcurrency": (1, MAX_CHILDREN),
        "BatchSize": (1, 100),
        "ToleratedFailurePercentage": (0, 100),
    }


def test_the_role_may_only_classify_list_and_write_results() -> None:
    assert statements(ImageBuckets="photos,scans") == {
        "Classify": ("lambda:InvokeFunction", "arn:aws:lambda:eu-central-1:123456789012:function:bulk"),
        "ListImages": ("s3:ListBucket", ["arn:aws:s3:::photos", "arn:aws:s3:::scans"]),
        "WriteResults": (
            ["s3:PutObject", "s3:GetObject", "s3:ListMultipartUploadParts", "s3:AbortMultipartUpload"],
            "arn:aws:s3:::uploads/backfills/*",
        ),
        "StartBatches": ("states:StartExecution", "StateMachine"),
        "WatchBatches": ("states:DescribeExecution", f"{EXECUTIONS}:*"),
        "RedriveBatches": ("states:RedriveExecution", f"{EXECUTIONS}/*:*"),
    }


def test_the_role_may_read_inventories_if_there_is_a_bucket_for_them() -> None:
    assert statements(InventoryBucket="inventories")["ReadInventories"] == (
        "s3:GetObject",
        "arn:aws:s3:::inventories/*",
    )


def test_only_step_functions_of_this_account_may_assume_the_role() -> None:
    (trust,) = backfill_resources()["Role"]["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    assert trust == {
        "Effect": "Allow",
        "Principal": {"Service": "states.amazonaws.com"},
        "Action": "sts:AssumeRole",
        "Condition": {"StringEquals": {"aws:SourceAccount": "123456789012"}},
    }


@pytest.mark.parametrize(("name", "text", "accepted"), [("ImageBuckets", "photos", True), ("ImageBuckets", "*", False)])
def test_a_bucket_is_a_name_and_not_a_pattern(name: str, text: str, accepted: bool) -> None:
    assert bool(re.fullmatch(DECLARED[name]["AllowedPattern"], text)) is accepted


def test_every_parameter_of_backfills_is_documented_with_its_default() -> None:
    page = (ROOT / "docs" / "scale.md").read_text()
    listed = dict(re.findall(r"^\| `([A-Z]\w+)` \| (.+?) \|", page, re.MULTILINE))
    assert listed == {name: str(made["Default"]) or "none" for name, made in DECLARED.items() if "Default" in made}
