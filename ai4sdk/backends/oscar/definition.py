"""Description → what OSCAR is given: a service for its API, and an FDL file. Pure; secrets stay references."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ai4sdk.backends.kubernetes.manifests import to_yaml
from ai4sdk.backends.oscar.script import SCRIPT_NAME, script_of
from ai4sdk.errors import UsageError
from ai4sdk.spec.oscar import LONGEST_NAME, OscarBackend, StorageIO, is_service_name
from ai4sdk.spec.units import format_size

__all__ = ["DIGEST", "FDL_NAME", "MANAGED", "Definition", "Served", "define", "quantity", "service_name"]

FDL_NAME = "fdl.yaml"
MANAGED = "ai4sdk.managed"
"""Label of services of ours."""
DIGEST = "ai4sdk.definition"
"""Annotation with a digest of what was asked for, by which it is known whether anything has changed."""

_NO_IMAGE = "ai4sdk-rehearsal"
"""Image of services that the stand-in runs, which has none."""


@dataclass(frozen=True)
class Definition:
    """A service, as OSCAR is given it.

    Parameters
    ----------
    service
        What its API takes, with the script in it.
    cluster_id
        What the cluster is called in the FDL file.
    """

    service: dict[str, Any]
    cluster_id: str

    @property
    def name(self) -> str:
        """Name of the service."""
        return str(self.service["name"])

    @property
    def script(self) -> str:
        """The user script."""
        return str(self.service["script"])

    @property
    def digest(self) -> str:
        """Digest of what is asked for; secrets count by their names."""
        return str(self.service["annotations"][DIGEST])

    def to_fdl(self) -> str:
        """Return the service as an FDL file, which names its script as a file beside it."""
        service = {name: value for name, value in self.service.items() if name not in ("script", "storage_providers")}
        functions = {"oscar": [{self.cluster_id: {**service, "script": SCRIPT_NAME}}]}
        whole: dict[str, Any] = {"functions": functions}
        if "storage_providers" in self.service:
            whole["storage_providers"] = self.service["storage_providers"]
        return to_yaml([whole])


@dataclass(frozen=True)
class Served:
    """The model package of a service.

    Parameters
    ----------
    name
        Name of the job that made it.
    weights
        SHA-256 of its weights; empty if any will do.
    code
        SHA-256 of the code in it; empty if there is none.
    trusted
        Whether that code is run.
    """

    name: str
    weights: str = ""
    code: str = ""
    trusted: bool = False

    @property
    def parts(self) -> list[str]:
        """The hashes that tell it from others."""
        return [part for part in (self.weights, self.code) if part]


def service_name(options: OscarBackend, job: str) -> str:
    """Return the name of the service of a job.

    Raises
    ------
    UsageError
        If the job's name makes none.
    """
    if options.service is not None:
        return options.service
    name = re.sub(r"[^a-z0-9]+", "-", job.lower()).strip("-")
    if not is_service_name(name):
        why = f"has {len(name)} characters" if len(name) > LONGEST_NAME else "does not begin with a letter"
        raise UsageError(
            f"the job's name makes no name for a service: {name!r} {why}, and OSCAR takes at most {LONGEST_NAME}",
            hint="backend.service=NAME",
        )
    return name


def define(options: OscarBackend, served: Served, variables: Mapping[str, str] | None = None) -> Definition:
    """Make the definition of a service.

    Parameters
    ----------
    options
        The description.
    served
        The package. The service is called like its job, unless the description says otherwise.
    variables
        Further environment variables, such as the stand-in's place of the package.
    """
    name = service_name(options, served.name)
    service: dict[str, Any] = {
        "name": name,
        "cluster_id": options.cluster_id,
        "vo": options.vo,
        "image": options.image or _NO_IMAGE,
        "cpu": f"{options.cpu:g}",
        "memory": quantity(options.memory),
        "total_cpu": None if options.total_cpu is None else f"{options.total_cpu:g}",
        "total_memory": None if options.total_memory is None else quantity(options.total_memory),
        "enable_gpu": options.enable_gpu or None,
        "image_prefetch": options.image_prefetch or None,
        "alpine": options.alpine or None,
        "image_pull_secrets": options.image_pull_secrets,
        "log_level": options.log_level,
        "synchronous": options.synchronous.model_dump(),
        "expose": _exposed(options),
        "input": [_place(one) for one in options.input],
        "output": [_place(one) for one in options.output],
        "mount": options.mount.model_dump() if options.mount else None,
        "volume": _volume(options),
        "environment": _environment(options, variables or {}),
        "visibility": options.visibility,
        "allowed_users": options.allowed_users,
        "isolation_level": options.isolation_level,
        "labels": {**options.labels, MANAGED: "true"},
        "storage_providers": {
            kind: {name: provider.model_dump(exclude_none=True) for name, provider in named.items()}
            for kind, named in options.storage_providers.items()
        },
        "script": script_of(options, name, served.parts, trusted=served.trusted),
    }
    service = {key: value for key, value in service.items() if value not in (None, [], {})}
    text = json.dumps([service, options.annotations], sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:32]
    service["annotations"] = {**options.annotations, DIGEST: digest}
    return Definition(service, options.cluster_id)


def quantity(size: int) -> str:
    """Return a size as Kubernetes takes it, such as ``2Gi``."""
    text = format_size(size).replace(" ", "").removesuffix("B")
    exact = re.fullmatch(r"\d+([KMGT]i)?", text)
    return text if exact and _bytes(text) == size else str(size)


def _bytes(text: str) -> int:
    match = re.fullmatch(r"(\d+)([KMGT]?)i?", text)
    assert match is not None
    return int(match[1]) << 10 * " KMGT".index(match[2] or " ")


def _place(place: StorageIO) -> dict[str, Any]:
    values = {"storage_provider": place.storage_provider, "path": place.path}
    return values | {key: list(getattr(place, key)) for key in ("prefix", "suffix") if getattr(place, key)}


def _exposed(options: OscarBackend) -> dict[str, Any] | None:
    if options.expose is None:
        return None
    values = options.expose.model_dump()
    # Without a rewrite target OSCAR takes its own path, /system/services/NAME/exposed, off a request before passing it.
    return {**values, "api_port": [values["api_port"]], "rewrite_target": False, "default_command": False}


def _volume(options: OscarBackend) -> dict[str, Any] | None:
    if options.volume is None:
        return None
    values = options.volume.model_dump(exclude_none=True)
    return values | ({"size": quantity(values["size"])} if "size" in values else {})


def _environment(options: OscarBackend, variables: Mapping[str, str]) -> dict[str, Any] | None:
    given = {
        "variables": {**options.environment.variables, **variables},
        "secrets": dict(options.environment.secrets),
    }
    return {name: values for name, values in given.items() if values} or None
