"""The processes of one version of a model: who computes what next, what waits, and what happens when one dies."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ai4sdk.errors import Ai4Error, DataError, EnvironmentFault, NotFound, RunFailed, UsageError
from ai4sdk.serving.link import Link, Spawned, spawn
from ai4sdk.serving.messages import Request, Response
from ai4sdk.serving.refusals import refusal

__all__ = ["Observer", "Pool", "PoolSettings"]

log = logging.getLogger(__name__)

_DEPTH = 2
"""Batches a process has at once: one that it computes, and one that lies ready for it."""
_LOOK = 0.1
"""Seconds between looks at what has waited too long."""
_TOLD_WITHIN = 2.0
_TRIES = 2
_PAUSES = (0.0, 0.5, 2.0, 5.0, 15.0)
"""Seconds before a process is started anew, the more often it died without answering anything between."""
_MOST_BYTES = 64 * 2**20
"""Bodies of a batch are together no more than this, unless one alone is."""


class Observer(Protocol):
    """Who is told what a pool does, for metrics."""

    def batch(self, requests: int, facts: Mapping[str, Any]) -> None:
        """Told of an answered batch."""

    def died(self) -> None:
        """Told that a process died or was killed."""


@dataclass(frozen=True)
class PoolSettings:
    """What a pool needs to know.

    Parameters
    ----------
    name, version
        What it serves.
    folder
        A run or a package.
    devices
        Where each of its processes computes.
    threads
        Threads of each.
    trust_code
        See `ai4sdk.spec.serving.Version`.
    batch_size, batch_wait
        See `ai4sdk.spec.serving.Batch`.
    start, timeout
        Seconds to load, and to answer.
    engine, pixels, drift, drift_events
        See `ai4sdk.spec.serving.Serving`.
    """

    name: str
    version: str
    folder: Path
    devices: tuple[str, ...] = ("cpu",)
    threads: int = 1
    trust_code: bool = False
    batch_size: int = 64
    batch_wait: float = 0.0
    start: float = 300.0
    timeout: float = 30.0
    engine: str = "torch"
    pixels: int = 50_000_000
    drift: Mapping[str, Any] | None = None
    drift_events: str | None = None


@dataclass(eq=False, slots=True)
class _Waiting:
    """A request that is not answered yet."""

    request: Request
    answer: asyncio.Future[Response]
    since: float
    timeout: float
    tries: int = 0


@dataclass(eq=False)
class _Member:
    """A process of the pool, and the batches that it has, the oldest first."""

    device: str
    link: Link
    watches: bool
    """Whether it watches for drift, also what the others hand over to it."""
    batches: dict[int, list[_Waiting]] = field(default_factory=dict)
    since: float = 0.0
    """When it began with the oldest of them."""
    ready: bool = False
    answered: int = 0


class Pool:
    """Computes requests in processes of its own.

    Parameters
    ----------
    settings
        What it serves, and how.
    observer
        Told what happens.
    """

    def __init__(self, settings: PoolSettings, observer: Observer) -> None:
        self.settings = settings
        self.facts: dict[str, Any] = {}
        """What the model's process said of it when it was ready."""
        self._by = {"model": settings.name, "version": settings.version}
        self._observer = observer
        self._members: list[_Member] = []
        # One process watches for drift. While it is being started again, what is handed over waits in the socket.
        several = settings.drift is not None and len(settings.devices) > 1
        self._handover = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) if several else None
        self._waiting: deque[_Waiting] = deque()
        self._retried: deque[_Waiting] = deque()
        self._open = 0
        self._number = 0
        self._due = False
        self._closing = False
        self._deaths = 0
        self._fault: Ai4Error | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def ready(self) -> bool:
        """Whether a process can answer now."""
        return any(member.ready for member in self._members)

    @property
    def open(self) -> int:
        """Number of requests that wait or are being computed."""
        return self._open

    async def start(self, spawned: Sequence[Spawned] = ()) -> None:
        """Start the processes, and return when all of them have loaded the model.

        Parameters
        ----------
        spawned
            Processes that were started before, to be used first.

        Raises
        ------
        Ai4Error
            If the model cannot be loaded.
        """
        early = list(spawned)
        # One first: what is wrong with a model is said once.
        for number, device in enumerate(self.settings.devices):
            members = [self._begin(device, number == 0, early.pop(0) if early else None)]
            if number == 0:
                await self._load(members[0])
        await asyncio.gather(*(self._load(member) for member in self._members[1:]))
        self._run(self._look())

    async def ask(self, request: Request, timeout: float | None = None) -> Response:
        """Have a request answered, within so many seconds if said; whatever happens, there is an answer."""
        assert not self._closing, "a pool that is closed is asked by nobody"
        now = time.monotonic()
        timeout = self.settings.timeout if timeout is None else timeout
        waiting = _Waiting(request, asyncio.get_running_loop().create_future(), now, timeout)
        self._waiting.append(waiting)
        self._open += 1
        self._soon()
        try:
            answer = await waiting.answer
        finally:
            self._open -= 1
        return Response(answer.status, answer.content_type, answer.body, answer.headers, self._by)

    async def drift(self) -> dict[str, Any]:
        """Return what is known of drift, see `ai4sdk.drift.watch.DriftWatch.snapshot`; else why nothing is."""
        if (why := self.facts.get("unwatched")) is not None:
            return {"state": "unwatched", "why": why}
        told = None
        if (member := next((each for each in self._members if each.watches and each.ready), None)) is not None:
            with contextlib.suppress(TimeoutError):  # it computes, and is not to be disturbed
                told = await asyncio.wait_for(member.link.tell(), _TOLD_WITHIN)
        return told or {"state": "unknown", "why": "the process that watches is busy or being started"}

    async def close(self) -> None:
        """Answer what there is, and end the processes."""
        while self._open and self._members:
            await asyncio.sleep(0.01)
        self._closing = True
        for task in self._tasks:
            task.cancel()
        members = list(self._members)
        for member in members:
            member.link.close()
            if not member.ready:  # it loads, and would see only then that nobody wants it any more
                member.link.kill()
        for member in members:
            try:
                await asyncio.wait_for(member.link.ended(), 5)
            except TimeoutError:
                member.link.kill()
                await member.link.ended()
        for line in self._handover or ():
            line.close()

    def _begin(self, device: str, watches: bool, spawned: Spawned | None = None) -> _Member:
        link = Link(spawned or spawn(), self._answered, self._gone)
        member = _Member(device, link, watches)
        self._members.append(member)
        return member

    async def _load(self, member: _Member) -> None:
        settings = self.settings
        try:
            facts = await asyncio.wait_for(
                member.link.load(
                    {
                        "folder": str(settings.folder),
                        "name": settings.name,
                        "version": settings.version,
                        "device": member.device,
                        "threads": settings.threads,
                        "trust_code": settings.trust_code,
                        "batch": settings.batch_size,
                        "engine": settings.engine,
                        "pixels": settings.pixels,
                        "drift": None if settings.drift is None else dict(settings.drift),
                        "drift_events": settings.drift_events,
                        "watches": member.watches,
                    },
                    None if self._handover is None else self._handover[0 if member.watches else 1],
                ),
                settings.start,
            )
        except TimeoutError:
            member.link.kill()
            raise EnvironmentFault(
                f"the model of {settings.folder} did not load within {settings.start:g} s", hint="serving.start=600"
            ) from None
        except ConnectionError:
            raise RunFailed(
                f"the process that loads {settings.folder} {_end_of(await member.link.ended())}",
                hint="its log is above",
            ) from None
        if "error" in facts:
            kind = {2: UsageError, 3: DataError, 6: NotFound, 7: EnvironmentFault}.get(facts["exit_code"], RunFailed)
            raise kind(facts["error"], hint=facts["hint"])
        self.facts = facts
        if run := facts["description"]["run"]:
            self._by = {**self._by, "run": run}
        member.ready = True
        self._soon()

    def _soon(self) -> None:
        """Hand out what waits, once this turn of the loop has brought in all that came with it."""
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._hand_out)

    def _hand_out(self) -> None:
        self._due = False
        while self._waiting or self._retried:
            member = min(
                (each for each in self._members if each.ready and len(each.batches) < _DEPTH),
                key=lambda each: len(each.batches),
                default=None,
            )
            if member is None:
                return
            busy = bool(member.batches)
            if busy and not self._retried and len(self._waiting) < self._enough_for(member):
                # What it computes now is soon done; until then more may come.
                return
            if not busy and (pause := self._pause()) > 0:
                self._due = True
                asyncio.get_running_loop().call_later(pause, self._hand_out)
                return
            batch = self._next_batch()
            if batch:
                self._number += 1
                if not member.batches:
                    member.since = time.monotonic()
                member.batches[self._number] = batch
                member.link.ask(self._number, [waiting.request for waiting in batch])

    @property
    def _most(self) -> int:
        return self.settings.batch_size if self.facts.get("batches", True) else 1

    def _enough_for(self, member: _Member) -> int:
        """How many requests are worth a batch that lies ready while another is computed: no fewer than that has."""
        engine = self.facts.get("engine") or {}
        computed = next(iter(member.batches.values()))
        return min(self._most, engine.get("rows") or self._most, len(computed))

    def _pause(self) -> float:
        """Return how long the oldest that waits may still wait for others."""
        if not self.settings.batch_wait or self._retried or len(self._waiting) >= self._most:
            return 0.0
        return self._waiting[0].since + self.settings.batch_wait - time.monotonic()

    def _next_batch(self) -> list[_Waiting]:
        """Take the next ones from what waits; one that saw a process die goes alone."""
        if self._retried:
            waiting = self._retried.popleft()
            return [] if waiting.answer.done() else [waiting]
        batch: list[_Waiting] = []
        size = 0
        while self._waiting and len(batch) < self._most:
            waiting = self._waiting[0]
            if batch and size + len(waiting.request.body) > _MOST_BYTES:
                break
            self._waiting.popleft()
            if not waiting.answer.done():
                size += len(waiting.request.body)
                batch.append(waiting)
        return batch

    def _answered(self, link: Link, number: int, responses: list[Response], facts: Mapping[str, Any]) -> None:
        member = self._member(link)
        batch = member.batches.pop(number)
        member.since = time.monotonic()
        member.answered += 1
        self._deaths = 0
        self._hand_out()  # first, so that the next batch is computed while this one's answers are sent
        for waiting, response in zip(batch, responses, strict=True):
            if not waiting.answer.done():
                waiting.answer.set_result(response)
        self._observer.batch(len(batch), facts)

    def _gone(self, link: Link) -> None:
        """A process is no more: blame what it computed, keep the rest, and start another."""
        member = self._member(link)
        was_ready = member.ready
        member.ready = False
        self._members.remove(member)
        if self._closing or not was_ready:
            return
        self._observer.died()
        for place, batch in enumerate(member.batches.values()):
            for waiting in reversed(batch):
                if place == 0:
                    waiting.tries += 1
                if waiting.tries >= _TRIES:
                    self._refuse(
                        waiting, 500, "the model's process died when it computed this, and when it tried again"
                    )
                elif place == 0:
                    self._retried.appendleft(waiting)
                else:
                    self._waiting.appendleft(waiting)
        self._run(self._replace(member))

    async def _replace(self, member: _Member) -> None:
        """Start a process in the place of one that is gone, again and again until it loads."""
        log.error("a process of %s %s; another is started", self.settings.name, _end_of(await member.link.ended()))
        while True:
            await asyncio.sleep(_PAUSES[min(self._deaths, len(_PAUSES) - 1)])
            self._deaths += 1
            new = None
            try:
                new = self._begin(member.device, member.watches)
                await self._load(new)
            except Ai4Error as error:
                log.error("%s cannot be loaded again: %s", self.settings.name, error)
                if new is not None and new in self._members:
                    self._members.remove(new)
                    new.link.kill()
            else:
                return

    async def _look(self) -> None:
        """Answer what has waited too long, and kill processes that hang."""
        while True:
            await asyncio.sleep(_LOOK)
            now = time.monotonic()
            for waiting in [*self._waiting, *self._retried]:
                if now > waiting.since + waiting.timeout:
                    what = "is busy" if self.ready else "is being started again"
                    self._refuse(waiting, 503, f"{self.settings.name} {what}: the request waited {waiting.timeout:g} s")
            for member in list(self._members):
                for batch in member.batches.values():
                    for waiting in batch:
                        if now > waiting.since + waiting.timeout:
                            self._refuse(waiting, 504, f"{self.settings.name} took longer than {waiting.timeout:g} s")
                oldest = next(iter(member.batches.values()), [])
                most = max((waiting.timeout for waiting in oldest), default=0.0)
                if oldest and member.ready and now > member.since + most:
                    log.error("a process of %s hangs; it is killed", self.settings.name)
                    member.ready = True
                    member.link.kill()
                    member.since = now

    def _refuse(self, waiting: _Waiting, status: int, message: str) -> None:
        if not waiting.answer.done():
            waiting.answer.set_result(refusal(waiting.request.protocol, status, message))

    def _member(self, link: Link) -> _Member:
        return next(member for member in self._members if member.link is link)

    def _run(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _end_of(status: int) -> str:
    if status < 0:
        import signal

        return f"was killed by {signal.Signals(-status).name}"
    return f"ended with status {status}"
