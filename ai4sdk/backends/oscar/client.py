"""The API of an OSCAR cluster. A thin edge: nothing is decided here but what an error means."""

from __future__ import annotations

import base64
import http.client
import json
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ai4sdk.backends.oscar.standin.server import read_access
from ai4sdk.data.secrets import resolve_secret
from ai4sdk.errors import Ai4Error, EnvironmentFault, NotFound, RunFailed, UsageError
from ai4sdk.spec.oscar import OscarBackend

__all__ = ["STAND_IN", "Cluster", "connect"]

STAND_IN = "oscar-local"
"""Folder of the stand-in in a project."""
_ANSWER = 30.0
"""Seconds that the API is waited for."""
_MOST_SAID = 2000
"""Characters of what a cluster says that are shown."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows nowhere: credentials are for the address that was given."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


@dataclass(frozen=True)
class Cluster:
    """A cluster, and who asks it.

    Parameters
    ----------
    endpoint
        Its address.
    authorization
        Header that says who asks.
    verify
        Whether its certificate is checked.
    stand_in
        Whether it is the stand-in on this machine.
    """

    endpoint: str
    authorization: str
    verify: bool = True
    stand_in: bool = False

    def config(self) -> dict[str, Any]:
        """Return what the cluster says of itself, its MinIO among it."""
        return dict(self._json("GET", "/system/config", "read the cluster's configuration"))

    def services(self) -> list[dict[str, Any]]:
        """Return all services that may be seen."""
        return list(self._json("GET", "/system/services", "list services"))

    def service(self, name: str) -> dict[str, Any] | None:
        """Return a service, nothing if there is none of that name."""
        try:
            # Some refusals of OSCAR are an empty answer.
            return dict(self._json("GET", f"/system/services/{_part(name)}", f"read the service {name}")) or None
        except NotFound:
            return None

    def known(self, name: str) -> dict[str, Any]:
        """Return a service.

        Raises
        ------
        NotFound
            If there is none of that name.
        """
        found = self.service(name)
        if found is None:
            raise NotFound(f"{self.endpoint} has no service {name}", hint="ai4sdk oscar ls")
        return found

    def create(self, service: Mapping[str, Any]) -> None:
        """Create a service."""
        self._ask("POST", "/system/services", f"create the service {service['name']}", service)

    def update(self, service: Mapping[str, Any]) -> None:
        """Put a service in the place of the one of its name."""
        self._ask("PUT", "/system/services", f"update the service {service['name']}", service)

    def remove(self, name: str) -> None:
        """Remove a service."""
        self._ask("DELETE", f"/system/services/{_part(name)}", f"remove the service {name}")

    def jobs(self, name: str) -> dict[str, dict[str, Any]]:
        """Return the jobs of a service: name → how it stands."""
        jobs: dict[str, dict[str, Any]] = {}
        page = ""
        while True:
            path = f"/system/logs/{_part(name)}" + (f"?page={quote(page, safe='')}" if page else "")
            found = self._json("GET", path, f"list the jobs of {name}")
            listed = found.get("jobs", found)  # before version 3.7 there were no pages
            jobs |= listed or {}
            page = found.get("next_page") or ""
            if not page:
                return jobs

    def log(self, name: str, job: str) -> str:
        """Return what a job has printed."""
        path = f"/system/logs/{_part(name)}/{_part(job)}"
        return self._ask("GET", path, f"read the log of {job}").decode(errors="replace")

    def remove_jobs(self, name: str, *, everything: bool = False) -> None:
        """Remove the jobs of a service that have succeeded, or all of them."""
        path = f"/system/logs/{_part(name)}" + ("?all=true" if everything else "")
        self._ask("DELETE", path, f"remove the jobs of {name}")

    def run(self, name: str, event: bytes, token: str, timeout: float) -> str:
        """Call a service and return its answer.

        Raises
        ------
        RunFailed
            If the service failed.
        """
        doing = f"call the service {name}"
        try:
            return self._ask("POST", f"/run/{_part(name)}", doing, event, token, timeout).decode(errors="replace")
        except _Refused as error:
            if error.status == 500:
                raise RunFailed(
                    f"{name} failed: {error.said or 'it says nothing'}",
                    hint="see whether `ai4sdk predict` takes the same input",
                ) from error
            raise

    def start(self, name: str, event: bytes, token: str) -> None:
        """Start a job of a service."""
        self._ask("POST", f"/job/{_part(name)}", f"start a job of {name}", event, token)

    def _json(self, method: str, path: str, doing: str) -> Any:
        answer = self._ask(method, path, doing)
        try:
            return json.loads(answer or b"null") or {}
        except ValueError as error:
            raise EnvironmentFault(
                f"{self.endpoint} does not answer as OSCAR does", hint="check backend.cluster"
            ) from error

    def _ask(
        self,
        method: str,
        path: str,
        doing: str,
        body: Mapping[str, Any] | bytes | None = None,
        token: str | None = None,
        timeout: float = _ANSWER,
    ) -> bytes:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {token}" if token else self.authorization}
        if data is not None:
            headers["Content-Type"] = "application/json"
        request = urllib.request.Request(self.endpoint + path, data, headers, method=method)
        try:
            with self._opener().open(request, timeout=timeout) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            said = error.read().decode(errors="replace").strip()[:_MOST_SAID]
            raise _meaning(self, error.code, doing, said, error.headers.get("Location", "")) from error
        except TimeoutError as error:
            raise self._silent(f"nothing within {timeout:g} s") from error
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            reason = getattr(error, "reason", None) or error
            if isinstance(reason, TimeoutError):
                raise self._silent(f"nothing within {timeout:g} s") from error
            if isinstance(reason, ssl.SSLCertVerificationError):
                raise EnvironmentFault(
                    f"the certificate of {self.endpoint} is not trusted: {reason.verify_message}",
                    hint="SSL_CERT_FILE=CA.pem for an authority of your own; backend.ssl_verify=false for a rehearsal",
                ) from error
            raise self._silent(re.sub(r"^\[Errno -?\d+\] ", "", str(reason))) from error

    def _opener(self) -> urllib.request.OpenerDirector:
        context = ssl.create_default_context()
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        handlers: list[Any] = [_NoRedirects, urllib.request.HTTPSHandler(context=context)]
        if self.stand_in:
            handlers.append(urllib.request.ProxyHandler({}))
        return urllib.request.build_opener(*handlers)

    def _silent(self, reason: str) -> EnvironmentFault:
        hint = "ai4sdk oscar cluster" if self.stand_in else f"curl {self.endpoint}/health; a VPN may be off"
        return EnvironmentFault(f"the cluster {self.endpoint} does not answer: {reason}", hint=hint)


def connect(options: OscarBackend, project: Path) -> Cluster:
    """Return the cluster that a description names.

    Parameters
    ----------
    options
        The description; its references to secrets are looked up.
    project
        Folder of the project, which has the stand-in's.

    Raises
    ------
    EnvironmentFault
        If the stand-in is meant and does not run, or a secret is missing.
    UsageError
        If there is nothing to say who asks.
    """
    if options.cluster == "local":
        access = read_access(project / STAND_IN)
        if access is None:
            raise EnvironmentFault(
                "no stand-in for a cluster runs in this project", hint="ai4sdk oscar cluster, in another terminal"
            )
        return Cluster(access["endpoint"], _basic(access["username"], access["password"]), stand_in=True)
    if options.token is not None:
        authorization = f"Bearer {resolve_secret(options.token)}"
    elif options.username is not None and options.password is not None:
        authorization = _basic(resolve_secret(options.username), resolve_secret(options.password))
    else:
        raise UsageError(
            f"nothing says who asks {options.cluster}",
            hint="backend.token='${secret:OSCAR_TOKEN}', or backend.username and backend.password",
        )
    return Cluster(options.cluster, authorization, options.ssl_verify)


class _Refused(EnvironmentFault):
    """The cluster has failed, or cannot serve now."""

    def __init__(self, message: str, status: int, said: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status, self.said = status, said


def _meaning(cluster: Cluster, status: int, doing: str, said: str, location: str) -> Ai4Error:
    """Return what a refusal means, and what to do about it."""
    what = f"{cluster.endpoint} does not {doing}"
    because = f": {said}" if said else ""
    if status == 401:
        return EnvironmentFault(
            f"{what}: it does not know who asks{f' ({said})' if said else ''}",
            hint="get a new token, or check backend.username and backend.password",
        )
    if "quota" in said.lower() or "admitted" in said or "invalid workload" in said:
        return EnvironmentFault(
            f"{what}{because}", hint="ask for less by backend.cpu and backend.memory, or remove a service"
        )
    if status == 403:
        return EnvironmentFault(f"{what}: you may not{because}", hint="ask its owner, or an administrator")
    if status == 404:
        return NotFound(f"{what}: there is no such thing{because}", hint="ai4sdk oscar ls")
    if status == 409:
        return UsageError(f"{what}{because}", hint="backend.service=ANOTHER-NAME")
    if status == 400:
        return UsageError(f"{what}{because}")
    if 300 <= status < 400:
        return EnvironmentFault(f"{what}: it sends elsewhere, to {location}", hint="check backend.cluster")
    if status in (502, 503, 504):
        return _Refused(
            f"{what} now{because}", status, said, "it may be pulling the image, or starting; try again in a minute"
        )
    return _Refused(f"{what}: status {status}{because}", status, said)


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def _part(name: str) -> str:
    return quote(name, safe="")
