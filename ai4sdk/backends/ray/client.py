"""Ray's Jobs API over HTTP, and what its answers mean. A thin edge: nothing is decided here."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ai4sdk.errors import Ai4Error, EnvironmentFault, UsageError

__all__ = ["Cluster", "Exists", "Job", "NotAnswering", "address_of"]

_ANSWER = 20.0
"""Longest time, in seconds, to wait for an answer."""
_SUBMISSION = 60.0
"""The same for a submission, which must not be given up lightly."""
_OVER = ("FAILED", "STOPPED", "SUCCEEDED")
_HERE = "http://127.0.0.1:8265"


class NotAnswering(EnvironmentFault):
    """The cluster cannot be asked: there is no way to it, or it does not answer."""


class Exists(UsageError):
    """There is a job of that name already."""


class _Missing(UsageError):
    """There is no such job."""


@dataclass(frozen=True)
class Job:
    """What Ray knows of a job.

    Parameters
    ----------
    id
        Its submission id.
    status
        In Ray's words: ``PENDING``, ``RUNNING``, ``STOPPED``, ``SUCCEEDED`` or ``FAILED``.
    message
        What Ray says of it; of an entrypoint that failed, the end of what it printed.
    error
        Kind of failure in Ray's words, such as ``JOB_SUPERVISOR_ACTOR_DIED``; empty if there is none.
    exit_code
        Status of its entrypoint, if that has ended.
    ended
        Unix time in seconds, if it has ended.
    """

    id: str
    status: str
    message: str = ""
    error: str = ""
    exit_code: int | None = None
    ended: float | None = None

    @property
    def over(self) -> bool:
        """Whether nothing more comes of it."""
        return self.status in _OVER

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Job:
        """Make a job of what the API tells of it."""
        ended = values.get("end_time")
        return cls(
            str(values["submission_id"]),
            str(values["status"]),
            str(values.get("message") or ""),
            str(values.get("error_type") or ""),
            values.get("driver_exit_code"),
            ended / 1000 if ended else None,
        )


def address_of(option: str | None) -> str:
    """Return the address of a cluster: the one of the config, or as Ray's own command line finds it."""
    found = option or os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS", "")
    return found.rstrip("/") if found.startswith(("http://", "https://")) else _HERE


class Cluster:
    """A Ray cluster.

    Parameters
    ----------
    address
        Address of its dashboard.
    """

    def __init__(self, address: str) -> None:
        self.address = address

    def submit(self, request: Mapping[str, Any]) -> None:
        """Submit a job.

        Raises
        ------
        Exists
            If there is a job of that name.
        NotAnswering
            If Ray cannot be asked; the job may be there nevertheless, if it was the answer that got lost.
        """
        self._ask("POST", "/api/jobs/", request, patience=_SUBMISSION)

    def job(self, name: str) -> Job | None:
        """Return a job, ``None`` if Ray knows none of that name."""
        try:
            return Job.from_json(self._ask("GET", _path(name)))
        except _Missing:
            return None

    def jobs(self) -> dict[str, Job]:
        """Return all jobs that were submitted to the cluster, by name."""
        found = self._ask("GET", "/api/jobs/")
        return {job.id: job for job in (Job.from_json(values) for values in found if values.get("submission_id"))}

    def stop(self, name: str) -> None:
        """End a job, if there is one; one that waits ends as soon as it could have begun."""
        with contextlib.suppress(_Missing):
            self._ask("POST", f"{_path(name)}/stop", {})

    def _ask(
        self, verb: str, path: str, body: Mapping[str, Any] | None = None, *, patience: float | None = None
    ) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", **_headers()}
        hint = f"curl {self.address}/api/version tells how it is; another cluster: backend.address=http://HEAD:8265"
        try:
            request = urllib.request.Request(f"{self.address}{path}", data, headers, method=verb)
            with urllib.request.urlopen(request, timeout=patience or _ANSWER) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                raise self._meaning(error.code, error.read().decode(errors="replace")) from None
        except (OSError, http.client.HTTPException) as error:
            reason = re.sub(r"^\[Errno -?\d+\] ", "", str(getattr(error, "reason", None) or error or type(error)))
            raise NotAnswering(f"the Ray cluster {self.address} does not answer: {reason}", hint=hint) from error
        except ValueError as error:
            raise NotAnswering(f"{self.address} does not answer as Ray does", hint=hint) from error

    def _meaning(self, status: int, text: str) -> Ai4Error:
        said = _last_line(text) or f"status {status}"
        if status in (401, 403):
            return EnvironmentFault(
                f"the Ray cluster {self.address} does not accept your token: {said}",
                hint="export RAY_AUTH_MODE=token RAY_AUTH_TOKEN=…",
            )
        if "already exists" in text:
            return Exists(said)
        if status == 404 and "does not exist" in text:
            return _Missing(said)
        if status == 404:
            return NotAnswering(f"{self.address} does not answer as Ray does", hint="backend.address=http://HEAD:8265")
        if status == 400 or "status code 400" in text:
            return UsageError(f"Ray refuses the job: {said}", hint="see backend and hardware in the config")
        return NotAnswering(f"the Ray cluster {self.address} could not do it: {said}", hint="try again later")


def _path(name: str) -> str:
    return f"/api/jobs/{quote(name, safe='')}"


def _headers() -> dict[str, str]:
    """Return the headers that Ray's own client would send, too.

    Raises
    ------
    EnvironmentFault
        If there is no token although one is wanted, or RAY_JOB_HEADERS cannot be read.
    """
    try:
        found = json.loads(os.environ.get("RAY_JOB_HEADERS") or "{}")
        headers = {str(name): str(value) for name, value in found.items()}
    except (ValueError, AttributeError) as error:
        raise EnvironmentFault("RAY_JOB_HEADERS is no JSON object", hint="""such as '{"Cookie": "…"}'""") from error
    if os.environ.get("RAY_AUTH_MODE") != "token" or any(name.lower() == "authorization" for name in headers):
        return headers
    token = os.environ.get("RAY_AUTH_TOKEN")
    if not token:
        file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
        try:
            token = file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise EnvironmentFault(
                f"RAY_AUTH_MODE is token, and there is none in {file}", hint="export RAY_AUTH_TOKEN=…"
            ) from error
    return {**headers, "Authorization": f"Bearer {token}"}


def _last_line(text: str) -> str:
    """Return what an answer says for people: it ends with a traceback's last line, or several within each other."""
    lines = [line.strip() for line in text.splitlines() if line.strip(" .\t")]
    return re.sub(r"^\w+(Error|Exception): ", "", lines[-1]) if lines else ""
