"""The API of an OSCAR cluster. A thin edge: nothing is decided here but what an error means."""

from __future__ import annotations

import base64
import http.client
import json
import logging
import mimetypes
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from ai4sdk.backends.oscar.standin.server import read_access
from ai4sdk.data.secrets import resolve_secret
from ai4sdk.errors import Ai4Error, EnvironmentFault, NotFound, RunFailed, UsageError
from ai4sdk.spec.oscar import OscarBackend

__all__ = ["STAND_IN", "Cluster", "basic", "connect", "has_server"]

log = logging.getLogger(__name__)

STAND_IN = "oscar-local"
"""Folder of the stand-in in a project."""
_ANSWER = 30.0
"""Seconds that the API is waited for."""
_CHANGE = 180.0
"""The same where something is made, changed or removed: MinIO starts anew, and buckets are emptied, meanwhile."""
_MOST_SAID = 2000
"""Characters of what a cluster says that are shown."""
_PIECE = 2**16
"""Bytes of an answer that are read at a time."""


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
        return self._object("/system/config", "read the cluster's configuration")

    def services(self) -> list[dict[str, Any]]:
        """Return all services that may be seen."""
        found = self._json("/system/services", "list services", [])
        if not isinstance(found, list) or not all(isinstance(one, dict) and "name" in one for one in found):
            raise _no_oscar(self.endpoint)
        return found

    def service(self, name: str) -> dict[str, Any] | None:
        """Return a service, nothing if there is none of that name."""
        try:
            # Some refusals of OSCAR are an empty answer.
            found = self._object(f"/system/services/{_part(name)}", f"read the service {name}")
        except NotFound:
            return None
        if found and found.get("name") != name:
            raise _no_oscar(self.endpoint)
        return found or None

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
        self._ask("POST", "/system/services", f"create the service {service['name']}", service, timeout=_CHANGE)

    def update(self, service: Mapping[str, Any]) -> None:
        """Put a service in the place of the one of its name."""
        self._ask("PUT", "/system/services", f"update the service {service['name']}", service, timeout=_CHANGE)

    def remove(self, name: str) -> None:
        """Remove a service."""
        self._ask("DELETE", f"/system/services/{_part(name)}", f"remove the service {name}", timeout=_CHANGE)

    def jobs(self, name: str) -> dict[str, dict[str, Any]]:
        """Return the jobs of a service: name → how it stands."""
        jobs: dict[str, dict[str, Any]] = {}
        page, seen = "", {""}
        while True:
            path = f"/system/logs/{_part(name)}" + (f"?page={quote(page, safe='')}" if page else "")
            found = self._object(path, f"list the jobs of {name}")
            listed = found.get("jobs", found) or {}  # before version 3.7 there were no pages
            if not isinstance(listed, dict) or not all(isinstance(job, dict) for job in listed.values()):
                raise _no_oscar(self.endpoint)
            jobs |= listed
            page = str(found.get("next_page") or "")
            if page in seen:
                return jobs
            seen.add(page)

    def log(self, name: str, job: str) -> str:
        """Return what a job has printed."""
        path = f"/system/logs/{_part(name)}/{_part(job)}"
        return self._ask("GET", path, f"read the log of {job}").decode(errors="replace")

    def server_log(self, name: str) -> str:
        """Return what the server of an exposed service has printed."""
        found = self._object(f"/system/services/{_part(name)}/deployment/logs", f"read the log of {name}'s server")
        entries = found.get("entries") or []
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise _no_oscar(self.endpoint)
        return "".join(f"{entry.get('message', '')}\n" for entry in entries)

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
        try:
            answer = self._exchange("POST", f"/run/{_part(name)}", event, f"Bearer {token}", timeout)
        except _Refused as refusal:
            if refusal.status == 500:
                raise _failed(name, refusal.said) from refusal
            raise _meaning(self.endpoint, refusal, f"call the service {name}") from refusal
        return answer.decode(errors="replace")

    def ask_server(self, name: str, file: str, content: bytes, authorization: str, timeout: float) -> bytes:
        """Ask the server of an exposed service to predict, and return its answer.

        Raises
        ------
        RunFailed
            If it refuses what it is given.
        """
        path = f"/system/services/{_part(name)}/exposed/predict"
        kind = mimetypes.guess_type(file)[0] or "application/octet-stream"
        try:
            return self._exchange("POST", path, content, authorization, timeout, kind=kind)
        except _Refused as refusal:
            if (said := refusal.said_by_model) is not None:
                raise _failed(name, said) from refusal
            raise _meaning(self.endpoint, refusal, f"ask the server of {name}") from refusal

    def start(self, name: str, event: bytes, token: str) -> None:
        """Start a job of a service."""
        self._ask("POST", f"/job/{_part(name)}", f"start a job of {name}", event, f"Bearer {token}")

    def _object(self, path: str, doing: str) -> dict[str, Any]:
        found = self._json(path, doing, {})
        if not isinstance(found, dict):
            raise _no_oscar(self.endpoint)
        return found

    def _json(self, path: str, doing: str, nothing: Any) -> Any:
        answer = self._ask("GET", path, doing)
        try:
            found = json.loads(answer or b"null")
            return nothing if found is None else found
        except (ValueError, RecursionError) as error:
            raise _no_oscar(self.endpoint) from error

    def _ask(
        self,
        method: str,
        path: str,
        doing: str,
        body: Mapping[str, Any] | bytes | None = None,
        authorization: str | None = None,
        timeout: float = _ANSWER,
    ) -> bytes:
        try:
            return self._exchange(method, path, body, authorization, timeout)
        except _Refused as refusal:
            raise _meaning(self.endpoint, refusal, doing) from refusal

    def _exchange(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | bytes | None,
        authorization: str | None,
        timeout: float,
        *,
        kind: str = "application/json",
    ) -> bytes:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        who = self.authorization if authorization is None else authorization
        headers = {**({"Authorization": who} if who else {}), **({"Content-Type": kind} if data is not None else {})}
        request = urllib.request.Request(self.endpoint + path, data, headers, method=method)
        until = time.monotonic() + timeout
        try:
            with self._opener().open(request, timeout=timeout) as answer:
                return b"".join(_pieces(answer, until))
        except urllib.error.HTTPError as error:
            raise _Refused(error.code, _said(error), error.headers.get("Location", "")) from error
        except TimeoutError as error:
            raise self._silent(f"nothing within {timeout:g} s") from error
        except (urllib.error.URLError, http.client.HTTPException, OSError, UnicodeError) as error:
            reason = getattr(error, "reason", None) or error
            if isinstance(reason, TimeoutError):
                raise self._silent(f"nothing within {timeout:g} s") from error
            if isinstance(reason, ssl.SSLCertVerificationError):
                raise EnvironmentFault(
                    f"the certificate of {self.endpoint} is not trusted: {reason.verify_message}",
                    hint="SSL_CERT_FILE=CA.pem for an authority of your own; backend.ssl_verify=false for a rehearsal",
                ) from error
            if isinstance(reason, ssl.SSLError):
                raise self._silent(f"no TLS there ({reason.reason})") from error
            raise self._silent(_shown(re.sub(r"^\[Errno -?\d+\] ", "", str(reason)))) from error

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
        return Cluster(access["endpoint"], basic(access["username"], access["password"]), stand_in=True)
    if options.token is not None:
        token = resolve_secret(options.token)
        if not re.fullmatch(r"[!-~]+", token):  # it would be shown by the error that a header of it makes
            raise EnvironmentFault(
                "what backend.token refers to is no token: it has blanks, or letters that none has",
                hint="write the token alone into the secret",
            )
        authorization = f"Bearer {token}"
    elif options.username is not None and options.password is not None:
        authorization = basic(resolve_secret(options.username), resolve_secret(options.password))
    else:
        raise UsageError(
            f"nothing says who asks {options.cluster}",
            hint="backend.token='${secret:OSCAR_TOKEN}', or backend.username and backend.password",
        )
    address = urlsplit(options.cluster)
    if address.scheme == "http" and address.hostname not in ("localhost", "127.0.0.1", "::1"):
        log.warning("%s is no https: everybody on the way can read who you are", options.cluster)
    return Cluster(options.cluster, authorization, options.ssl_verify)


_ALWAYS_THERE = ("list services", "read the cluster's configuration")
"""What every cluster does."""


class _Refused(Exception):
    """An answer that is a refusal."""

    def __init__(self, status: int, said: str, location: str) -> None:
        super().__init__(status, said)
        self.status, self.said, self.location = status, said, location

    @property
    def said_by_model(self) -> str | None:
        """What the server of a model says of what it was given; nothing if it has not come that far."""
        try:
            told = json.loads(self.said)
        except ValueError:
            return None
        says = self.status in (400, 413, 415, 422, 500) and isinstance(told, dict) and "error" in told
        return str(told["error"]) if says else None


def _meaning(endpoint: str, refusal: _Refused, doing: str) -> Ai4Error:
    """Return what a refusal means, and what to do about it."""
    status, said = refusal.status, refusal.said
    what = f"{endpoint} does not {doing}"
    because = f": {_shown(said)}" if said and not _is_page(said) else ""
    if status == 401:
        return EnvironmentFault(
            f"{what}: it does not know who asks{because}",
            hint="get a new token, or check backend.username and backend.password",
        )
    if "quota" in said.lower() or "admitted" in said or "invalid workload" in said:
        return EnvironmentFault(
            f"{what}{because}", hint="ask for less by backend.cpu and backend.memory, or remove a service"
        )
    if status == 403:
        hint = "ask its owner, or give yours another name: backend.service=NAME"
        return EnvironmentFault(f"{what}: you may not{because}", hint=hint)
    if status in (404, 405) and (_is_page(said) or doing in _ALWAYS_THERE):
        return _no_oscar(endpoint)
    if status == 404:
        return NotFound(f"{what}: there is no such thing{because}", hint="ai4sdk oscar ls")
    if status == 409 or "already exists" in said:
        hint = "backend.service=ANOTHER-NAME; if it is a bucket, a place in another one: OSCAR makes buckets itself"
        return UsageError(f"{what}{because}", hint=hint)
    if status in (400, 413, 415, 422):
        return UsageError(f"{what}{because or f': status {status}'}")
    if 300 <= status < 400:
        return EnvironmentFault(f"{what}: it sends elsewhere, to {refusal.location}", hint="check backend.cluster")
    if status in (502, 503, 504):
        return EnvironmentFault(f"{what} now{because}", hint="it may be starting, or pulling its image; wait")
    return EnvironmentFault(f"{what}: status {status}{because}")


def _no_oscar(endpoint: str) -> EnvironmentFault:
    return EnvironmentFault(f"{endpoint} does not answer as OSCAR does", hint="check backend.cluster")


def _failed(name: str, said: str) -> RunFailed:
    return RunFailed(
        f"{name} failed: {_shown(said) or 'it says nothing'}",
        hint="see whether `ai4sdk predict` takes the same input",
    )


def _pieces(answer: http.client.HTTPResponse, until: float) -> Iterator[bytes]:
    """Read an answer, and wait no longer than until then: each piece in time could make a whole that never ends."""
    while piece := answer.read1(_PIECE):
        yield piece
        if time.monotonic() > until:
            raise TimeoutError


def _said(error: urllib.error.HTTPError) -> str:
    """Return what a refusal says, as far as it can be read."""
    try:
        return error.read(_MOST_SAID).decode(errors="replace").strip()
    except (http.client.HTTPException, OSError):
        return ""


def _is_page(said: str) -> bool:
    """Tell whether it is a page of HTML, which says nothing to whom reads it in a terminal."""
    return re.match(r"<(!doctype|html|head|body)", said, re.IGNORECASE) is not None


def _shown(said: str) -> str:
    """Return text without what a terminal would obey."""
    return "".join(letter for letter in said if letter.isprintable() or letter in "\n\t")


def has_server(service: Mapping[str, Any]) -> bool:
    """Tell whether a service is exposed."""
    return bool((service.get("expose") or {}).get("api_port"))


def basic(user: str, password: str) -> str:
    """Return the header of basic authentication."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def _part(name: str) -> str:
    return quote(name, safe="")
