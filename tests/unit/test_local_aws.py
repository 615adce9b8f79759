"""The local stack's AWS, and the resources that it creates from the templates."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
from local_stack import queue_arn
from template import synthesize_nested

from local.aws import client_at, isolated_environment, serve_aws
from local.storage import Storage, create_storage


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with serve_aws() as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def storage(endpoint: str) -> Storage:
    return create_storage(
        endpoint, f"stack-{uuid4()}", {"ImageBuckets": "photos,pictures", "ResultDays": "7", "EventBus": "mine"}
    )


def test_only_one_of_several_concurrent_conditional_writes_succeeds(endpoint: str) -> None:
    dynamodb, table = client_at(endpoint, "dynamodb"), f"table-{uuid4()}"
    dynamodb.create_table(
        TableName=table,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
    )

    def was_written(key: str) -> bool:
        try:
            dynamodb.put_item(TableName=table, Item={"id": {"S": key}}, ConditionExpression="attribute_not_exists(id)")
        except dynamodb.exceptions.ConditionalCheckFailedException:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        for key in map(str, range(60)):
            assert sum(threads.map(was_written, [key] * 8)) == 1


def test_the_users_aws_settings_and_proxies_are_not_inherited() -> None:
    inherited = {
        "AWS_PROFILE": "work",
        "AWS_ACCESS_KEY_ID": "theirs",
        "AWS_SESSION_TOKEN": "theirs",
        "AWS_ENDPOINT_URL_S3": "https://example.com",
        "LITELENS_EVENT_BUS": "theirs",
        "HTTPS_PROXY": "http://example.com",
        "http_proxy": "http://example.com",
        "PATH": "/bin",
    }
    environment = isolated_environment(inherited)
    assert environment.keys() & inherited.keys() == {"AWS_ACCESS_KEY_ID", "PATH"}
    assert "theirs" not in environment.values()
    assert environment["PATH"] == "/bin"


def test_the_function_has_the_configuration_in_the_template(storage: Storage) -> None:
    declared = synthesize_nested("Bulk")["Resources"]["BulkFunction"]["Properties"]
    assert storage.function.variables.keys() == declared["Environment"]["Variables"].keys()
    assert storage.function.variables["LITELENS_UPLOAD_BUCKET"] == storage.bucket
    assert storage.function.variables["LITELENS_RESULTS_TABLE"] == storage.results_table
    assert storage.function.timeout == int(declared["Timeout"])
    assert [storage.function.handler] == declared["ImageConfig"]["Command"]


def test_given_parameters_replace_the_defaults(storage: Storage) -> None:
    assert storage.function.variables["LITELENS_BUCKETS"] == "photos,pictures"
    assert storage.function.variables["LITELENS_RESULT_DAYS"] == "7"
    assert storage.function.variables["LITELENS_EVENT_BUS"] == "mine"


def test_the_event_source_and_the_redrive_policy_match_the_template(endpoint: str, storage: Storage) -> None:
    mapping = synthesize_nested("Bulk")["Resources"]["BulkSource"]["Properties"]
    queue = synthesize_nested("Storage")["Resources"]["ImagesQueue"]["Properties"]
    source, sqs = storage.source, client_at(endpoint, "sqs")
    assert (source.batch_size, source.window) == (mapping["BatchSize"], mapping["MaximumBatchingWindowInSeconds"])
    assert source.reports_failures == ("ReportBatchItemFailures" in mapping["FunctionResponseTypes"])
    attributes = sqs.get_queue_attributes(QueueUrl=source.queue_url, AttributeNames=["All"])["Attributes"]
    assert attributes["VisibilityTimeout"] == str(queue["VisibilityTimeout"])
    assert f'"maxReceiveCount": {queue["RedrivePolicy"]["maxReceiveCount"]}' in attributes["RedrivePolicy"]
    assert queue_arn(sqs, storage.dead_letters_url) in attributes["RedrivePolicy"]


def test_the_notifications_of_the_bucket_match_the_template(endpoint: str, storage: Storage) -> None:
    (declared,) = synthesize_nested("Storage")["Resources"]["UploadBucket"]["Properties"]["NotificationConfiguration"][
        "QueueConfigurations"
    ]
    answer = client_at(endpoint, "s3").get_bucket_notification_configuration(Bucket=storage.bucket)
    (made,) = answer["QueueConfigurations"]
    assert made["Events"] == [declared["Event"]]
    assert made["QueueArn"] == storage.source.queue_arn
    assert made["Filter"]["Key"]["FilterRules"] == declared["Filter"]["S3Key"]["Rules"]
