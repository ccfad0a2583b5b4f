"""Servers of exposed services: the script of each, started once and without a supervisor, as OSCAR's deployments do."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ai4sdk.backends.oscar.script import PORT

__all__ = ["Answered", "Servers"]

_MOST_OF_A_LOG = 2**20
_GRACE = 5.0


@dataclass(frozen=True)
class Answered:
    """What a server answered."""

    status: int
    content: bytes
    content_type: str


@dataclass(frozen=True)
class _Server:
    process: subprocess.Popen[bytes]
    port: int


class Servers:
    """Starts servers, passes requests on to them, and ends them.

    Parameters
    ----------
    folder
        Folder for their scripts and logs.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: dict[str, _Server] = {}
        self._lock = threading.Lock()

    def start(self, service: Mapping[str, Any], env: Mapping[str, str]) -> None:
        """Start a service's server, in the place of the one that it may have."""
        name = service["name"]
        self.end(name)
        self._folder.mkdir(parents=True, exist_ok=True)
        script = self._folder / f"{name}.sh"
        script.write_text(service["script"], encoding="utf-8")
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = int(free.getsockname()[1])
        with open(self._folder / f"{name}.log", "wb") as log:
            process = subprocess.Popen(
                ["/bin/sh", str(script)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**env, PORT: str(port)},
                cwd=self._folder,
                start_new_session=True,
            )
        with self._lock:
            self._running[name] = _Server(process, port)

    def end(self, name: str) -> None:
        """End a service's server, if it has one."""
        with self._lock:
            server = self._running.pop(name, None)
        if server is not None:
            _end(server.process)

    def close(self) -> None:
        """End all of them."""
        for name in list(self._running):
            self.end(name)

    def state(self, name: str) -> tuple[str, str]:
        """Return how a server stands, in OSCAR's words, and why."""
        server = self._running.get(name)
        if server is None:
            return "unavailable", "it starts a process for each call"
        if (status := server.process.poll()) is not None:
            return "failed", f"the script has ended with status {status}"
        try:
            socket.create_connection(("127.0.0.1", server.port), timeout=1).close()
        except OSError:
            return "pending", "nothing listens at its port yet"
        return "ready", ""

    def log(self, name: str) -> list[str]:
        """Return the lines that a server has printed."""
        try:
            content = (self._folder / f"{name}.log").read_bytes()[-_MOST_OF_A_LOG:]
        except FileNotFoundError:
            return []
        return content.decode(errors="replace").splitlines()

    def ask(self, name: str, method: str, target: str, content_type: str, body: bytes, timeout: float) -> Answered:
        """Pass a request on; a server that does not answer is told as a gateway tells it."""
        server = self._running.get(name)
        if server is None:
            return Answered(503, b"no available server", "text/plain")
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=timeout)
        try:
            connection.request(method, target, body or None, {"Content-Type": content_type} if content_type else {})
            answer = connection.getresponse()
            return Answered(answer.status, answer.read(), answer.getheader("Content-Type") or "")
        except ConnectionRefusedError:
            return Answered(503, b"no available server", "text/plain")
        except TimeoutError:
            return Answered(504, b"Gateway Timeout", "text/plain")
        except (OSError, http.client.HTTPException):
            return Answered(502, b"Bad Gateway", "text/plain")
        finally:
            connection.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a server: it may finish what it answers, but not for long."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE)
            return
