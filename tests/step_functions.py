"""Step Functions for tests: moto's interpreter, extended by the features of a Distributed Map that it lacks.

moto refuses definitions with ItemBatcher, WriterConfig, InputType MANIFEST or ExecutionType EXPRESS. This module
removes these fields before moto interprets a definition, and implements them as documented at
https://docs.aws.amazon.com/step-functions/latest/dg/state-map-distributed.html and the pages under it. It also lists
more than a thousand objects, and fails a map in which more items failed than tolerated.
"""

import csv
import gzip
import io
import itertools
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from boto3.session import Session
from botocore.config import Config
from fake_api import Request, Respond, Response, api_server, sent
from moto.core.config import default_user_config
from moto.stepfunctions.parser.api import HistoryEventType, MapRunFailedEventDetails
from moto.stepfunctions.parser.asl.component.common.error_name.failure_event import FailureEvent, FailureEventException
from moto.stepfunctions.parser.asl.component.common.error_name.states_error_name import StatesErrorName
from moto.stepfunctions.parser.asl.component.common.error_name.states_error_name_type import StatesErrorNameType
from moto.stepfunctions.parser.asl.component.common.retry import retrier_decl
from moto.stepfunctions.parser.asl.component.state.exec.state_map.item_reader.eval.resource_eval_s3 import (
    ResourceEvalS3 as Reader,
)
from moto.stepfunctions.parser.asl.component.state.exec.state_map.iteration.distributed_iteration_component import (
    DistributedIterationComponent,
)
from moto.stepfunctions.parser.asl.component.state.exec.state_map.iteration.itemprocessor import (
    distributed_item_processor_worker,
)
from moto.stepfunctions.parser.asl.component.state.exec.state_map.result_writer.resource_eval.resource_eval_s3 import (
    ResourceEvalS3 as Writer,
)
from moto.stepfunctions.parser.asl.component.state.exec.state_task import lambda_eval_utils
from moto.stepfunctions.parser.asl.eval.event.event_detail import EventDetails
from moto.stepfunctions.parser.asl.parse.asl_parser import AmazonStateLanguageParser
from support import ROOT
from template import synthesize_template

Worker = distributed_item_processor_worker.DistributedItemProcessorWorker
Function = Callable[[dict[str, Any]], Any]

# moto does not check the role's permissions.
ROLE = "arn:aws:iam::123456789012:role/backfill"


def backfill_resources(**parameters: str) -> dict[str, Any]:
    """Return the resources of infra/backfill.yaml, with the defaults of the parameters that are not given."""
    given = {
        "BulkFunctionArn": "arn:aws:lambda:eu-central-1:123456789012:function:bulk",
        "UploadBucketName": "uploads",
        "ImageBuckets": "photos",
    }
    return dict(synthesize_template(ROOT / "infra" / "backfill.yaml", given | parameters)["Resources"])


def backfill_definition(**parameters: str) -> str:
    """Return the definition of its state machine."""
    return str(backfill_resources(**parameters)["StateMachine"]["Properties"]["DefinitionString"])


class FunctionError(Exception):
    """The Lambda function failed; the message is the exception's name."""


class Throttled(Exception):
    """Lambda throttled the invocation."""


@contextmanager
def run_step_functions(function: Function) -> Iterator[None]:
    """Make moto execute state machines until the block ends, with `function` as every Lambda function.

    Retries do not wait.
    """
    logging.getLogger("moto.stepfunctions").setLevel(logging.CRITICAL)
    with pytest.MonkeyPatch.context() as patched, api_server(_invoke(function)) as (lambda_url, _):
        once = Config(retries={"total_max_attempts": 1})
        patched.setattr(
            lambda_eval_utils,
            "boto_client_for",
            lambda **_: Session().client("lambda", endpoint_url=lambda_url, config=once),
        )
        patched.setitem(default_user_config, "stepfunctions", {"execute_state_machine": True})
        patched.setattr(retrier_decl, "time", SimpleNamespace(sleep=lambda _: None))
        patched.setattr(AmazonStateLanguageParser, "parse", staticmethod(_parse))
        patched.setattr(Reader, "_handle_list_objects_v2", staticmethod(_list_objects))
        patched.setattr(Reader, "_handle_get_object", staticmethod(_read_inventory))
        patched.setattr(Writer, "_handle_put_object", staticmethod(_return_manifest))
        patched.setattr(DistributedIterationComponent, "_map_run", _run_batches)
        patched.setattr(Worker, "_eval_job", _count_items)
        yield


def _invoke(function: Function) -> Respond:
    """Answer as Lambda does: https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html"""

    def respond(request: Request) -> Response:
        try:
            return sent(function(json.loads(request.body)))
        except Throttled:
            headers = {"x-amzn-ErrorType": "TooManyRequestsException", "x-amzn-RequestId": "request-1"}
            return sent({"message": "Rate exceeded"}, 429, headers)
        except FunctionError as error:
            return sent({"errorType": str(error)}, headers={"X-Amz-Function-Error": "Unhandled"})

    return respond


_moto_parse = AmazonStateLanguageParser.parse
_moto_map_run = DistributedIterationComponent._map_run
_moto_eval_job = Worker._eval_job


def _parse(backfill_definition: str) -> Any:
    document = json.loads(backfill_definition)
    for state in document["States"].values():
        if state["Type"] == "Map":
            del state["ItemBatcher"], state["ResultWriter"]["WriterConfig"]
            state["ItemReader"].pop("ReaderConfig", None)
            state["ItemProcessor"]["ProcessorConfig"]["ExecutionType"] = "STANDARD"
    return _moto_parse(json.dumps(document))


def _list_objects(env: Any, *_: Any) -> None:
    pages = Session().client("s3").get_paginator("list_objects_v2").paginate(**env.stack.pop())
    env.stack.append(
        [
            {
                "Etag": found["ETag"],
                "Key": found["Key"],
                "LastModified": int(found["LastModified"].timestamp()),
                "Size": found["Size"],
                "StorageClass": found["StorageClass"],
            }
            for page in pages
            for found in page.get("Contents", ())
        ]
    )


def _read_inventory(env: Any, *_: Any) -> None:
    s3 = Session().client("s3")
    manifest = json.loads(s3.get_object(**env.stack.pop())["Body"].read())
    bucket = manifest["destinationBucket"].removeprefix("arn:aws:s3:::")
    columns = [column.strip() for column in manifest["fileSchema"].split(",")]
    files = [s3.get_object(Bucket=bucket, Key=file["key"])["Body"].read() for file in manifest["files"]]
    rows = itertools.chain.from_iterable(csv.reader(io.StringIO(gzip.decompress(file).decode())) for file in files)
    env.stack.append([dict(zip(columns, row, strict=True)) for row in rows])


def _run_batches(component: Any, env: Any, eval_input: Any) -> None:
    run, items = eval_input.map_run_record, env.stack.pop()
    found = Session().client("stepfunctions").describe_state_machine_for_execution(executionArn=run.execution_arn)
    state = json.loads(found["definition"])["States"][eval_input.state_name]
    batches = _batches(items, state["ItemBatcher"], env.states.get_input())
    env.stack.append(batches)
    _moto_map_run(component, env, eval_input)
    outcomes = list(zip(batches, env.stack[-1], strict=True))
    _write(run.map_run_arn, state["ResultWriter"], outcomes)
    failed = sum(len(batch["Items"]) for batch, output in outcomes if output is None)
    if failed * 100 > eval_input.tolerated_failure_percentage * len(items):
        raise _too_many_failed(env)


def _batches(items: list[Any], batcher: dict[str, Any], state_input: dict[str, Any]) -> list[dict[str, Any]]:
    batch_input = {
        name.removesuffix(".$"): state_input[path.removeprefix("$.")] for name, path in batcher["BatchInput"].items()
    }
    size = batcher["MaxItemsPerBatch"]
    return [{"BatchInput": batch_input, "Items": items[start : start + size]} for start in range(0, len(items), size)]


def _write(run: str, result_writer: dict[str, Any], outcomes: list[tuple[Any, Any]]) -> None:
    """Write outputs as JSON lines, the inputs of failed batches, and the manifest that names the files."""
    assert result_writer["WriterConfig"] == {"Transformation": "FLATTEN", "OutputType": "JSONL"}
    lines = {
        "SUCCEEDED": [result for _, output in outcomes if output is not None for result in output],
        "FAILED": [{"Input": json.dumps(batch), "Status": "FAILED"} for batch, output in outcomes if output is None],
        "PENDING": [],
    }
    s3, bucket = Session().client("s3"), result_writer["Parameters"]["Bucket"]
    folder = f"{result_writer['Parameters']['Prefix']}/{run.rpartition(':')[2]}/"
    files: dict[str, list[dict[str, Any]]] = {status: [] for status in lines}
    for status, documents in lines.items():
        body = "".join(json.dumps(document) + "\n" for document in documents).encode()
        if body:
            files[status].append({"Key": f"{folder}{status}_0.jsonl", "Size": len(body)})
            s3.put_object(Bucket=bucket, Key=f"{folder}{status}_0.jsonl", Body=body)
    manifest = {"DestinationBucket": bucket, "MapRunArn": run, "ResultFiles": files}
    s3.put_object(Bucket=bucket, Key=f"{folder}manifest.json", Body=json.dumps(manifest).encode())


def _return_manifest(env: Any, *_: Any) -> None:
    parameters = env.stack.pop()
    env.stack.pop()
    run = env.map_run_record_pool_manager.get_all()[-1].map_run_arn
    key = f"{parameters['Prefix']}/{run.rpartition(':')[2]}/manifest.json"
    env.stack.append({"MapRunArn": run, "ResultWriterDetails": {"Bucket": parameters["Bucket"], "Key": key}})


def _too_many_failed(env: Any) -> FailureEventException:
    name = StatesErrorName(StatesErrorNameType.StatesExceedToleratedFailureThreshold)
    cause = "The specified tolerated failure threshold was exceeded"
    details = MapRunFailedEventDetails(error=name.error_name, cause=cause)
    return FailureEventException(
        FailureEvent(env, name, HistoryEventType.MapRunFailed, EventDetails(mapRunFailedEventDetails=details))
    )


def _count_items(worker: Any, env: Any, job: Any) -> None:
    """Make the worker count a batch's items instead of the batch."""
    run, size = worker._map_run_record, len(job.job_input["Items"])
    worker._map_run_record = SimpleNamespace(
        item_counter=_Multiplied(run.item_counter, size), execution_counter=run.execution_counter
    )
    try:
        _moto_eval_job(worker, env, job)
    finally:
        worker._map_run_record = run


class _Multiplied:
    """Counters that count each batch as many times as it has items."""

    def __init__(self, counters: Any, factor: int) -> None:
        self._counters = counters
        self._factor = factor

    def __getattr__(self, name: str) -> Any:
        add = getattr(self._counters, name).offset
        return SimpleNamespace(
            count=lambda: add(self._factor),
            offset=lambda number: add(self._factor * number),
        )
