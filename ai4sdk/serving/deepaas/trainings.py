"""Trainings of a module: a folder each, which tells all about it, and a process that outlives the server.

::

    UUID/
      training.json   when it was asked for, and with what
      body.json       what of that was JSON
      files/          files it was given
      lock            held by its process while that runs
      log.txt         what it prints
      outcome.json    what came of it; written by its process
      cancelled       somebody has cancelled it

Beside these folders are files ``.turn-N``. A process holds one while it trains, so that not more train at once.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from ai4sdk.errors import EnvironmentFault
from ai4sdk.processes import signal_group
from ai4sdk.runs.files import read_json, write_json, write_text
from ai4sdk.serving.deepaas.calls import Found
from ai4sdk.serving.deepaas.forms import Upload
from ai4sdk.serving.deepaas.worker import AGENT, module_environment

__all__ = ["TooMany", "Trainings"]

_DATE = "%Y-%m-%d %H:%M:%S.%f"
_MOST_WAITING = 100
"""Trainings that run or wait, each of which is a process."""
_GRACE = 5.0
"""Seconds a training has to end by itself once it is cancelled."""


class TooMany(Exception):
    """More trainings are waiting than anybody can want."""


class Trainings:
    """The trainings of one module.

    Parameters
    ----------
    folder
        Where they are; made when it is needed.
    python
        Interpreter of the module's environment.
    name
        Name of its entry point.
    at_once
        How many train at once; others wait for their turn, as in DEEPaaS.
    """

    def __init__(self, folder: Path, python: Path, name: str, at_once: int = 1) -> None:
        self.folder = folder
        self.python = python
        self.name = name
        self.at_once = at_once
        self._children: list[subprocess.Popen[bytes]] = []

    def start(self, found: Found, args: Mapping[str, Any]) -> dict[str, Any]:
        """Start a training; return its record.

        Parameters
        ----------
        found
            Arguments as the request has them. Files among them are moved into the training's folder.
        args
            Arguments as they are shown.

        Raises
        ------
        TooMany
            If too many wait already.
        EnvironmentFault
            If no process can be started.
        """
        going = sum(_is_held(place / "lock") for place in self._places())
        if going >= _MOST_WAITING:
            raise TooMany(f"{going} trainings of {self.name} run or wait already")
        name = uuid.uuid4().hex
        place, scratch = self.folder / name, self.folder / f".{name}"
        (scratch / "files").mkdir(parents=True)
        try:
            moved = {key: _moved(value, scratch / "files", place / "files") for key, value in found.values.items()}
            kept = replace(found, values=moved).to_json()
            date = datetime.now().strftime(_DATE)
            write_json(scratch / "training.json", {"date": date, "args": dict(args), **kept})
            (scratch / "body.json").write_bytes(found.json)
            with open(scratch / "lock", "wb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                scratch.rename(place)
                self._run(place, lock.fileno())
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
        return self._record(place)

    def _run(self, place: Path, lock: int) -> None:
        """Start the process of a training. It has the lock from us, so that there is no moment without."""
        try:
            with open(place / "log.txt", "wb") as log:
                child = subprocess.Popen(
                    [str(self.python), "-I", "-u", str(AGENT), "train", str(place), self.name, str(self.at_once)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=module_environment(),
                    pass_fds=[lock],
                    start_new_session=True,
                )
        except OSError as error:
            shutil.rmtree(place, ignore_errors=True)
            raise EnvironmentFault(f"{self.python} cannot be started: {error.strerror or error}") from error
        self._children.append(child)

    def list(self) -> list[dict[str, Any]]:
        """Return the records of all trainings, oldest first."""
        self._reap()
        found = [self._record(place) for place in self._places()]
        return sorted(found, key=lambda record: str(record["date"]))

    def get(self, name: str) -> dict[str, Any] | None:
        """Return the record of a training; nothing if there is none of that name."""
        self._reap()
        place = self._place(name)
        return None if place is None else self._record(place)

    def cancel(self, name: str) -> dict[str, Any] | None:
        """Stop a training and keep its record; one that has ended is taken away. Return its record.

        It has a few seconds to end by itself.
        """
        self._reap()
        place = self._place(name)
        if place is None:
            return None
        record = self._record(place)
        if record["status"] != "running":
            shutil.rmtree(place, ignore_errors=True)
            return record
        write_text(place / "cancelled", "")
        self._stop(place / "lock")
        self._reap()
        return self._record(place)

    def _stop(self, lock: Path) -> None:
        began = time.monotonic()
        _signal(lock, signal.SIGTERM)
        while _is_held(lock) and (waited := time.monotonic() - began) < 2 * _GRACE:
            if waited > _GRACE:
                _signal(lock, signal.SIGKILL)
            self._reap()
            time.sleep(0.02)

    def _places(self) -> Iterator[Path]:
        places = self.folder.iterdir() if self.folder.is_dir() else ()
        return (place for place in places if not place.name.startswith("."))

    def _place(self, name: str) -> Path | None:
        is_uuid = len(name) == 32 and all(letter in "0123456789abcdef" for letter in name)
        place = self.folder / name
        return place if is_uuid and place.is_dir() else None

    def _record(self, place: Path) -> dict[str, Any]:
        """Return what DEEPaaS tells of a training."""
        try:
            asked = read_json(place / "training.json")
        except (OSError, ValueError) as error:
            message = f"its record cannot be read: {error}"
            return {"date": "", "args": {}, "uuid": place.name, "status": "error", "message": message}
        record = {"date": asked["date"], "args": asked["args"], "uuid": place.name}
        # whether it runs is asked first: what it leaves then is all it will leave
        is_running = _is_held(place / "lock")
        if (place / "cancelled").exists():
            if is_running:
                return record | {"status": "running", "message": "it was cancelled, and has not ended yet"}
            return record | {"status": "cancelled"}
        try:
            return record | _ended(read_json(place / "outcome.json"), asked["date"])
        except FileNotFoundError:
            if is_running:
                return record | {"status": "running"}
        except (OSError, ValueError, KeyError) as error:
            return record | {"status": "error", "message": f"its outcome cannot be read: {error}"}
        message = "lost: its process is gone and has left no result; it was killed, or the machine restarted"
        return record | {"status": "error", "message": message + _last_line(place / "log.txt")}

    def _reap(self) -> None:
        """Let go of processes that have ended."""
        self._children = [child for child in self._children if child.poll() is None]


def _ended(outcome: Mapping[str, Any], began: str) -> dict[str, Any]:
    if outcome["status"] == "error":
        return {"status": "error", "message": outcome["message"]}
    ended = outcome["finish_date"]
    duration = datetime.fromisoformat(ended) - datetime.fromisoformat(began)
    told = {"message": outcome["message"]} if "message" in outcome else {}
    result = {"output": outcome["output"], "finish_date": ended, "duration": str(duration)}
    return {"status": "done", "result": result, **told}


def _moved(value: Any, folder: Path, later: Path) -> Any:
    """Move the files of an argument into a folder, which will have another name later."""
    if isinstance(value, list):
        return [_moved(part, folder, later) for part in value]
    if not isinstance(value, Upload):
        return value
    shutil.move(value.path, folder / value.path.name)
    return Upload(later / value.path.name, value.original_name, value.content_type)


def _is_held(lock: Path) -> bool:
    try:
        with open(lock, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _signal(lock: Path, number: int) -> None:
    """Signal the groups of all processes of a training: it may have started some that lead groups of their own."""
    groups = set()
    for pid in _holders(lock):
        with contextlib.suppress(ProcessLookupError):
            groups.add(os.getpgid(pid))
    for group in groups - {os.getpgrp()}:
        signal_group(group, number)


def _holders(lock: Path) -> Iterator[int]:
    """Yield the processes that have a file open, other than this one."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if any(_is_same(descriptor, lock) for descriptor in (entry / "fd").iterdir()):
                yield int(entry.name)


def _is_same(descriptor: Path, file: Path) -> bool:
    try:
        return descriptor.samefile(file)
    except OSError:
        return False


def _last_line(log: Path) -> str:
    with contextlib.suppress(OSError), open(log, "rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
        lines = file.read().decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f"; it said last: {last[:500]}" if last else ""
    return ""
