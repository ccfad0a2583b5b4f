"""What the API of Kubernetes says when it refuses something, and what that means. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ai4sdk.errors import Ai4Error, EnvironmentFault, UsageError

__all__ = ["Asked", "Exists", "Missing", "NotAnswering", "NotYet", "TooBusy", "meaning"]

_KEYS = {
    "resources": "hardware",
    "activeDeadlineSeconds": "hardware.wall_time",
    "image": "backend.image",
    "nodeSelector": "backend.node_selector",
    "tolerations": "backend.tolerations",
    "volumes": "backend.volumes",
    "volumeMounts": "backend.volumes",
    "env": "backend.env",
    "labels": "backend.labels",
    "annotations": "backend.annotations",
    "securityContext": "backend.security",
    "serviceAccountName": "backend.service_account",
    "backoffLimit": "backend.backoff_limit",
    "ttlSecondsAfterFinished": "backend.ttl_after_finished",
}
"""Part of a field's path → the key of a config that decides it."""


class NotAnswering(EnvironmentFault):
    """The API server cannot be asked: there is no way to it, or it does not answer. What was asked may be done."""


class TooBusy(EnvironmentFault):
    """The API server asks to be asked later; nothing was done.

    Parameters
    ----------
    after
        Seconds to wait.
    """

    def __init__(self, message: str, after: float) -> None:
        super().__init__(message, hint="the cluster is busy; try again later")
        self.after = after


class Exists(UsageError):
    """There is an object of that name already."""


class Missing(UsageError):
    """There is no such object."""


class NotYet(UsageError):
    """A container has not begun."""


@dataclass(frozen=True)
class Asked:
    """What was asked of whom.

    Parameters
    ----------
    server, namespace
        The API server and the namespace.
    doing
        Such as ``create the Job pond``.
    verb
        Such as ``create jobs``, as kubectl calls it.
    """

    server: str
    namespace: str
    doing: str
    verb: str


def meaning(asked: Asked, code: int, body: Any, headers: Mapping[str, str] | None = None) -> Ai4Error:
    """Return the error that an answer means.

    Parameters
    ----------
    asked
        What was asked.
    code
        The answer's status.
    body
        The answer's text: a ``Status`` of the API as JSON or, of what stands before it, any text.
    headers
        The answer's headers.
    """
    status = _status(body)
    reason, details = status.get("reason", ""), status.get("details") or {}
    said = str(status.get("message") or "").strip() or f"status {code}"
    if code == 401:
        return EnvironmentFault(
            f"{asked.server} does not accept your credentials: {said}",
            hint="log in to the cluster again; kubectl auth whoami",
        )
    if code == 403:
        return EnvironmentFault(f"{asked.server} does not let you {asked.doing}: {said}", hint=_forbidden(asked, said))
    if code == 404 and f'namespaces "{asked.namespace}" not found' in said:
        return UsageError(f"there is no namespace {asked.namespace} in {asked.server}", hint="backend.namespace=NAME")
    if code == 404:
        return Missing(said)
    if code == 409 and reason == "AlreadyExists":
        return Exists(said)
    if code in (409, 429):  # 409: something that it counts, such as a quota, has changed meanwhile
        after = details.get("retryAfterSeconds") or (headers or {}).get("Retry-After") or 1
        return TooBusy(f"{asked.server} could not {asked.doing}: {said}", _seconds(after))
    if code == 400 and ("waiting to start" in said or "not available" in said):
        return NotYet(said)
    if code in (400, 413, 422):
        return UsageError(f"Kubernetes refuses to {asked.doing}: {said}", hint=_invalid(details))
    return NotAnswering(f"{asked.server} could not {asked.doing}: {said}", hint="try again later")


def _status(body: Any) -> dict[str, Any]:
    """Return a ``Status``; of what is none only the message."""
    text = body.decode(errors="replace") if isinstance(body, bytes) else str(body or "")
    try:
        status = json.loads(text)
    except ValueError:
        return {"message": text.splitlines()[0] if text and "<" not in text else ""}
    return status if isinstance(status, dict) else {}


def _forbidden(asked: Asked, said: str) -> str:
    place = f"-n {asked.namespace}"
    if "exceeded quota" in said or "must specify" in said:
        return f"ask for less under hardware; kubectl describe quota {place}"
    if "serviceaccount" in said and "not found" in said:
        return f"backend.service_account=NAME; kubectl get serviceaccounts {place}"
    if "PodSecurity" in said:
        return "see backend.security, backend.user and backend.volumes"
    return f"ask for permission; kubectl auth can-i {asked.verb} {place}"


def _invalid(details: Mapping[str, Any]) -> str:
    """Say which keys decide the fields that are wrong."""
    fields = [str(cause.get("field", "")) for cause in details.get("causes") or []]
    parts = [part.partition("[")[0] for field in fields for part in field.split(".")]
    keys = list(dict.fromkeys(_KEYS[part] for part in parts if part in _KEYS))
    return f"see {', '.join(keys)} in the config" if keys else "see backend and hardware in the config"


def _seconds(text: Any) -> float:
    try:
        return max(0.0, float(text))
    except (TypeError, ValueError):
        return 1.0
