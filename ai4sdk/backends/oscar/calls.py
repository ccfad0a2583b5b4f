"""Calling a service: what is sent, what an answer is, and which job was started."""

from __future__ import annotations

import base64
import binascii
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ai4sdk.backends.oscar.client import Cluster, basic, has_server
from ai4sdk.errors import EnvironmentFault, UsageError

__all__ = ["call", "content_of", "event_of", "start", "upload"]

_MOST_OF_A_VARIABLE = 128 * 1024 - len("EVENT=") - 1
"""Bytes that an event of a job may have: it is handed on in a variable, and Linux takes no longer ones."""

_LENGTH_OF_A_TOKEN = 64
"""Characters of a service's token; those of OIDC providers are longer."""


def event_of(content: bytes) -> bytes:
    """Return what is sent for a file's content.

    A few contents are text of JSON in base64, such as ``1234``, and the supervisor would take them for that. It passes
    over what does not belong to base64.
    """
    text = base64.b64encode(content)
    try:
        json.loads(text)
    except ValueError:
        return text
    return b"!" + text


def content_of(answer: str) -> bytes:
    """Return what a synchronous call was answered with: a file, which comes in base64, or text as it is."""
    text = answer.strip()
    try:
        return base64.b64decode(text, validate=True) if text else b""
    except (binascii.Error, ValueError):
        return answer.encode()


def call(cluster: Cluster, name: str, content: bytes, timeout: float, *, file: str = "") -> bytes:
    """Call a service for a file's content, and return what it answers: its server if it has one, else a container.

    Parameters
    ----------
    cluster, name
        The service.
    content
        What to predict from.
    timeout
        Seconds that the answer is waited for.
    file
        What the content's file is called, which tells a server what it is.

    Raises
    ------
    RunFailed
        If the service failed.
    """
    if not _is_guest(cluster):
        service = cluster.known(name)
        if has_server(service):
            who = basic(name, _own_token(service)) if service["expose"].get("set_auth") else ""
            return _as_predicted(cluster.ask_server(name, file, content, who, timeout))
    return content_of(cluster.run(name, event_of(content), _token(cluster, name), timeout))


def start(cluster: Cluster, name: str, content: bytes) -> str | None:
    """Start a job for a file's content; return its name, nothing if that cannot be told.

    OSCAR does not say how it calls a job. It is the one that is new, unless others are started at the same time, or
    who asks has a service's token alone and may not list jobs.

    Raises
    ------
    UsageError
        If the content is too long for that.
    """
    event = event_of(content)
    if len(event) > _MOST_OF_A_VARIABLE:
        raise UsageError(
            f"a job is not started with more than {_MOST_OF_A_VARIABLE * 3 // 4} bytes, and there are {len(content)}",
            hint="give the service an input, and upload: ai4sdk oscar invoke NAME --input FILE --upload",
        )
    token = _token(cluster, name)
    if _is_guest(cluster):
        cluster.start(name, event, token)
        return None
    before = cluster.jobs(name).keys()
    cluster.start(name, event, token)
    new = cluster.jobs(name).keys() - before
    return new.pop() if len(new) == 1 else None


def upload(cluster: Cluster, name: str, file: Path) -> str:
    """Put a file where the service is started for it, and return where that is.

    Raises
    ------
    UsageError
        If the service has no input in the cluster's own MinIO that takes such a file.
    EnvironmentFault
        If the storage cannot be written, or its client is not installed.
    """
    service = cluster.known(name)
    place = _place(service, file.name)
    target = f"{place['path']}/{file.name}"
    provider = cluster.config().get("minio_provider")
    if not isinstance(provider, Mapping) or not provider.get("endpoint"):
        raise EnvironmentFault(f"{cluster.endpoint} does not say where its MinIO is", hint="ask its administrator")
    endpoint = urlsplit(str(provider["endpoint"]))
    try:
        if cluster.stand_in and endpoint.scheme == "file":
            _copy(file, Path(unquote(endpoint.path)) / place["path"])
        else:
            _put(file, target, provider)
    except OSError as error:
        raise EnvironmentFault(f"{target} cannot be written: {error}", hint="check the bucket's quota") from error
    return target


def _copy(file: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    scratch = folder / f".{file.name}.part"
    shutil.copyfile(file, scratch)
    scratch.replace(folder / file.name)


def _put(file: Path, target: str, provider: Mapping[str, Any]) -> None:
    try:
        import fsspec
        from botocore.exceptions import BotoCoreError

        storage = fsspec.filesystem(
            "s3",
            key=provider.get("access_key"),
            secret=provider.get("secret_key"),
            endpoint_url=provider["endpoint"],
            client_kwargs={"verify": bool(provider.get("verify", True)), "region_name": provider.get("region") or None},
            config_kwargs={"connect_timeout": 10, "retries": {"max_attempts": 2}},
            skip_instance_cache=True,
        )
    except ImportError as error:
        raise EnvironmentFault(
            f"uploading needs the package {error.name or 's3fs'}", hint="pip install 'ai4sdk[s3]'"
        ) from error
    try:
        storage.put_file(str(file), target)
    except (BotoCoreError, ValueError) as error:  # such as a MinIO that is not reached, or an address that is none
        raise EnvironmentFault(f"{target} cannot be written: {error}", hint=f"is {provider['endpoint']} up?") from error


def _place(service: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    places = [
        one for one in service.get("input") or [] if one.get("storage_provider", "minio") in ("minio", "minio.default")
    ]
    if not places:
        raise UsageError(
            f"{service['name']} has no input in the cluster's MinIO", hint="backend.input=[{path: BUCKET/FOLDER}]"
        )
    for one in places:
        begins, ends = one.get("prefix") or [""], one.get("suffix") or [""]
        if any(map(name.startswith, begins)) and any(map(name.endswith, ends)):
            return dict(one)
    raise UsageError(f"no input of {service['name']} takes {name}", hint=f"its inputs are {places}")


def _as_predicted(answer: bytes) -> bytes:
    """Return a server's answer as `ai4sdk predict` would write it: the records alone."""
    try:
        told = json.loads(answer)
        return json.dumps(told["predictions"], ensure_ascii=False).encode()
    except (ValueError, KeyError, TypeError):
        return answer


def _is_guest(cluster: Cluster) -> bool:
    """Tell whether who asks has a service's token alone, which lets in to calls, and to nothing else."""
    scheme, _, token = cluster.authorization.partition(" ")
    return scheme == "Bearer" and len(token) == _LENGTH_OF_A_TOKEN


def _token(cluster: Cluster, name: str) -> str:
    """Return what calls of a service are let in by: who asks by OIDC, else the service's own token."""
    scheme, _, token = cluster.authorization.partition(" ")
    return token if scheme == "Bearer" else _own_token(cluster.known(name))


def _own_token(service: Mapping[str, Any]) -> str:
    if not service.get("token"):
        raise EnvironmentFault(
            f"the cluster does not tell the token of {service['name']}", hint="call it with one: backend.token"
        )
    return str(service["token"])
