"""A definition and the service that is there: what differs, and what to send so that nothing else is lost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ai4sdk.backends.oscar.client import Cluster
from ai4sdk.backends.oscar.definition import DIGEST, Definition
from ai4sdk.data.secrets import resolve_secrets
from ai4sdk.errors import UsageError

__all__ = ["Applied", "apply", "differences", "replacement"]

_KEPT = ("token", "owner", "vo", "bucket_list")
"""What the cluster has added, and an update without it would take away."""
_KEPT_LABELS = ("kueue.x-k8s.io/", "owner_name", "uid")
"""The same of labels: beginnings of their names."""


@dataclass(frozen=True)
class Applied:
    """What became of a definition.

    Parameters
    ----------
    did
        What was done.
    changed
        Keys that were different.
    warnings
        What to look at.
    """

    did: Literal["created", "updated", "recreated", "left as it is"]
    changed: tuple[str, ...] = ()
    warnings: tuple[str, ...] = field(default=())


def differences(wanted: Definition, there: Mapping[str, Any]) -> list[str]:
    """Return the keys by which a service differs from its definition; secrets count by their names.

    What the cluster adds by itself does not count. Something that was left out of the definition since shows in the
    digest that the service keeps.
    """
    found = [
        name
        for name, value in wanted.service.items()
        if name not in ("annotations", "cluster_id") and not (name == "script" and name not in there)
        if not (_all_in(value, there.get(name)) if name == "allowed_users" else _within(value, there.get(name)))
    ]
    if found or (there.get("annotations") or {}).get(DIGEST) == wanted.digest:
        return found
    return ["what is left out now"]


def replacement(wanted: Definition, there: Mapping[str, Any]) -> dict[str, Any]:
    """Return what to send in the place of a service: the definition, and what the cluster must not lose."""
    kept = {name: there[name] for name in _KEPT if there.get(name)}
    labels = {name: value for name, value in (there.get("labels") or {}).items() if name.startswith(_KEPT_LABELS)}
    sent = {**kept, **wanted.service, "labels": {**labels, **wanted.service["labels"]}}
    if "volume" in sent:  # a name that the cluster gave it; without it, it would be another one
        sent["volume"] = {**(there.get("volume") or {}), **sent["volume"]}
    return sent


def apply(cluster: Cluster, wanted: Definition, *, recreate: bool = False, force: bool = False) -> Applied:
    """Create a service, or change the one that is there if it differs.

    Parameters
    ----------
    cluster
        Where.
    wanted
        What.
    recreate
        Whether a service that is there is removed first.
    force
        Whether it is sent though nothing differs, such as for secrets that have changed.

    Raises
    ------
    UsageError
        If the change is one that OSCAR does not make in place.
    """
    there = cluster.service(wanted.name)
    if there is None:
        cluster.create(resolve_secrets(wanted.service))
        return Applied("created")
    changed = tuple(differences(wanted, there))
    if recreate:
        cluster.remove(wanted.name)
        cluster.create(resolve_secrets(wanted.service))
        return Applied("recreated", changed)
    if not changed and not force:
        return Applied("left as it is")
    if "volume" in changed or (there.get("volume") and "volume" not in wanted.service):
        raise UsageError(
            f"the volume of {wanted.name} cannot be changed in place", hint="ai4sdk oscar apply … --recreate"
        )
    cluster.update(resolve_secrets(replacement(wanted, there)))
    now = cluster.service(wanted.name) or {}
    return Applied("updated", changed, tuple(_warnings(wanted, there, now)))


def _warnings(wanted: Definition, there: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Say what an update broke: clusters before version 4 gave the service a new token, and MinIO kept the old one."""
    if there.get("token") == now.get("token"):
        return []
    told = f"{wanted.name} has a new token; callers need it"
    if wanted.service.get("input"):
        told += ", and files that appear in its input no longer start it: ai4sdk oscar apply … --recreate mends that"
    return [told]


def _all_in(wanted: list[str], there: Any) -> bool:
    """Tell whether all users are let in; clusters add the owner."""
    return set(wanted) <= set(there or ())


def _within(wanted: Any, there: Any) -> bool:
    """Tell whether a value has all of another one in it."""
    if isinstance(wanted, str) and wanted.startswith("${secret:"):
        return there is not None  # clusters do not show secrets
    if isinstance(wanted, Mapping):
        found = {str(name).lower(): value for name, value in there.items()} if isinstance(there, Mapping) else {}
        return all(_within(value, found.get(str(name).lower())) for name, value in wanted.items())
    if isinstance(wanted, list):
        if not isinstance(there, list) or len(wanted) != len(there):
            return False
        return all(_within(one, other) for one, other in zip(wanted, there, strict=True))
    if isinstance(wanted, str) and isinstance(there, str):
        return wanted.strip() == there.strip()
    return bool(wanted == there)
