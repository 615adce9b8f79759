"""The roles with which GitHub's workflow deploys: who may assume them, and that they suffice and allow no more."""

import itertools
import json
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import cfnlint
import pytest
import yaml
from samcli.lib.bootstrap import bootstrap as sam_bucket
from samcli.yamlhelper import yaml_parse
from support import ROOT
from template import synthesize, synthesize_nested, synthesize_template

BOOTSTRAP = ROOT / "infra" / "bootstrap.yaml"
PROVIDER_ARN = "arn:aws:iam::123456789012:oidc-provider/token.actions.githubusercontent.com"
KEY_ARN = "arn:aws:kms:eu-central-1:123456789012:key/one"
BOUNDARY_ARN = "arn:aws:iam::123456789012:policy/deployment/boundary"
REQUIRED = {"Repository": "owner/name", "Environment": "prod", "StackName": "litelens-prod"}
OPTIONAL = {"ProviderArn": PROVIDER_ARN, "HostedZoneId": "Z0", "KmsKeyArn": KEY_ARN}
ROLES = ("DeployRole", "CloudFormationRole", "Boundary")
# Statements about all resources, because the service has no ARNs for their actions or restricts them by a condition.
ANY_RESOURCE = {
    *("LogInToRegistry", "EventSourceMappings", "Subscriptions", "FindLogs", "CreatePage", "SendTraces", "WatchAlarms"),
}
# AWS's list has no resources for these actions, but its example of a hook names a deployment group for the second one:
# https://docs.aws.amazon.com/serverless-application-model/latest/developerguide/automating-updates-to-serverless-apps.html
OF_DEPLOYMENT_GROUPS = {"codedeploy:StopDeployment", "codedeploy:PutLifecycleEventHookExecutionStatus"}
# The last part of the actions that read and write a property of a bucket.
BUCKET_PROPERTIES = {
    "BucketEncryption": "EncryptionConfiguration",
    "PublicAccessBlockConfiguration": "BucketPublicAccessBlock",
    "Tags": "BucketTagging",
    "VersioningConfiguration": "BucketVersioning",
}
# For each type of resource that roles of the stack name: the property with its name, and its ARN.
ARNS = {
    "AWS::DynamoDB::Table": ("TableName", "arn:aws:dynamodb:eu-central-1:123456789012:table/{}"),
    "AWS::Lambda::Function": ("FunctionName", "arn:aws:lambda:eu-central-1:123456789012:function:{}"),
    "AWS::Logs::LogGroup": ("LogGroupName", "arn:aws:logs:eu-central-1:123456789012:log-group:{}:*"),
    "AWS::S3::Bucket": ("BucketName", "arn:aws:s3:::{}"),
    "AWS::SQS::Queue": ("QueueName", "arn:aws:sqs:eu-central-1:123456789012:{}"),
}

# The stack with all of its optional parts, of which some exclude each other.
WITH_EVERYTHING = {
    "CorsOrigin": "https://example.com",
    "ImageBuckets": "photos,scans",
    "ImageBucketKeys": KEY_ARN,
    "KmsKeyArn": KEY_ARN,
    "DescribeModel": "us.amazon.nova-lite-v1:0",
    "EventBus": "images",
    "Results": "both",
    "InventoryBucket": "inventories",
    "Page": "true",
    "SnapStart": "true",
    "Tracing": "Active",
    "ProtectData": "true",
    "ReservedConcurrency": "5",
    "AlarmEmail": "operator@example.com",
    "MonthlyBudget": "10",
    "Waf": "true",
    "DomainName": "api.example.com",
    "CertificateArn": "arn:aws:acm:eu-central-1:123456789012:certificate/one",
    "HostedZoneId": "Z0",
    "PermissionsBoundary": BOUNDARY_ARN,
}
WITH_TOKENS = {"Page": "false", "Access": "jwt", "JwtIssuer": "https://issuer.example", "JwtAudience": "litelens"}
WITH_HTTP_API = {**WITH_TOKENS, "FrontDoor": "http", "Waf": "false"}
WITH_URL = {"FrontDoor": "url", "Access": "iam", "Page": "false", "Waf": "false", "DomainName": "", "CorsOrigin": ""}

# Services and actions that CloudFormation needs only for properties that the templates do not set.
UNUSED_SERVICES = {
    *("amplify", "apprunner", "appsync", "bedrock-agentcore", "billing", "cognito-idp", "ec2", "elasticfilesystem"),
    *("elasticloadbalancing", "firehose", "kinesis", "payments", "s3files", "s3tables"),
}
UNUSED_ACTIONS = {
    # To list all resources of an account, not for a deployment.
    *("cloudformation:ListStacks", "cloudfront:ListDistributions", "cloudfront:ListFunctions", "iam:ListRoles"),
    *("cloudfront:ListOriginAccessControls", "cloudfront:ListResponseHeadersPolicies", "cloudwatch:ListDashboards"),
    *("codedeploy:ListApplications", "dynamodb:ListTables", "kms:ListAliases", "lambda:ListEventSourceMappings"),
    *("lambda:ListFunctions", "route53:ListHostedZones", "s3:ListAllMyBuckets", "sns:ListTopics", "sqs:ListQueues"),
    *("states:ListStateMachines", "wafv2:listWebACLs"),
    # Never to be allowed: to remove a boundary.
    "iam:DeleteRolePermissionsBoundary",
    # Policies of groups and users.
    *("iam:DeleteGroupPolicy", "iam:DeleteUserPolicy", "iam:GetGroupPolicy", "iam:GetUserPolicy"),
    *("iam:PutGroupPolicy", "iam:PutUserPolicy"),
    # The definition of an HTTP API in S3.
    "s3:getObject",
    # Actions that IAM does not know.
    *("apigateway:TagResource", "apigateway:UntagResource"),
    *("apigateway:UpdateRestApiPolicy", "cloudfront:CreateDistributionWithTags", "s3:GetObjectMetadata"),
    "s3:REST.PUT.OBJECT",
}
# Actions for properties that the templates do not set, of services that they use otherwise.
UNUSED_PARTS = re.compile(
    r"cloudfront:(.*ConnectionGroup|GetVpcOrigin|UpdateDistributionWithStagingConfig)"
    r"|codedeploy:RegisterOnPremisesInstance"
    r"|dynamodb:(.*Replica|.*Item|Scan|Query|ImportTable|DescribeImport|(Put|Delete)ResourcePolicy"
    r"|(En|Dis)ableKinesisStreamingDestination|UpdateKinesisStreamingDestination|UpdateContributorInsights)"
    r"|lambda:(AssociateRuntimeAlias|.*CodeSigningConfig|GetLayerVersion|PassCapacityProvider"
    r"|PutFunctionRecursionConfig|PutFunctionScalingConfig)"
    r"|logs:(.*LogDelivery|.*DataProtectionPolicy|.*IndexPolicy|(Put|Delete)ResourcePolicy"
    r"|PutBearerTokenAuthentication|PutLogGroupDeletionProtection|CreateLogStream|DescribeLogStreams|PutLogEvents)"
    r"|s3:(.*MetadataTableConfiguration|UpdateBucketMetadata.*|DeleteBucket[A-Z].*|(Put|Delete)Object.*|PutBucketAcl"
    r"|PutAccelerateConfiguration|PutAnalyticsConfiguration|PutBucketAbac|PutBucketLogging|PutBucketObjectLock.*"
    r"|PutBucketReplication|PutBucketVersioning|PutBucketWebsite|PutIntelligentTieringConfiguration"
    r"|PutInventoryConfiguration|PutMetricsConfiguration|PutReplicationConfiguration|GetObjectVersion)"
    r"|sns:PutDataProtectionPolicy"
    r"|wafv2:(Get|Put)PermissionPolicy"
)


def bootstrap(**parameters: str) -> dict[str, Any]:
    """Return the resources of the bootstrap template."""
    return dict(synthesize_template(BOOTSTRAP, REQUIRED | parameters)["Resources"])


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def policies(role: str, **parameters: str) -> list[dict[str, Any]]:
    """Return a role's policy documents, or that of the boundary."""
    resources = bootstrap(**parameters)
    if role == "Boundary":
        return [resources[role]["Properties"]["PolicyDocument"]]
    own = [policy["PolicyDocument"] for policy in resources[role]["Properties"].get("Policies", [])]
    managed = [
        made["Properties"]["PolicyDocument"]
        for made in resources.values()
        if made["Type"] == "AWS::IAM::ManagedPolicy" and role in made["Properties"].get("Roles", [])
    ]
    return own + managed


def allowed(role: str, **parameters: str) -> list[dict[str, Any]]:
    """Return a role's statements that allow something."""
    documents = policies(role, **(OPTIONAL | parameters))
    return [made for document in documents for made in document["Statement"] if made["Effect"] == "Allow"]


def rights(statement: dict[str, Any]) -> set[tuple[str, str]]:
    """Return each action of a statement with each of its resources."""
    return set(itertools.product(as_list(statement["Action"]), as_list(statement["Resource"])))


def allowed_actions(role: str) -> set[str]:
    return {action for made in allowed(role) for action in as_list(made["Action"])}


def stacks() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the resources and outputs of the stack, "", and of its nested stacks by name, with all optional parts."""
    for parts in ({}, WITH_TOKENS, WITH_HTTP_API, WITH_URL):
        parameters = WITH_EVERYTHING | parts
        whole = synthesize(**parameters)
        yield "", whole
        for name, made in whole["Resources"].items():
            if made["Type"] == "AWS::CloudFormation::Stack":
                yield name, synthesize_nested(name, **parameters)


def templates() -> Iterator[dict[str, Any]]:
    """Yield the resources of the stack and of its nested stacks, with all optional parts."""
    return (made["Resources"] for _, made in stacks())


def roles_of_the_stack() -> list[dict[str, Any]]:
    return [made["Properties"] for part in templates() for made in part.values() if made["Type"] == "AWS::IAM::Role"]


@cache
def permissions_of_types() -> dict[str, set[str]]:
    """Return the actions that AWS names for CloudFormation's work on each type of resource."""
    found: dict[str, set[str]] = {}
    for path in (Path(cfnlint.__file__).parent / "data" / "schemas" / "resources").glob("*.json"):
        schema = json.loads(path.read_text())
        actions = {action for made in schema.get("handlers", {}).values() for action in made.get("permissions", [])}
        found.setdefault(schema["typeName"], set()).update(actions)
    return found


@cache
def actions_without_resources() -> set[str]:
    """Return the actions, in lower case, for which AWS lists no types of resources; IAM checks them against "*"."""
    path = Path(cfnlint.__file__).parent / "data" / "AdditionalSpecs" / "Policies.json"
    return {
        f"{service}:{action}"
        for service, made in json.loads(path.read_text()).items()
        for action, known in made["Actions"].items()
        if not known.get("Resources")
    }


@cache
def references() -> dict[str, str]:
    """Return names, ARNs and outputs as CloudFormation would make them, by the references to them.

    A name that CloudFormation chooses begins with the stack's name. All are in lower case, unlike references.
    """
    found = {}
    for stack, made in stacks():
        for name, each in made["Resources"].items():
            if each["Type"] in ARNS:
                named, arn = ARNS[each["Type"]]
                found[name] = each["Properties"].get(named, f"litelens-{name.lower()}-1a2b3c")
                found[f"{name}.Arn"] = arn.format(found[name])
            if each["Type"] == "AWS::Lambda::Alias":
                found[name] = f"{each['Properties']['FunctionName']}.Arn:{each['Properties']['Name']}"
        found |= {f"{stack}.Outputs.{name}": each["Value"] for name, each in made.get("Outputs", {}).items()}
    return found


def resolve(text: str) -> str:
    """Replace the references in the ARN of a role's statement."""
    known = references()
    replaced = re.sub(r"\b[A-Z]\w*(\.\w+)*", lambda found: known.get(found[0], found[0]), text)
    return text if replaced == text else resolve(replaced)


def is_used(action: str) -> bool:
    service = action.partition(":")[0]
    return service not in UNUSED_SERVICES and action not in UNUSED_ACTIONS and not UNUSED_PARTS.fullmatch(action)


def length(document: Any) -> int:
    """Return the length of a policy as IAM counts it, without white space."""
    return len(re.sub(r"\s", "", json.dumps(document)))


def test_the_template_needs_no_preprocessing() -> None:
    """`aws cloudformation deploy` sends it as it is. CloudFormation allows 51,200 bytes and supports no aliases."""
    text = BOOTSTRAP.read_text()
    assert len(text.encode()) <= 51_200
    assert "Transform" not in yaml_parse(text)
    assert not re.search(r"[:-] [&*][A-Za-z]", text)


@pytest.mark.parametrize("provider", ["", PROVIDER_ARN])
def test_only_one_environment_of_one_repository_may_assume_the_role(provider: str) -> None:
    resources = bootstrap(ProviderArn=provider)
    (statement,) = resources["DeployRole"]["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    assert statement == {
        "Effect": "Allow",
        "Principal": {"Federated": provider or "Provider"},
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Condition": {
            "StringEquals": {
                "token.actions.githubusercontent.com:aud": "sts.amazonaws.com",
                "token.actions.githubusercontent.com:sub": "repo:owner/name:environment:prod",
            }
        },
    }
    assert ("Provider" in resources) == (not provider)


def test_only_cloudformation_assumes_the_other_role() -> None:
    (statement,) = bootstrap()["CloudFormationRole"]["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    assert statement["Principal"] == {"Service": "cloudformation.amazonaws.com"}


@pytest.mark.parametrize("role", ROLES)
def test_no_statement_allows_actions_with_wildcards_or_unknown_resources(role: str) -> None:
    for made in allowed(role):
        assert not {"NotAction", "NotResource"} & made.keys()
        assert not [action for action in as_list(made["Action"]) if "*" in action]
        if "*" in as_list(made["Resource"]):
            assert made["Sid"] in ANY_RESOURCE


@pytest.mark.parametrize("role", ROLES)
def test_actions_without_resources_are_allowed_for_all_resources(role: str) -> None:
    for made in allowed(role):
        if "*" not in as_list(made["Resource"]):
            actions = {each for each in as_list(made["Action"]) if each.lower() in actions_without_resources()}
            assert actions <= OF_DEPLOYMENT_GROUPS


def test_an_event_source_mapping_can_be_read_after_its_deletion() -> None:
    """It then has no function, so a condition about its function would not hold."""
    (statement,) = [
        made for made in allowed("CloudFormationRole") if "lambda:GetEventSourceMapping" in as_list(made["Action"])
    ]
    assert "Condition" not in statement


def test_only_urls_that_need_signatures_can_be_made() -> None:
    making = {"lambda:CreateFunctionUrlConfig", "lambda:UpdateFunctionUrlConfig"}
    statements = [made for made in allowed("CloudFormationRole") if making & set(as_list(made["Action"]))]
    assert [made["Condition"] for made in statements] == [{"StringEquals": {"lambda:FunctionUrlAuthType": "AWS_IAM"}}]


@pytest.mark.parametrize("role", ROLES)
def test_statements_about_iam_name_only_roles_of_the_stack(role: str) -> None:
    known = {
        "arn:aws:iam::123456789012:role/litelens-prod-*",
        "arn:aws:iam::123456789012:role/aws-service-role/ops.apigateway.amazonaws.com/*",
        "CloudFormationRole.Arn",
    }
    for made in allowed(role):
        if any(action.startswith("iam:") for action in as_list(made["Action"])):
            assert set(as_list(made["Resource"])) <= known


def test_roles_are_passed_only_to_services_that_use_them() -> None:
    passed = {
        (role, resource): made["Condition"]["StringEquals"]["iam:PassedToService"]
        for role in ROLES
        for made in allowed(role)
        if "iam:PassRole" in as_list(made["Action"])
        for resource in as_list(made["Resource"])
    }
    assert passed == {
        ("DeployRole", "CloudFormationRole.Arn"): "cloudformation.amazonaws.com",
        ("CloudFormationRole", "CloudFormationRole.Arn"): "cloudformation.amazonaws.com",
        ("CloudFormationRole", "arn:aws:iam::123456789012:role/litelens-prod-*"): [
            "lambda.amazonaws.com",
            "states.amazonaws.com",
            "codedeploy.amazonaws.com",
        ],
    }
    trusting = {
        statement["Principal"]["Service"]
        for made in roles_of_the_stack()
        for statement in made["AssumeRolePolicyDocument"]["Statement"]
    }
    assert {service for each in trusting for service in as_list(each)} <= {
        *("lambda.amazonaws.com", "states.amazonaws.com", "codedeploy.amazonaws.com")
    }


def test_a_role_gets_rights_only_with_the_boundary() -> None:
    granting = {"iam:CreateRole", "iam:PutRolePolicy", "iam:AttachRolePolicy", "iam:PutRolePermissionsBoundary"}
    statements = [made for made in allowed("CloudFormationRole") if granting & set(as_list(made["Action"]))]
    assert statements
    for made in statements:
        assert made["Condition"] == {"StringEquals": {"iam:PermissionsBoundary": "Boundary"}}


@pytest.mark.parametrize("role", ROLES)
def test_neither_the_boundary_nor_these_roles_can_be_changed(role: str) -> None:
    for action in allowed_actions(role):
        assert not re.fullmatch(
            r"iam:(DeleteRolePermissionsBoundary|.*PolicyVersion|DeletePolicy|.*(User|Group|AccessKey).*)", action
        )
    resources = bootstrap()
    paths = {resources[name]["Properties"]["Path"] for name in ROLES}
    (path,) = paths
    made = [f"arn:aws:iam::123456789012:role{path}litelens-prod-{name}" for name in ("DeployRole-1", "other")]
    patterns = [each for statement in allowed(role) for each in as_list(statement["Resource"]) if each != "*"]
    assert not [arn for arn in made for pattern in patterns if fnmatchcase(arn, pattern)]


@pytest.mark.parametrize("role", ["DeployRole", "CloudFormationRole"])
def test_a_deployment_cannot_change_the_stack_of_these_roles(role: str) -> None:
    denied = [made for document in policies(role) for made in document["Statement"] if made["Effect"] == "Deny"]
    (statement,) = denied
    assert statement["Action"] == "cloudformation:*"
    assert statement["Resource"].startswith("arn:aws:cloudformation:eu-central-1:123456789012:stack/")


@pytest.mark.parametrize("role", ROLES)
def test_names_in_arns_are_those_of_one_stack(role: str) -> None:
    """Another environment's stack has another name, and so have its functions, queues and tables."""
    services = {"lambda", "sqs", "dynamodb", "sns", "codedeploy", "logs", "ecr"}
    shared = re.compile(r".*:(deploymentconfig:\*|event-source-mapping:\*|log-group:\*)")
    for made in allowed(role):
        for arn in as_list(made["Resource"]):
            if arn != "*" and arn.split(":")[2:3] and arn.split(":")[2] in services and not shared.fullmatch(arn):
                assert "litelens-prod-" in arn


def test_cloudformation_may_do_all_that_the_stacks_resources_need() -> None:
    types = {made["Type"] for part in templates() for made in part.values()}
    known = permissions_of_types()
    assert types <= known.keys()
    missing = {
        name: sorted(action for action in known[name] - allowed_actions("CloudFormationRole") if is_used(action))
        for name in types
    }
    assert {name: actions for name, actions in missing.items() if actions} == {}


def test_the_deploying_role_may_do_all_that_the_repository_of_images_needs() -> None:
    resources = yaml_parse((ROOT / "infra" / "images.yaml").read_text())["Resources"].values()
    needed = {action for made in resources for action in permissions_of_types()[made["Type"]]}
    # The repository is encrypted with ECR's own key, and a deployment does not delete it.
    unused = {"kms:CreateGrant", "kms:DescribeKey", "kms:RetireGrant", "ecr:DeleteRepository"}
    assert needed - unused <= allowed_actions("DeployRole")


def test_the_deploying_role_may_create_the_bucket_of_sam(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("__SAM_CLI_APP_DIR", str(tmp_path))
    resources = json.loads(sam_bucket._get_stack_template())["Resources"].values()
    properties = {made["Type"]: made["Properties"] for made in resources}
    assert properties.keys() == {"AWS::S3::Bucket", "AWS::S3::BucketPolicy"}
    needed = {"s3:CreateBucket", "s3:ListBucket", "s3:GetBucketPolicy", "s3:PutBucketPolicy"} | {
        f"s3:{verb}{BUCKET_PROPERTIES[name]}" for name in properties["AWS::S3::Bucket"] for verb in ("Get", "Put")
    }
    known = permissions_of_types()
    assert needed <= known["AWS::S3::Bucket"] | known["AWS::S3::BucketPolicy"]
    (statement,) = [made for made in allowed("DeployRole") if made["Sid"] == "CreateTheBucketForTemplates"]
    assert needed <= {*statement["Action"]}


def test_the_deploying_role_may_make_the_calls_of_the_deployment() -> None:
    script = (ROOT / "infra" / "deploy.sh").read_text()
    calls = set(re.findall(r"aws cloudformation ([a-z-]+)", script)) - {"deploy"}
    assert {"describe-stacks", "set-stack-policy"} <= calls
    needed = {f"cloudformation:{''.join(word.capitalize() for word in call.split('-'))}" for call in calls}
    assert needed <= allowed_actions("DeployRole")


def test_the_deploying_role_may_only_add_files_to_the_page() -> None:
    of_page = [right for made in allowed("DeployRole") for right in rights(made) if "-site-" in right[1]]
    assert of_page == [("s3:PutObject", "arn:aws:s3:::litelens-prod-site-*/*")]
    assert not [action for action in allowed_actions("DeployRole") if action.startswith("cloudfront:")]


def test_the_boundary_allows_all_that_the_stacks_roles_may_do() -> None:
    most = {(action, arn) for made in allowed("Boundary", StackName="litelens") for action, arn in rights(made)}
    for role in roles_of_the_stack():
        assert not role.get("ManagedPolicyArns")
        statements = [made for policy in role["Policies"] for made in as_list(policy["PolicyDocument"]["Statement"])]
        for action, reference in (right for made in statements for right in rights(made)):
            arn = resolve(reference)
            assert arn == "*" or arn.startswith("arn:aws:")
            assert any(action == known and fnmatchcase(arn, pattern) for known, pattern in most), f"{action} for {arn}"


def test_every_role_of_the_stack_gets_the_boundary() -> None:
    made = roles_of_the_stack()
    assert made
    assert {role.get("PermissionsBoundary") for role in made} == {BOUNDARY_ARN}


def test_the_boundary_allows_no_role_to_use_iam_or_to_deploy() -> None:
    services = {action.partition(":")[0] for action in allowed_actions("Boundary")}
    assert not services & {"iam", "sts", "cloudformation", "organizations", "ecr", "apigateway"}


def test_a_session_of_the_workflow_lasts_as_long_as_its_job_and_as_the_role_allows() -> None:
    deploy = yaml.safe_load((ROOT / ".github" / "workflows" / "deploy.yml").read_text())["jobs"]["deploy"]
    (requested,) = [
        step["with"]["role-duration-seconds"] for step in deploy["steps"] if "configure-aws" in step.get("uses", "")
    ]
    longest = bootstrap()["DeployRole"]["Properties"]["MaxSessionDuration"]
    assert deploy["timeout-minutes"] * 60 <= requested <= longest


def test_a_name_that_begins_with_the_stacks_name_is_shorter_than_cloudformations_limit() -> None:
    longest = yaml_parse(BOOTSTRAP.read_text())["Parameters"]["StackName"]["MaxLength"]
    # A bucket's name has 63 characters, of which CloudFormation appends -bucket- and 13 more.
    assert longest + len("-site-") <= 63 - len("-bucket-") - 13


def test_policies_are_shorter_than_iams_limits() -> None:
    longest = {"StackName": "s" * 30} | OPTIONAL
    own = [policy["PolicyDocument"] for policy in bootstrap(**longest)["DeployRole"]["Properties"]["Policies"]]
    assert sum(length(document) for document in own) <= 10_240
    managed = [made for made in bootstrap(**longest).values() if made["Type"] == "AWS::IAM::ManagedPolicy"]
    assert len(managed) == 4
    for made in managed:
        assert length(made["Properties"]["PolicyDocument"]) <= 6_144


def test_without_a_zone_and_a_key_no_statement_is_about_them() -> None:
    for role in ROLES[:2]:
        statements = allowed(role, HostedZoneId="", KmsKeyArn="")
        actions = {action.partition(":")[0] for made in statements for action in as_list(made["Action"])}
        assert not actions & {"route53", "kms"}
    assert {"route53", "kms"} <= {action.partition(":")[0] for action in allowed_actions("CloudFormationRole")}


def test_the_outputs_are_what_the_environment_and_the_stack_need() -> None:
    outputs = synthesize_template(BOOTSTRAP, REQUIRED)["Outputs"]
    assert {name: made["Value"] for name, made in outputs.items()} == {
        "DeployRoleArn": "DeployRole.Arn",
        "CloudFormationRoleArn": "CloudFormationRole.Arn",
        "BoundaryArn": "Boundary",
    }
