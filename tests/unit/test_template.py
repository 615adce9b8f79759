"""template.yaml: access, permissions and API Gateway's responses, with and without the optional parts."""

import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from jsonschema import Draft4Validator
from samcli.lib.providers.api_provider import ApiProvider
from samcli.lib.providers.sam_stack_provider import SamLocalStackProvider
from samcli.yamlhelper import yaml_parse
from support import DEFAULT_BUNDLE, ROOT, LambdaContext, recorded_event, reported_errors
from template import GatewayResponse, gateway_codes, gateway_responses, parameters, synthesize, synthesize_nested

from litelens.api.handler import RESERVED_SECONDS, create_handler
from litelens.api.requests import ClassifyBody, DescribeBody
from litelens.api.response_schemas import Problem
from litelens.aws.clients import CONNECT_SECONDS, READ_SECONDS
from litelens.core.images import Limits
from litelens.settings import Settings, read_settings

ORIGIN = "https://example.com"
EVERYTHING = {
    "CorsOrigin": ORIGIN,
    "ImageBuckets": "photos,scans",
    "DescribeModel": "us.amazon.nova-lite-v1:0",
}
PUBLIC = {
    ("/v1/health", "get"),
    ("/openapi.json", "get"),
    ("/docs", "get"),
    ("/docs/{file}", "get"),
}
TOKENS = {"Access": "jwt", "JwtIssuer": "https://login.example.com", "JwtAudience": "litelens"}
DOMAIN = {"DomainName": "api.example.com", "CertificateArn": "arn:aws:acm:eu-central-1:123456789012:certificate/one"}
KEY = "arn:aws:kms:eu-central-1:123456789012:key/one"
WRITE_LOGS = {
    "Sid": "WriteLogs",
    "Effect": "Allow",
    "Action": ["logs:CreateLogStream", "logs:PutLogEvents"],
    "Resource": "ApiLogs.Arn",
}
BEDROCK = "arn:aws:bedrock:eu-central-1"
UPLOAD_STATEMENTS = [
    WRITE_LOGS,
    {
        "Sid": "WriteAndFindUploads",
        "Effect": "Allow",
        "Action": ["s3:GetObject", "s3:PutObject"],
        "Resource": "Storage.Outputs.UploadBucketArn/uploads/*",
    },
    {
        "Sid": "ListUploads",
        "Effect": "Allow",
        "Action": "s3:ListBucket",
        "Resource": "Storage.Outputs.UploadBucketArn",
    },
    {
        "Sid": "FindResults",
        "Effect": "Allow",
        "Action": "dynamodb:Query",
        "Resource": "Storage.Outputs.ResultsTableArn",
    },
]


def properties(name: str, **parameters: str) -> dict[str, Any]:
    """Return a resource's properties."""
    return dict(synthesize(**parameters)["Resources"][name]["Properties"])


def definition(**parameters: str) -> dict[str, Any]:
    """Return the API's OpenAPI definition."""
    return dict(properties("Api", **parameters)["Body"])


def statements(**parameters: str) -> list[dict[str, Any]]:
    """Return the statements of the function's role."""
    (policy,) = properties("ApiRole", **parameters)["Policies"]
    return list(policy["PolicyDocument"]["Statement"])


def model(path: str) -> Draft4Validator:
    """Return API Gateway's validator for the JSON of a POST."""
    document = definition()
    operation = document["paths"][path]["post"]
    validator = document["x-amazon-apigateway-request-validators"][operation["x-amazon-apigateway-request-validator"]]
    assert validator["validateRequestBody"] is True
    ((content_type, content),) = operation["requestBody"]["content"].items()
    assert content_type == "application/json"
    return Draft4Validator(document["components"]["schemas"][content["schema"]["$ref"].rpartition("/")[2]])


def max_lengths(schema: Any, definitions: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """Yield the maximum lengths in a JSON schema, each with the path of its field."""
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    for keyword in ("maxLength", "maxItems"):
        if keyword in schema:
            yield keyword, schema[keyword]
    for name, field in schema.get("properties", {}).items():
        yield from ((f"{name}.{path}", bound) for path, bound in max_lengths(field, definitions))
    if "items" in schema:
        yield from ((f"*.{path}", bound) for path, bound in max_lengths(schema["items"], definitions))


@pytest.mark.parametrize(
    ("access", "scheme"),
    [({}, "api_key"), ({"Access": "iam"}, "sigv4"), (TOKENS, "jwt")],
    ids=["key", "iam", "jwt"],
)
def test_everything_except_health_docs_and_preflights_needs_what_access_names(
    access: dict[str, str], scheme: str
) -> None:
    document = definition(**access)
    security = {
        (path, method): operation["security"]
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if method != "options"
    }
    assert {route for route, needed in security.items() if needed == []} == PUBLIC
    guarded = {route: needed for route, needed in security.items() if route not in PUBLIC}
    assert ("/{proxy+}", "x-amazon-apigateway-any-method") in guarded
    assert all(needed == [{scheme: []}] for needed in guarded.values())
    assert document["components"]["securitySchemes"].keys() == {"api_key", scheme}


def test_api_gateway_verifies_signatures_and_asks_the_authorizer_about_tokens() -> None:
    schemes = definition(Access="iam")["components"]["securitySchemes"]
    assert schemes["sigv4"]["x-amazon-apigateway-authtype"] == "awsSigv4"
    scheme = definition(**TOKENS)["components"]["securitySchemes"]["jwt"]
    assert (scheme["name"], scheme["in"], scheme["x-amazon-apigateway-authtype"]) == (
        "Authorization",
        "header",
        "custom",
    )
    authorizer = scheme["x-amazon-apigateway-authorizer"]
    assert authorizer["type"] == "token"
    assert "/functions/Authorizer.Outputs.FunctionArn/invocations" in authorizer["authorizerUri"]
    token = "Bearer aGVhZGVy.cGF5bG9hZA.c2lnbmF0dXJl"
    assert re.fullmatch(authorizer["identityValidationExpression"], token)
    assert not re.fullmatch(authorizer["identityValidationExpression"], "Basic bWU6c2VjcmV0")
    permission = properties("AuthorizerPermission", **TOKENS)
    assert permission["FunctionName"] == "Authorizer.Outputs.FunctionArn"
    assert permission["SourceArn"] == "arn:aws:execute-api:eu-central-1:123456789012:Api/authorizers/*"


@pytest.mark.parametrize(("access", "has_key"), [({}, True), ({"Access": "iam"}, False), (TOKENS, False)])
def test_there_is_a_key_only_if_requests_need_one(access: dict[str, str], has_key: bool) -> None:
    made = synthesize(**access)
    kinds = {resource["Type"] for resource in made["Resources"].values()}
    keyed = {"AWS::ApiGateway::ApiKey", "AWS::ApiGateway::UsagePlan", "AWS::ApiGateway::UsagePlanKey"}
    assert kinds & keyed == (keyed if has_key else set())
    assert ("ApiKeyId" in made["Outputs"]) is has_key


@pytest.mark.parametrize(
    "refused",
    [
        {"Access": "jwt"},
        {"Access": "jwt", "JwtIssuer": "https://login.example.com"},
        {"Access": "iam", "Page": "true"},
        {"FrontDoor": "http"},
        {"FrontDoor": "http", "Access": "jwt"},
        {"FrontDoor": "http", "Access": "iam", "Page": "true"},
        {"FrontDoor": "http", "Access": "iam", "Waf": "true"},
        {"FrontDoor": "url"},
        {"FrontDoor": "url", **TOKENS},
        {"FrontDoor": "url", "Access": "iam", "Page": "true"},
        {"FrontDoor": "url", "Access": "iam", "Waf": "true"},
        {"FrontDoor": "url", "Access": "iam", **DOMAIN},
        {"FrontDoor": "url", "Access": "iam", "CorsOrigin": ORIGIN},
        {"DisableExecuteApi": "true"},
        {"MonthlyBudget": "50"},
        {"DomainName": "api.example.com"},
        {"Architecture": "arm64", "Engine": "openvino"},
    ],
    ids=str,
)
def test_parameters_that_contradict_each_other_are_refused(refused: dict[str, str]) -> None:
    with pytest.raises(AssertionError, match="by rule"):
        synthesize(**refused)


@pytest.mark.parametrize("door", parameters()["FrontDoor"]["AllowedValues"])
@pytest.mark.parametrize("access", [{"Access": "key"}, {"Access": "iam"}, TOKENS], ids=lambda access: access["Access"])
def test_no_front_door_is_open_to_everyone(door: str, access: dict[str, str]) -> None:
    given = {"FrontDoor": door, **access}
    offered = {("rest", "key"), ("rest", "iam"), ("rest", "jwt"), ("http", "iam"), ("http", "jwt"), ("url", "iam")}
    if (door, access["Access"]) not in offered:
        with pytest.raises(AssertionError, match="by rule"):
            synthesize(**given)
        return
    resources = synthesize(**given)["Resources"]
    assert ("Api" in resources, "HttpApi" in resources, "ApiFunctionUrl" in resources) == (
        door == "rest",
        door == "http",
        door == "url",
    )
    if door == "rest":
        guarded = definition(**given)["paths"]["/{proxy+}"]["x-amazon-apigateway-any-method"]["security"]
        assert guarded != []
    elif door == "http":
        wanted = {"iam": "AWS_IAM", "jwt": "JWT"}[access["Access"]]
        needed = {route: made["AuthorizationType"] for route, made in http_routes(**given).items()}
        assert {route for route, kind in needed.items() if kind == "NONE"} == {
            f"{method.upper()} {path}" for path, method in PUBLIC
        }
        assert {kind for kind in needed.values() if kind != "NONE"} == {wanted}
        # {proxy+} matches every path but "/", and is what policies for single paths are about.
        assert (needed["ANY /{proxy+}"], needed["$default"]) == (wanted, wanted)
        assert all(
            ("AuthorizerId" in made) == (made["AuthorizationType"] == "JWT") for made in http_routes(**given).values()
        )
    else:
        assert resources["ApiFunctionUrl"]["Properties"]["AuthType"] == "AWS_IAM"
        assert not [made for made in resources.values() if made["Type"] == "AWS::Lambda::Permission"]


def http_routes(**given: str) -> dict[str, dict[str, Any]]:
    """Return the routes of the HTTP API by their keys."""
    made = [each["Properties"] for each in synthesize_nested("HttpApi", **given)["Resources"].values()]
    return {each["RouteKey"]: each for each in made if "RouteKey" in each}


def test_an_http_api_verifies_tokens_of_the_issuer_for_its_audiences() -> None:
    given = {"FrontDoor": "http", **TOKENS, "JwtAudience": "one,two"}
    made = synthesize_nested("HttpApi", **given)["Resources"]
    authorizer = made["Tokens"]["Properties"]
    assert (authorizer["AuthorizerType"], authorizer["IdentitySource"]) == ("JWT", ["$request.header.Authorization"])
    assert authorizer["JwtConfiguration"] == {"Issuer": TOKENS["JwtIssuer"], "Audience": ["one", "two"]}
    assert "Authorizer" not in synthesize(**given)["Resources"]
    assert "Tokens" not in synthesize_nested("HttpApi", FrontDoor="http", Access="iam")["Resources"]


def test_an_http_api_has_the_limits_of_the_rest_api() -> None:
    given = {"FrontDoor": "http", "Access": "iam", "RateLimit": "3", "BurstLimit": "5"}
    given |= {"UploadRateLimit": "4", "KeylessRateLimit": "7"}
    made = synthesize_nested("HttpApi", **given)["Resources"]
    stage = made["Stage"]["Properties"]
    assert stage["DefaultRouteSettings"] == {"ThrottlingRateLimit": "3", "ThrottlingBurstLimit": "5"}
    limits = {route: limited["ThrottlingRateLimit"] for route, limited in stage["RouteSettings"].items()}
    assert limits == {"POST /v1/uploads": "4", **{f"{method.upper()} {path}": "7" for path, method in PUBLIC}}
    routes = {name: each["Properties"]["RouteKey"] for name, each in made.items() if "Route" in each["Type"]}
    assert {routes[name] for name in made["Stage"]["DependsOn"]} == limits.keys()


@pytest.mark.parametrize("origin", ["", ORIGIN])
def test_an_http_api_answers_preflights_of_the_allowed_origin(origin: str) -> None:
    given = {"FrontDoor": "http", "Access": "iam", "CorsOrigin": origin}
    cors = synthesize_nested("HttpApi", **given)["Resources"]["Api"]["Properties"].get("CorsConfiguration")
    assert (cors and cors["AllowOrigins"]) == ([origin] if origin else None)
    preflight = http_routes(**given).get("OPTIONS /{proxy+}")
    assert (preflight and preflight["AuthorizationType"]) == ("NONE" if origin else None)


def test_api_gateway_may_invoke_the_function_for_the_http_api_only() -> None:
    permission = properties("ApiPermission", FrontDoor="http", Access="iam")
    assert permission["SourceArn"] == ("arn:aws:execute-api:eu-central-1:123456789012:HttpApi.Outputs.ApiId/$default/*")


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ({}, "https://Api.execute-api.eu-central-1.amazonaws.com/live"),
        (
            {"FrontDoor": "http", "Access": "iam"},
            "https://HttpApi.Outputs.ApiId.execute-api.eu-central-1.amazonaws.com",
        ),
        ({"FrontDoor": "http", "Access": "iam", **DOMAIN, "DisableExecuteApi": "true"}, "https://api.example.com"),
        ({"FrontDoor": "url", "Access": "iam"}, "https://ApiFunctionUrl.lambda-url.eu-central-1.on.aws"),
    ],
    ids=["rest", "http", "domain", "url"],
)
def test_the_url_is_that_of_the_front_door(given: dict[str, str], url: str) -> None:
    outputs = synthesize(**given)["Outputs"]
    assert outputs["ApiUrl"]["Value"] == url
    ids = {"rest": "Api", "http": "HttpApi.Outputs.ApiId", "url": None}
    assert outputs.get("ApiId", {}).get("Value") == ids[given.get("FrontDoor", "rest")]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_sam_local_serves_the_routes_of_the_rest_api_only() -> None:
    stacks, _ = SamLocalStackProvider.get_stacks(str(ROOT / "template.yaml"))
    routes = ApiProvider(stacks).api.routes
    assert {route.function_name for route in routes} == {"ApiFunction"}
    paths = [route.path for route in routes]
    assert sorted(paths) == sorted(definition()["paths"])


def test_api_gateway_answers_preflights_without_the_function() -> None:
    for path, operations in definition(CorsOrigin=ORIGIN)["paths"].items():
        preflight = operations["options"]
        assert preflight["security"] == [], path
        integration = preflight["x-amazon-apigateway-integration"]
        assert integration["type"] == "mock"
        assert json.loads(integration["requestTemplates"]["application/json"]) == {"statusCode": 204}
        (answer,) = integration["responses"].values()
        prefix = "method.response.header."
        sent = {name.removeprefix(prefix): value for name, value in answer["responseParameters"].items()}
        # API Gateway refuses headers that the method does not declare.
        assert sent.keys() == preflight["responses"][answer["statusCode"]]["headers"].keys()
        assert sent["Access-Control-Allow-Origin"] == f"'{ORIGIN}'"
    silent = definition()["paths"]["/{proxy+}"]["options"]
    assert "Access-Control" not in json.dumps(silent)


def test_a_preflight_allows_the_headers_that_the_function_allows() -> None:
    preflight = definition(CorsOrigin=ORIGIN)["paths"]["/v1/classify"]["options"]
    (answer,) = preflight["x-amazon-apigateway-integration"]["responses"].values()
    allowed = answer["responseParameters"]["method.response.header.Access-Control-Allow-Headers"].strip("'")
    handler = create_handler(Settings(DEFAULT_BUNDLE, Limits(), threads=1, cors_origin=ORIGIN))
    event = recorded_event("health") | {"httpMethod": "OPTIONS", "headers": {"Origin": ORIGIN}}
    sent = handler(event | {"multiValueHeaders": {"Origin": [ORIGIN]}}, LambdaContext())
    in_function = sent["multiValueHeaders"]["Access-Control-Allow-Headers"][0].lower()
    assert set(in_function.split(",")) >= set(allowed.split(","))


def test_the_only_stage_is_throttled() -> None:
    resources = synthesize(RateLimit="3", BurstLimit="5")["Resources"]
    (stage,) = [made["Properties"] for made in resources.values() if made["Type"] == "AWS::ApiGateway::Stage"]
    (deployment,) = [made["Properties"] for made in resources.values() if made["Type"] == "AWS::ApiGateway::Deployment"]
    assert stage["StageName"] == "live"
    assert "StageName" not in deployment
    everything, *_ = stage["MethodSettings"]
    assert everything == {
        "ResourcePath": "/*",
        "HttpMethod": "*",
        "ThrottlingRateLimit": "3",
        "ThrottlingBurstLimit": "5",
    }


def test_upload_forms_and_routes_without_a_key_have_lower_limits_of_their_own() -> None:
    stage = properties("ApiliveStage", UploadRateLimit="4", KeylessRateLimit="7")
    _, *others = stage["MethodSettings"]
    limited = {
        (made["ResourcePath"].removeprefix("/").replace("~1", "/"), made["HttpMethod"].lower()): made for made in others
    }
    assert {route: made["ThrottlingRateLimit"] for route, made in limited.items()} == {
        ("/v1/uploads", "post"): "4",
        **dict.fromkeys(PUBLIC, "7"),
    }
    paths = definition()["paths"]
    assert all(method in paths[path] for path, method in limited)


def test_the_usage_plan_limits_the_key() -> None:
    plan = properties("UsagePlan", RateLimit="3", BurstLimit="5", DailyQuota="70")
    assert plan["Throttle"] == {"RateLimit": "3", "BurstLimit": "5"}
    assert plan["Quota"] == {"Limit": "70", "Period": "DAY"}
    assert plan["ApiStages"] == [{"ApiId": "Api", "Stage": "ApiliveStage"}]
    assert properties("UsagePlanKey")["KeyId"] == synthesize()["Outputs"]["ApiKeyId"]["Value"] == "ApiKey"


def test_api_gateway_compresses_responses() -> None:
    assert properties("Api")["MinimumCompressionSize"] == 1024


@pytest.mark.parametrize(("name", "response"), gateway_responses().items())
def test_api_gateways_own_errors_are_problem_documents(name: str, response: GatewayResponse) -> None:
    problem = msgspec.convert(response.body, Problem)
    assert set(response.body) == set(Problem.__struct_fields__)
    assert problem.type == f"urn:litelens:problem:{problem.code}"
    assert problem.status == response.status
    assert (400 <= problem.status < 500) == (
        name not in ("INTEGRATION_FAILURE", "INTEGRATION_TIMEOUT", "DEFAULT_5XX") and not name.startswith("AUTHORIZER")
    )
    assert response.headers["Content-Type"] == "'application/problem+json'"
    assert response.headers["x-request-id"] == "context.requestId"


@pytest.mark.parametrize("response", gateway_responses().values(), ids=list(gateway_responses()))
def test_api_gateways_own_errors_contain_nothing_of_the_request(response: GatewayResponse) -> None:
    assert response.variables == {"$context.requestId"}


def test_each_of_api_gateways_own_errors_has_a_code() -> None:
    codes = {name: response.body["code"] for name, response in gateway_responses().items()}
    assert codes == {
        "INVALID_API_KEY": "forbidden",
        "ACCESS_DENIED": "forbidden",
        "INVALID_SIGNATURE": "forbidden",
        "EXPIRED_TOKEN": "forbidden",
        "WAF_FILTERED": "forbidden",
        "AUTHORIZER_FAILURE": "busy",
        "AUTHORIZER_CONFIGURATION_ERROR": "busy",
        "UNAUTHORIZED": "unauthorized",
        "MISSING_AUTHENTICATION_TOKEN": "forbidden",
        "THROTTLED": "too_many_requests",
        "INTEGRATION_FAILURE": "busy",
        "QUOTA_EXCEEDED": "quota_exceeded",
        "REQUEST_TOO_LARGE": "request_too_large",
        "BAD_REQUEST_BODY": "invalid_request",
        "UNSUPPORTED_MEDIA_TYPE": "unsupported_media_type",
        "INTEGRATION_TIMEOUT": "timeout",
        "DEFAULT_4XX": "invalid_request",
        "DEFAULT_5XX": "internal_error",
    }


def test_api_gateway_and_the_function_agree_on_codes() -> None:
    in_function = {error.code: (error.status.value, error.title) for error in reported_errors()}
    at_gateway = {(made.body["code"], made.status, made.body["title"]) for made in gateway_responses().values()}
    assert len(at_gateway) == len(gateway_codes())
    shared = {code: (status, title) for code, status, title in at_gateway if code in in_function}
    assert shared == {code: in_function[code] for code in shared}
    assert "internal_error" in shared


@pytest.mark.parametrize(("results", "given"), [("table", 3), ("both", 3), ("objects", 0)])
def test_upload_forms_are_recommended_and_permitted_only_if_there_are_any(results: str, given: int) -> None:
    details = [made.body["detail"] for made in gateway_responses(Results=results).values()]
    assert len([detail for detail in details if "/v1/uploads" in detail]) == given
    (policy,) = properties("ApiRole", Results=results)["Policies"]
    resources = json.dumps([made["Resource"] for made in policy["PolicyDocument"]["Statement"]])
    assert ("UploadBucket" in resources) == bool(given)


def test_a_throttled_client_learns_when_to_retry() -> None:
    assert gateway_responses()["THROTTLED"].headers["Retry-After"] == "'1'"


def test_by_default_no_origin_is_allowed() -> None:
    resources = synthesize()["Resources"]
    assert "access-control" not in json.dumps(resources).lower()
    assert resources["ApiFunction"]["Properties"]["Environment"]["Variables"]["LITELENS_CORS_ORIGIN"] == ""


def test_only_the_configured_origin_is_allowed() -> None:
    allowed = {made.headers["Access-Control-Allow-Origin"] for made in gateway_responses(CorsOrigin=ORIGIN).values()}
    assert allowed == {f"'{ORIGIN}'"}


def test_the_api_is_deployed_again_for_another_origin() -> None:
    # Otherwise SAM makes a new deployment only for changed routes, and a parameter would not reach the stage.
    template = yaml_parse((ROOT / "template.yaml").read_text())
    assert template["Resources"]["Api"]["Properties"]["AlwaysDeploy"] is True


def test_without_optional_parts_the_function_may_only_sign_uploads_and_find_results() -> None:
    assert statements() == UPLOAD_STATEMENTS


def test_the_function_may_send_traces_and_use_keys_only_if_there_are_any() -> None:
    keys = {"KmsKeyArn": KEY, "ImageBuckets": "photos", "ImageBucketKeys": f"{KEY}-of-photos"}
    made = {statement["Sid"]: statement for statement in statements(Tracing="Active", **keys)}
    assert made["SendTraces"]["Action"] == ["xray:PutTraceSegments", "xray:PutTelemetryRecords"]
    assert made["EncryptUploads"]["Resource"] == KEY
    assert (made["DecryptImages"]["Action"], made["DecryptImages"]["Resource"]) == ("kms:Decrypt", [f"{KEY}-of-photos"])


def test_the_function_may_only_read_the_image_buckets() -> None:
    assert statements(ImageBuckets="photos,scans") == [
        *UPLOAD_STATEMENTS,
        {
            "Sid": "ReadImages",
            "Effect": "Allow",
            "Action": ["s3:GetObject", "s3:GetObjectVersion"],
            "Resource": ["arn:aws:s3:::photos/*", "arn:aws:s3:::scans/*"],
        },
        {
            "Sid": "ListImages",
            "Effect": "Allow",
            "Action": "s3:ListBucket",
            "Resource": ["arn:aws:s3:::photos", "arn:aws:s3:::scans"],
        },
    ]


def test_the_function_may_only_invoke_the_configured_model() -> None:
    model = "amazon.nova-lite-v1:0"
    assert statements(DescribeModel=model) == [
        *UPLOAD_STATEMENTS,
        {
            "Sid": "Describe",
            "Effect": "Allow",
            "Action": "bedrock:InvokeModel",
            "Resource": [
                f"{BEDROCK}::foundation-model/{model}",
                f"{BEDROCK}:123456789012:inference-profile/{model}",
            ],
        },
    ]


def test_the_function_may_invoke_a_profiles_model_only_through_the_profile() -> None:
    *_, direct, through = statements(DescribeModel="us.amazon.nova-lite-v1:0")
    profile = f"{BEDROCK}:123456789012:inference-profile/us.amazon.nova-lite-v1:0"
    assert profile in direct["Resource"]
    assert through == {
        "Sid": "DescribeByProfile",
        "Effect": "Allow",
        "Action": "bedrock:InvokeModel",
        "Resource": "arn:aws:bedrock:*::foundation-model/amazon.nova-lite-v1:0",
        "Condition": {"StringEquals": {"bedrock:InferenceProfileArn": profile}},
    }


def test_only_api_gateway_may_invoke_the_function() -> None:
    resources = synthesize(**EVERYTHING)["Resources"]
    permissions = [made["Properties"] for made in resources.values() if made["Type"] == "AWS::Lambda::Permission"]
    assert [(made["Principal"], made["Action"], made["FunctionName"], made["SourceArn"]) for made in permissions] == [
        (
            "apigateway.amazonaws.com",
            "lambda:InvokeFunction",
            "ApiFunctionAliaslive",
            "arn:aws:execute-api:eu-central-1:123456789012:Api/live/*",
        )
    ]


def test_parameters_become_the_functions_settings() -> None:
    options = {"MaxUploadBytes": "7", "UploadFormSeconds": "90"}
    variables = properties("ApiFunction", **EVERYTHING, **options)["Environment"]["Variables"]
    settings = read_settings({"LITELENS_BUNDLE": "model", **{name: str(text) for name, text in variables.items()}})
    assert settings.buckets == {"photos", "scans"}
    assert settings.upload_bucket == "Storage.Outputs.UploadBucketName"
    assert settings.results_table == "Storage.Outputs.ResultsTableName"
    assert (settings.max_upload_bytes, settings.upload_form_seconds) == (7, 90)
    assert settings.describe_model == "us.amazon.nova-lite-v1:0"
    assert settings.cors_origin == ORIGIN
    assert settings.limits == Limits()


def test_optional_settings_are_off_by_default() -> None:
    variables = properties("ApiFunction")["Environment"]["Variables"]
    settings = read_settings({"LITELENS_BUNDLE": "model", **{name: str(text) for name, text in variables.items()}})
    assert (settings.buckets, settings.describe_model, settings.cors_origin) == (frozenset(), None, None)


@pytest.mark.parametrize(("path", "form"), [("/v1/classify", ClassifyBody), ("/v1/describe", DescribeBody)])
def test_api_gateway_and_the_function_agree_on_maximum_lengths(path: str, form: type[msgspec.Struct]) -> None:
    schema = msgspec.json.schema(form)
    in_function = dict(max_lengths(schema, schema["$defs"]))
    at_gateway = dict(max_lengths(model(path).schema, {}))
    images = {field: bound for field, bound in at_gateway.items() if field.endswith("image.maxLength")}
    assert "image.maxLength" in images
    assert set(images.values()) == {6 * 1024 * 1024}
    others = at_gateway.keys() - images.keys()
    assert {field: at_gateway[field] for field in others} == {field: in_function.get(field) for field in others}


def test_api_gateway_accepts_valid_requests() -> None:
    body = json.loads(recorded_event("classify_json")["body"])
    assert model("/v1/classify").is_valid(body)
    assert model("/v1/classify").is_valid({"images": [body, {"s3_uri": "s3://photos/cat.jpg"}], "heatmap": True})
    turns = [{"question": "What is it?", "answer": "A rocket."}]
    assert model("/v1/describe").is_valid({"s3": {"bucket": "photos", "key": "cat.jpg"}, "turns": turns})


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/classify", {"image": "A" * (6 * 1024 * 1024 + 1)}),
        ("/v1/describe", {"question": "?" * 2001}),
        ("/v1/describe", {"turns": [{"question": "?", "answer": "!" * 10_001}]}),
    ],
    ids=["image", "question", "answer"],
)
def test_api_gateway_refuses_bodies_that_are_too_large(path: str, body: dict[str, Any]) -> None:
    assert not model(path).is_valid(body)


def test_the_shortest_timeout_allows_two_attempts_at_s3() -> None:
    least = parameters()["Timeout"]["MinValue"]
    assert least >= RESERVED_SECONDS + 2 * (CONNECT_SECONDS + READ_SECONDS)


def test_every_parameter_has_a_description_and_a_default() -> None:
    assert parameters()
    for name, parameter in parameters().items():
        assert parameter["Description"], name
        assert "Default" in parameter, name


@pytest.mark.parametrize(
    ("name", "text", "accepted"),
    [
        ("Model", "everyday", True),
        ("Model", "everyday,pets,cifar100-resnet50", True),
        ("Model", "", False),
        ("Model", "everyday,", False),
        ("Model", "everyday, pets", False),
        ("Model", "../everyday", False),
        ("Model", ".hidden", False),
        ("CorsOrigin", "", True),
        ("CorsOrigin", "https://example.com", True),
        ("CorsOrigin", "http://127.0.0.1:8080", True),
        ("CorsOrigin", "https://example.com/", False),
        ("CorsOrigin", "*", False),
        ("CorsOrigin", "https://*.example.com", False),
        ("PageEndpoints", "", True),
        ("PageEndpoints", "https://example.com", True),
        ("PageEndpoints", "https://one.example.com https://two.example.com:8443 http://127.0.0.1:8080", True),
        ("PageEndpoints", "https://example.com ", False),
        ("PageEndpoints", "https://example.com/live", False),
        ("PageEndpoints", "https://one.example.com,https://two.example.com", False),
        ("PageEndpoints", "https://*.example.com", False),
        ("PageEndpoints", "*", False),
        ("PageEndpoints", "https://example.com; script-src *", False),
        ("PageEndpoints", "'unsafe-inline'", False),
        ("JwtIssuer", "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_AbCdEf123", True),
        ("JwtIssuer", "http://login.example.com", False),
        ("JwtIssuer", "https://login.example.com/?a=b", False),
        ("JwtAudience", "one,two", True),
        ("JwtAudience", "one, two", False),
        ("KmsKeyArn", KEY, True),
        ("KmsKeyArn", "alias/mine", False),
        ("ImageBucketKeys", "*", False),
        ("PermissionsBoundary", "arn:aws:iam::123456789012:policy/litelens-dev-boundary", True),
        ("PermissionsBoundary", "boundary", False),
        ("EventBus", "", True),
        ("EventBus", "default", True),
        ("EventBus", "*", False),
        ("EventBus", "arn:aws:events:eu-central-1:123456789012:event-bus/default", False),
        ("DescribeModel", "", True),
        ("DescribeModel", "amazon.nova-lite-v1:0", True),
        ("DescribeModel", "us-gov.anthropic.claude-3-haiku-20240307-v1:0", True),
        ("DescribeModel", "*", False),
        ("DescribeModel", "amazon.*", False),
        ("DescribeModel", "global.provider.model-4.7", False),
    ],
)
def test_a_parameter_accepts_names_and_no_patterns(name: str, text: str, accepted: bool) -> None:
    assert bool(re.fullmatch(parameters()[name]["AllowedPattern"], text)) is accepted
