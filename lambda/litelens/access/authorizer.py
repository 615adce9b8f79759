"""The Lambda authorizer of type TOKEN: from the header Authorization to an IAM policy for API Gateway.

https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-use-lambda-authorizer.html
"""

import re
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from litelens.access.issuer import IssuerKeys
from litelens.access.tokens import InvalidToken, TokenVerifier
from litelens.settings import Settings, SettingsError, required
from litelens.telemetry import Handler, logger

_BEARER = re.compile(r"Bearer +([\w.-]+)", re.ASCII | re.IGNORECASE)


def create_handler(settings: Settings) -> Handler:
    """Return the Lambda handler; raises SettingsError if the issuer or the audience is not set."""
    issuer = required(settings, "jwt_issuer")
    if not settings.jwt_audience:
        raise SettingsError("LITELENS_JWT_AUDIENCE is not set; the stack's template sets it")
    return handler_for(TokenVerifier(issuer, settings.jwt_audience, IssuerKeys(issuer)))


def handler_for(verifier: TokenVerifier) -> Handler:
    """Return the Lambda handler that lets pass whom this verifier accepts."""

    # Events contain tokens. Without this argument, an environment variable could log them.
    @logger.inject_lambda_context(clear_state=True, log_event=False)
    def handle(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
        try:
            verifier.verify(_bearer_token(event))
        except InvalidToken as error:
            logger.info("refused", reason=str(error))
            # API Gateway answers 401 for an error with exactly this message, and 500 for all others. `from None` keeps
            # the cause, and with it the token, out of the stack trace that Lambda logs.
            raise Exception("Unauthorized") from None
        return _allow(event["methodArn"])

    return handle


def _bearer_token(event: dict[str, Any]) -> str:
    found = _BEARER.fullmatch(str(event.get("authorizationToken")))
    if not found:
        raise InvalidToken("NoBearerToken")
    return found[1]


def _allow(method_arn: str) -> dict[str, Any]:
    """Return API Gateway's answer for a caller who may call every method of the API's stage.

    Every method, because API Gateway reuses the answer for the caller's requests to other methods.
    https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-lambda-authorizer-output.html
    """
    api, stage, _ = method_arn.split("/", 2)
    return {
        # Required, and used only in access logs, which the stage does not have.
        "principalId": "caller",
        "policyDocument": {
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Action": "execute-api:Invoke", "Resource": f"{api}/{stage}/*"}],
        },
    }
