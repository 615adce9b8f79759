"""The Lambda authorizer, with tokens of an issuer that this machine serves over HTTP."""

import base64
import contextlib
import hashlib
import hmac
import importlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any

import jwt
import pytest
from captured_logs import CapturedLogs, capture_logs
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fake_api import Request, Response, api_server, sent
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from support import LambdaContext, free_port

from litelens.access import issuer as issuer_module
from litelens.access.authorizer import create_handler, handler_for
from litelens.access.issuer import IssuerKeys, IssuerUnavailable, fetch_keys
from litelens.access.tokens import TokenVerifier
from litelens.settings import SettingsError, read_settings

AUDIENCE = "litelens-api"
API = "arn:aws:execute-api:eu-west-1:123456789012:abcdef1234"
METHOD = f"{API}/live/POST/v1/classify"

RSA_KEY = rsa.generate_private_key(65537, 2048)
OTHER_RSA_KEY = rsa.generate_private_key(65537, 2048)
WEAK_RSA_KEY = rsa.generate_private_key(65537, 1024)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
LONG_EC_KEY = ec.generate_private_key(ec.SECP384R1())

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
Authorize = Callable[[str], dict[str, Any]]


def public_jwk(key: PrivateKey, key_id: str, **members: Any) -> dict[str, Any]:
    """Return the public half of a key as issuers publish it."""
    algorithm = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
    return {**algorithm.to_jwk(key.public_key(), as_dict=True), "kid": key_id, "use": "sig", **members}


@dataclass
class FakeIssuer:
    """An issuer whose documents a test can change; `requests` are the paths it was asked for."""

    url: str = ""
    jwks: list[Any] = field(default_factory=list)
    configuration: dict[str, Any] = field(default_factory=dict)
    responses: dict[str, Callable[[Request], Response | None]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)

    def respond(self, request: Request) -> Response | None:
        self.requests.append(request.path)
        if request.path in self.responses:
            return self.responses[request.path](request)
        return sent({"keys": self.jwks} if request.path == "/keys" else self.configuration)

    @property
    def fetches(self) -> int:
        return self.requests.count("/.well-known/openid-configuration")


CONFIGURATION = "/.well-known/openid-configuration"


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, FakeIssuer]]:
    """Run one server for all tests, each of which replaces its documents."""
    issuer = FakeIssuer()
    with api_server(issuer.respond) as (url, _):
        yield url, issuer


@pytest.fixture
def issuer(server: tuple[str, FakeIssuer]) -> FakeIssuer:
    """Return the issuer with an RSA key `rsa-1` and an EC key `ec-1`."""
    url, issuer = server
    keys = [public_jwk(RSA_KEY, "rsa-1"), public_jwk(EC_KEY, "ec-1")]
    issuer.__init__(url, keys, {"issuer": url, "jwks_uri": f"{url}/keys"})  # type: ignore[misc]
    return issuer


@dataclass
class FakeClock:
    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> CapturedLogs:
    return capture_logs(monkeypatch)


@pytest.fixture
def authorize(issuer: FakeIssuer, clock: FakeClock, log: CapturedLogs) -> Authorize:
    """The authorizer, called with the header Authorization."""
    handler = handler_for(TokenVerifier(issuer.url, {AUDIENCE}, IssuerKeys(issuer.url, clock)))
    return lambda header: handler(event(header), LambdaContext())


def event(header: Any, method_arn: str = METHOD) -> dict[str, Any]:
    return {"type": "TOKEN", "authorizationToken": header, "methodArn": method_arn}


def claims(issuer: FakeIssuer, **changed: Any) -> dict[str, Any]:
    """Return the claims of a good token with these changes; None removes a claim."""
    now = int(time.time())
    good = {"iss": issuer.url, "aud": AUDIENCE, "sub": "user-1", "iat": now, "nbf": now, "exp": now + 300}
    return {name: value for name, value in {**good, **changed}.items() if value is not None}


def encoded(document: Any) -> str:
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def signed(claims: dict[str, Any], key: PrivateKey = RSA_KEY, key_id: str | None = "rsa-1", **header: Any) -> str:
    """Return the header Authorization with a token that has these claims."""
    algorithm = "RS256" if isinstance(key, rsa.RSAPrivateKey) else "ES256"
    headers = {**({} if key_id is None else {"kid": key_id}), **header}
    return f"Bearer {jwt.encode(claims, key, algorithm=algorithm, headers=headers)}"


def assert_unauthorized(authorize: Authorize, header: Any) -> None:
    """Check that API Gateway would answer 401: it compares the whole message."""
    with pytest.raises(Exception, match=r"^Unauthorized$") as raised:
        authorize(header)
    assert type(raised.value) is Exception
    # Lambda logs the stack trace with all causes.
    assert raised.value.__suppress_context__
    assert raised.value.__cause__ is None


def seconds_from_now(seconds: int) -> int:
    return int(time.time()) + seconds


@pytest.mark.parametrize(("key", "key_id"), [(RSA_KEY, "rsa-1"), (EC_KEY, "ec-1")], ids=["RS256", "ES256"])
def test_a_good_token_may_call_every_method_of_the_stage(
    key: PrivateKey, key_id: str, authorize: Authorize, issuer: FakeIssuer
) -> None:
    assert authorize(signed(claims(issuer), key, key_id)) == {
        "principalId": "caller",
        "policyDocument": {
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Action": "execute-api:Invoke", "Resource": f"{API}/live/*"}],
        },
    }


def test_the_stage_of_the_method_is_allowed_and_no_other(authorize: Authorize, issuer: FakeIssuer) -> None:
    handler = handler_for(TokenVerifier(issuer.url, {AUDIENCE}, IssuerKeys(issuer.url)))
    arn = "arn:aws-cn:execute-api:cn-north-1:123456789012:abc/test/GET/v1/results/a/b*"
    answer = handler(event(signed(claims(issuer)), arn), LambdaContext())
    (statement,) = answer["policyDocument"]["Statement"]
    assert statement["Resource"] == "arn:aws-cn:execute-api:cn-north-1:123456789012:abc/test/*"


def test_the_scheme_is_not_case_sensitive(authorize: Authorize, issuer: FakeIssuer) -> None:
    assert authorize(signed(claims(issuer)).replace("Bearer ", "bearer  "))["principalId"]


@pytest.mark.parametrize(
    "audience", [AUDIENCE, [AUDIENCE], ["another", AUDIENCE]], ids=["one", "a list of one", "a list of two"]
)
def test_a_token_for_the_audience_among_others_is_accepted(
    audience: Any, authorize: Authorize, issuer: FakeIssuer
) -> None:
    assert authorize(signed(claims(issuer, aud=audience)))


def test_an_access_token_of_cognito_is_accepted_for_its_client(authorize: Authorize, issuer: FakeIssuer) -> None:
    assert authorize(signed(claims(issuer, aud=None, client_id=AUDIENCE, token_use="access")))
    assert_unauthorized(authorize, signed(claims(issuer, aud=None, client_id="another")))
    for audience in ("another", []):
        assert_unauthorized(authorize, signed(claims(issuer, aud=audience, client_id=AUDIENCE)))


@pytest.mark.parametrize("claim", ["exp", "nbf", "iat"])
def test_clocks_may_differ_by_a_minute(claim: str, authorize: Authorize, issuer: FakeIssuer) -> None:
    seconds = -1 if claim == "exp" else 1
    assert authorize(signed(claims(issuer, **{claim: seconds_from_now(seconds * 45)})))
    assert_unauthorized(authorize, signed(claims(issuer, **{claim: seconds_from_now(seconds * 75)})))


@pytest.mark.parametrize(
    "changed",
    [
        {"aud": "another"},
        {"aud": []},
        {"aud": [7, {}]},
        {"aud": {AUDIENCE: 1}},
        {"aud": None},
        {"aud": f"{AUDIENCE}/"},
        {"iss": "https://issuer.example.com"},
        {"iss": None},
        {"sub": None},
        {"sub": ""},
        {"exp": None},
        {"exp": "soon"},
        {"exp": []},
        {"exp": True},
        {"exp": -(10**30)},
        {"nbf": 10**400},
        {"iat": {}},
    ],
    ids=repr,
)
def test_a_token_with_a_wrong_claim_is_refused(
    changed: dict[str, Any], authorize: Authorize, issuer: FakeIssuer
) -> None:
    assert_unauthorized(authorize, signed(claims(issuer, **changed)))


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN"])
def test_a_token_with_a_time_that_is_no_number_of_seconds_is_refused(
    number: str, authorize: Authorize, issuer: FakeIssuer
) -> None:
    text = json.dumps(claims(issuer, exp="TIME")).replace('"TIME"', number)
    token = jwt.PyJWS().encode(text.encode(), RSA_KEY, algorithm="RS256", headers={"kid": "rsa-1"})
    assert_unauthorized(authorize, f"Bearer {token}")


def test_a_token_that_is_not_a_json_object_is_refused(authorize: Authorize) -> None:
    for text in (b"[]", b"null", b"hello", b"\xff", b"[" * 7000, b""):
        token = jwt.PyJWS().encode(text, RSA_KEY, algorithm="RS256", headers={"kid": "rsa-1"})
        assert_unauthorized(authorize, f"Bearer {token}")


def test_a_token_whose_issuer_differs_by_a_slash_is_refused(authorize: Authorize, issuer: FakeIssuer) -> None:
    assert_unauthorized(authorize, signed(claims(issuer, iss=f"{issuer.url}/")))


def test_a_token_signed_with_another_key_is_refused(authorize: Authorize, issuer: FakeIssuer) -> None:
    assert_unauthorized(authorize, signed(claims(issuer), OTHER_RSA_KEY))


def test_a_token_whose_claims_were_changed_is_refused(authorize: Authorize, issuer: FakeIssuer) -> None:
    header, _, signature = signed(claims(issuer)).split(".")
    assert_unauthorized(authorize, f"{header}.{encoded(claims(issuer, sub='admin'))}.{signature}")


def test_a_token_without_signature_is_refused(authorize: Authorize, issuer: FakeIssuer) -> None:
    for algorithm in ("none", "None", "NONE", ""):
        header = encoded({"alg": algorithm, "typ": "JWT", "kid": "rsa-1"})
        assert_unauthorized(authorize, f"Bearer {header}.{encoded(claims(issuer))}.")
        assert_unauthorized(authorize, f"Bearer {header}.{encoded(claims(issuer))}.AAAA")
    header, payload, _ = signed(claims(issuer)).split(".")
    assert_unauthorized(authorize, f"{header}.{payload}.")
    assert_unauthorized(authorize, f"{header}.{payload}")


def test_a_token_signed_with_the_public_key_as_a_secret_is_refused(authorize: Authorize, issuer: FakeIssuer) -> None:
    public = RSA_KEY.public_key()
    secrets = [
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.PEM, PublicFormat.PKCS1),
    ]
    for secret in secrets:
        message = f"{encoded({'alg': 'HS256', 'kid': 'rsa-1'})}.{encoded(claims(issuer))}"
        signature = hmac.new(secret, message.encode(), hashlib.sha256).digest()
        assert_unauthorized(authorize, f"Bearer {message}.{encoded(signature)}")
    assert issuer.requests == []


def test_the_algorithm_is_that_of_the_key(authorize: Authorize, issuer: FakeIssuer) -> None:
    assert_unauthorized(authorize, signed(claims(issuer), RSA_KEY, "ec-1"))
    assert_unauthorized(authorize, signed(claims(issuer), EC_KEY, "rsa-1"))
    for algorithm in ("RS384", "RS512", "PS256"):
        token = jwt.encode(claims(issuer), RSA_KEY, algorithm=algorithm, headers={"kid": "rsa-1"})
        assert_unauthorized(authorize, f"Bearer {token}")


def test_a_token_cannot_bring_its_own_key(authorize: Authorize, issuer: FakeIssuer) -> None:
    brought = {"jwk": public_jwk(OTHER_RSA_KEY, "rsa-1"), "jku": "http://127.0.0.1:9/keys"}
    assert_unauthorized(authorize, signed(claims(issuer), OTHER_RSA_KEY, "rsa-1", **brought))


def test_a_token_with_an_unknown_critical_extension_is_refused(authorize: Authorize, issuer: FakeIssuer) -> None:
    header = encoded({"alg": "RS256", "kid": "rsa-1", "crit": ["x"], "x": 1})
    message = f"{header}.{encoded(claims(issuer))}"
    signature = RSAAlgorithm(RSAAlgorithm.SHA256).sign(message.encode(), RSA_KEY)
    assert_unauthorized(authorize, f"Bearer {message}.{encoded(signature)}")


@pytest.mark.parametrize("key_id", [None, 7, ["rsa-1"], {"rsa-1": 1}], ids=repr)
def test_a_token_without_a_key_id_is_refused(key_id: Any, authorize: Authorize, issuer: FakeIssuer) -> None:
    header = encoded({"alg": "RS256", **({} if key_id is None else {"kid": key_id})})
    message = f"{header}.{encoded(claims(issuer))}"
    signature = RSAAlgorithm(RSAAlgorithm.SHA256).sign(message.encode(), RSA_KEY)
    assert_unauthorized(authorize, f"Bearer {message}.{encoded(signature)}")


def test_a_truncated_token_is_refused(authorize: Authorize, issuer: FakeIssuer) -> None:
    token = signed(claims(issuer))
    for length in range(0, len(token) - 1, 7):
        assert_unauthorized(authorize, token[:length])


def test_a_huge_token_is_refused_without_looking_at_it(authorize: Authorize, issuer: FakeIssuer) -> None:
    assert_unauthorized(authorize, signed(claims(issuer, padding="a" * 20_000)))
    assert_unauthorized(authorize, f"Bearer {'a' * 5_000_000}")
    assert issuer.requests == []


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic dXNlcjpwYXNz",
        "Bearer a.b",
        "Bearer a.b.c.d",
        "Bearer ....",
        "Bearer \N{SNOWMAN}.\N{SNOWMAN}.\N{SNOWMAN}",
        "Bearer \ud800.a.b",
        "Bearer \N{FULLWIDTH LATIN SMALL LETTER E}y.a.b",
        "Bearer a.b.c\n",
        None,
        7,
        ["Bearer a.b.c"],
    ],
    ids=ascii,
)
def test_what_is_not_a_bearer_token_is_refused(header: Any, authorize: Authorize, issuer: FakeIssuer) -> None:
    assert_unauthorized(authorize, header)
    assert issuer.requests == []


def test_an_event_without_a_token_is_refused(issuer: FakeIssuer, log: CapturedLogs) -> None:
    handler = handler_for(TokenVerifier(issuer.url, {AUDIENCE}, IssuerKeys(issuer.url)))
    with pytest.raises(Exception, match=r"^Unauthorized$"):
        handler({"type": "TOKEN", "methodArn": METHOD}, LambdaContext())


def test_the_log_says_why_and_never_contains_the_token(
    issuer: FakeIssuer, log: CapturedLogs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POWERTOOLS_LOGGER_LOG_EVENT", "true")
    handler = handler_for(TokenVerifier(issuer.url, {AUDIENCE}, IssuerKeys(issuer.url)))

    def authorize(header: str) -> dict[str, Any]:
        return handler(event(header), LambdaContext())

    expired = signed(claims(issuer, exp=seconds_from_now(-100)))
    authorize(signed(claims(issuer)))
    for header in (expired, "Bearer secret-1.secret-2.secret-3", "Basic secret-4"):
        assert_unauthorized(authorize, header)
    text = log.getvalue()
    assert not any(part in text for part in ("secret", *expired.split()[1].split(".")))
    refused = [line["reason"] for line in log.log_lines("refused")]
    assert refused == ["ExpiredSignatureError", "DecodeError", "NoBearerToken"]


def test_keys_are_fetched_once_for_many_tokens(authorize: Authorize, issuer: FakeIssuer) -> None:
    for _ in range(5):
        authorize(signed(claims(issuer)))
        authorize(signed(claims(issuer), EC_KEY, "ec-1"))
    assert issuer.requests == [CONFIGURATION, "/keys"]


def test_a_new_key_is_fetched_when_a_token_names_it(authorize: Authorize, issuer: FakeIssuer, clock: FakeClock) -> None:
    authorize(signed(claims(issuer)))
    issuer.jwks = [public_jwk(OTHER_RSA_KEY, "rsa-2")]
    clock.now += 61
    assert authorize(signed(claims(issuer), OTHER_RSA_KEY, "rsa-2"))
    assert issuer.fetches == 2
    assert_unauthorized(authorize, signed(claims(issuer)))


def test_bad_tokens_cause_at_most_one_fetch_a_minute(
    authorize: Authorize, issuer: FakeIssuer, clock: FakeClock
) -> None:
    authorize(signed(claims(issuer)))
    start = clock.now
    good = signed(claims(issuer))
    for second in range(1, 601):
        clock.now = start + second
        assert_unauthorized(authorize, f"Bearer {encoded({'alg': 'ES256', 'kid': f'invented-{second}'})}.e30.AAAA")
        authorize(good)
    assert issuer.fetches == 1 + 10


def test_a_withdrawn_key_loses_its_effect_after_an_hour(
    authorize: Authorize, issuer: FakeIssuer, clock: FakeClock
) -> None:
    authorize(signed(claims(issuer)))
    issuer.jwks = [public_jwk(EC_KEY, "ec-1")]
    clock.now += 3599
    assert authorize(signed(claims(issuer)))
    clock.now += 1
    assert_unauthorized(authorize, signed(claims(issuer)))


def test_known_keys_are_used_for_a_day_while_the_issuer_is_down(
    authorize: Authorize, issuer: FakeIssuer, clock: FakeClock
) -> None:
    authorize(signed(claims(issuer)))
    issuer.responses[CONFIGURATION] = lambda _: Response(503)
    clock.now += 86_399
    assert authorize(signed(claims(issuer)))
    assert authorize(signed(claims(issuer)))
    assert issuer.fetches == 2
    with pytest.raises(IssuerUnavailable):
        authorize(signed(claims(issuer), OTHER_RSA_KEY, "rsa-2"))
    clock.now += 60
    with pytest.raises(IssuerUnavailable):
        authorize(signed(claims(issuer)))


def test_an_issuer_that_is_down_is_logged_in_one_line_and_tried_again_after_seconds(
    authorize: Authorize, issuer: FakeIssuer, clock: FakeClock, log: CapturedLogs
) -> None:
    issuer.responses[CONFIGURATION] = lambda _: Response(503)
    for _ in range(20):
        with pytest.raises(IssuerUnavailable, match="503"):
            authorize(signed(claims(issuer)))
    assert issuer.fetches == 1
    (line,) = log.log_lines()
    assert (line["level"], line["issuer"]) == ("ERROR", issuer.url)
    assert CONFIGURATION in line["reason"]
    del issuer.responses[CONFIGURATION]
    clock.now += 5
    assert authorize(signed(claims(issuer)))


def test_an_issuer_that_does_not_listen_is_unavailable() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(IssuerUnavailable, match=url):
        fetch_keys(url)


def test_an_issuer_that_does_not_answer_is_unavailable(issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(issuer_module, "_TIMEOUT_SECONDS", 0.05)
    test_is_over = threading.Event()
    issuer.responses[CONFIGURATION] = lambda _: test_is_over.wait(60) and None
    try:
        with pytest.raises(IssuerUnavailable, match=issuer.url):
            fetch_keys(issuer.url)
    finally:
        test_is_over.set()


def test_an_issuer_that_sends_a_byte_at_a_time_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(issuer_module, "_TIMEOUT_SECONDS", 0.1)

    class Dripping(StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            with contextlib.suppress(OSError):
                for _ in range(500):
                    self.wfile.write(b" ")
                    time.sleep(0.01)

    with ThreadingTCPServer(("127.0.0.1", 0), Dripping) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        with pytest.raises(IssuerUnavailable, match=r"\s0\.1\s"):
            fetch_keys(f"http://127.0.0.1:{server.server_address[1]}")
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("path", [CONFIGURATION, "/keys"])
def test_an_issuer_that_sends_ten_megabytes_is_unavailable(path: str, issuer: FakeIssuer) -> None:
    document = issuer.configuration if path == CONFIGURATION else {"keys": issuer.jwks}
    issuer.responses[path] = lambda _: Response(200, bytes(json.dumps(document), "ascii") + b" " * 10_000_000)
    with pytest.raises(IssuerUnavailable, match=r"262,144"):
        fetch_keys(issuer.url)


@pytest.mark.parametrize("path", [CONFIGURATION, "/keys"])
@pytest.mark.parametrize(
    "response",
    [
        Response(404),
        Response(302, headers={"Location": "/keys"}),
        Response(200, b"<html>"),
        Response(200, b"[" * 100_000),
        Response(200, b"null"),
        Response(200, b'{"issuer": 7, "keys": 7}'),
        Response(200, b'{"keys": [7]}'),
        Response(200, b'{"keys": []}'),
        Response(200, b"\xff"),
        None,
    ],
    ids=repr,
)
def test_an_issuer_without_the_documents_is_unavailable(
    path: str, response: Response | None, issuer: FakeIssuer
) -> None:
    issuer.responses[path] = lambda _: response
    with pytest.raises(IssuerUnavailable, match=f"{issuer.url}{path}"):
        fetch_keys(issuer.url)


def test_the_configuration_of_another_issuer_is_not_used(issuer: FakeIssuer) -> None:
    for other in ("https://issuer.example.com", f"{issuer.url}/", issuer.url.upper()):
        issuer.configuration["issuer"] = other
        with pytest.raises(IssuerUnavailable, match=issuer.url):
            fetch_keys(issuer.url)
    assert "/keys" not in issuer.requests


def test_an_issuer_with_a_path_is_asked_below_that_path(issuer: FakeIssuer) -> None:
    for url in (f"{issuer.url}/pool", f"{issuer.url}/pool/"):
        issuer.configuration["issuer"] = url
        assert set(fetch_keys(url)) == {"rsa-1", "ec-1"}
    assert issuer.requests == [f"/pool{CONFIGURATION}", "/keys"] * 2


@pytest.mark.parametrize("jwks_uri", ["http://issuer.example.com/keys", "file:///etc/passwd", "//host/keys", ""])
def test_keys_are_not_fetched_without_https(jwks_uri: str, issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch) -> None:
    configuration = {"issuer": "https://issuer.example.com", "jwks_uri": jwks_uri}
    urls = []

    def get(_: Any, url: str) -> bytes:
        urls.append(url)
        return json.dumps(configuration).encode()

    monkeypatch.setattr(issuer_module, "_get", get)
    with pytest.raises(IssuerUnavailable):
        fetch_keys("https://issuer.example.com")
    assert len(urls) == 1


def test_keys_for_other_purposes_are_skipped(issuer: FakeIssuer) -> None:
    issuer.jwks = [
        public_jwk(RSA_KEY, "encryption", use="enc"),
        public_jwk(RSA_KEY, "padding", alg="PS256"),
        public_jwk(LONG_EC_KEY, "long"),
        {"kty": "oct", "kid": "secret", "k": "c2VjcmV0", "alg": "HS256"},
        {"kty": "RSA", "kid": "empty"},
        {"kty": "RSA", "kid": "numbers", "n": 7, "e": 7},
        {"kty": "EC", "crv": "P-256", "kid": "off-curve", "x": "AAAA", "y": "AAAA"},
        {"kty": ["RSA"], "kid": "list"},
        {**public_jwk(RSA_KEY, "x"), "kid": None},
        {},
        public_jwk(RSA_KEY, "rsa-1", alg="RS256"),
    ]
    assert {key_id: key.algorithm_name for key_id, key in fetch_keys(issuer.url).items()} == {"rsa-1": "RS256"}


def test_a_key_below_2048_bits_is_not_trusted(authorize: Authorize, issuer: FakeIssuer) -> None:
    issuer.jwks = [public_jwk(WEAK_RSA_KEY, "weak")]
    message = f"{encoded({'alg': 'RS256', 'kid': 'weak'})}.{encoded(claims(issuer))}"
    signature = RSAAlgorithm(RSAAlgorithm.SHA256).sign(message.encode(), WEAK_RSA_KEY)
    assert_unauthorized(authorize, f"Bearer {message}.{encoded(signature)}")


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(header=st.text() | st.text().map("Bearer {}".format))
def test_no_text_is_a_valid_token(header: str, authorize: Authorize) -> None:
    assert_unauthorized(authorize, header)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
headers = st.fixed_dictionaries(
    {},
    optional={
        "alg": st.sampled_from(["RS256", "ES256", "none", "HS256", "EdDSA"]) | json_values,
        "kid": st.sampled_from(["rsa-1", "ec-1", "x"]) | json_values,
        "typ": json_values,
        "crit": json_values,
        "b64": json_values,
        "zip": json_values,
    },
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(header=headers | json_values, payload=json_values | st.binary(max_size=30), signature=st.binary(max_size=80))
def test_no_unsigned_token_is_valid(header: Any, payload: Any, signature: bytes, authorize: Authorize) -> None:
    assert_unauthorized(authorize, f"Bearer {encoded(header)}.{encoded(payload)}.{encoded(signature)}")


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changed=st.dictionaries(st.sampled_from(["exp", "nbf", "iss", "aud", "sub", "iat", "jti"]), json_values))
def test_a_signed_token_with_any_claims_is_allowed_or_refused(
    changed: dict[str, Any], authorize: Authorize, issuer: FakeIssuer
) -> None:
    text = json.dumps({**claims(issuer), **changed}).encode()
    token = jwt.PyJWS().encode(text, RSA_KEY, algorithm="RS256", headers={"kid": "rsa-1"})
    try:
        allowed = authorize(f"Bearer {token}")
    except Exception:
        assert_unauthorized(authorize, f"Bearer {token}")
    else:
        assert not {"iss", "aud"} & set(changed)
        assert allowed["principalId"]


def environment(**variables: str) -> dict[str, str]:
    return {"LITELENS_BUNDLE": "b", **variables}


def test_the_handler_uses_the_issuer_and_the_audiences_of_the_settings(issuer: FakeIssuer, log: CapturedLogs) -> None:
    variables = {"LITELENS_JWT_ISSUER": issuer.url, "LITELENS_JWT_AUDIENCE": f"mobile, {AUDIENCE}"}
    handler = create_handler(read_settings(environment(**variables)))
    for audience in ("mobile", AUDIENCE):
        assert handler(event(signed(claims(issuer, aud=audience))), LambdaContext())["principalId"]
    with pytest.raises(Exception, match=r"^Unauthorized$"):
        handler(event(signed(claims(issuer, aud="web"))), LambdaContext())


def test_the_entry_point_reads_the_environment(
    issuer: FakeIssuer, log: CapturedLogs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LITELENS_JWT_ISSUER", issuer.url)
    monkeypatch.setenv("LITELENS_JWT_AUDIENCE", AUDIENCE)
    entry_point = importlib.import_module("litelens.access.handler")
    monkeypatch.delitem(sys.modules, "litelens.access.handler")
    assert entry_point.handler(event(signed(claims(issuer))), LambdaContext())["principalId"]


@pytest.mark.parametrize("missing", ["LITELENS_JWT_ISSUER", "LITELENS_JWT_AUDIENCE"])
def test_the_handler_needs_an_issuer_and_an_audience(missing: str) -> None:
    variables = {"LITELENS_JWT_ISSUER": "https://issuer.example.com", "LITELENS_JWT_AUDIENCE": AUDIENCE, missing: " "}
    if missing == "LITELENS_JWT_ISSUER":
        variables[missing] = ""
    with pytest.raises(SettingsError, match=missing):
        create_handler(read_settings(environment(**variables)))


@pytest.mark.parametrize(
    "url",
    [
        "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_AbCdEf",
        "https://tenant.example.com/",
        "http://localhost:8081",
        "http://127.0.0.1/realms/test",
    ],
)
def test_a_valid_issuer_is_read(url: str) -> None:
    assert read_settings(environment(LITELENS_JWT_ISSUER=url)).jwt_issuer == url


@pytest.mark.parametrize(
    "url",
    [
        "http://issuer.example.com",
        "http://localhost.example.com",
        "http://127.0.0.1@example.com",
        "https://user@example.com",
        "https://example.com/?a=b",
        "https://example.com/#a",
        "https://example.com\n",
        "https://",
        "example.com",
    ],
)
def test_an_issuer_without_https_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="LITELENS_JWT_ISSUER"):
        read_settings(environment(LITELENS_JWT_ISSUER=url))
