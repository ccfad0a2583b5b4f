"""Calls that the stand-in runs: each in a process of its own, as the supervisor is in a container of its own."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ai4sdk.backends.oscar.standin.files import read_all
from ai4sdk.backends.oscar.standin.supervisor import BUCKETS
from ai4sdk.runs.files import read_json, write_json

__all__ = ["Answer", "Job", "Jobs", "environment_of", "exposed"]

SUPERVISOR = (sys.executable, "-P", "-m", "ai4sdk.backends.oscar.standin.supervisor")
_SHARED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "LD_LIBRARY_PATH", "TZ")
"""Variables of this machine that containers get; an image would have its own."""
_LONG = 25
"""Characters of a service's name, from which on OSCAR shortens it in those of jobs."""
_AT_ONCE = 2
"""Jobs that run at once."""


@dataclass(frozen=True)
class Job:
    """How a job stands, in the words of Kubernetes."""

    name: str
    service: str
    status: str
    creation_time: str
    start_time: str | None = None
    finish_time: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return what the API tells of it."""
        told = {name: value for name, value in asdict(self).items() if name not in ("name", "service")}
        return {name: value for name, value in told.items() if value is not None}


@dataclass(frozen=True)
class Answer:
    """What a synchronous call came to."""

    status: int
    text: str


class Jobs:
    """Runs services, and keeps what they printed.

    Parameters
    ----------
    folder
        Folder for the jobs.
    buckets
        Folder that has the buckets.
    supervisor
        Command that serves a call.
    """

    def __init__(self, folder: Path, buckets: Path, supervisor: tuple[str, ...] = SUPERVISOR) -> None:
        self._folder, self._buckets, self._supervisor = folder, buckets, supervisor
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="job")
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock, self._turns = threading.Lock(), dict[str, threading.Lock]()
        self._closed = False
        for path in folder.glob("*/*.json"):
            job = Job(**read_json(path))
            if job.finish_time is None:  # the stand-in that ran it is gone
                self._keep(replace(job, status="Failed", finish_time=_now()))

    def start(self, service: Mapping[str, Any], event: str) -> Job:
        """Start a job for an event; it may wait for its turn."""
        name = service["name"]
        job = Job(f"{name if len(name) < _LONG else name[:16]}-{uuid.uuid4()}", name, "Pending", _now())
        self._keep(job)
        self._pool.submit(self._execute, job, service, event)
        return job

    def answer(self, service: Mapping[str, Any], event: str, timeout: float) -> Answer:
        """Serve a synchronous call; calls of one service wait for each other."""
        with self._lock:
            turn = self._turns.setdefault(service["name"], threading.Lock())
        with turn:
            process = self._spawned(list(self._supervisor), service, {}, stderr=subprocess.PIPE)
            try:
                said, complaints = process.communicate(event.encode(), timeout)
            except subprocess.TimeoutExpired:
                _end(process)
                process.communicate()
                return Answer(500, f"no answer within {timeout:g} s\n")
            finally:
                self._over(process)
        if process.returncode:
            ended = f"exit status {process.returncode}" if process.returncode > 0 else "signal: terminated"
            return Answer(500, f"{ended}\n{complaints.decode(errors='replace')}{said.decode(errors='replace')}")
        return Answer(200, said.decode(errors="replace"))

    def of(self, service: str) -> list[Job]:
        """Return the jobs of a service, the oldest first."""
        jobs = [Job(**values) for values in read_all((self._folder / service).glob("*.json"))]
        return sorted(jobs, key=lambda job: (job.creation_time, job.name))

    def log(self, service: str, name: str) -> str | None:
        """Return what a job has printed, nothing if there is none of that name."""
        if name not in {job.name for job in self.of(service)}:
            return None
        try:
            return self._log(service, name).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""

    def remove(self, service: str, name: str) -> bool:
        """Forget a job; one that runs goes on unseen. Returns whether there was one."""
        if name not in {job.name for job in self.of(service)}:
            return False
        with self._lock:
            self._json(service, name).unlink(missing_ok=True)
            self._log(service, name).unlink(missing_ok=True)
        return True

    def close(self) -> None:
        """End everything that runs."""
        self._closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            running = list(self._running)
        for process in running:
            _end(process)
        self._pool.shutdown(wait=True)

    def _execute(self, job: Job, service: Mapping[str, Any], event: str) -> None:
        job = replace(job, status="Running", start_time=_now())
        self._keep(job)
        log = self._log(job.service, job.name)
        variables = {"EVENT": event, "JOB_UUID": job.name, "RESOURCE_ID": "this-machine"}
        command = ["/bin/sh", "-c", f"echo $EVENT | {' '.join(self._supervisor)}"]
        try:
            with open(log, "ab") as file:  # the script adds to it, too
                process = self._spawned(command, service, variables, stdout=file, stderr=subprocess.STDOUT)
                process.communicate()
            self._over(process)
            status = "Failed" if process.returncode else "Succeeded"
        except OSError as error:  # such as an event that is longer than a variable may be
            log.write_text(f"the container cannot be started: {error.strerror or error}\n", encoding="utf-8")
            status = "Failed"
        self._keep(replace(job, status=status, finish_time=_now()))

    def _spawned(
        self, command: list[str], service: Mapping[str, Any], variables: Mapping[str, str], **streams: Any
    ) -> subprocess.Popen[bytes]:
        call = {
            "SCRIPT": base64.b64encode(service["script"].encode()).decode(),
            "FUNCTION_CONFIG": base64.b64encode(json.dumps(_config(service)).encode()).decode(),
            BUCKETS: str(self._buckets),
        }
        env = {**environment_of(service), **call, **variables}
        streams = {"stdout": subprocess.PIPE, **streams}
        process = subprocess.Popen(command, stdin=subprocess.PIPE, env=env, start_new_session=True, **streams)
        with self._lock:
            self._running.add(process)
        if self._closed:
            _end(process)
        return process

    def _over(self, process: subprocess.Popen[bytes]) -> None:
        with self._lock:
            self._running.discard(process)

    def _keep(self, job: Job) -> None:
        path = self._json(job.service, job.name)
        with self._lock:
            if job.status == "Pending":
                path.parent.mkdir(parents=True, exist_ok=True)
            elif not path.exists():  # removed
                return
            write_json(path, asdict(job), durable=False)

    def _json(self, service: str, name: str) -> Path:
        return self._folder / service / f"{name}.json"

    def _log(self, service: str, name: str) -> Path:
        return self._folder / service / f"{name}.log"


def _config(service: Mapping[str, Any]) -> dict[str, Any]:
    return {name: service.get(name) for name in ("name", "input", "output", "log_level")}


def environment_of(service: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables of a container of a service."""
    own = {name: os.environ[name] for name in _SHARED if name in os.environ}
    own["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), own.get("PATH", os.defpath)))
    given = service.get("environment") or {}
    return {
        **own,
        **(given.get("variables") or {}),
        **(service.get("secret_values") or {}),
        "OSCAR_SERVICE_NAME": service["name"],
        "OSCAR_SERVICE_TOKEN": service["token"],
        "OSCAR_SERVICE_BASE_PATH": f"/system/services/{service['name']}/exposed" if exposed(service) else "",
    }


def exposed(service: Mapping[str, Any]) -> bool:
    """Tell whether a service has a server."""
    return any((service.get("expose") or {}).get("api_port") or [])


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
