"""The public keys of a token issuer, found by OpenID Connect Discovery and cached in the process.

https://openid.net/specs/openid-connect-discovery-1_0.html
"""

import math
import time
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
import urllib3
from jwt import PyJWK
from jwt.exceptions import PyJWTError
from urllib3.exceptions import HTTPError

from litelens.telemetry import logger

Document = TypeVar("Document")

# The algorithm for each type of key and its curve. No other is accepted, and a token cannot choose: HS256 and `none`,
# with which anyone can make tokens from public keys or without a key, are therefore impossible.
_ALGORITHMS = {("RSA", None): "RS256", ("EC", "P-256"): "ES256"}
ALGORITHMS = frozenset(_ALGORITHMS.values())

# Limits of each of the issuer's two documents; those of Amazon Cognito have about 1 KB.
_TIMEOUT_SECONDS = 3.0
_MAX_BYTES = 256 * 1024
_CHUNK_BYTES = 16 * 1024

# After an hour, keys are fetched again, so that withdrawn keys lose their effect. If that fails, they are used for up
# to a day.
_FRESH_SECONDS = 3600.0
_USABLE_SECONDS = 86_400.0
# Tokens with invented key ids must not make the function call the issuer for each of them.
_PAUSE_SECONDS = 60.0
# As long as no key is known, every caller waits for the issuer to answer again.
_FIRST_PAUSE_SECONDS = 5.0


class IssuerUnavailable(Exception):
    """The issuer's keys cannot be fetched; the message names the URL and the reason."""


class IssuerKeys:
    """The keys of an issuer, fetched when they are needed: at first use, for an unknown key id, and once an hour.

    Two fetches are at least a minute apart, or five seconds as long as none has succeeded. Not for several threads,
    because Lambda sends one event at a time.
    """

    def __init__(self, issuer: str, clock: Callable[[], float] = time.time) -> None:
        """`clock` returns seconds. It is a wall clock, because Lambda suspends the process between events."""
        self._issuer = issuer
        self._clock = clock
        self._keys: dict[str, PyJWK] = {}
        self._fetched_at = self._tried_at = -math.inf
        self._failure: str | None = None

    def find(self, key_id: str) -> PyJWK | None:
        """Return the key with this id, or None if the issuer does not have it.

        Raises IssuerUnavailable if the key is unknown and the last fetch failed.
        """
        now = self._clock()
        pause = _PAUSE_SECONDS if self._keys else _FIRST_PAUSE_SECONDS
        wanted = key_id not in self._keys or now - self._fetched_at >= _FRESH_SECONDS
        if wanted and now - self._tried_at >= pause:
            self._fetch(now)
        key = self._keys.get(key_id)
        if key is None and self._failure:
            raise IssuerUnavailable(self._failure)
        return key

    def _fetch(self, now: float) -> None:
        self._tried_at = now
        try:
            self._keys, self._fetched_at, self._failure = fetch_keys(self._issuer), now, None
        except IssuerUnavailable as error:
            self._failure = str(error)
            logger.error("issuer unavailable", issuer=self._issuer, reason=self._failure)
            if now - self._fetched_at >= _USABLE_SECONDS:
                self._keys = {}


def fetch_keys(issuer: str) -> dict[str, PyJWK]:
    """Return the issuer's RS256 and ES256 keys by their ids; other keys are skipped. Raises IssuerUnavailable."""
    url = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
    with urllib3.PoolManager(retries=False) as http:
        configuration = _document(http, url, _Configuration)
        if configuration.issuer != issuer:
            raise IssuerUnavailable(f"{url} is the configuration of another issuer than {issuer}.")
        # An issuer without TLS is on this machine; see settings.py.
        schemes = ("https://", "http://") if issuer.startswith("http://") else ("https://",)
        if not configuration.jwks_uri.startswith(schemes):
            raise IssuerUnavailable(f"{url} names keys at an address without https.")
        key_set = _document(http, configuration.jwks_uri, _KeySet)
    keys = {jwk["kid"]: key for jwk in key_set.keys if (key := _key(jwk))}
    if not keys:
        raise IssuerUnavailable(f"{configuration.jwks_uri} has no keys for {' or '.join(sorted(ALGORITHMS))}.")
    return keys


class _Configuration(msgspec.Struct):
    issuer: str
    jwks_uri: str


class _KeySet(msgspec.Struct):
    keys: list[dict[str, Any]]


def _key(jwk: dict[str, Any]) -> PyJWK | None:
    """Return the key if it has an id and is for signatures with one of ALGORITHMS, otherwise None."""
    kind = (jwk.get("kty"), jwk.get("crv"))
    if not all(isinstance(part, str | None) for part in kind) or not isinstance(jwk.get("kid"), str):
        return None
    algorithm = _ALGORITHMS.get(kind)  # type: ignore[arg-type]
    if algorithm is None or jwk.get("use", "sig") != "sig" or jwk.get("alg", algorithm) != algorithm:
        return None
    try:
        return PyJWK(jwk, algorithm)
    except (PyJWTError, TypeError, ValueError):
        return None


def _document(http: urllib3.PoolManager, url: str, document: type[Document]) -> Document:
    """Return the JSON document at a URL; raises IssuerUnavailable."""
    try:
        return msgspec.json.decode(_get(http, url), type=document)
    except HTTPError as error:
        raise IssuerUnavailable(f"{url} cannot be fetched: {type(error).__name__}.") from error
    except (ValueError, RecursionError) as error:
        raise IssuerUnavailable(f"{url} is not the JSON document that OpenID Connect defines.") from error


def _get(http: urllib3.PoolManager, url: str) -> bytes:
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    response = http.request(
        "GET",
        url,
        headers={"Accept": "application/json", "User-Agent": "litelens"},
        timeout=_TIMEOUT_SECONDS,
        redirect=False,
        preload_content=False,
        decode_content=False,
    )
    try:
        if response.status != 200:
            raise IssuerUnavailable(f"{url} answered with the status {response.status}.")
        body = bytearray()
        while chunk := response.read1(_CHUNK_BYTES):
            body += chunk
            if len(body) > _MAX_BYTES:
                raise IssuerUnavailable(f"{url} sends more than {_MAX_BYTES:,} bytes.")
            if time.monotonic() > deadline:
                raise IssuerUnavailable(f"{url} takes longer than {_TIMEOUT_SECONDS:g} seconds.")
        return bytes(body)
    finally:
        response.close()
