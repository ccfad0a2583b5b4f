"""The stand-in itself: services, their buckets and jobs in a folder. It answers as OSCAR 4 does, as far as it goes."""

from __future__ import annotations

import base64
import hmac
import json
import platform
import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ai4sdk._version import __version__
from ai4sdk.backends.oscar.standin.events import Watcher
from ai4sdk.backends.oscar.standin.files import read_all, write_private
from ai4sdk.backends.oscar.standin.jobs import SUPERVISOR, Jobs
from ai4sdk.runs.files import read_json
from ai4sdk.spec.oscar import LONGEST_NAME, is_service_name

__all__ = ["Asked", "Cluster", "Reply"]

_SYNC_TIMEOUT = 300.0
_TOKEN = 32
"""Bytes of a service's token, which has 64 digits."""
_READ_ONLY = ("token", "owner", "secret_values")
NOTE = "a stand-in for an OSCAR cluster, by ai4sdk"


@dataclass(frozen=True)
class Asked:
    """A request."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    authorization: str = ""
    body: bytes = b""


@dataclass(frozen=True)
class Reply:
    """What is answered: text, or a value for JSON."""

    status: int
    content: Any = None

    @property
    def body(self) -> bytes:
        """The answer's bytes."""
        if self.content is None:
            return b""
        return self.content.encode() if isinstance(self.content, str) else json.dumps(self.content).encode()

    @property
    def content_type(self) -> str:
        """The answer's type."""
        return "text/plain; charset=utf-8" if isinstance(self.content, str) else "application/json; charset=utf-8"


class Cluster:
    """What a cluster is, without its addresses.

    Parameters
    ----------
    folder
        Keeps everything: ``services``, ``buckets`` and ``jobs``.
    user, password
        For basic authentication.
    supervisor
        Command that serves a call.
    timeout
        Seconds that a synchronous call may take.
    """

    def __init__(
        self,
        folder: Path,
        user: str,
        password: str,
        *,
        supervisor: tuple[str, ...] = SUPERVISOR,
        timeout: float = _SYNC_TIMEOUT,
    ) -> None:
        self._services, self._buckets = folder / "services", folder / "buckets"
        for part in (self._services, self._buckets):
            part.mkdir(parents=True, exist_ok=True)
        self._basic = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        self._timeout = timeout
        self._lock = threading.Lock()
        self.jobs = Jobs(folder / "jobs", self._buckets, supervisor)
        self._watcher = Watcher(self._buckets, self.services, self.jobs.start)

    def begin(self) -> None:
        """Begin to look for new files in buckets."""
        self._watcher.begin()

    def close(self) -> None:
        """End what runs."""
        self._watcher.close()
        self.jobs.close()

    def services(self) -> list[dict[str, Any]]:
        """Return all services, with what only the cluster knows."""
        return read_all(self._services.glob("*.json"))

    def answer(self, asked: Asked) -> Reply:
        """Answer a request."""
        parts = [part for part in asked.path.split("/") if part]
        match parts:
            case ["health"] if asked.method == "GET":
                return Reply(200, "Ok")
            case ["run" | "job" as way, name] if asked.method == "POST":
                return self._called(way, name, asked)
            case ["system", *rest]:
                if not hmac.compare_digest(asked.authorization.encode(), self._basic.encode()):
                    return Reply(401)
                return self._system(rest, asked)
            case _:
                return Reply(404, "404 page not found")

    def _system(self, parts: list[str], asked: Asked) -> Reply:
        match (asked.method, parts):
            case ("GET", ["info"]):
                return Reply(200, _info())
            case ("GET", ["config"]):
                return Reply(200, self._config())
            case ("GET", ["services"]):
                return Reply(200, [_shown(service) for service in self.services()])
            case ("POST", ["services"]):
                return self._with_service(asked.body, self._create)
            case ("PUT", ["services"]):
                return self._with_service(asked.body, self._update)
            case ("GET", ["buckets"]):
                names = sorted(path.name for path in self._buckets.iterdir() if path.is_dir())
                return Reply(200, [{"bucket_name": name, "visibility": "private"} for name in names])
            case (_, ["services" | "logs", name, *_]):
                service = self._service(name)
                return Reply(404) if service is None else self._of_service(service, parts, asked)
            case _:
                return _nowhere()

    def _of_service(self, service: dict[str, Any], parts: list[str], asked: Asked) -> Reply:
        match (asked.method, parts):
            case ("GET", ["services", _]):
                return Reply(200, _shown(service))
            case ("DELETE", ["services", name]):
                return self._delete(name)
            case ("GET", ["services", name, "deployment"]):
                return Reply(200, _deployment(name))
            case ("GET", ["services", name, "deployment", "logs"]):
                text = f"{NOTE} has no deployments: it starts a process for each call"
                return Reply(200, {"service_name": name, "available": False, "message": text, "entries": []})
            case (_, ["logs", *_]):
                return self._logs(parts[1:], asked)
            case _:
                return _nowhere()

    def _logs(self, parts: list[str], asked: Asked) -> Reply:
        match (asked.method, parts):
            case ("GET", [name]):
                jobs = {job.name: job.to_json() for job in self.jobs.of(name)}
                return Reply(200, {"jobs": jobs, "next_page": "", "remaining_jobs": None})
            case ("DELETE", [name]):
                everything = asked.query.get("all") == "true"
                for job in self.jobs.of(name):
                    if everything or job.status == "Succeeded":
                        self.jobs.remove(name, job.name)
                return Reply(204)
            case ("GET", [name, job_name]):
                text = self.jobs.log(name, job_name)
                return Reply(404) if text is None else Reply(200, text)
            case ("DELETE", [name, job_name]):
                return Reply(204 if self.jobs.remove(name, job_name) else 404)
            case _:
                return Reply(404, "404 page not found")

    def _called(self, way: str, name: str, asked: Asked) -> Reply:
        service = self._service(name)
        scheme, _, token = asked.authorization.partition(" ")
        if scheme != "Bearer":
            return Reply(401)
        if service is None:
            return Reply(404)
        if not hmac.compare_digest(token.strip().encode(), service["token"].encode()):
            return Reply(401)
        try:
            event = asked.body.decode()
        except UnicodeDecodeError:
            return Reply(500, "an event is text; send bytes in base64")
        if way == "job":
            self.jobs.start(service, event)
            return Reply(201)
        answer = self.jobs.answer(service, event, self._timeout)
        return Reply(answer.status, answer.text)

    def _with_service(self, body: bytes, then: Callable[[dict[str, Any]], Reply]) -> Reply:
        try:
            service = json.loads(body)
        except ValueError as error:
            return Reply(400, f"The service specification is not valid: {error}")
        if mistake := _mistake(service):
            return Reply(400, f"The service specification is not valid: {mistake}")
        with self._lock:
            return then(service)

    def _create(self, service: dict[str, Any]) -> Reply:
        if self._service(service["name"]) is not None:
            return Reply(400, "A service with the provided name already exists")
        self._keep(service, token=secrets.token_hex(_TOKEN))
        return Reply(201)

    def _update(self, service: dict[str, Any]) -> Reply:
        there = self._service(service["name"])
        if there is None:
            return Reply(404)
        if there.get("volume") != service.get("volume"):
            return Reply(400, "volume updates are not supported after service creation")
        self._keep(service, token=there["token"], secret_values=there.get("secret_values"))
        return Reply(204)

    def _delete(self, name: str) -> Reply:
        with self._lock:
            self._file(name).unlink(missing_ok=True)
        for job in self.jobs.of(name):
            self.jobs.remove(name, job.name)
        return Reply(204)

    def _keep(self, service: dict[str, Any], *, token: str, secret_values: dict[str, str] | None = None) -> None:
        whole = _complete({name: value for name, value in service.items() if name not in _READ_ONLY})
        values = {**(secret_values or {}), **whole["environment"]["secrets"]}
        whole["environment"]["secrets"] = dict.fromkeys(values, "")
        for place in (*whole["input"], *whole["output"]):
            (self._buckets / place["path"]).mkdir(parents=True, exist_ok=True)
        kept = {**whole, "token": token, "owner": "cluster_admin", "secret_values": values}
        write_private(self._file(service["name"]), kept)
        self._watcher.notice()

    def _service(self, name: str) -> dict[str, Any] | None:
        if not is_service_name(name):
            return None
        try:
            found: dict[str, Any] = read_json(self._file(name))
        except FileNotFoundError:
            return None
        return found

    def _file(self, name: str) -> Path:
        return self._services / f"{name}.json"

    def _config(self) -> dict[str, Any]:
        provider = {
            "endpoint": self._buckets.absolute().as_uri(),
            "region": "",
            "verify": False,
            "access_key": "",
            "secret_key": "",
        }
        config = {"name": "oscar", "namespace": NOTE, "serverless_backend": "none", "gpu_available": False}
        return {"config": config, "minio_provider": provider, "allowed_image_repositories": []}


def _nowhere() -> Reply:
    return Reply(404, f"404 page not found: {NOTE} has no such route")


def _mistake(service: Any) -> str | None:
    if not isinstance(service, dict):
        return "it is no object"
    for name in ("name", "image", "script"):
        if not isinstance(service.get(name), str) or not service[name]:
            return f"{name} is required"
    if not is_service_name(service["name"]):
        return f"name {service['name']!r} has at most {LONGEST_NAME} small letters, digits and '-'"
    for name in ("cpu", "memory"):
        if not isinstance(service.get(name, ""), str):
            return f"{name} is text"
    for side in ("input", "output"):
        for place in service.get(side) or []:
            path = str(place.get("path", "")).strip("/")
            if not path or ".." in path.split("/"):
                return f"path of {side} is required"
    return None


def _complete(service: dict[str, Any]) -> dict[str, Any]:
    """Return a service with everything that OSCAR adds."""
    environment = {name.lower(): values for name, values in (service.get("environment") or {}).items()}
    defaults = {
        "memory": "256Mi",
        "cpu": "0.2",
        "log_level": "INFO",
        "visibility": "private",
        "isolation_level": "SERVICE",
        "synchronous": {"min_scale": 0, "max_scale": 0},
        "allowed_users": [],
    }
    stripped = {
        side: [{**place, "path": _path(service["name"], place)} for place in service.get(side) or []]
        for side in ("input", "output")
    }
    labels = {"oscar_service": service["name"], **(service.get("labels") or {})}
    hidden = {"endpoint": "", "region": "", "verify": False, "access_key": "hidden", "secret_key": "hidden"}
    providers = service.get("storage_providers") or {}
    minio = {"default": hidden, **(providers.get("minio") or {})}
    return {
        **defaults,
        **service,
        **stripped,
        "labels": labels,
        "annotations": service.get("annotations") or {},
        "environment": {name: dict(environment.get(name) or {}) for name in ("variables", "secrets")},
        "storage_providers": {**providers, "minio": minio},
    }


def _path(service: str, place: Mapping[str, Any]) -> str:
    """Return where a place is: a lone name is a folder in the bucket of the service, as in OSCAR 4."""
    path = str(place["path"]).strip(" /")
    stored = str(place.get("storage_provider", "minio")).startswith(("minio", "s3"))
    return f"{service}/{path}" if stored and "/" not in path else path


def _shown(service: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in service.items() if name != "secret_values"}


def _info() -> dict[str, Any]:
    return {
        "version": f"{NOTE} {__version__}",
        "git_commit": "",
        "architecture": platform.machine(),
        "kubernetes_version": "none",
        "serverless_backend": {"name": "none", "version": ""},
    }


def _deployment(name: str) -> dict[str, Any]:
    return {
        "service_name": name,
        "namespace": NOTE,
        "state": "unavailable",
        "reason": "it starts a process for each call",
        "active_instances": 0,
        "affected_instances": 0,
        "resource_kind": "unavailable",
    }
