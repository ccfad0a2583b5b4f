"""The stand-in itself: services, their buckets and jobs in a folder. It answers as OSCAR 4 does, as far as it goes."""

from __future__ import annotations

import base64
import hmac
import json
import platform
import secrets
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl

from ai4sdk._version import __version__
from ai4sdk.backends.oscar.standin.events import Watcher
from ai4sdk.backends.oscar.standin.files import read_all, write_private
from ai4sdk.backends.oscar.standin.jobs import SUPERVISOR, Jobs, environment_of, exposed
from ai4sdk.backends.oscar.standin.servers import Servers
from ai4sdk.runs.files import read_json
from ai4sdk.spec.oscar import LONGEST_NAME, is_service_name

__all__ = ["Asked", "Cluster", "Reply"]

_SYNC_TIMEOUT = 300.0
_TOKEN = 32
"""Bytes of a service's token, which has 64 digits."""
_HIDDEN = ("secret_values", "notified")
_READ_ONLY = ("token", "owner", *_HIDDEN)
NOTE = "a stand-in for an OSCAR cluster, by ai4sdk"


@dataclass(frozen=True)
class Asked:
    """A request."""

    method: str
    path: str
    query: str = ""
    authorization: str = ""
    body: bytes = b""
    content_type: str = ""


@dataclass(frozen=True)
class Reply:
    """What is answered: text, a value for JSON, or bytes of some type."""

    status: int
    content: Any = None
    kind: str = ""

    @property
    def body(self) -> bytes:
        """The answer's bytes."""
        if self.content is None or isinstance(self.content, bytes):
            return self.content or b""
        return self.content.encode() if isinstance(self.content, str) else json.dumps(self.content).encode()

    @property
    def content_type(self) -> str:
        """The answer's type."""
        if self.kind:
            return self.kind
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
        self._basic = _basic(user, password)
        self._timeout = timeout
        self._lock = threading.Lock()
        self.jobs = Jobs(folder / "jobs", self._buckets, supervisor)
        self._servers = Servers(folder / "servers")
        self._watcher = Watcher(self._buckets, self.services, self.jobs.start)

    def begin(self) -> None:
        """Begin to look for new files in buckets, and to serve."""
        self._watcher.begin()
        for service in self.services():
            self._serve(service)

    def close(self) -> None:
        """End what runs."""
        self._watcher.close()
        self.jobs.close()
        self._servers.close()

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
            case ["system", "services", name, "exposed", *_]:
                return self._exposed(name, asked)
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
                return Reply(200, _deployment(name, *self._servers.state(name)))
            case ("GET", ["services", name, "deployment", "logs"]):
                return Reply(200, _deployment_log(name, self._servers.log(name)))
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
                everything = dict(parse_qsl(asked.query)).get("all") == "true"
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
        if exposed(service):  # it has a deployment in the place of what would answer
            return Reply(502)
        answer = self.jobs.answer(service, event, self._timeout)
        return Reply(answer.status, answer.text)

    def _exposed(self, name: str, asked: Asked) -> Reply:
        """Pass a request on to the server of a service, without the path that leads to it."""
        service = self._service(name)
        if service is None or not exposed(service):
            return Reply(404, "404 page not found")
        wanted = _basic(name, service["token"]) if service["expose"].get("set_auth") else asked.authorization
        if not hmac.compare_digest(asked.authorization.encode(), wanted.encode()):
            return Reply(401)
        path = asked.path.removeprefix(f"/system/services/{name}/exposed")
        target = (path or "/") + (f"?{asked.query}" if asked.query else "")
        answer = self._servers.ask(name, asked.method, target, asked.content_type, asked.body, self._timeout)
        return Reply(answer.status, answer.content, answer.content_type)

    def _serve(self, service: dict[str, Any]) -> None:
        """Have a service's server run as the service says, or none."""
        if exposed(service):
            self._servers.start(service, environment_of(service))
        else:
            self._servers.end(service["name"])

    def _with_service(self, body: bytes, then: Callable[[dict[str, Any]], Reply]) -> Reply:
        try:
            service = json.loads(body)
        except ValueError as error:
            return Reply(400, f"The service specification is not valid: {error}")
        if mistake := _mistake(service):
            return Reply(400, f"The service specification is not valid: {mistake}")
        with self._lock:
            return then({name: value for name, value in service.items() if name not in _READ_ONLY})

    def _create(self, service: dict[str, Any]) -> Reply:
        if self._service(service["name"]) is not None:
            return Reply(400, "A service with the provided name already exists")
        whole = _complete(service)
        made: set[str] = set()
        for side in ("input", "output"):
            for bucket in map(_bucket, whole[side]):
                there = bucket in made if side == "output" else False
                if not there and (bucket in made or (self._buckets / bucket).exists()):
                    return Reply(500, f'the bucket "{bucket}" already exists\n')
                made.add(bucket)
        self._keep(whole, token=secrets.token_hex(_TOKEN), notified=_inputs(whole))
        return Reply(201)

    def _update(self, service: dict[str, Any]) -> Reply:
        there = self._service(service["name"])
        if there is None:
            return Reply(404)
        whole = _complete(service)
        if there.get("volume") != whole.get("volume"):
            return Reply(400, "volume updates are not supported after service creation")
        if exposed(there) != exposed(whole):
            return Reply(500, f"Error updating the service: there is no other deployment of {whole['name']}")
        # MinIO goes on as it was told at first, but for buckets that are new.
        new = [path for path in _inputs(whole) if not (self._buckets / path.partition("/")[0]).exists()]
        notified = [*there["notified"], *new]
        self._keep(whole, token=there["token"], notified=notified, secret_values=there["secret_values"])
        return Reply(204)

    def _delete(self, name: str) -> Reply:
        with self._lock:
            service = self._service(name)
            self._file(name).unlink(missing_ok=True)
            self._servers.end(name)
            # OSCAR empties and removes the buckets of a service, too.
            for place in (*service["input"], *service["output"]) if service else ():
                shutil.rmtree(self._buckets / _bucket(place), ignore_errors=True)
        for job in self.jobs.of(name):
            self.jobs.remove(name, job.name)
        return Reply(204)

    def _keep(
        self,
        whole: dict[str, Any],
        *,
        token: str,
        notified: list[str],
        secret_values: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        values = {**secret_values, **whole["environment"]["secrets"]}
        whole["environment"]["secrets"] = dict.fromkeys(values, "")
        for place in (*whole["input"], *whole["output"]):
            (self._buckets / place["path"]).mkdir(parents=True, exist_ok=True)
        own = {"token": token, "owner": "cluster_admin", "secret_values": values, "notified": notified}
        kept = {**whole, **own}
        write_private(self._file(whole["name"]), kept)
        self._watcher.notice()
        self._serve(kept)

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


_KINDS: dict[str, type] = {
    **dict.fromkeys(("input", "output", "allowed_users"), list),
    **dict.fromkeys(("labels", "annotations", "environment", "storage_providers", "expose", "synchronous"), dict),
}


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
    for name, kind in _KINDS.items():
        if not isinstance(service.get(name) or kind(), kind):
            return f"{name} is no {kind.__name__}"
    for side in ("input", "output"):
        for place in service.get(side) or []:
            if not isinstance(place, dict):
                return f"{side} has something that is no object"
            path = str(place.get("path", "")).strip("/")
            if {"", ".", ".."} & {*path.split("/")}:
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
    volume = service.get("volume")
    if volume and volume.get("size"):
        volume = {"name": service["name"], "lifecycle_policy": "delete", **volume}
    return {
        **defaults,
        **service,
        **stripped,
        "labels": labels,
        "annotations": service.get("annotations") or {},
        **({"volume": volume} if volume else {}),
        "environment": {name: dict(environment.get(name) or {}) for name in ("variables", "secrets")},
        "storage_providers": {**providers, "minio": minio},
    }


def _path(service: str, place: Mapping[str, Any]) -> str:
    """Return where a place is: a lone name is a folder in the bucket of the service, as in OSCAR 4."""
    path = str(place["path"]).strip(" /")
    stored = str(place.get("storage_provider", "minio")).startswith(("minio", "s3"))
    return f"{service}/{path}" if stored and "/" not in path else path


def _shown(service: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in service.items() if name not in _HIDDEN}


def _info() -> dict[str, Any]:
    return {
        "version": f"{NOTE} {__version__}",
        "git_commit": "",
        "architecture": platform.machine(),
        "kubernetes_version": "none",
        "serverless_backend": {"name": "none", "version": ""},
    }


def _deployment(name: str, state: str, reason: str) -> dict[str, Any]:
    return {
        "service_name": name,
        "namespace": NOTE,
        "state": state,
        "reason": reason,
        "active_instances": int(state == "ready"),
        "affected_instances": int(state == "failed"),
        "resource_kind": "unavailable" if state == "unavailable" else "exposed_service",
    }


def _deployment_log(name: str, lines: list[str]) -> dict[str, Any]:
    if not lines:
        told = f"{NOTE} has none: it starts a process for each call"
        return {"service_name": name, "available": False, "message": told, "entries": []}
    return {"service_name": name, "available": True, "entries": [{"message": line} for line in lines]}


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def _bucket(place: Mapping[str, Any]) -> str:
    return str(place["path"]).partition("/")[0]


def _inputs(service: Mapping[str, Any]) -> list[str]:
    """Return the places that MinIO tells a service of."""
    own = ("minio", "minio.default")
    return [str(one["path"]) for one in service["input"] if one.get("storage_provider", "minio") in own]
