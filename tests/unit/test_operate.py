"""The make targets for deployed stacks, with fake commands `aws` and `sam`."""

import importlib
import json
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from aws_commands import check_call
from fake_aws_cli import (
    ACCOUNT,
    REGION,
    REPOSITORY,
    FakeAwsCli,
    deployed_stack,
    failed_stack,
    install_fake_aws_cli,
    make,
    resource,
    resources,
    terminal,
)
from samcli.yamlhelper import yaml_parse
from support import ROOT
from template import parameters, synthesize

target = importlib.import_module("infra.target")

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
UPLOADS, SITE, TABLE = "uploads-bucket", "site-bucket", "results-table"
STORAGE_ARN = f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/litelens-dev-Storage-1/a"
SITE_ARN = f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/litelens-dev-Site-1/b"
NESTED = resources(
    resource("Storage", "AWS::CloudFormation::Stack", STORAGE_ARN),
    resource("Site", "AWS::CloudFormation::Stack", SITE_ARN),
    resource("Bulk", "AWS::CloudFormation::Stack", None, "CREATE_FAILED"),
    resource("ApiFunction", "AWS::Lambda::Function", "function"),
)
STORAGE = resources(
    resource("UploadBucket", "AWS::S3::Bucket", UPLOADS), resource("ResultsTable", "AWS::DynamoDB::Table", TABLE)
)
RESOURCES: dict[str, Any] = {
    "litelens-dev": NESTED,
    "litelens-prod": NESTED,
    STORAGE_ARN: STORAGE,
    SITE_ARN: resources(resource("Bucket", "AWS::S3::Bucket", SITE)),
}
EMPTY: dict[str, Any] = {"list-stack-resources": RESOURCES, "list-objects-v2": {}, "head-bucket": {}}
FULL = {**EMPTY, "list-objects-v2": {"Contents": [{"Key": "uploads/cat.jpg"}]}}
# The targets that read or change a stack.
VERBS = ["deploy", "smoke", "site", "logs", "tail", "redrive", "rollback", "destroy"]
REGIONS = {environment: CONFIG[environment]["global"]["parameters"]["region"] for environment in ENVIRONMENTS}
FAILED_CREATIONS = ["CREATE_FAILED", "ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "REVIEW_IN_PROGRESS"]


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


def is_call(call: list[str], *start: str) -> bool:
    return tuple(call[: len(start)]) == start


def calls_of(fake: FakeAwsCli, *start: str) -> list[list[str]]:
    """Return the calls that begin with these arguments."""
    return [call for call in fake.calls() if is_call(call, *start)]


def option(call: list[str], name: str) -> str:
    return call[call.index(name) + 1]


def deletions(fake: FakeAwsCli) -> list[list[str]]:
    """Return the calls that delete something."""
    starts = [("sam",), ("s3", "rb"), ("cloudformation", "delete-stack"), ("dynamodb", "update-table")]
    return [call for call in fake.calls() if any(is_call(call, *start) for start in starts)]


@pytest.mark.parametrize("verb", VERBS)
def test_every_target_uses_the_region_of_its_environment_for_both_variables(tmp_path: Path, verb: str) -> None:
    fake = install_fake_aws_cli(tmp_path, answers={**LIVE, **EMPTY})
    done = make(verb, fake.folder, region="ap-south-1", ENV="dev", FORCE="1")
    assert done.returncode == 0, done.stderr
    assert fake.regions() == {(REGIONS["dev"], REGIONS["dev"])}


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in ("deploy", "destroy")])
def test_a_stack_without_an_environment_is_in_the_given_region(tmp_path: Path, verb: str) -> None:
    fake = install_fake_aws_cli(tmp_path, answers=LIVE)
    done = make(verb, fake.folder, region="ap-south-1", STACK="litelens", REGION="eu-west-3")
    assert done.returncode == 0, done.stderr
    assert fake.regions() == {("eu-west-3", "eu-west-3")}


@pytest.mark.parametrize("name", target.REGION_VARIABLES)
def test_without_a_given_region_a_stack_is_in_the_region_of_the_caller(name: str) -> None:
    found = target.find_target("logs", {}, {"STACK": "litelens", name: "eu-west-3"})
    assert found == target.Target("litelens", "eu-west-3")


@pytest.mark.parametrize("regions", [{}, {"AWS_REGION": "eu-west-3", "AWS_DEFAULT_REGION": "eu-west-1"}])
def test_a_region_that_is_not_certain_is_not_guessed(regions: dict[str, str]) -> None:
    with pytest.raises(target.TargetError, match="REGION="):
        target.find_target("logs", {}, {"STACK": "litelens", **regions})


def test_a_stack_without_a_region_is_not_looked_for(tmp_path: Path) -> None:
    fake = install_fake_aws_cli(tmp_path)
    done = make("redrive", fake.folder, region=None, STACK="litelens")
    assert done.returncode != 0
    assert "REGION=" in done.stderr
    assert fake.calls() == []


@pytest.mark.parametrize("missing", ["stack_name", "region"])
def test_an_environment_needs_a_stack_name_and_a_region(missing: str) -> None:
    settings = {name: text for name, text in (("stack_name", "a"), ("region", "b")) if name != missing}
    with pytest.raises(target.TargetError, match=missing):
        target.find_target("logs", {"dev": {"global": {"parameters": settings}}}, {"ENV": "dev"})


def test_the_exported_command_is_safe_for_any_name() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "infra" / "target.py", "logs"],
        env={"STACK": "a; touch b", "REGION": "$(c)"},
        capture_output=True,
        text=True,
        check=True,
    )
    printed = subprocess.run(
        ["/bin/sh", "-c", f'{done.stdout}printf "%s," "$STACK" "$AWS_REGION" "$AWS_DEFAULT_REGION"'],
        capture_output=True,
        text=True,
        check=True,
    )
    assert printed.stdout == "a; touch b,$(c),$(c),"


@pytest.mark.parametrize("verb", ["deploy", "rollback", "destroy"])
def test_a_target_that_changes_a_stack_first_shows_account_region_and_stack(tmp_path: Path, verb: str) -> None:
    fake = install_fake_aws_cli(tmp_path, answers={**LIVE, **EMPTY})
    done = make(verb, fake.folder, ENV="dev", FORCE="1")
    assert done.returncode == 0, done.stderr
    first = done.stdout.splitlines()[0]
    assert all(name in first for name in (ACCOUNT, REGIONS["dev"], "litelens-dev"))
    assert is_call(fake.calls()[0], "sts", "get-caller-identity")


@pytest.mark.parametrize("verb", ["deploy", "rollback", "destroy"])
def test_a_target_changes_nothing_if_the_account_is_unknown(tmp_path: Path, verb: str) -> None:
    fake = install_fake_aws_cli(tmp_path, failing=("sts",), answers={**LIVE, **EMPTY})
    done = make(verb, fake.folder, ENV="dev", FORCE="1")
    assert done.returncode != 0
    assert "AWS_PROFILE" in done.stderr
    assert len(fake.calls()) == 1


def test_deploy_runs_its_steps_in_order(tmp_path: Path) -> None:
    fake = install_fake_aws_cli(tmp_path, answers=EMPTY)
    done = make("deploy", fake.folder, ENV="prod", ARGS="--no-confirm-changeset")
    assert done.returncode == 0, done.stderr
    steps = [
        call for call in fake.calls() if call[1] not in ("describe-stacks", "list-stack-resources", "list-change-sets")
    ]
    identity, images, build, deploy, stack, storage, site, protection, smoke = steps
    assert is_call(identity, "sts", "get-caller-identity")
    assert is_call(images, "cloudformation", "deploy", "--stack-name", "litelens-prod-images")
    assert option(images, "--template-file") == "infra/images.yaml"
    assert "--no-fail-on-empty-changeset" in images
    assert build == ["sam", "build", "--config-env", "prod"]
    assert deploy[:4] == ["sam", "deploy", "--config-env", "prod"]
    assert (option(deploy, "--stack-name"), option(deploy, "--image-repository")) == ("litelens-prod", REPOSITORY)
    assert deploy[-2:] == ["--no-fail-on-empty-changeset", "--no-confirm-changeset"]
    assert [option(call, "--stack-name") for call in (stack, storage, site)] == [
        "litelens-prod",
        STORAGE_ARN,
        SITE_ARN,
    ]
    assert is_call(protection, "cloudformation", "update-termination-protection", "--stack-name", "litelens-prod")
    assert smoke == ["python", "infra/smoke.py"]


@pytest.mark.parametrize(
    ("protects", "option"),
    [
        ({"ProtectData": "true"}, "--enable-termination-protection"),
        ({"ProtectData": "false"}, "--no-enable-termination-protection"),
        ({}, "--no-enable-termination-protection"),
    ],
)
def test_deploy_protects_the_stack_if_its_data_is_protected(
    tmp_path: Path, protects: dict[str, str], option: str
) -> None:
    fake = install_fake_aws_cli(tmp_path, answers=EMPTY, stacks={"litelens-dev": deployed_stack(**protects)})
    assert make("deploy", fake.folder, ENV="dev").returncode == 0
    (protection,) = calls_of(fake, "cloudformation", "update-termination-protection")
    assert protection[-1] == option


def test_deploy_sets_the_policies_of_the_stack_and_of_the_nested_stacks_that_own_data(tmp_path: Path) -> None:
    fake = install_fake_aws_cli(tmp_path, answers=EMPTY)
    assert make("deploy", fake.folder, ENV="dev").returncode == 0
    policies = calls_of(fake, "cloudformation", "set-stack-policy")
    assert {option(call, "--stack-name"): option(call, "--stack-policy-body") for call in policies} == {
        "litelens-dev": "file://infra/stack-policy.json",
        STORAGE_ARN: "file://infra/nested-stack-policy.json",
        SITE_ARN: "file://infra/nested-stack-policy.json",
    }


def test_the_stacks_with_a_policy_are_those_that_own_data() -> None:
    kinds = {"AWS::DynamoDB::Table", "AWS::S3::Bucket", "AWS::SQS::Queue"}
    owners = {
        name
        for name, made in synthesize(Page="true", ImageBuckets="photos")["Resources"].items()
        if made["Type"] == "AWS::CloudFormation::Stack"
        and {declared["Type"] for declared in _declared(made["Properties"]["TemplateURL"])} & kinds
    }
    assert owners == {"Storage", "Site"}
    assert not {made["Type"] for made in synthesize(Page="true")["Resources"].values()} & kinds


def _declared(template: str) -> list[dict[str, Any]]:
    return list(yaml_parse((ROOT / template).read_text())["Resources"].values())


def denied_resources(policy: str) -> dict[str, Any]:
    """Return what a policy says about the resources that it protects from replacement and deletion, and only these."""
    allow, deny = json.loads((ROOT / "infra" / policy).read_text())["Statement"]
    everyone = {"Principal": "*"}
    assert allow == everyone | {"Effect": "Allow", "Action": "Update:*", "Resource": "*"}
    assert deny.items() >= {**everyone, "Effect": "Deny", "Action": ["Update:Replace", "Update:Delete"]}.items()
    return {name: value for name, value in deny.items() if name in ("Resource", "Condition")}


def test_the_policy_of_the_stack_denies_only_the_loss_of_its_storage() -> None:
    assert denied_resources("stack-policy.json") == {"Resource": "LogicalResourceId/Storage"}
    assert "Storage" in synthesize()["Resources"]


def test_the_policy_of_nested_stacks_denies_only_the_loss_of_data() -> None:
    denied = denied_resources("nested-stack-policy.json")
    assert denied["Resource"] == "*"
    assert denied["Condition"]["StringEquals"]["ResourceType"] == [
        "AWS::DynamoDB::Table",
        "AWS::S3::Bucket",
        "AWS::SQS::Queue",
    ]


@pytest.mark.parametrize(
    ("failing", "next_step"),
    [
        (("cloudformation", "deploy"), ("sam", "build")),
        (("sam", "build"), ("sam", "deploy")),
        (("sam", "deploy"), ("cloudformation", "set-stack-policy")),
        (("cloudformation", "list-change-sets"), ("cloudformation", "set-stack-policy")),
        (("cloudformation", "list-stack-resources"), ("cloudformation", "update-termination-protection")),
        (("cloudformation", "set-stack-policy"), ("cloudformation", "update-termination-protection")),
        (("cloudformation", "update-termination-protection"), ("python", "infra/smoke.py")),
    ],
)
def test_deploy_stops_at_a_step_that_fails(
    tmp_path: Path, failing: tuple[str, str], next_step: tuple[str, str]
) -> None:
    fake = install_fake_aws_cli(tmp_path, failing=failing, answers=EMPTY)
    assert make("deploy", fake.folder, ENV="dev").returncode != 0
    assert calls_of(fake, *failing)
    assert not calls_of(fake, *next_step)


def test_deploy_fails_loudly_if_the_smoke_test_fails(tmp_path: Path) -> None:
    fake = install_fake_aws_cli(tmp_path, failing=("python",), answers=EMPTY)
    done = make("deploy", fake.folder, ENV="dev")
    assert done.returncode != 0
    assert "litelens-dev" in done.stderr
    assert "smoke test" in done.stderr


def change_sets(**statuses: str) -> dict[str, Any]:
    """Return the answer of list-change-sets with these execution statuses by name."""
    return {"Summaries": [{"ChangeSetName": name, "ExecutionStatus": status} for name, status in statuses.items()]}


@pytest.mark.parametrize(
    "before", ["missing", change_sets(), change_sets(old="AVAILABLE")], ids=["new", "deployed", "declined"]
)
def test_deploy_fails_if_the_changes_were_not_confirmed(tmp_path: Path, before: Any) -> None:
    after = change_sets(samcli="AVAILABLE", old="AVAILABLE")
    fake = install_fake_aws_cli(tmp_path, answers={**EMPTY, "list-change-sets": [before, after]})
    done = make("deploy", fake.folder, ENV="prod")
    assert done.returncode != 0
    assert "litelens-prod" in done.stderr
    assert calls_of(fake, "sam", "deploy")
    assert not calls_of(fake, "cloudformation", "set-stack-policy")
    assert not calls_of(fake, "python")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (change_sets(), change_sets(samcli="UNAVAILABLE")),
        (
            change_sets(one="AVAILABLE", two="AVAILABLE"),
            change_sets(two="AVAILABLE", one="AVAILABLE", new="UNAVAILABLE"),
        ),
        (change_sets(old="AVAILABLE"), change_sets()),
        ("missing", change_sets(samcli="EXECUTE_COMPLETE")),
    ],
    ids=["no-changes", "no-changes-after-declined-ones", "changes", "new"],
)
def test_deploy_goes_on_with_confirmed_changes_and_without_changes(tmp_path: Path, before: Any, after: Any) -> None:
    fake = install_fake_aws_cli(tmp_path, answers={**EMPTY, "list-change-sets": [before, after]})
    done = make("deploy", fake.folder, ENV="prod")
    assert done.returncode == 0, done.stderr
    assert fake.calls()[-1] == ["python", "infra/smoke.py"]


@pytest.mark.parametrize("variables", [{"ENV": "dev"}, {"STACK": "litelens"}])
def test_smoke_tests_a_stack_with_the_installed_litelens(tmp_path: Path, variables: dict[str, str]) -> None:
    fake = install_fake_aws_cli(tmp_path)
    done = make("smoke", fake.folder, **variables)
    assert done.returncode == 0, done.stderr
    assert fake.calls() == [["python", "infra/smoke.py"]]


def test_images_are_scanned_and_expire_but_those_for_a_rollback_remain() -> None:
    (repository,) = (made["Properties"] for made in _declared("infra/images.yaml"))
    assert repository["ImageScanningConfiguration"] == {"ScanOnPush": True}
    # Otherwise, `make destroy` could not delete a repository with images.
    assert repository["EmptyOnDelete"] is True
    # `sam deploy` pushes an unchanged image again, which ECR refuses if tags are immutable.
    assert repository["ImageTagMutability"] == "MUTABLE"
    untagged, newest = json.loads(repository["LifecyclePolicy"]["LifecyclePolicyText"])["rules"]
    # ECR requires that a rule for any tag has the lowest priority, which is the highest number.
    assert untagged["rulePriority"] < newest["rulePriority"]
    assert untagged["selection"] == {
        "tagStatus": "untagged",
        "countType": "sinceImagePushed",
        "countUnit": "days",
        "countNumber": 1,
    }
    assert newest["selection"] == {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 20}


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_sam_gets_one_repository_and_no_other_source_of_repositories(environment: str) -> None:
    settings = {**CONFIG[environment]["global"]["parameters"], **CONFIG[environment]["deploy"]["parameters"]}
    assert not [name for name in settings if name.startswith(("image_repo", "resolve_image_repo"))]


@pytest.mark.parametrize(
    ("variables", "names"), [({}, ("samconfig.toml", "ENV=dev")), ({"ENV": "staging"}, ("samconfig.toml", "staging"))]
)
@pytest.mark.parametrize("verb", ["deploy", "destroy"])
def test_an_unknown_environment_is_reported(
    tmp_path: Path, verb: str, variables: dict[str, str], names: tuple[str, str]
) -> None:
    fake = install_fake_aws_cli(tmp_path)
    done = make(verb, fake.folder, **variables)
    assert done.returncode != 0
    assert all(name in done.stderr.splitlines()[0] for name in names)
    assert fake.calls() == []


@pytest.mark.parametrize("verb", VERBS)
def test_a_missing_aws_command_is_reported(tmp_path: Path, verb: str) -> None:
    done = make(verb, tmp_path, ENV="dev")
    assert done.returncode != 0
    assert f"make {verb}" in done.stderr
    assert "the AWS CLI" in done.stderr


@pytest.mark.parametrize("verb", ["deploy", "destroy"])
def test_a_missing_sam_command_is_reported(tmp_path: Path, verb: str) -> None:
    fake = install_fake_aws_cli(tmp_path)
    (fake.folder / "sam").unlink()
    done = make(verb, fake.folder, ENV="dev")
    assert done.returncode != 0
    assert f"make {verb}" in done.stderr
    assert "the SAM CLI" in done.stderr
    assert fake.calls() == []


def test_rollback_moves_both_functions_to_their_previous_versions(tmp_path: Path) -> None:
    fake = install_fake_aws_cli(tmp_path, answers=LIVE)
    done = make("rollback", fake.folder, ENV="dev")
    assert done.returncode == 0, done.stderr
    _, api, bulk = done.stdout.splitlines()
    assert all(text in api for text in ("ApiFunction", "10", "8"))
    assert all(text in bulk for text in ("Bulk.Outputs.BulkFunctionName", "10", "9"))
    changes = [call for call in fake.calls() if "update-alias" in call]
    assert [option(call, "--function-version") for call in changes] == ["8", "9"]
    assert all(option(call, "--routing-config") == "AdditionalVersionWeights={}" for call in changes)


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
    assert fake.calls()[-1] == ["deploy", "stop-deployment", "--deployment-id", "d-4", "--auto-rollback-enabled"]
    assert not [call for call in fake.calls() if "update-alias" in call]


def test_rollback_does_not_guess_if_no_deployment_led_to_the_live_version(tmp_path: Path) -> None:
    fake = install_fake_aws_cli(tmp_path, answers={**LIVE, "get-alias": {"FunctionVersion": "2"}})
    done = make("rollback", fake.folder, ENV="dev")
    assert done.returncode != 0
    assert done.stderr.startswith("No deployment led to version 2 of ApiFunction, so its previous version is unknown.")
    assert "with VERSION=..." in done.stderr
    assert not [call for call in fake.calls() if "update-alias" in call]


def destroy(fake: FakeAwsCli, typed: str | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `make destroy`; a person types `typed`, or there is no terminal."""
    if typed is None:
        return make("destroy", fake.folder, ENV="dev", **variables)
    with terminal(typed) as stdin:
        return make("destroy", fake.folder, stdin=stdin, ENV="dev", **variables)


def test_destroy_deletes_the_stack_then_its_buckets_then_its_images(tmp_path: Path) -> None:
    fake = install_fake_aws_cli(tmp_path, answers=EMPTY)
    done = destroy(fake, "litelens-dev")
    assert done.returncode == 0, done.stderr
    assert deletions(fake) == [
        ["sam", "delete", "--config-env", "dev", "--stack-name", "litelens-dev", "--no-prompts"],
        ["s3", "rb", f"s3://{UPLOADS}"],
        ["s3", "rb", f"s3://{SITE}", "--force"],
        ["cloudformation", "delete-stack", "--stack-name", "litelens-dev-images"],
    ]
    assert is_call(fake.calls()[-1], "cloudformation", "wait", "stack-delete-complete")


@pytest.mark.parametrize("typed", ["", "y", "litelens-prod"])
def test_destroy_deletes_nothing_unless_the_name_of_the_stack_is_typed(tmp_path: Path, typed: str) -> None:
    fake = install_fake_aws_cli(tmp_path, answers=EMPTY)
    done = destroy(fake, typed)
    assert done.returncode != 0
    assert "litelens-dev" in done.stderr
    assert deletions(fake) == []


def test_destroy_without_a_terminal_needs_force(tmp_path: Path) -> None:
    fake = install_fake_aws_cli(tmp_path, answers=EMPTY)
    done = destroy(fake)
    assert done.returncode != 0
    assert "make destroy ENV=dev FORCE=1" in done.stderr
    assert deletions(fake) == []


def test_destroy_refuses_if_the_bucket_has_images(tmp_path: Path) -> None:
    fake = install_fake_aws_cli(tmp_path, answers=FULL)
    done = destroy(fake, "litelens-dev")
    assert done.returncode != 0
    assert all(text in done.stderr for text in (UPLOADS, "uploads/cat.jpg", "make destroy ENV=dev FORCE=1"))
    assert deletions(fake) == []


def test_destroy_with_force_deletes_the_images_too_and_asks_nothing(tmp_path: Path) -> None:
    fake = install_fake_aws_cli(tmp_path, answers=FULL)
    done = destroy(fake, FORCE="1")
    assert done.returncode == 0, done.stderr
    assert calls_of(fake, "sam", "delete")
    assert calls_of(fake, "s3", "rb") == [["s3", "rb", f"s3://{name}", "--force"] for name in (UPLOADS, SITE)]


def test_destroy_keeps_buckets_and_images_if_the_stack_cannot_be_deleted(tmp_path: Path) -> None:
    fake = install_fake_aws_cli(tmp_path, answers=FULL, failing=("sam", "delete"))
    assert destroy(fake, FORCE="1").returncode != 0
    assert len(deletions(fake)) == 1


def test_destroy_names_a_bucket_that_could_not_be_deleted(tmp_path: Path) -> None:
    fake = install_fake_aws_cli(tmp_path, answers=EMPTY, failing=("s3", "rb"))
    done = destroy(fake, "litelens-dev")
    assert done.returncode != 0
    assert f"aws s3 rb --force s3://{UPLOADS}" in done.stderr


def test_destroy_skips_a_bucket_that_does_not_exist_any_more(tmp_path: Path) -> None:
    fake = install_fake_aws_cli(tmp_path, answers={**FULL, "head-bucket": {UPLOADS: "missing"}})
    done = destroy(fake, "litelens-dev")
    assert done.returncode == 0, done.stderr
    assert UPLOADS in done.stderr
    assert calls_of(fake, "s3", "rb") == [["s3", "rb", f"s3://{SITE}", "--force"]]


def test_destroy_deletes_a_stack_without_a_page(tmp_path: Path) -> None:
    nested = resources(resource("Storage", "AWS::CloudFormation::Stack", STORAGE_ARN))
    answers = {**EMPTY, "list-stack-resources": {**RESOURCES, "litelens-dev": nested}}
    fake = install_fake_aws_cli(tmp_path, answers=answers, stacks={"litelens-dev": deployed_stack(Page="false")})
    done = destroy(fake, "litelens-dev")
    assert done.returncode == 0, done.stderr
    assert calls_of(fake, "s3", "rb") == [["s3", "rb", f"s3://{UPLOADS}"]]


@pytest.mark.parametrize("status", FAILED_CREATIONS)
def test_destroy_deletes_a_stack_that_was_never_created_with_the_buckets_that_it_left(
    tmp_path: Path, status: str
) -> None:
    storage = resources(
        resource("UploadBucket", "AWS::S3::Bucket", UPLOADS, "DELETE_SKIPPED"),
        resource("ResultsTable", "AWS::DynamoDB::Table", TABLE, "DELETE_COMPLETE"),
    )
    site = resources(resource("Bucket", "AWS::S3::Bucket", SITE, "DELETE_COMPLETE"))
    answers = {**EMPTY, "list-stack-resources": {**RESOURCES, STORAGE_ARN: storage, SITE_ARN: site}}
    stacks = {"litelens-dev": failed_stack(status, ProtectData="true")}
    fake = install_fake_aws_cli(tmp_path, answers=answers, stacks=stacks)
    done = destroy(fake, "litelens-dev")
    assert done.returncode == 0, done.stderr
    assert [call[:3] for call in deletions(fake)] == [
        ["sam", "delete", "--config-env"],
        ["s3", "rb", f"s3://{UPLOADS}"],
        ["cloudformation", "delete-stack", "--stack-name"],
    ]


@pytest.mark.parametrize(("protected", "count"), [(True, 1), (False, 0)])
def test_destroy_unprotects_the_tables_of_a_stack_that_was_never_created(
    tmp_path: Path, protected: bool, count: int
) -> None:
    answers = {**EMPTY, "describe-table": {"Table": {"DeletionProtectionEnabled": protected}}}
    stacks = {"litelens-dev": failed_stack("ROLLBACK_FAILED", ProtectData="true")}
    fake = install_fake_aws_cli(tmp_path, answers=answers, stacks=stacks)
    done = destroy(fake, "litelens-dev")
    assert done.returncode == 0, done.stderr
    unprotected = ["dynamodb", "update-table", "--table-name", TABLE, "--no-deletion-protection-enabled"]
    assert calls_of(fake, "dynamodb", "update-table") == [unprotected] * count
    assert is_call(deletions(fake)[count], "sam", "delete")


@pytest.mark.parametrize(
    "stack", [deployed_stack(ProtectData="true"), deployed_stack(terminable=False)], ids=["data", "termination"]
)
@pytest.mark.parametrize("variables", [{}, {"FORCE": "1"}])
def test_destroy_refuses_a_protected_stack(tmp_path: Path, stack: Mapping[str, Any], variables: dict[str, str]) -> None:
    fake = install_fake_aws_cli(tmp_path, answers=EMPTY, stacks={"litelens-dev": stack})
    done = destroy(fake, "litelens-dev", **variables)
    assert done.returncode != 0
    assert all(text in done.stderr for text in ("ProtectData=false", "samconfig.toml", "make deploy ENV=dev"))
    assert deletions(fake) == []


def test_destroy_reports_a_stack_that_does_not_exist(tmp_path: Path) -> None:
    fake = install_fake_aws_cli(tmp_path, stacks={"litelens-dev": None, "litelens-dev-images": None})
    done = destroy(fake, "litelens-dev")
    assert done.returncode != 0
    assert "The stack litelens-dev does not exist" in done.stderr
    assert deletions(fake) == []


def test_destroy_does_not_take_a_failing_call_for_a_stack_that_does_not_exist(tmp_path: Path) -> None:
    fake = install_fake_aws_cli(tmp_path, failing=("cloudformation", "describe-stacks"))
    done = destroy(fake, "litelens-dev")
    assert done.returncode != 0
    assert "AccessDenied" in done.stderr
    assert "does not exist" not in done.stderr
    assert deletions(fake) == []


@pytest.mark.parametrize(("typed", "count"), [("litelens-dev", 1), ("no", 0)])
def test_destroy_deletes_the_images_of_a_stack_that_does_not_exist(tmp_path: Path, typed: str, count: int) -> None:
    fake = install_fake_aws_cli(tmp_path, stacks={"litelens-dev": None})
    assert (destroy(fake, typed).returncode == 0) is bool(count)
    deletion = ["cloudformation", "delete-stack", "--stack-name", "litelens-dev-images"]
    assert deletions(fake) == [deletion] * count


def test_destroy_reports_images_that_remain(tmp_path: Path) -> None:
    fake = install_fake_aws_cli(tmp_path, answers=EMPTY, failing=("cloudformation", "wait"))
    done = destroy(fake, "litelens-dev")
    assert done.returncode != 0
    assert "litelens-dev-images" in done.stderr


@pytest.mark.parametrize(("verb", "option"), [("logs", ["--since", "2h"]), ("tail", ["--follow"])])
def test_logs_and_tail_read_the_logs_of_both_functions(tmp_path: Path, verb: str, option: list[str]) -> None:
    fake = install_fake_aws_cli(tmp_path)
    done = make(verb, fake.folder, ENV="dev", SINCE="2h")
    assert done.returncode == 0, done.stderr
    read = [call for call in fake.calls() if call[0] == "logs"]
    assert sorted(call[2] for call in read) == ["ApiLogs", "Bulk.Outputs.BulkLogsName"]
    assert all(call[:2] == ["logs", "tail"] and call[3 : 3 + len(option)] == option for call in read)


@pytest.mark.parametrize(
    "call",
    [
        "cloudformation describe-stack --stack-name a",
        "cloudformation describe-stacks --stack a",
        "cloudformation describe-stacks --stack-name a --query Stacks[0].State",
        "cloudformation describe-stacks --stack-name a --query Stacks[0",
        "cloudformation describe-stacks --stack-name a --output txt",
        "cloudformation describe-stacks --stack-name a b",
        "cloudformation deploy --stack-name a",
        "cloudformation set-stack-policy --stack-policy-body {}",
        "cloudformation wait stack-deleted --stack-name a",
        "codedeploy list-deployments",
        "deploy list-deployments --include-only-statuses Running",
        "deploy stop-deployment --deployment-id d-1 --auto-rollback-enabled true",
        "lambda update-alias --function-name a",
        "lambda update-alias --function-name a --name live --routing-config Weights={}",
        "s3 list-objects-v2 --bucket a",
        "s3 rb s3://a --recursive",
        "s3api list-objects-v2 --bucket a --max-items few --max-keys few",
        "sqs start-message-move-task",
        "logs tail",
        "sam deploy --stack a",
        "sam deploy --stack-name",
        "sam deploy --on-failure nothing",
        "sam build all of it",
        "python infra/nothing.py",
    ],
)
def test_the_fake_commands_refuse_calls_that_the_real_ones_refuse(call: str) -> None:
    with pytest.raises(AssertionError):
        check_call(tuple(call.split()))
