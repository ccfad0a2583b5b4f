"""A process that forks workers, as the pool sees it; its own side is `ai4sdk.worker.zygote`."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ai4sdk.backends.local.spare import Forked, take_spare
from ai4sdk.processes import die_with_parent, signal_group

__all__ = ["Zygote"]

_LONGEST_MESSAGE = 2**16


class Zygote:
    """Starts a zygote, or gives its orders to one that was forked before.

    Parameters
    ----------
    env
        Variables added to its environment, which its workers have, too.
    modules
        What it imports before it forks.
    folder
        Folder it starts in.
    log
        File that takes its output.
    grace
        Seconds from telling its workers to stop to killing them, once the pool is gone.

    Raises
    ------
    OSError
        If no process can be started.
    """

    def __init__(self, env: Mapping[str, str], modules: Sequence[str], folder: Path, log: Path, grace: float) -> None:
        self.env = env
        self.modules = modules
        self.ready = False
        self._process: subprocess.Popen[bytes] | Forked
        if spare := take_spare(env):
            self._process, self.connection = spare.process, spare.connection
            orders = {"env": dict(env), "folder": str(folder), "log": str(log), "grace": grace, "modules": [*modules]}
            with contextlib.suppress(ConnectionError):  # `hear` will tell
                self.connection.send(json.dumps(orders).encode())
            return
        self.connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs, open(log, "ab") as output:
                argv = [sys.executable, "-P", "-m", "ai4sdk.worker.zygote", str(theirs.fileno()), str(grace), *modules]
                self._process = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd=folder,
                    env={**os.environ, **env},
                    process_group=0,
                    pass_fds=[theirs.fileno()],
                    preexec_fn=die_with_parent(),
                )
        except BaseException:
            self.connection.close()
            raise

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def ask(self, request: Mapping[str, Any], lock: int) -> None:
        """Send a request with a descriptor; if the zygote has died, `hear` will tell."""
        with contextlib.suppress(ConnectionError):
            socket.send_fds(self.connection, [json.dumps(request).encode()], [lock])

    def hear(self) -> dict[str, Any] | None:
        """Return the next thing it says, waiting for it; ``None`` if it has died."""
        try:
            message = self.connection.recv(_LONGEST_MESSAGE)
        except ConnectionError:
            message = b""
        said: dict[str, Any] | None = json.loads(message or "null")
        return said

    def let_go(self) -> None:
        """Close the connection, upon which it ends its workers and itself."""
        self.connection.close()

    def ended(self) -> bool:
        """Tell whether it has ended."""
        return self._process.poll() is not None

    def join(self, patience: float) -> int:
        """Wait for its end, kill it if it takes longer than ``patience`` seconds, and return its status."""
        try:
            return self._process.wait(patience)
        except subprocess.TimeoutExpired:
            signal_group(self.pid, signal.SIGKILL)
            return self._process.wait()
