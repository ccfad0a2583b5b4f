"""What there is to do: listings and notifications, no more at a time than can be handled."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Iterator

from ai4sdk.errors import DataError
from ai4sdk.serving.events.ledger import Ledger
from ai4sdk.serving.events.names import is_wanted
from ai4sdk.serving.events.pruning import Pruning, Turn
from ai4sdk.serving.events.stores.base import Item, Store
from ai4sdk.serving.events.work import Outcome, Work, pause
from ai4sdk.spec.serving_events import ServingEvents

__all__ = ["Loop"]

log = logging.getLogger("ai4sdk.serving.events")

_HINTS = 10_000
"""Notifications kept; more of them only bring the next listing forward."""

_A_LITTLE = 0.1
"""Seconds; a file that is looked at just before it has settled would be looked at much later."""


class Loop:
    """Feeds a `Work`.

    Parameters
    ----------
    events
        The section of the job.
    source
        Store that is watched.
    work
        What processes.
    ledger
        Of this server.
    pruning
        Looks after claims of what is gone.
    """

    def __init__(self, events: ServingEvents, source: Store, work: Work, ledger: Ledger, pruning: Pruning) -> None:
        self._events, self._source, self._work, self._ledger, self._pruning = events, source, work, ledger, pruning
        self._counters = work.counters
        self._busy: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._hints: deque[str] = deque(maxlen=_HINTS)
        self._wake = asyncio.Event()
        self._overflow = False
        self._later: dict[str, float] = {}
        """Keys that are not finished and not being processed (others hold them, or they still grow), and after how many
        seconds to look at them again."""
        self._failure: Exception | None = None

    def offer(self, keys: list[str]) -> int:
        """Hear that keys have arrived; return how many of them are wanted."""
        wanted = [key for key in keys if self._is_wanted(key)]
        for key in wanted:
            if len(self._hints) == _HINTS:
                self._overflow = True
                break
            self._hints.append(key)
        self._wake.set()
        return len(wanted)

    def stop(self) -> None:
        """Begin nothing more; `run` returns when what was begun has ended, or is given back after the time of grace."""
        if not self._stopping:
            self._work.stopping.set()
            self._wake.set()
            asyncio.get_running_loop().call_later(self._events.grace, self._work.abandoned.set)

    async def run(self, *, once: bool = False) -> None:
        """Process what arrives until `stop`, or what is there with ``once``.

        Raises
        ------
        Ai4Error
            If it cannot go on: the ledger cannot be written, or with ``once`` a store is away.
        """
        try:
            await self._finish_what_was_begun()
            if once:
                await self._run_once()
            else:
                await self._run()
        finally:
            self.stop()
            await self._settle()
        if self._failure is not None:
            raise self._failure

    async def _finish_what_was_begun(self) -> None:
        """Process what was begun in an earlier life, one at a time: one of them may have ended it."""
        left = self._ledger.unfinished()
        if left:
            log.info("%d objects were begun before; they come first, one at a time", len(left))
        for item in left:
            await self._begin(item)
            if self._busy:  # one that waits for a store that will not have it must not keep all others waiting
                await asyncio.wait(set(self._busy.values()), timeout=self._events.timeout)

    async def _run(self) -> None:
        failures = 0
        loop = asyncio.get_running_loop()
        due = loop.time()
        while not self._stopping:
            self._wake.clear()
            while self._hints and not self._stopping:
                await self._begin(self._hints.popleft())
            if self._overflow or loop.time() >= due:
                self._overflow = False
                try:
                    await self._list()
                    failures, wait = 0, self._events.every
                    wait = min([wait, *self._later.values()])
                except DataError as error:
                    failures += 1
                    self._counters.store_errors += 1
                    log.warning("%s", error.message)
                    wait = self._events.every + pause(failures, self._events.backoff, self._events.longest_backoff)
                due = loop.time() + wait
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), max(due - loop.time(), 0))

    async def _run_once(self) -> None:
        keys: set[str] | None = None
        while not self._stopping:
            await self._list(keys)
            await self._settle()
            if not self._later:
                return
            keys = set(self._later)  # what comes meanwhile is for the next time
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), min([self._events.every, *self._later.values()]))

    async def _list(self, keys: set[str] | None = None) -> None:
        """Begin what a listing shows; the next page is asked for when there is room for the last one's objects."""
        self._counters.listings += 1
        self._later.clear()
        missed, turn = await self._work.finished(), self._pruning.begin()
        pages = self._source.pages(self._events.prefixes)
        while (page := await self._work.call(lambda: _next(pages))) is not None:
            for item in page:
                if self._stopping:
                    return
                missed.discard((item.key, item.version))
                if turn is not None:
                    turn.saw(item)
                if self._is_wanted(item.key) and (keys is None or item.key in keys):
                    await self._begin(item)
        await self._work.forget(missed)
        if turn is not None:
            await self._prune(turn)

    async def _prune(self, turn: Turn) -> None:
        """Look after claims of what is not listed any more."""
        try:
            forgotten, begun = await self._work.call(lambda: self._pruning.end(turn))
        except DataError as error:  # there are further turns
            self._counters.store_errors += 1
            log.warning("claims of what is gone cannot be removed: %s", error.message)
            return
        self._counters.forgotten += forgotten
        for item in begun:
            await self._begin(item)

    async def _begin(self, what: Item | str) -> None:
        """Process a version, or the one that a key has now, as soon as there is room."""
        if isinstance(what, Item):
            if self._ledger.is_finished(what) or (what.key, what.version) in self._busy:
                return
            if not what.settled:
                self._later[what.key] = self._until_settled
                return
            pair = (what.key, what.version)
        else:
            pair = (what, "")
            if pair in self._busy:
                return
        await self._work.room.acquire()
        if self._stopping or pair in self._busy:
            self._work.room.release()
            return
        self._busy[pair] = asyncio.create_task(self._one(what, pair))

    async def _one(self, what: Item | str, pair: tuple[str, str]) -> None:
        try:
            if isinstance(what, Item):
                await self._process(what)
            else:
                await self._look_up(what)
        except Exception as error:  # noqa: BLE001 - `run` raises it
            self._failure = self._failure or error
            self.stop()
        finally:
            self._busy.pop(pair, None)
            self._work.room.release()

    async def _look_up(self, key: str) -> None:
        try:
            item = await self._work.call(lambda: self._source.stat(key))
        except DataError as error:  # the next listing will tell
            self._counters.store_errors += 1
            log.warning("%s", error.message)
            return
        if item is None or self._ledger.is_finished(item) or (item.key, item.version) in self._busy:
            return
        if not item.settled:
            self._later[item.key] = self._until_settled
            return
        pair = (item.key, item.version)
        task = asyncio.current_task()
        assert task is not None
        self._busy[pair] = task
        try:
            await self._process(item)
        finally:
            self._busy.pop(pair, None)

    async def _process(self, item: Item) -> None:
        if await self._work.process(item) == Outcome.HELD:
            self._later[item.key] = self._events.lease  # then its holder may be silent for too long

    async def _settle(self) -> None:
        """Wait until nothing is being processed."""
        while self._busy:
            await asyncio.wait(set(self._busy.values()))

    def _is_wanted(self, key: str) -> bool:
        return is_wanted(key, self._events.prefixes, self._events.suffixes)

    @property
    def _until_settled(self) -> float:
        return self._events.settle + _A_LITTLE

    @property
    def _stopping(self) -> bool:
        return self._work.stopping.is_set()


def _next(pages: Iterator[list[Item]]) -> list[Item] | None:
    return next(pages, None)
