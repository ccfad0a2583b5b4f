"""From an address in YAML to a store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ai4sdk.data.storage import Location, locate
from ai4sdk.errors import ConfigError, Problem
from ai4sdk.serving.events.stores.base import Store
from ai4sdk.spec import Storage
from ai4sdk.spec.serving_events import ServingEvents

__all__ = ["STORES", "locations", "open_store"]

STORES = ("file", "s3", "webdav")
"""Protocols of stores that objects are processed from and to."""


def locations(events: ServingEvents, storage: Storage, project: Path) -> dict[str, Location]:
    """Tell where input, output and dead letters are, without reaching them.

    Raises
    ------
    ConfigError
        If one is of a kind that cannot be used, or lies in another: results would be processed as objects.
    """
    found = {key: locate(getattr(events, key), storage, project) for key in ("input", "output", "dead_letter")}
    problems = [
        Problem(f"{where.address} cannot be used", f"serving.events.{key}", fix="use a folder, s3:// or webdav(s)://")
        for key, where in found.items()
        if where.protocol not in STORES
    ]
    for key in ("output", "dead_letter"):
        if _one_in_the_other(found["input"], found[key]):
            problems.append(
                Problem(
                    f"input and {key} lie in each other, so that results would be processed, too",
                    f"serving.events.{key}",
                    fix="give each a folder or prefix of its own",
                )
            )
    if found["input"].is_local and _lies_in(project / Path(events.state).expanduser(), Path(found["input"].path)):
        problems.append(
            Problem(
                "the folder that remembers what is done lies in the input, and would be processed itself",
                "serving.events.state",
                fix="choose another folder",
            )
        )
    if _whole(found["output"]) == _whole(found["dead_letter"]):
        problems.append(
            Problem(
                "results and dead letters go to the same place",
                "serving.events.dead_letter",
                fix="give each a folder or prefix of its own",
            )
        )
    if problems:
        raise ConfigError(problems)
    return found


def open_store(location: Location, owner: str, settle: float = 0.0) -> Store:
    """Return the store of a location; remote ones are connected to.

    Raises
    ------
    EnvironmentFault
        If a package or secret is missing.
    DataError
        If a server cannot be reached.
    """
    if location.is_local:
        from ai4sdk.serving.events.stores.local import LocalStore

        return LocalStore(Path(location.path), owner, settle)
    if location.protocol == "s3":
        from ai4sdk.serving.events.stores.s3 import S3Store

        return S3Store(replace(location, options=S3Store.options(dict(location.options))), owner)
    from ai4sdk.serving.events.stores.dav import DavStore

    return DavStore(location, owner)


def _lies_in(folder: Path, other: Path) -> bool:
    return folder.resolve().is_relative_to(other.resolve())


def _whole(location: Location) -> tuple[str, str, str]:
    path = str(Path(location.path).resolve()) if location.is_local else location.path.strip("/")
    return location.protocol, location.server or "", f"{path.rstrip('/')}/"


def _one_in_the_other(one: Location, other: Location) -> bool:
    (protocol, server, path), (protocol2, server2, path2) = _whole(one), _whole(other)
    same = protocol == protocol2 and server.rstrip("/") == server2.rstrip("/")
    return same and (path.startswith(path2) or path2.startswith(path))
