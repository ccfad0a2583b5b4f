"""One process that holds a module: started, asked, killed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ai4sdk.errors import EnvironmentFault
from ai4sdk.processes import die_with_parent, signal_group
from ai4sdk.serving.deepaas.frames import BrokenFrame, read_frame, write_frame

__all__ = ["AGENT", "MOST", "Lost", "TookTooLong", "Worker", "environment_python", "module_environment"]

log = logging.getLogger(__name__)

AGENT = Path(__file__).with_name("agent.py")
MOST = 1 << 30
"""Bytes an answer may have."""
_REMEMBERED = 40
"""Lines of a module's log that are kept, to tell why it ended."""
_ITS_OWN = ("PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV", "PYTHONSTARTUP", "__PYVENV_LAUNCHER__")


class Lost(Exception):
    """A module's process ended while it was asked."""


class TookTooLong(Exception):
    """A module's process did not answer in time, and was killed."""


def environment_python(environment: Path) -> Path:
    """Return the interpreter of an environment: a virtual environment's folder, or an interpreter itself.

    Raises
    ------
    EnvironmentFault
        If there is none.
    """
    for candidate in (environment / "bin" / "python", environment / "bin" / "python3", environment):
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return candidate.absolute()
        if candidate.is_symlink() and not candidate.exists():
            raise EnvironmentFault(
                f"{candidate} leads to {candidate.readlink()}, which is not there",
                hint="make the environment again; the Python it was made with is gone",
            )
    raise EnvironmentFault(
        f"{environment} is no Python environment: it has no bin/python",
        hint="name the folder of a virtual environment, or an interpreter",
    )


def module_environment() -> dict[str, str]:
    """Return the environment variables a module's process gets: ours, without what is about our own Python."""
    return {name: value for name, value in os.environ.items() if name not in _ITS_OWN}


class Worker:
    """A process with a module in it, which answers one request after the other.

    Parameters
    ----------
    python
        Interpreter of the module's environment.
    name
        Name of its entry point.
    label
        What its lines are marked with.
    said
        Told each line it prints; by default they go to the log.
    """

    def __init__(self, python: Path, name: str, label: str, said: Callable[[str], None] | None = None) -> None:
        self.python = python
        self.name = name
        self.label = label
        self._said = said or (lambda line: log.info("%s", line))
        self.lines: deque[str] = deque(maxlen=_REMEMBERED)
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._listening: asyncio.Task[None] | None = None
        self._asked = 0

    @property
    def pid(self) -> int | None:
        """Number of the process, while there is one."""
        return self._process.pid if self._process is not None else None

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.returncode is None

    async def start(self, timeout: float | None = None) -> dict[str, Any]:
        """Start the process and load the module; return what it says first.

        Raises
        ------
        EnvironmentFault
            If the interpreter cannot be started.
        Lost
            If it ended at once.
        TookTooLong
            If loading took longer than ``timeout`` seconds.
        """
        try:
            ours, theirs = socket.socketpair()
            # a pipe of our own: asyncio's would have us wait for whoever else holds it, such as a child of the module
            said, saying = os.pipe()
        except OSError as error:
            raise EnvironmentFault(f"{self.name} cannot be started: {error.strerror or error}") from error
        with theirs, contextlib.closing(os.fdopen(saying, "wb")):
            command = [str(self.python), "-I", "-u", str(AGENT), "serve", str(theirs.fileno()), self.name]
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *command,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=saying,
                    env=module_environment(),
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                    preexec_fn=die_with_parent(signal.SIGKILL),  # one that hangs may not hear anything less
                )
            except OSError as error:
                ours.close()
                os.close(said)
                raise EnvironmentFault(f"{self.python} cannot be started: {error.strerror or error}") from error
        self._reader, self._writer = await asyncio.open_connection(sock=ours)
        self._listening = asyncio.create_task(self._listen(said))
        head, _ = await self._answer(timeout, MOST)
        return head

    async def ask(
        self, question: Mapping[str, Any], body: bytes = b"", *, timeout: float | None = None, most: int = MOST
    ) -> tuple[dict[str, Any], bytes]:
        """Ask one thing.

        Parameters
        ----------
        question
            What, as `agent.py` takes it.
        body
            JSON that goes with it.
        timeout
            Seconds after which the process is killed.
        most
            Bytes the answer may have.

        Raises
        ------
        Lost
            If the process ended instead of answering.
        TookTooLong
            If it did not answer in time. It is dead then.
        """
        assert self._writer is not None
        self._asked += 1
        # not waited for: who does not read has no more time than who does not answer
        self._writer.write(write_frame({**question, "most": most, "number": self._asked}, body))
        head, answer = await self._answer(timeout, most)
        if head.get("number") != self._asked:
            await self.kill()
            raise Lost("sent what is no answer")
        return head, answer

    async def _answer(self, timeout: float | None, most: int) -> tuple[dict[str, Any], bytes]:
        """Wait for an answer or for the end of the process: a child of it may hold the socket open."""
        assert self._reader is not None
        assert self._process is not None
        answer = asyncio.create_task(read_frame(self._reader, most))
        end = asyncio.create_task(self._process.wait())
        try:
            done, _ = await asyncio.wait({answer, end}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                await self.kill()
                raise TookTooLong
            if answer not in done:  # its last words may still be on the way
                await asyncio.wait({answer}, timeout=0.2)
            if answer.done() and answer.exception() is None:
                return answer.result()
            broken = answer.exception() if answer.done() else None
            # a module that has closed or written to our socket is of no more use
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(end), 1.0)
            await self.kill()
            raise Lost("sent what is no answer" if isinstance(broken, BrokenFrame) else self._how_it_ended())
        finally:
            answer.cancel()
            end.cancel()

    async def kill(self) -> None:
        """Kill the process and those it has started."""
        process = self._process
        if process is None:
            return
        signal_group(process.pid, signal.SIGKILL)
        await process.wait()
        if self._writer is not None:
            self._writer.close()
        if self._listening is not None:
            await asyncio.wait({self._listening}, timeout=1.0)
            self._listening.cancel()

    def _how_it_ended(self) -> str:
        code = self._process.returncode if self._process is not None else None
        if code is None:
            return "closed its connection"
        if code < 0:
            with contextlib.suppress(ValueError):
                return f"was ended by {signal.Signals(-code).name}"
        return f"exited with status {code}"

    def told(self) -> str:
        """Return the last lines of its log."""
        return "\n".join(self.lines)

    async def _listen(self, said: int) -> None:
        """Pass on what the module prints."""
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(said, "rb", buffering=0)
        )
        try:
            await self._read_lines(reader)
        finally:
            transport.close()

    async def _read_lines(self, reader: asyncio.StreamReader) -> None:
        rest = b""
        while chunk := await reader.read(1 << 16):
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > 1 << 16:  # progress bars end no line
                lines, rest = [*lines, rest], b""
            for line in lines:
                self._pass_on(line)
        if rest:
            self._pass_on(rest)

    def _pass_on(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip("\r")
        self.lines.append(text)
        self._said(f"{self.label}: {text}")
