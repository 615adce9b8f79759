"""infra/site.yaml: access to the page's files, its policy, and the API under the same host name."""

import json
import re
import subprocess
from typing import Any
from urllib.parse import urlsplit

import pytest
import template
from aws import ENVIRONMENT
from playwright._impl._driver import compute_driver_executable
from support import reported_errors
from template import gateway_codes, page_headers, parameters, synthesize, synthesize_nested

from litelens.api.handler import REPORT_PATH
from litelens.aws.clients import aws_client
from litelens.aws.s3 import UploadBucket

API = "Api.execute-api.eu-central-1.amazonaws.com"
BUCKET = "https://Storage.Outputs.UploadBucketName.s3"
OUTPUTS = {"PageUrl", "SiteBucketName"}
METHODS = {"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"}

# https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/using-managed-cache-policies.html and
# .../using-managed-origin-request-policies.html
CACHING_OPTIMIZED = "658327ea-f89d-4fab-a63d-7e88639e58f6"
CACHING_DISABLED = "4135ea2d-6df8-44a3-9df3-4b5a84be39ad"
ALL_VIEWER_EXCEPT_HOST_HEADER = "b689b0a8-53d0-40ab-baf2-68738e2966ac"

# Errors that CloudFront caches even though the origin forbids it, or if the origin does not say:
# https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/HTTPStatusCodes.html
CACHED_ERRORS = {404, 410, 414, 500, 501, 502, 503, 504}

# https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/cloudfront-limits.html
LONGEST_POLICY = 1783

DOMAIN = {"DomainName": "api.example.com", "CertificateArn": "arn:aws:acm:eu-central-1:1:certificate/one"}


def resources(**parameters: str) -> dict[str, Any]:
    return dict(synthesize_nested("Site", **parameters, Page="true")["Resources"])


def distribution() -> dict[str, Any]:
    return dict(resources()["Distribution"]["Properties"]["DistributionConfig"])


def origin(name: str) -> dict[str, Any]:
    (found,) = [made for made in distribution()["Origins"] if made["Id"] == name]
    return dict(found)


def behaviour(path: str) -> dict[str, Any]:
    """Return the cache behavior of a path: that of the first pattern that matches it."""
    matching = [made for made in distribution()["CacheBehaviors"] if _matches(made["PathPattern"], path)]
    return dict([*matching, distribution()["DefaultCacheBehavior"]][0])


def _matches(pattern: str, path: str) -> bool:
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), path) is not None


def directives(**parameters: str) -> dict[str, list[str]]:
    """Return the directives of the page's Content-Security-Policy."""
    policy = page_headers(**parameters)["content-security-policy"].split("; ")
    return {name: values for name, *values in map(str.split, policy)}


def test_the_page_has_security_headers() -> None:
    assert page_headers() == {
        "content-security-policy": (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
            f"connect-src 'self' {BUCKET}.eu-central-1.amazonaws.com {BUCKET}.amazonaws.com; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
            "require-trusted-types-for 'script'; trusted-types lit-html litelens"
        ),
        "cross-origin-opener-policy": "same-origin",
        "permissions-policy": "camera=(), geolocation=(), microphone=()",
        "referrer-policy": "no-referrer",
        "strict-transport-security": "max-age=31536000",
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
    }
    assert behaviour("/")["ResponseHeadersPolicyId"] == behaviour("/app.js")["ResponseHeadersPolicyId"] == "PageHeaders"


def test_the_page_cannot_be_framed_and_runs_only_its_own_scripts() -> None:
    made = directives()
    assert made["frame-ancestors"] == ["'none'"]
    assert made["script-src"] == ["'self'"]
    assert made["require-trusted-types-for"] == ["'script'"]
    assert made["trusted-types"] == ["lit-html", "litelens"]
    assert page_headers()["x-frame-options"] == "DENY"


def test_the_page_may_only_call_its_own_origin_and_the_upload_bucket() -> None:
    assert directives()["connect-src"] == [
        "'self'",
        f"{BUCKET}.eu-central-1.amazonaws.com",
        f"{BUCKET}.amazonaws.com",
    ]
    assert directives()["default-src"] == directives()["form-action"] == ["'none'"]


def test_the_page_may_call_the_configured_endpoints() -> None:
    named = "https://one.example.com https://two.example.com:8443"
    assert directives(PageEndpoints=named)["connect-src"] == [*directives()["connect-src"], *named.split()]
    others = directives(PageEndpoints=named) | {"connect-src": []}
    assert others == directives() | {"connect-src": []}


def test_the_longest_policy_is_short_enough_for_cloudfront() -> None:
    longest = "https://" + "e" * (parameters()["PageEndpoints"]["MaxLength"] - len("https://"))
    made = page_headers(PageEndpoints=longest)["content-security-policy"]
    # Bucket names have at most 63 characters, region names 14; the bucket's name occurs twice.
    assert len(made) + 2 * 63 + 14 < LONGEST_POLICY


@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1"])
def test_the_page_may_send_upload_forms_to_the_bucket_of_its_region(
    region: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**ENVIRONMENT, "AWS_DEFAULT_REGION": region}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.setitem(template.PSEUDO_PARAMETERS, "AWS::Region", region)
    aws_client.cache_clear()
    try:
        sent_to = urlsplit(UploadBucket("uploads", 1).create_form("image/jpeg").url)
    finally:
        aws_client.cache_clear()
    allowed = [source.replace("Storage.Outputs.UploadBucketName", "uploads") for source in directives()["connect-src"]]
    assert f"{sent_to.scheme}://{sent_to.netloc}" in allowed


def test_only_this_distribution_may_read_the_bucket() -> None:
    statements = resources()["BucketPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    assert [made for made in statements if made["Effect"] == "Allow"] == [
        {
            "Sid": "DistributionReads",
            "Effect": "Allow",
            "Principal": {"Service": "cloudfront.amazonaws.com"},
            "Action": "s3:GetObject",
            "Resource": "Bucket.Arn/*",
            "Condition": {
                "StringEquals": {"aws:SourceArn": "arn:aws:cloudfront::123456789012:distribution/Distribution"}
            },
        }
    ]


def test_the_distribution_signs_its_requests_to_the_bucket() -> None:
    access = resources()["OriginAccess"]["Properties"]["OriginAccessControlConfig"]
    assert (access["SigningBehavior"], access["SigningProtocol"]) == ("always", "sigv4")
    assert access["OriginAccessControlOriginType"] == "s3"
    assert origin("Page") == {
        "Id": "Page",
        "DomainName": "Bucket.RegionalDomainName",
        "OriginAccessControlId": "OriginAccess",
        "S3OriginConfig": {"OriginAccessIdentity": ""},
    }


def test_cloudfront_resources_have_unique_names() -> None:
    made = resources()
    assert made["OriginAccess"]["Properties"]["OriginAccessControlConfig"]["Name"] == "Bucket"
    assert made["PageHeaders"]["Properties"]["ResponseHeadersPolicyConfig"]["Name"] == "Bucket"
    assert made["DocsRedirect"]["Properties"]["Name"] == "Bucket"
    assert "BucketName" not in made["Bucket"].get("Properties", {}), "S3 chooses a unique name"


@pytest.mark.parametrize("path", ["/", "/index.html", "/app.js", "/views/classify.js", "/samples/rocket.jpg"])
def test_the_page_is_cached_compressed_and_served_over_tls(path: str) -> None:
    assert behaviour(path) == {
        "TargetOriginId": "Page",
        "ViewerProtocolPolicy": "redirect-to-https",
        "Compress": True,
        "CachePolicyId": CACHING_OPTIMIZED,
        "ResponseHeadersPolicyId": "PageHeaders",
    }
    assert distribution()["DefaultRootObject"] == "index.html"
    assert (distribution()["HttpVersion"], distribution()["IPV6Enabled"]) == ("http2and3", True)


@pytest.mark.parametrize("path", ["/v1/classify", "/v1/health", "/v1/results/0199", REPORT_PATH])
def test_requests_to_the_api_are_not_cached_and_keep_the_key_but_not_the_host(path: str) -> None:
    called = behaviour(path)
    assert called["TargetOriginId"] == "Api"
    assert called["CachePolicyId"] == CACHING_DISABLED
    # Forwards all headers, including x-api-key, except Host: API Gateway accepts only its own host name.
    assert called["OriginRequestPolicyId"] == ALL_VIEWER_EXCEPT_HOST_HEADER
    assert set(called["AllowedMethods"]) == METHODS


def test_a_key_is_never_sent_without_tls() -> None:
    assert behaviour("/v1/classify")["ViewerProtocolPolicy"] == "https-only"
    assert origin("Api")["CustomOriginConfig"]["OriginProtocolPolicy"] == "https-only"
    assert origin("Api")["CustomOriginConfig"]["OriginSSLProtocols"] == ["TLSv1.2"]


def test_requests_go_to_the_apis_stage() -> None:
    made = origin("Api")
    assert made["DomainName"] == API
    assert made["OriginPath"] == "/ApiliveStage"
    stage = synthesize()["Resources"]["ApiliveStage"]
    assert stage["Type"] == "AWS::ApiGateway::Stage"
    assert synthesize()["Outputs"]["ApiUrl"]["Value"] == f"https://{API}/{stage['Properties']['StageName']}"


def test_the_page_uses_the_domain_if_the_api_has_no_other_name() -> None:
    options = {**DOMAIN, "DisableExecuteApi": "true"}
    (made,) = [
        made
        for made in resources(**options)["Distribution"]["Properties"]["DistributionConfig"]["Origins"]
        if made["Id"] == "Api"
    ]
    assert (made["DomainName"], made["OriginPath"]) == ("api.example.com", "")
    assert '"https://api.example.com"' in resources(**options)["DocsRedirect"]["Properties"]["FunctionCode"]
    assert synthesize(**options)["Outputs"]["ApiUrl"]["Value"] == "https://api.example.com"


def test_cloudfront_waits_longer_than_api_gateway() -> None:
    assert origin("Api")["CustomOriginConfig"]["OriginReadTimeout"] > parameters()["Timeout"]["MaxValue"]


def test_errors_of_the_api_are_neither_cached_nor_replaced() -> None:
    statuses = {error.status.value for error in reported_errors()} | set(gateway_codes().values())
    made = distribution()["CustomErrorResponses"]
    assert made == [{"ErrorCode": status, "ErrorCachingMinTTL": 0} for status in sorted(statuses & CACHED_ERRORS)]
    assert {404, 500, 503} <= statuses


@pytest.mark.parametrize("path", ["/docs", "/docs/", "/docs/start.js"])
def test_the_documentation_redirects_to_the_apis_own_address(path: str) -> None:
    assert behaviour(path)["FunctionAssociations"] == [
        {"EventType": "viewer-request", "FunctionARN": "DocsRedirect.FunctionARN"}
    ]
    # Playwright contains Node.js.
    node, _ = compute_driver_executable()
    code = resources()["DocsRedirect"]["Properties"]["FunctionCode"]
    event = json.dumps({"request": {"method": "GET", "uri": path}})
    command = [str(node), "--eval", f"{code}; console.log(JSON.stringify(handler({event})))"]
    answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert answer == {
        "statusCode": 302,
        "headers": {"location": {"value": f"https://{API}/ApiliveStage{path}"}},
    }


def test_the_redirects_code_is_published_with_the_deployment() -> None:
    made = resources()["DocsRedirect"]["Properties"]
    assert (made["AutoPublish"], made["FunctionConfig"]["Runtime"]) == (True, "cloudfront-js-2.0")


def test_the_stack_has_the_outputs_of_the_page() -> None:
    whole = synthesize(Page="true")["Outputs"]
    passed_on = {name: made["Value"] for name, made in whole.items() if name in OUTPUTS}
    assert passed_on == {name: f"Site.Outputs.{name}" for name in OUTPUTS}
    nested = {name: made["Value"] for name, made in synthesize_nested("Site", Page="true")["Outputs"].items()}
    assert nested == {
        "PageUrl": "https://Distribution.DomainName",
        "SiteBucketName": "Bucket",
    }


def test_there_is_no_page_unless_it_is_asked_for() -> None:
    assert "Site" not in synthesize()["Resources"]


def test_without_a_page_only_the_page_is_left_out() -> None:
    def kept(resources: dict[str, Any]) -> set[str]:
        # SAM gives a deployment another name each time.
        return {name for name, made in resources.items() if made["Type"] != "AWS::ApiGateway::Deployment"}

    with_page, without = synthesize(Page="true"), synthesize(Page="false")
    assert kept(with_page["Resources"]) - kept(without["Resources"]) == {"Site"}
    assert with_page["Outputs"].keys() - without["Outputs"].keys() == OUTPUTS
    assert "Storage" in without["Resources"]
    assert not re.search("cloudfront|Site", json.dumps(without), re.IGNORECASE)
