"""What a run leaves on its claim, brought home by way of a file system that pods and this machine both reach.

A pod copies it to ``backend.results`` once the run has ended, and last of all a list of the files with their hashes: a
copy without the list is not whole. Whatever fsspec speaks will do, with the job's storage to be let in.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ai4sdk.errors import DataError, NotFound
from ai4sdk.planning.plan import Plan
from ai4sdk.runs.layout import RunPaths

if TYPE_CHECKING:
    from ai4sdk.data.storage import Location

__all__ = ["bring", "send"]

_LIST = "results.json"
_FORMAT = "ai4sdk.results/1"
_HERE = ("README.txt", "plan.json", "config.yaml", "state.json", "submission.json", "lock", "cancel", "point.json")
"""Files that a run has where it was started, and that are not the pod's to say."""
_FOLDERS_HERE = ("code", "kubernetes")
_FOLDERS = ("file", "webdav")
"""File systems in which a folder must be there before a file can be."""


def send(plan: Plan, run: RunPaths, project: Path) -> str:
    """Copy what a run left, and return where to; nothing is done without ``backend.results``.

    Parameters
    ----------
    plan
        What has run.
    run, project
        Files of the run, and the folder that relative addresses start at.

    Raises
    ------
    Ai4Error
        If that is not possible.
    """
    if not plan.job["backend"]["results"]:
        return ""
    from ai4sdk.data.reach import reaching

    there = _location(plan, run, project)
    listed = []
    with reaching(there.address):
        with suppress(FileNotFoundError):  # of an earlier attempt, whose files are written over
            there.filesystem().rm_file(_path(there, _LIST))
        for file in _files(run.root):
            name = file.relative_to(run.root).as_posix()
            listed.append({"name": name, "size": file.stat().st_size, "sha256": _digest(file)})
            _put(there, name, file)
        there.filesystem().pipe_file(_path(there, _LIST), json.dumps({"format": _FORMAT, "files": listed}).encode())
    return there.address


def bring(plan: Plan, run: RunPaths, project: Path) -> int:
    """Bring what a run left to its folder here, and return how many files were not here yet.

    Parameters
    ----------
    plan, run, project
        As for `send`, as they are called here.

    Raises
    ------
    NotFound
        If no copy was made, or it is not whole.
    DataError
        If a file is not what the pod has copied.
    """
    from ai4sdk.data.reach import reaching

    there = _location(plan, run, project)
    new = 0
    with reaching(there.address):
        for entry in _listed(there, run):
            target = run.root / entry["name"]
            if target.exists() and target.stat().st_size == entry["size"] and _digest(target) == entry["sha256"]:
                continue
            _get(there, entry, target)
            new += 1
    return new


def _location(plan: Plan, run: RunPaths, project: Path) -> Location:
    from ai4sdk.data.storage import locate
    from ai4sdk.spec import Storage

    storage = Storage.model_validate(plan.job["storage"])
    return locate(f"{plan.job['backend']['results'].rstrip('/')}/{run.id}", storage, project)


def _files(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        if Path(folder) == root:
            folders[:] = [name for name in folders if name not in _FOLDERS_HERE]
            names = [name for name in names if name not in _HERE]
        folders.sort()
        yield from (Path(folder, name) for name in sorted(names) if not name.startswith("."))


def _path(there: Location, name: str) -> str:
    return f"{there.path.rstrip('/')}/{name}"


def _put(there: Location, name: str, file: Path) -> None:
    filesystem, path = there.filesystem(), _path(there, name)
    if there.protocol in _FOLDERS:
        filesystem.makedirs(path.rpartition("/")[0], exist_ok=True)
    filesystem.put_file(str(file), path)


def _listed(there: Location, run: RunPaths) -> list[dict[str, Any]]:
    try:
        found = json.loads(there.filesystem().cat_file(_path(there, _LIST)))
    except FileNotFoundError:
        raise NotFound(
            f"no whole copy of what {run.id} left is at {there.address}",
            hint=f"ai4sdk logs {run.id} ends with the reason; the run is on the claim",
        ) from None
    files: list[dict[str, Any]] = found["files"]
    for entry in files:
        parts = Path(entry["name"]).parts
        if not parts or Path(entry["name"]).is_absolute() or ".." in parts or parts[0] in (*_HERE, *_FOLDERS_HERE):
            raise DataError(f"{there.address} lists {entry['name']!r}, which is no file that a run leaves")
    return files


def _get(there: Location, entry: dict[str, Any], target: Path) -> None:
    scratch = target.with_name(f".{target.name}.{os.getpid()}.part")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        there.filesystem().get_file(_path(there, entry["name"]), str(scratch))
        if _digest(scratch) != entry["sha256"]:
            raise DataError(f"{entry['name']} at {there.address} is not what the pod has copied", hint="try again")
        scratch.replace(target)
    finally:
        scratch.unlink(missing_ok=True)


def _digest(file: Path) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
