"""What the API says when it refuses something is shown, with what to do; bodies as its servers make them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ai4sdk.backends.kubernetes.refusals import Asked, Exists, Missing, NotAnswering, NotYet, TooBusy, meaning
from ai4sdk.errors import EnvironmentFault, UsageError

ASKED = Asked("https://k8s.example.org", "pond", "create the Job ai4-pond-1", "create jobs")


def status(code: int, reason: str, message: str, **details: Any) -> str:
    body = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message}
    return json.dumps({**body, "reason": reason, **({"details": details} if details else {}), "code": code})


WHO = 'User "ana" cannot create resource "jobs" in API group "batch" in the namespace "pond"'


@pytest.mark.parametrize(
    ("code", "body", "kind", "words"),
    [
        (401, status(401, "Unauthorized", "Unauthorized"), EnvironmentFault, ["credentials", "log in"]),
        (
            403,
            status(403, "Forbidden", f"jobs.batch is forbidden: {WHO}", group="batch", kind="jobs"),
            EnvironmentFault,
            [WHO, "kubectl auth can-i create jobs -n pond"],
        ),
        (
            403,
            status(
                403, "Forbidden", 'pods "x" is forbidden: exceeded quota: q, requested: cpu=8', name="x", kind="pods"
            ),
            EnvironmentFault,
            ["exceeded quota: q", "kubectl describe quota -n pond", "hardware"],
        ),
        (
            403,
            status(403, "Forbidden", 'pods "x" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot'),
            EnvironmentFault,
            ['violates PodSecurity "restricted:latest"', "backend.security"],
        ),
        (
            403,
            status(403, "Forbidden", 'error looking up service account pond/t: serviceaccount "t" not found'),
            EnvironmentFault,
            ["backend.service_account=NAME"],
        ),
        (
            404,
            status(404, "NotFound", 'namespaces "pond" not found', name="pond", kind="namespaces"),
            UsageError,
            ["there is no namespace pond", "backend.namespace=NAME"],
        ),
        (404, status(404, "NotFound", 'jobs.batch "x" not found', name="x", group="batch"), Missing, ["not found"]),
        (409, status(409, "AlreadyExists", 'jobs.batch "x" already exists', name="x"), Exists, ["already exists"]),
        (
            422,
            status(
                422,
                "Invalid",
                'Job.batch "x" is invalid: spec.template.spec.containers[0].image: Required value',
                name="x",
                group="batch",
                kind="Job",
                causes=[
                    {
                        "reason": "FieldValueRequired",
                        "message": "Required value",
                        "field": "spec.template.spec.containers[0].image",
                    },
                    {
                        "reason": "FieldValueInvalid",
                        "message": "Invalid value",
                        "field": "spec.template.spec.containers[0].resources.limits[gpu]",
                    },
                ],
            ),
            UsageError,
            ["containers[0].image: Required value", "see backend.image, hardware in the config"],
        ),
        (
            400,
            status(400, "BadRequest", 'container "worker" in pod "x" is waiting to start: ContainerCreating'),
            NotYet,
            [],
        ),
        (413, "Request Entity Too Large", UsageError, ["Request Entity Too Large"]),
        (500, status(500, "InternalError", "Internal error occurred: webhook"), NotAnswering, ["webhook", "try again"]),
        (503, "<html><body>503 Service Unavailable</body></html>", NotAnswering, ["status 503"]),
        (504, b"", NotAnswering, ["status 504"]),
    ],
)
def test_a_refusal_is_shown_with_what_to_do(code: int, body: Any, kind: type, words: list[str]) -> None:
    error = meaning(ASKED, code, body)
    assert type(error) is kind
    for word in words:
        assert word in str(error)


@pytest.mark.parametrize(
    ("code", "body", "headers", "after"),
    [
        (429, status(429, "TooManyRequests", "too many requests", retryAfterSeconds=7), {}, 7.0),
        (429, "Too many requests, please try again later.\n", {"Retry-After": "3"}, 3.0),  # of its flow control
        (429, "Too many requests, please try again later.\n", {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, 1.0),
        (409, status(409, "Conflict", 'Operation cannot be fulfilled on resourcequotas "q"', name="q"), {}, 1.0),
    ],
)
def test_a_busy_server_says_when_to_ask_again(code: int, body: str, headers: dict[str, str], after: float) -> None:
    error = meaning(ASKED, code, body, headers)
    assert isinstance(error, TooBusy)
    assert error.after == after
    assert "create the Job ai4-pond-1" in str(error)
