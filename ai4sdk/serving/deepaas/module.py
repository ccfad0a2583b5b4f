"""A module in its own environment, with as many processes as it has workers."""

from __future__ import annotations

import asyncio
import difflib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ai4sdk.errors import Ai4Error, EnvironmentFault, NotFound, RunFailed
from ai4sdk.serving.deepaas.agent import BrokenJson
from ai4sdk.serving.deepaas.arguments import Description
from ai4sdk.serving.deepaas.calls import Found
from ai4sdk.serving.deepaas.worker import MOST, Lost, TookTooLong, Worker, environment_python

__all__ = ["Invalid", "Module", "ModuleFailed"]

log = logging.getLogger(__name__)

_LONGEST_PAUSE = 60.0


class Invalid(Exception):
    """Arguments a module does not take.

    Parameters
    ----------
    messages
        Why, by argument.
    """

    def __init__(self, messages: Mapping[str, Any]) -> None:
        super().__init__(str(messages))
        self.messages = messages


class ModuleFailed(Exception):
    """A module did not answer.

    Parameters
    ----------
    status
        The HTTP status that says so.
    message
        Why.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Module:
    """A module that was written for DEEPaaS.

    Parameters
    ----------
    name
        Name of its entry point.
    environment
        The virtual environment it is installed in, or that one's interpreter.
    workers
        Processes, each of which answers one request after the other.
    timeout
        Seconds after which a process that has not answered is killed; nothing waits for ever if it is set.
    load_timeout
        The same for loading the module and for warming it up.
    warm
        Whether each process calls ``warm()`` before its first request.
    most
        Bytes an answer may have.
    said
        Told each line it prints; by default they go to the log.
    """

    def __init__(
        self,
        name: str,
        environment: Path,
        *,
        workers: int = 1,
        timeout: float | None = None,
        load_timeout: float | None = None,
        warm: bool = True,
        most: int = MOST,
        said: Callable[[str], None] | None = None,
    ) -> None:
        self.name = name
        self.python = environment_python(environment)
        self.workers = [Worker(self.python, name, f"{name}/{number}", said) for number in range(workers)]
        self.timeout = timeout
        self.load_timeout = load_timeout
        self.most = most
        self._warm = warm
        self._description: Description | None = None
        self._free: asyncio.Queue[Worker | None] = asyncio.Queue()  # None: there is nobody to wait for
        self._asked: set[asyncio.Task[Any]] = set()
        self._revivals: set[asyncio.Task[None]] = set()
        self._broken: dict[Worker, str] = {}
        self._is_closed = False

    @property
    def description(self) -> Description:
        """What the module says of itself; asked once, at the start."""
        assert self._description is not None, "the module was not started"
        return self._description

    @property
    def is_ready(self) -> bool:
        """Whether it can answer: at least one of its processes is not beyond help."""
        return self._description is not None and not self._is_beyond_help

    async def start(self) -> None:
        """Start its processes, and warm them up.

        Raises
        ------
        NotFound
            If the environment has no module of that name.
        RunFailed
            If the module raises when it is loaded, asked what it is, or warmed up.
        EnvironmentFault
            If its processes end or hang meanwhile.
        """
        try:
            first, *others = self.workers
            await self._load(first)
            self._description = Description.of(await self._ask_first(first, "describe"))
            if self._warm:
                await self._ask_first(first, "warm")
            await asyncio.gather(*(self._ready(worker) for worker in others))
        except BaseException:
            await self.close()
            raise
        for worker in self.workers:
            self._free.put_nowait(worker)

    async def finish(self) -> None:
        """Wait until what was asked is answered."""
        await asyncio.gather(*self._asked, return_exceptions=True)

    async def close(self) -> None:
        """Kill its processes."""
        self._is_closed = True
        tasks = [*self._asked, *self._revivals]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(worker.kill() for worker in self.workers))

    async def predict(self, found: Found) -> tuple[str, bytes]:
        """Predict; return content type and body.

        Parameters
        ----------
        found
            Arguments.

        Raises
        ------
        BrokenJson
            If some are looked for in a JSON body that is none.
        Invalid
            If the module does not take the arguments.
        ModuleFailed
            If it does not answer.
        """
        head, body = await self._call({"do": "predict"}, found, "predict")
        return head["content_type"], body

    async def check(self, function: str, found: Found) -> dict[str, Any]:
        """Check a function's arguments; return them as they are shown to people. Raises as `predict` does."""
        head, _ = await self._call({"do": "check", "function": function}, found, function)
        return dict(head["args"])

    # -- starting ---------------------------------------------------------------------------------------------------

    async def _ready(self, worker: Worker) -> None:
        await self._load(worker)
        if self._warm:
            await self._ask_first(worker, "warm")

    async def _load(self, worker: Worker) -> None:
        try:
            head = await worker.start(self.load_timeout)
        except (Lost, TookTooLong) as error:
            raise EnvironmentFault(self._ending("loading", error, worker), hint=_last_lines(worker)) from error
        if "unknown" in head:
            await worker.kill()
            raise _unknown(self.name, self.python, head["unknown"])
        await self._refuse(worker, head, f"{self.name} cannot be loaded")

    async def _ask_first(self, worker: Worker, what: str) -> dict[str, Any]:
        try:
            head, _ = await worker.ask({"do": what}, timeout=self.load_timeout)
        except (Lost, TookTooLong) as error:
            raise EnvironmentFault(self._ending(f"{what}()", error, worker), hint=_last_lines(worker)) from error
        await self._refuse(worker, head, f"{self.name}: {what} failed")
        return head

    async def _refuse(self, worker: Worker, head: Mapping[str, Any], what: str) -> None:
        if "failed" in head:
            await worker.kill()
            failed = head["failed"]
            raise RunFailed(f"{what}: {failed['type']}: {failed['message']}", hint=_last_lines(worker))

    def _ending(self, doing: str, error: Exception, worker: Worker) -> str:
        if isinstance(error, TookTooLong):
            return f"{self.name}: {doing} took longer than {self.load_timeout:g} s"
        return f"{self.name}: its process {error} during {doing}"

    # -- asking -----------------------------------------------------------------------------------------------------

    async def _call(self, question: Mapping[str, Any], found: Found, function: str) -> tuple[dict[str, Any], bytes]:
        worker = await self._free_worker()
        # a client that goes away does not stop a module: what it does ends by itself or by the time limit
        task = asyncio.create_task(self._exchange(worker, {**question, **found.to_json()}, found.json))
        self._asked.add(task)
        task.add_done_callback(self._asked.discard)
        head, body = await asyncio.shield(task)
        if "invalid" in head:
            raise Invalid(_by_argument(head["invalid"]))
        if "broken_json" in head:
            raise BrokenJson
        if "failed" in head:
            raise _failure(self.name, function, head["failed"])
        return head, body

    async def _free_worker(self) -> Worker:
        try:
            async with asyncio.timeout(self.timeout):
                while True:
                    if self._is_beyond_help:
                        if self._free.empty():  # for the next one that waits
                            self._free.put_nowait(None)
                        why = next(iter(self._broken.values()))
                        raise ModuleFailed(503, f"{self.name} cannot be started again: {why}")
                    worker = await self._free.get()
                    if worker is not None and worker.is_alive:
                        return worker
                    if worker is not None:  # it ended while nobody asked it, and has begun nothing
                        self._restart(worker)
        except TimeoutError:
            raise ModuleFailed(503, f"no worker of {self.name} became free within {self.timeout:g} s") from None

    @property
    def _is_beyond_help(self) -> bool:
        return len(self._broken) == len(self.workers)

    async def _exchange(
        self, worker: Worker, question: Mapping[str, Any], asked: bytes
    ) -> tuple[dict[str, Any], bytes]:
        """Ask a worker; whatever comes of it, it is free afterwards, or being started again."""
        is_usable = False
        try:
            head, body = await worker.ask(question, asked, timeout=self.timeout, most=self.most)
            is_usable = not head.get("ends")
            return head, body
        except TookTooLong:
            text = f"{self.name} did not answer within {self.timeout:g} s; its process was killed"
            log.warning("%s", text)
            return _failed(504, text), b""
        except Lost as error:
            text = f"the process of {self.name} {error} while it answered"
            log.warning("%s\n%s", text, worker.told())
            return _failed(500, text), b""
        finally:
            if is_usable:
                self._free.put_nowait(worker)
            else:
                self._restart(worker)

    def _restart(self, worker: Worker) -> None:
        if not self._is_closed:
            revival = asyncio.create_task(self._revive(worker))
            self._revivals.add(revival)
            revival.add_done_callback(self._revivals.discard)

    async def _revive(self, worker: Worker) -> None:
        """Start a worker again, with growing pauses while that fails."""
        pause = 0.0
        while True:
            await worker.kill()
            await asyncio.sleep(pause)
            try:
                await self._ready(worker)
            except Ai4Error as error:
                self._broken[worker] = error.message
                if self._is_beyond_help and self._free.empty():
                    self._free.put_nowait(None)
                log.error("%s", error)
                pause = min(max(1.0, 2 * pause), _LONGEST_PAUSE)
                continue
            self._broken.pop(worker, None)
            self._free.put_nowait(worker)
            return


def _failed(status: int, message: str) -> dict[str, Any]:
    return {"failed": {"type": "", "message": message, "status": status}}


def _failure(name: str, function: str, failed: Mapping[str, Any]) -> ModuleFailed:
    kind, message, status = failed["type"], failed["message"], failed.get("status")
    if status is not None:
        return ModuleFailed(status, message)  # one that the module has chosen, or ours
    if kind == "NotImplementedError":
        return ModuleFailed(501, f"{name} does not implement {function}" + (f": {message}" if message else ""))
    if kind == "Unanswerable":
        return ModuleFailed(500, message)
    return ModuleFailed(500, f"{kind}: {message}" if message else kind)


def _by_argument(messages: Any) -> dict[str, Any]:
    return messages if isinstance(messages, dict) else {"_schema": messages}


def _unknown(name: str, python: Path, names: list[str]) -> NotFound:
    where = f"the environment of {python}"
    if not names:
        return NotFound(
            f"{where} has no module for DEEPaaS",
            hint=f"{python} -m pip install the module; it has an entry point in the group deepaas.v2.model",
        )
    near = difflib.get_close_matches(name, names, 1, 0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(names)}"
    return NotFound(f"{where} has no module {name!r}", hint=hint)


def _last_lines(worker: Worker) -> str | None:
    told = worker.told()
    return f"it said last:\n{told}" if told else None
