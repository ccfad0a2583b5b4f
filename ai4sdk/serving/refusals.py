"""What is refused, and its form in each protocol, for the front, which imports none of their modules."""

from __future__ import annotations

import json
from typing import Any

from ai4sdk.serving.messages import JSON, Response

__all__ = ["Refused", "deepaas_error", "mlflow_error", "refusal"]

_CODES = {
    400: "BAD_REQUEST",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "RESOURCE_DOES_NOT_EXIST",
    503: "TEMPORARILY_UNAVAILABLE",
}


class Refused(Exception):
    """A request that is not answered, and why.

    Parameters
    ----------
    status
        As in HTTP: 4xx; 503 where it may be asked again.
    message
        What is wrong with it, and what to do.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def refusal(protocol: str, status: int, message: str) -> Response:
    """Return an error as a protocol's clients read it."""
    body = _FORMS[protocol](status, message) if protocol in _FORMS else {"error": message}
    headers = {"retry-after": "1"} if status == 503 else {}
    return Response(status, JSON, json.dumps(body, ensure_ascii=False).encode(), headers)


def mlflow_error(status: int, message: str) -> dict[str, str]:
    """Return the body of an error in MLflow's form."""
    code = _CODES.get(status, "BAD_REQUEST" if status < 500 else "INTERNAL_ERROR")
    return {"error_code": code, "message": message}


def deepaas_error(status: int, message: str) -> dict[str, Any]:
    """Return the body of an error in DEEPaaS's form; a message of 422 begins with the argument's name."""
    argument, colon, why = message.partition(": ")
    return {argument: [why]} if status == 422 and colon else {"message": message}


_FORMS = {"mlflow": mlflow_error, "deepaas": deepaas_error}
