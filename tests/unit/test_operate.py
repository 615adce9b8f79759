"""The make targets for deployed stacks, with fake commands `aws` and `sam`."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from fake_aws_cli import install_fake_aws_cli, make
from support import ROOT
from template import parameters

CONFIG = tomllib.loads((ROOT / "samconfig.toml").read_text())
ENVIRONMENTS = ["dev", "prod"]
VERSIONS = {"Versions": [{"Version": version} for version in ("$LATEST", "2", "8", "9", "10", "11")]}


def deployment(before: str, after: str) -> dict[str, Any]:
    """Return CodeDeploy's description of a deployment."""
    properties = {"Name": "ApiFunction", "Alias": "live", "CurrentVersion": before, "TargetVersion": after}
    resource = {"ApiFunction": {"Type": "AWS::Lambda::Function", "Properties": properties}}
    content = json.dumps({"version": 0.0, "Resources": [resource]}, separators=(",", ":"))
    return {"deploymentInfo": {"revision": {"revisionType": "String", "string": {"content": content}}}}


# Version 9 was refused, so version 8 was live before version 10.
LIVE: dict[str, Any] = {
    "get-alias": {"FunctionVersion": "10"},
    "list-versions-by-function": VERSIONS,
    "describe-stack-resources": {"StackResources": []},
    "list-deployments": {"Succeeded": {"deployments": ["d-3", "d-2", "d-1"]}, "deployments": []},
    "get-deployment": {"d-3": deployment("10", "11"), "d-2": deployment("8", "10"), "d-1": deployment("2", "8")},
}
EMPTY: dict[str, Any] = {"list-objects-v2": {}}
FULL = {"list-objects-v2": {"Contents": [{"Key": "uploads/cat.jpg"}]}}
BUCKET, SITE = "Storage.Outputs.UploadBucketName", "Site.Outputs.SiteBucketName"


def overrides(environment: str) -> dict[str, str]:
    """Return the parameters for both `sam build` and `sam deploy`."""
    given = CONFIG[environment]["global"]["parameters"]["parameter_overrides"]
    return dict(text.split("=", 1) for text in given)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_an_environment_overrides_only_parameters_of_the_template_with_allowed_values(environment: str) -> None:
    declared = parameters()
    for name, text in overrides(environment).items():
        assert text in {str(value) for value in declared[name].get("AllowedValues", [text])}
        assert declared[name]["Type"] != "Number" or text.isdecimal()


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_model_of_an_environment_exists(environment: str) -> None:
    assert (ROOT / "models" / overrides(environment)["Model"] / "model.tflite").is_file()


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_stack_and_tags_have_the_name_of_their_environment(environment: str) -> None:
    assert CONFIG[environment]["global"]["parameters"]["stack_name"] == f"litelens-{environment}"
    assert CONFIG[environment]["deploy"]["parameters"]["tags"] == [
        "application=litelens",
        f"environment={environment}",
    ]


def test_production_shifts_traffic_step_by_step_and_asks_before_changes() -> None:
    assert overrides("prod")["Deployment"] != "AllAtOnce"
    assert CONFIG["prod"]["deploy"]["parameters"]["confirm_changeset"] is True


def test_deploy_prints_and_runs_sam_build_and_sam_deploy(tmp_path: Path) -> None:
    fake = install_fake_aws_cli(tmp_path)
    done = make("deploy", fake.folder, ENV="prod")
    assert done.returncode == 0, done.stderr
    assert fake.calls() == [["sam", "build", "--config-env", "prod"], ["sam", "deploy", "--config-env", "prod"]]
    assert [line.strip() for line in done.stdout.splitlines()] == [
        'sam build --config-env "$ENV"',
        'sam deploy --config-env "$ENV"',
    ]


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({}, "Which environment of samconfig.toml? make {verb} ENV=dev\n"),
        ({"ENV": "staging"}, "samconfig.toml has no environment staging; add one, or choose another\n"),
    ],
)
@pytest.mark.parametrize("verb", ["deploy", "destroy"])
def test_an_unknown_environment_is_reported(tmp_path: Path, verb: str, variables: dict[str, str], message: str) -> None:
    fake = install_fake_aws_cli(tmp_path)
    done = make(verb, fake.folder, **variables)
    assert done.returncode != 0
    assert done.stderr.startswith(message.format(verb=verb))
    assert fake.calls() == []


def test_rollback_moves_both_functions_to_their_previous_versions(tmp_path: Path) -> None:
    fake = install_fake_aws_cli(tmp_path, answers=LIVE)
    done = make("rollback", fake.folder, ENV="dev")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "ApiFunction: moved from version 10 to version 8.",
        "Bulk.Outputs.BulkFunctionName: moved from version 10 to version 9.",
    ]
    changes = [call for call in fake.calls() if "update-alias" in call]
    assert [call[call.index("--function-version") + 1] for call in changes] == ["8", "9"]
    assert all(call[call.index("--routing-config") + 1] == "AdditionalVersionWeights={}" for call in changes)


def test_rollback_moves_to_the_given_versions(tmp_path: Path) -> None:
    fake = install_fake_aws_cli(tmp_path, answers=LIVE)
    done = make("rollback", fake.folder, ENV="dev", VERSION="2", BULK_VERSION="11")
    assert done.returncode == 0, done.stderr
    changes = [call for call in fake.calls() if "update-alias" in call]
    assert [call[call.index("--function-version") + 1] for call in changes] == ["2", "11"]


def test_rollback_stops_a_release_in_progress_and_does_not_move_the_alias(tmp_path: Path) -> None:
    deployments = {"Created": {"deployments": ["d-4"]}, "deployments": []}
    fake = install_fake_aws_cli(tmp_path, answers={**LIVE, "list-deployments": deployments})
    done = make("rollback", fake.folder, ENV="dev")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(
        "A release was in progress and is being stopped; the previous version gets all requests again."
    )
    assert fake.calls()[-1] == ["deploy", "stop-deployment", "--deployment-id", "d-4", "--auto-rollback-enabled"]
    assert not [call for call in fake.calls() if "update-alias" in call]


def test_rollback_does_not_guess_if_no_deployment_led_to_the_live_version(tmp_path: Path) -> None:
    fake = install_fake_aws_cli(tmp_path, answers={**LIVE, "get-alias": {"FunctionVersion": "2"}})
    done = make("rollback", fake.folder, ENV="dev")
    assert done.returncode != 0
    assert done.stderr.startswith("No deployment led to version 2 of ApiFunction, so its previous version is unknown.")
    assert "with VERSION=..." in done.stderr
    assert not [call for call in fake.calls() if "update-alias" in call]


def test_destroy_deletes_the_stack_and_its_buckets(tmp_path: Path) -> None:
    fake = install_fake_aws_cli(tmp_path, answers=EMPTY)
    done = make("destroy", fake.folder, ENV="dev")
    assert done.returncode == 0, done.stderr
    *_, deletion, bucket, site = fake.calls()
    assert deletion == ["sam", "delete", "--config-env", "dev", "--stack-name", "litelens-dev", "--no-prompts"]
    assert bucket == ["s3", "rb", f"s3://{BUCKET}"]
    assert site == ["s3", "rb", f"s3://{SITE}", "--force"]


def test_destroy_refuses_if_the_bucket_has_images(tmp_path: Path) -> None:
    fake = install_fake_aws_cli(tmp_path, answers=FULL)
    done = make("destroy", fake.folder, ENV="dev")
    assert done.returncode != 0
    assert f"The bucket {BUCKET} has images or results, such as uploads/cat.jpg." in done.stderr
    assert "make destroy ENV=dev FORCE=1" in done.stderr
    assert not [call for call in fake.calls() if call[0] == "sam" or call[:2] in (["s3", "rm"], ["s3", "rb"])]


def test_destroy_with_force_deletes_the_images_too(tmp_path: Path) -> None:
    fake = install_fake_aws_cli(tmp_path, answers=FULL)
    done = make("destroy", fake.folder, ENV="dev", FORCE="1")
    assert done.returncode == 0, done.stderr
    *_, deletion, bucket, _ = fake.calls()
    assert deletion[:2] == ["sam", "delete"]
    assert bucket == ["s3", "rb", f"s3://{BUCKET}", "--force"]


def test_destroy_keeps_the_buckets_if_the_stack_cannot_be_deleted(tmp_path: Path) -> None:
    fake = install_fake_aws_cli(tmp_path, answers=FULL, failing=("delete", "--config-env"))
    assert make("destroy", fake.folder, ENV="dev", FORCE="1").returncode != 0
    assert not [call for call in fake.calls() if call[:2] == ["s3", "rb"]]


@pytest.mark.parametrize(("verb", "option"), [("logs", ["--since", "2h"]), ("tail", ["--follow"])])
def test_logs_and_tail_read_the_logs_of_both_functions(tmp_path: Path, verb: str, option: list[str]) -> None:
    fake = install_fake_aws_cli(tmp_path)
    done = make(verb, fake.folder, ENV="dev", SINCE="2h")
    assert done.returncode == 0, done.stderr
    read = [call for call in fake.calls() if call[0] == "logs"]
    assert sorted(call[2] for call in read) == ["ApiLogs", "Bulk.Outputs.BulkLogsName"]
    assert all(call[:2] == ["logs", "tail"] and call[3 : 3 + len(option)] == option for call in read)
