"""Verification of JSON Web Tokens: signature, issuer, audience and times."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import jwt
from jwt.exceptions import PyJWTError

from litelens.access.issuer import ALGORITHMS, IssuerKeys

# API Gateway accepts no request whose line and headers are longer than 10,240 bytes in total:
# https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-execution-service-limits-table.html
_MAX_LENGTH = 10_240

# Seconds by which the clocks of the issuer and of Lambda may differ.
_LEEWAY_SECONDS = 60

_REQUIRED = ["exp", "iss", "sub"]

# A token can hold any JSON. Errors of Python, for example for deep nesting or a time beyond all dates, refuse it too.
_REFUSALS = (PyJWTError, ArithmeticError, RecursionError, TypeError, ValueError)


class InvalidToken(Exception):
    """The token is refused. The message is a word for the log, never a part of the token."""


@dataclass(frozen=True)
class TokenVerifier:
    """Verifies the tokens of one issuer for any of these audiences."""

    issuer: str
    audiences: Collection[str]
    keys: IssuerKeys

    def verify(self, token: str) -> dict[str, Any]:
        """Return the claims of a valid token, of which `sub` is a text of at least one character.

        Raises InvalidToken, and IssuerUnavailable if there is no key to decide.
        """
        if len(token) > _MAX_LENGTH:
            raise InvalidToken("TooLong")
        try:
            claims = self._claims(token)
        except _REFUSALS as error:
            raise InvalidToken(type(error).__name__) from error
        if not claims["sub"]:
            raise InvalidToken("EmptySubject")
        if not _audiences(claims) & set(self.audiences):
            raise InvalidToken("WrongAudience")
        return claims

    def _claims(self, token: str) -> dict[str, Any]:
        """Return the claims after all checks except that of the audience."""
        header = jwt.get_unverified_header(token)
        algorithm, key_id = header.get("alg"), header.get("kid")
        # Checked before the key is looked up, which may call the issuer.
        if algorithm not in ALGORITHMS or not isinstance(key_id, str):
            raise InvalidToken("WrongHeader")
        key = self.keys.find(key_id)
        if key is None:
            raise InvalidToken("UnknownKey")
        return jwt.decode(
            token,
            key,
            algorithms=[key.algorithm_name],
            issuer=self.issuer,
            leeway=_LEEWAY_SECONDS,
            options={"require": _REQUIRED, "verify_aud": False, "enforce_minimum_key_length": True},
        )


def _audiences(claims: dict[str, Any]) -> set[str]:
    """Return the audiences of a token, or the client it was issued to if it has none.

    Access tokens of Amazon Cognito have `client_id` and no `aud`. API Gateway's HTTP APIs follow the same rule:
    https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-jwt-authorizer.html
    """
    named = claims.get("aud", claims.get("client_id"))
    return {name for name in (named if isinstance(named, list) else [named]) if isinstance(name, str)}
