"""A definition and the service that is there: what differs, and what to send so that nothing else is lost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ai4sdk.backends.oscar.client import Cluster, has_server
from ai4sdk.backends.oscar.definition import DIGEST, MANAGED, Definition
from ai4sdk.data.secrets import resolve_secrets
from ai4sdk.errors import Ai4Error, EnvironmentFault, UsageError

__all__ = ["Applied", "apply", "buckets_of", "differences", "remove", "replacement"]

_KEPT = ("token", "owner", "vo")
"""What the cluster has added, and an update without it would take away."""
_KEPT_LABELS = ("kueue.x-k8s.io/", "owner_name", "uid", "vo")
"""The same of labels: beginnings of their names."""
_OF_CLUSTERS = ("minio", "minio.default")
"""What an input or output says that is in the cluster's own storage."""
_RECREATE = "ai4sdk oscar apply … --recreate"


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
    kept = {name: there[name] for name in _kept(wanted) if there.get(name)}
    labels = {name: value for name, value in (there.get("labels") or {}).items() if name.startswith(_KEPT_LABELS)}
    sent = {**kept, **wanted.service, "labels": {**labels, **wanted.service["labels"]}}
    if "volume" in sent:  # a name that the cluster gave it; without it, it would be another one
        sent["volume"] = {**(there.get("volume") or {}), **sent["volume"]}
    return sent


def buckets_of(service: Mapping[str, Any]) -> list[str]:
    """Return the buckets that OSCAR removes with a service, and all that is in them: that of a mount stays."""
    used = [*(service.get("input") or []), *(service.get("output") or [])]
    found = {_bucket(place) for place in used if place.get("storage_provider", "minio") in _OF_CLUSTERS}
    mounted = service.get("mount") or {}
    stay = {_bucket(mounted)} if mounted.get("path") else set()
    return sorted({*found, *(service.get("bucket_list") or [])} - stay)


def remove(cluster: Cluster, name: str, *, with_buckets: bool = False) -> None:
    """Remove a service.

    Raises
    ------
    NotFound
        If there is none.
    UsageError
        If its buckets would go with it, and nothing says that they may.
    """
    _may_go(cluster.known(name), with_buckets, f"ai4sdk oscar rm {name} --with-buckets")
    cluster.remove(name)


def apply(
    cluster: Cluster, wanted: Definition, *, recreate: bool = False, with_buckets: bool = False, force: bool = False
) -> Applied:
    """Create a service, or change the one that is there if it differs.

    Parameters
    ----------
    cluster
        Where.
    wanted
        What.
    recreate
        Whether a service that is there is removed first.
    with_buckets
        Whether its buckets may go with it then.
    force
        Whether it is sent though nothing differs, such as for secrets that have changed, or though the service that is
        there is not ours.

    Raises
    ------
    UsageError
        If the change is one that OSCAR does not make in place, or the service that is there is not ours.
    """
    there = cluster.service(wanted.name)
    if there is None:
        cluster.create(resolve_secrets(wanted.service))
        return Applied("created")
    if not force and (there.get("labels") or {}).get(MANAGED) != "true":
        raise UsageError(
            f"there is a service {wanted.name} already, which ai4sdk has not made",
            hint="backend.service=ANOTHER-NAME; --force puts yours in its place",
        )
    changed = tuple(differences(wanted, there))
    if recreate:
        _may_go(there, with_buckets, f"{_RECREATE} --with-buckets")
        _recreate(cluster, wanted)
        return Applied("recreated", changed)
    if not changed and not force:
        return Applied("left as it is")
    if why := _not_in_place(wanted, there, changed):
        raise UsageError(f"{why} of {wanted.name} cannot be changed in place", hint=_RECREATE)
    cluster.update(resolve_secrets(replacement(wanted, there)))
    now = cluster.service(wanted.name) or {}
    return Applied("updated", changed, tuple(_warnings(wanted, there, now)))


def _recreate(cluster: Cluster, wanted: Definition) -> None:
    service = resolve_secrets(wanted.service)  # whatever is missing, is missed before anything is removed
    cluster.remove(wanted.name)
    try:
        cluster.create(service)
    except Ai4Error as error:
        raise EnvironmentFault(
            f"{wanted.name} is removed, and was not made again: {error.message}",
            hint=error.hint or "ai4sdk oscar apply …, once that is mended",
        ) from error


def _may_go(service: Mapping[str, Any], with_buckets: bool, hint: str) -> None:
    buckets = buckets_of(service)
    if buckets and not with_buckets:
        raise UsageError(
            f"OSCAR removes the buckets of a service with it, and all that is in them: {', '.join(buckets)}",
            hint=f"copy what you need, then: {hint}",
        )


def _not_in_place(wanted: Definition, there: Mapping[str, Any], changed: tuple[str, ...]) -> str | None:
    """Return what OSCAR does not change in a service that is there, though it may say that it has."""
    if "volume" in changed or (there.get("volume") and "volume" not in wanted.service):
        return "the volume"
    if has_server(there) != has_server(wanted.service):
        return "whether there is a server"
    inputs = [{_place(one) for one in service.get("input") or []} for service in (wanted.service, there)]
    if inputs[0] != inputs[1]:  # new ones would start nothing, and old ones would go on
        return "the inputs"
    return None


def _place(one: Mapping[str, Any]) -> tuple[str, str]:
    provider = str(one.get("storage_provider") or "minio")
    return (provider if "." in provider else f"{provider}.default"), str(one["path"]).strip(" /")


def _bucket(place: Mapping[str, Any]) -> str:
    return str(place["path"]).strip(" /").partition("/")[0]


def _kept(wanted: Definition) -> tuple[str, ...]:
    """Return what to keep: with a bucket for each user the cluster adds to the list of buckets at each update."""
    service = wanted.service
    anew = service["isolation_level"] == "USER" and service.get("allowed_users") and service.get("input")
    return _KEPT if anew else (*_KEPT, "bucket_list")


def _warnings(wanted: Definition, there: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Say what an update broke: clusters before version 4 gave the service a new token, and MinIO kept the old one."""
    if there.get("token") == now.get("token"):
        return []
    told = f"{wanted.name} has a new token; callers need it"
    if wanted.service.get("input"):
        told += f", and files that appear in its input no longer start it: {_RECREATE} mends that"
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
