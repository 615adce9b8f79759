"""The verbs of make for a stack that is deployed, with commands `aws` and `sam` that note what they are asked."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from fake_aws import install_fake_aws, make
from support import ROOT
from template import parameters

CONFIG = tomllib.loads((ROOT / "samconfig.toml").read_text())
ENVIRONMENTS = ["dev", "prod"]
VERSIONS = {"Versions": [{"Version": version} for version in ("$LATEST", "2", "8", "9", "10", "11")]}


def led(before: str, to: str) -> dict[str, Any]:
    """A deployment as CodeDeploy tells of it."""
    moved = {"Name": "ApiFunction", "Alias": "live", "CurrentVersion": before, "TargetVersion": to}
    resource = {"ApiFunction": {"Type": "AWS::Lambda::Function", "Properties": moved}}
    content = json.dumps({"version": 0.0, "Resources": [resource]}, separators=(",", ":"))
    return {"deploymentInfo": {"revision": {"revisionType": "String", "string": {"content": content}}}}


# Version 9 was refused: version 10 came after 8.
LIVE: dict[str, Any] = {
    "get-alias": {"FunctionVersion": "10"},
    "list-versions-by-function": VERSIONS,
    "describe-stack-resources": {"StackResources": []},
    "list-deployments": {"Succeeded": {"deployments": ["d-3", "d-2", "d-1"]}, "deployments": []},
    "get-deployment": {"d-3": led("10", "11"), "d-2": led("8", "10"), "d-1": led("2", "8")},
}
EMPTY: dict[str, Any] = {"list-objects-v2": {}}
FULL = {"list-objects-v2": {"Contents": [{"Key": "uploads/cat.jpg"}]}}
BUCKET, SITE = "Storage.Outputs.UploadBucketName", "Site.Outputs.SiteBucketName"


def overrides(environment: str) -> dict[str, str]:
    """What sam build and sam deploy are both given."""
    given = CONFIG[environment]["global"]["parameters"]["parameter_overrides"]
    return dict(text.split("=", 1) for text in given)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_an_environment_overrides_what_the_template_has_by_what_it_allows(environment: str) -> None:
    declared = parameters()
    for name, text in overrides(environment).items():
        assert text in {str(value) for value in declared[name].get("AllowedValues", [text])}
        assert declared[name]["Type"] != "Number" or text.isdecimal()


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_an_environment_serves_a_model_that_is_there(environment: str) -> None:
    assert (ROOT / "models" / overrides(environment)["Model"] / "model.tflite").is_file()


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_what_an_environment_makes_bears_its_name(environment: str) -> None:
    assert CONFIG[environment]["global"]["parameters"]["stack_name"] == f"litelens-{environment}"
    assert CONFIG[environment]["deploy"]["parameters"]["tags"] == [
        "application=litelens",
        f"environment={environment}",
    ]


def test_production_shifts_traffic_step_by_step_and_asks_before_it_changes_anything() -> None:
    assert overrides("prod")["Deployment"] != "AllAtOnce"
    assert CONFIG["prod"]["deploy"]["parameters"]["confirm_changeset"] is True


def test_deploy_is_sam_build_and_sam_deploy_with_nothing_hidden(tmp_path: Path) -> None:
    fake = install_fake_aws(tmp_path)
    done = make("deploy", fake.folder, ENV="prod")
    assert done.returncode == 0, done.stderr
    assert fake.asked() == [["sam", "build", "--config-env", "prod"], ["sam", "deploy", "--config-env", "prod"]]
    assert [line.strip() for line in done.stdout.splitlines()] == [
        'sam build --config-env "$ENV"',
        'sam deploy --config-env "$ENV"',
    ]


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({}, "Which environment of samconfig.toml? make {verb} ENV=dev\n"),
        ({"ENV": "staging"}, "samconfig.toml has no environment staging; add one, or choose another\n"),
    ],
)
@pytest.mark.parametrize("verb", ["deploy", "destroy"])
def test_an_environment_that_there_is_none_of_is_told(
    tmp_path: Path, verb: str, variables: dict[str, str], told: str
) -> None:
    fake = install_fake_aws(tmp_path)
    done = make(verb, fake.folder, **variables)
    assert done.returncode != 0
    assert done.stderr.startswith(told.format(verb=verb))
    assert fake.asked() == []


def test_rollback_leads_both_functions_to_the_versions_that_answered_before(tmp_path: Path) -> None:
    fake = install_fake_aws(tmp_path, answers=LIVE)
    done = make("rollback", fake.folder, ENV="dev")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "ApiFunction: version 8 answers in place of 10.",
        "Bulk.Outputs.BulkFunctionName: version 9 answers in place of 10.",
    ]
    changes = [call for call in fake.asked() if "update-alias" in call]
    assert [call[call.index("--function-version") + 1] for call in changes] == ["8", "9"]
    assert all(call[call.index("--routing-config") + 1] == "AdditionalVersionWeights={}" for call in changes)


def test_rollback_goes_to_the_versions_that_are_asked_for(tmp_path: Path) -> None:
    fake = install_fake_aws(tmp_path, answers=LIVE)
    done = make("rollback", fake.folder, ENV="dev", VERSION="2", BULK_VERSION="11")
    assert done.returncode == 0, done.stderr
    changes = [call for call in fake.asked() if "update-alias" in call]
    assert [call[call.index("--function-version") + 1] for call in changes] == ["2", "11"]


def test_rollback_stops_a_release_that_is_under_way_and_leaves_the_alias_to_it(tmp_path: Path) -> None:
    deployments = {"Created": {"deployments": ["d-4"]}, "deployments": []}
    fake = install_fake_aws(tmp_path, answers={**LIVE, "list-deployments": deployments})
    done = make("rollback", fake.folder, ENV="dev")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("A release was under way and is stopped; the version before it answers again.")
    assert fake.asked()[-1] == ["deploy", "stop-deployment", "--deployment-id", "d-4", "--auto-rollback-enabled"]
    assert not [call for call in fake.asked() if "update-alias" in call]


def test_rollback_guesses_nothing_where_no_deployment_led_to_the_version_in_use(tmp_path: Path) -> None:
    fake = install_fake_aws(tmp_path, answers={**LIVE, "get-alias": {"FunctionVersion": "2"}})
    done = make("rollback", fake.folder, ENV="dev")
    assert done.returncode != 0
    assert done.stderr.startswith(
        "No deployment led to version 2 of ApiFunction, so that it is not known what answered"
    )
    assert "by VERSION=..." in done.stderr
    assert not [call for call in fake.asked() if "update-alias" in call]


def test_destroy_deletes_the_stack_and_the_buckets_that_it_would_leave_behind(tmp_path: Path) -> None:
    fake = install_fake_aws(tmp_path, answers=EMPTY)
    done = make("destroy", fake.folder, ENV="dev")
    assert done.returncode == 0, done.stderr
    *_, deletion, bucket, site = fake.asked()
    assert deletion == ["sam", "delete", "--config-env", "dev", "--stack-name", "litelens-dev", "--no-prompts"]
    assert bucket == ["s3", "rb", f"s3://{BUCKET}"]
    assert site == ["s3", "rb", f"s3://{SITE}", "--force"]


def test_destroy_refuses_while_there_are_images(tmp_path: Path) -> None:
    fake = install_fake_aws(tmp_path, answers=FULL)
    done = make("destroy", fake.folder, ENV="dev")
    assert done.returncode != 0
    assert f"The bucket {BUCKET} has images or results, such as uploads/cat.jpg, which would be lost." in done.stderr
    assert "make destroy ENV=dev FORCE=1 deletes the rest." in done.stderr
    assert not [call for call in fake.asked() if call[0] == "sam" or call[:2] in (["s3", "rm"], ["s3", "rb"])]


def test_destroy_deletes_the_images_too_when_it_is_forced(tmp_path: Path) -> None:
    fake = install_fake_aws(tmp_path, answers=FULL)
    done = make("destroy", fake.folder, ENV="dev", FORCE="1")
    assert done.returncode == 0, done.stderr
    *_, deletion, bucket, _ = fake.asked()
    assert deletion[:2] == ["sam", "delete"]
    assert bucket == ["s3", "rb", f"s3://{BUCKET}", "--force"]


def test_destroy_keeps_the_buckets_where_the_stack_cannot_be_deleted(tmp_path: Path) -> None:
    fake = install_fake_aws(tmp_path, answers=FULL, failing=("delete", "--config-env"))
    assert make("destroy", fake.folder, ENV="dev", FORCE="1").returncode != 0
    assert not [call for call in fake.asked() if call[:2] == ["s3", "rb"]]


@pytest.mark.parametrize(("verb", "option"), [("logs", ["--since", "2h"]), ("tail", ["--follow"])])
def test_the_logs_of_both_functions_are_read(tmp_path: Path, verb: str, option: list[str]) -> None:
    fake = install_fake_aws(tmp_path)
    done = make(verb, fake.folder, ENV="dev", SINCE="2h")
    assert done.returncode == 0, done.stderr
    read = [call for call in fake.asked() if call[0] == "logs"]
    assert sorted(call[2] for call in read) == ["ApiLogs", "Bulk.Outputs.BulkLogsName"]
    assert all(call[:2] == ["logs", "tail"] and call[3 : 3 + len(option)] == option for call in read)
