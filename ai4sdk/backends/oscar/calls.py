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

from ai4sdk.backends.oscar.client import Cluster
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


def call(cluster: Cluster, name: str, content: bytes, timeout: float) -> bytes:
    """Call a service for a file's content, and return what it answers.

    Raises
    ------
    RunFailed
        If the service failed.
    """
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
    if len(token) == _LENGTH_OF_A_TOKEN and cluster.authorization.endswith(f" {token}"):
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
    provider = cluster.config()["minio_provider"]
    endpoint = urlsplit(str(provider["endpoint"]))
    target = f"{place['path']}/{file.name}"
    if endpoint.scheme == "file":
        folder = Path(unquote(endpoint.path)) / place["path"]
        folder.mkdir(parents=True, exist_ok=True)
        scratch = folder / f".{file.name}.part"
        shutil.copyfile(file, scratch)
        scratch.replace(folder / file.name)
        return target
    try:
        import fsspec

        storage = fsspec.filesystem(
            "s3",
            key=provider["access_key"],
            secret=provider["secret_key"],
            endpoint_url=provider["endpoint"],
            client_kwargs={"verify": bool(provider.get("verify", True)), "region_name": provider.get("region") or None},
        )
        storage.put_file(str(file), target)
    except ImportError as error:
        raise EnvironmentFault(
            f"uploading needs the package {error.name or 's3fs'}", hint="pip install 'ai4sdk[s3]'"
        ) from error
    except OSError as error:
        raise EnvironmentFault(f"{target} cannot be written: {error}", hint="check the bucket's quota") from error
    return target


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


def _token(cluster: Cluster, name: str) -> str:
    """Return what calls of a service are let in by: who asks by OIDC, else the service's own token."""
    scheme, _, token = cluster.authorization.partition(" ")
    return token if scheme == "Bearer" else str(cluster.known(name)["token"])
