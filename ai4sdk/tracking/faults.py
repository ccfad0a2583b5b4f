"""What MLflow's errors mean to whoever ships records: try again later, or say so and stop."""

from __future__ import annotations

import re
from typing import Literal

from ai4sdk.errors import Ai4Error, EnvironmentFault
from ai4sdk.tracking.names import cut

__all__ = ["NotNow", "RunGone", "Verdict", "explain", "known_faults", "verdict_on"]

Verdict = Literal["later", "denied", "refused"]
"""``later``: it may work the next time. ``denied``: the credentials are wrong. ``refused``: asking again is no use."""

_DENIED = frozenset({"UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED", "PERMISSION_DENIED"})
_REFUSED = frozenset(
    {
        "BAD_REQUEST",
        "ENDPOINT_NOT_FOUND",
        "FEATURE_DISABLED",
        "INVALID_PARAMETER_VALUE",
        "INVALID_STATE",
        "MALFORMED_REQUEST",
        "NOT_FOUND",
        "RESOURCE_ALREADY_EXISTS",
        "RESOURCE_DOES_NOT_EXIST",
    }
)


class NotNow(EnvironmentFault):
    """The store is there and cannot be used at the moment."""


class RunGone(Ai4Error):
    """The MLflow run that the ledger names is not in the store."""


def known_faults() -> tuple[type[BaseException], ...]:
    """Return the exceptions that mean that MLflow, the network or the disk failed, and not this code.

    Raises
    ------
    EnvironmentFault
        If MLflow is not installed.
    """
    try:
        import requests
        from mlflow.exceptions import MlflowException
    except ImportError as error:
        raise EnvironmentFault(f"MLflow cannot be imported: {error}", hint="pip install mlflow") from error

    faults: list[type[BaseException]] = [Ai4Error, MlflowException, requests.RequestException, OSError]
    try:
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError:  # a slim MLflow that only speaks to servers
        return tuple(faults)
    return (*faults, SQLAlchemyError)


def _code_of(error: BaseException) -> str:
    return str(getattr(error, "error_code", "") or "")


def _status_of(error: BaseException) -> int | None:
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    return status if isinstance(status, int) else None


def verdict_on(error: BaseException) -> Verdict:
    """Tell what to make of an error."""
    if isinstance(error, NotNow):
        return "later"
    if isinstance(error, Ai4Error):
        return "refused"
    status = _status_of(error)
    if status is not None:
        if status in (401, 403):
            return "denied"
        return "refused" if 400 <= status < 500 and status not in (408, 425, 429) else "later"
    code = _code_of(error)
    if code in _DENIED:
        return "denied"
    return "refused" if code in _REFUSED else "later"


def explain(error: BaseException, uri: str) -> str:
    """Say in one line what is wrong and, where it is known, what to do.

    Parameters
    ----------
    error
        What MLflow, the network or the disk raised.
    uri
        The address the run is recorded at, as it may be shown.
    """
    if isinstance(error, Ai4Error):
        return f"{error.message}; {error.hint}" if error.hint else error.message
    text = " ".join(str(error).split())
    if verdict_on(error) == "denied":
        forbidden = _status_of(error) == 403 or _code_of(error) == "PERMISSION_DENIED"
        what = (
            "does not allow this with the credentials given" if forbidden else "does not accept the credentials given"
        )
        return f"{uri} {what}; check the secrets that tracking.username, tracking.password or tracking.token name"
    if "malformed" in text or "file is not a database" in text:
        return f"{uri} is damaged; move the file away, and `ai4sdk sync` records the run in a new one"
    if "database is locked" in text:
        return f"{uri} is locked by another process"
    if uri.startswith("http"):
        if reason := _network_reason(text):
            return f"{uri} does not answer: {reason}"
        if "not in a valid JSON format" in text or _code_of(error) in ("ENDPOINT_NOT_FOUND", "NOT_FOUND"):
            return f"{uri} answers, but not as an MLflow server does; check tracking.uri"
    return cut(text, 400) or type(error).__name__


def _network_reason(text: str) -> str | None:
    if found := re.search(r"\[Errno -?\d+\] ([A-Za-z ]+)", text):
        return found[1].strip().lower()
    if "timed out" in text or "timeout" in text.lower():
        return "it timed out"
    if "SSL" in text or "certificate" in text:
        found = re.search(r"(certificate [a-z ]+|SSL[A-Za-z: ]+)", text)
        return f"no secure connection ({found[1].strip() if found else 'SSL'})"
    if found := re.search(r"too many (\d+) error responses", text):
        return f"HTTP {found[1]}"
    if "Connection aborted" in text or "Remote end closed" in text or "NewConnectionError" in text:
        return "the connection broke"
    return None
