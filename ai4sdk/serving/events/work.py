"""What is done about one version of an object, from its claim to its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from typing import Any, TypeVar

from ai4sdk.errors import Ai4Error, DataError
from ai4sdk.serving.events.claims import Claim, Claims, Finished, Held
from ai4sdk.serving.events.counters import Counters
from ai4sdk.serving.events.faults import Dead, Ours, Stopped, judge, too_large
from ai4sdk.serving.events.ledger import Ledger
from ai4sdk.serving.events.letters import letter, request_id
from ai4sdk.serving.events.names import content_type, copy_name, error_name, result_name, shown, staged_name
from ai4sdk.serving.events.stores.base import Gone, Item, Refused, Store
from ai4sdk.serving.messages import Request, Response
from ai4sdk.spec.serving_events import ServingEvents
from ai4sdk.spec.units import format_span

__all__ = ["Ask", "Outcome", "Work", "pause"]

log = logging.getLogger("ai4sdk.serving.events")

_ROOM = 4
"""Objects known and unfinished, for each that is processed at once: retries wait among them."""

_ASIDE = 256
"""Objects beside these that cannot be read for now: some that are damaged must not keep all others waiting."""

Ask = Callable[[Request], Awaitable[Response]]
"""What answers: the pool of a model, or any other function."""

T = TypeVar("T")


class Outcome(StrEnum):
    """What came of an object for now."""

    DONE = "done"
    DEAD = "dead"
    RECOGNISED = "recognised"
    HELD = "held"
    GONE = "gone"
    RELEASED = "released"


def pause(attempt: int, first: float, longest: float, draw: Callable[[], float] = random.random) -> float:
    """Return how long to wait before a further attempt: by chance, up to a bound that doubles each time."""
    return float(min(longest, first * 2.0 ** min(attempt - 1, 60))) * draw()


class Work:
    """Processes versions, as many at once as ``concurrency`` says.

    Parameters
    ----------
    events
        The section of the job.
    source, output, dead
        Stores.
    ledger, claims
        Of this server.
    ask
        What answers.
    counters
        Numbers to keep.
    once
        Whether to give up where waiting might help: stores that are away, models that are not ready.
    """

    def __init__(
        self,
        events: ServingEvents,
        source: Store,
        output: Store,
        dead: Store,
        ledger: Ledger,
        claims: Claims,
        ask: Ask,
        counters: Counters,
        *,
        once: bool = False,
    ) -> None:
        self._events, self._once = events, once
        self._source, self._output, self._dead = source, output, dead
        self._ledger, self._claims, self._ask = ledger, claims, ask
        self.counters = counters
        self._slots = asyncio.Semaphore(events.concurrency)
        self.room = asyncio.Semaphore(_ROOM * events.concurrency)
        """For objects that are known and unfinished."""
        self._aside = 0
        self._writing = asyncio.Lock()
        # Each object may have a store's answer to wait for, and its claim kept warm beside.
        self._threads = ThreadPoolExecutor(2 * events.concurrency + 2, thread_name_prefix="store")
        self.stopping = asyncio.Event()
        """Set when nothing more is to be begun: what waits for a retry is given back."""
        self.abandoned = asyncio.Event()
        """Set when time is up: what the model is asked about is given back, too."""

    def close(self) -> None:
        """End the threads; nothing may be processed any more."""
        self._threads.shutdown()

    async def process(self, item: Item) -> Outcome:
        """Do what is to be done about a version, and say what came of it.

        Raises
        ------
        DataError
            If a store is away, with ``once``.
        EnvironmentFault
            If the ledger cannot be written.
        """
        async with self._slots:
            if self.stopping.is_set():
                return Outcome.RELEASED
            return await self._process(item)

    async def _process(self, item: Item) -> Outcome:
        try:
            taken = await self.steadily(lambda: self._claims.take(item))
        except Stopped:
            return Outcome.RELEASED
        if isinstance(taken, Held):
            self.counters.held += 1
            return Outcome.HELD
        if isinstance(taken, Finished):
            await self._note(item, taken.state)
            self.counters.recognised += 1
            self._say("recognised", item, state=taken.state)
            return Outcome.RECOGNISED
        await self._note(item, "claimed", durable=False)
        outcome = Outcome.RELEASED
        with contextlib.suppress(Stopped):  # what cannot even be given back is taken up in the next life
            outcome = await self._keep(taken)
        setattr(self.counters, outcome, getattr(self.counters, outcome) + 1)
        return outcome

    async def call(self, action: Callable[[], T]) -> T:
        """Do something that blocks."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, action)

    async def steadily(self, action: Callable[[], T], *, patient: bool = True) -> T:
        """Have a store do something, and wait for it as long as it is away; unless patient, not for what it refuses."""
        tries = 0
        while True:
            try:
                return await self.call(action)
            except DataError as error:
                tries += 1
                self.counters.store_errors += 1
                log.warning("%s", error.message, extra={"event": {"event": "store", "problem": error.message}})
                enough = self._once or (isinstance(error, Refused) and not patient)
                if enough and tries > self._events.retries:
                    raise
                if self.stopping.is_set():
                    raise Stopped from error
                await self._sleep(pause(tries, self._events.backoff, self._events.longest_backoff))

    async def _sleep(self, seconds: float) -> None:
        """Wait, or until nothing more is to be begun."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.stopping.wait(), seconds)

    async def _note(self, item: Item, state: Any, *, durable: bool = True, **facts: Any) -> None:
        async with self._writing:
            await self.call(lambda: self._ledger.record(item, state, durable=durable, **facts))

    async def forget(self, pairs: set[tuple[str, str]]) -> None:
        """Let the ledger forget versions that are finished; claims still tell of them."""
        async with self._writing:
            await self.call(lambda: self._ledger.forget(pairs))

    async def finished(self) -> set[tuple[str, str]]:
        """Return key and version of those that the ledger knows to be finished."""
        async with self._writing:
            return await self.call(self._ledger.finished)

    async def _keep(self, claim: Claim) -> Outcome:
        """Process what was claimed, and write its end into claim and ledger."""
        item = claim.item
        try:
            async with _beating(self, claim, self._events.lease / 3):
                try:
                    outcome = await self._attempts(claim)
                except Dead as dead:
                    await self._bury(claim, dead)
                    outcome = Outcome.DEAD
        except Gone:
            outcome = Outcome.GONE
        except Stopped:
            outcome = Outcome.RELEASED
        except DataError:
            with contextlib.suppress(DataError):
                await self.call(lambda: self._give_back(claim))
            raise
        if outcome in (Outcome.GONE, Outcome.RELEASED):
            await self.steadily(lambda: self._give_back(claim))
            if claim.note.state != "staged":  # which is to be published, also if the object is gone by then
                await self._note(item, "left")
            self._say(outcome, item)
            return outcome
        if claim.number > 1 or outcome == Outcome.DEAD:
            await self._tidy(claim)
        state = str(outcome)
        await self.steadily(lambda: claim.write(state=state, kind=""))
        await self._note(item, state)
        self._say(outcome, item)
        return outcome

    @staticmethod
    def _give_back(claim: Claim) -> None:
        """Let whoever comes next take a version. What is staged stays so: it may have been seen."""
        if claim.note.state == "claimed":
            claim.write(state="released")

    async def _attempts(self, claim: Claim) -> Outcome:
        """Try until there is a result, it is there already, or it is not worth it any more."""
        item, events = claim.item, self._events
        if claim.note.state == "staged":
            await self._move(claim)
            return Outcome.DONE if claim.note.kind == "result" else Outcome.DEAD
        if claim.number > 1:
            if await self.steadily(lambda: self._output.exists(result_name(item.key, item.version))):
                return Outcome.DONE
            if await self.steadily(lambda: self._dead.exists(error_name(item.key, item.version))):
                return Outcome.DEAD
        if claim.note.deaths >= events.deaths:
            raise Dead(f"the server ended {claim.note.deaths} times while it was working on it", claim.note.attempts)
        waits = 0
        while True:
            try:
                await self._attempt(claim)
                return Outcome.DONE
            except Ours as failure:
                waits += 1
                if failure.counts:
                    attempts = claim.note.attempts + 1
                    self.counters.retries += attempts <= events.retries
                    await self.steadily(lambda: claim.write(attempts=attempts))  # noqa: B023 - done before it changes
                    if attempts > events.retries:
                        raise Dead(failure.reason, attempts, failure.status) from failure
                else:
                    self.counters.unavailable += 1
                    if self._once and waits > events.retries:
                        raise DataError(
                            f"the model could not be asked about {shown(item.key)}: {failure.reason}",
                            hint="run the same command again; what is done stays done",
                        ) from failure
                wait = pause(waits, events.backoff, events.longest_backoff)
                self._say("retry", item, reason=failure.reason, status=failure.status, wait=round(wait, 3))
                await self._wait(wait, aside=failure.unread)
                if self.stopping.is_set():
                    raise Stopped from failure

    async def _wait(self, seconds: float, *, aside: bool) -> None:
        """Wait for the next try, while others have the slot, and what can be known of others the room if `aside`."""
        aside = aside and self._aside < _ASIDE
        self.counters.waiting += 1
        self._slots.release()
        if aside:
            self._aside += 1
            self.room.release()
        await self._sleep(seconds)
        if aside:
            await self.room.acquire()
            self._aside -= 1
        await self._slots.acquire()
        self.counters.waiting -= 1

    async def _attempt(self, claim: Claim) -> None:
        item = claim.item
        body = await self._read(claim)
        request = Request("natural", "infer", content_type(item.key), body, {"name": shown(item.key)})
        began = time.monotonic()
        self.counters.in_flight += 1
        try:
            response = await self._answer(request)
        finally:
            self.counters.in_flight -= 1
            self.counters.seconds += time.monotonic() - began
        judge(response, claim.note.attempts + 1)
        try:
            await self._publish(claim, "result", self._output, result_name(item.key, item.version), response.body)
        except Refused as error:
            raise _unwritable(error, claim) from error

    async def _read(self, claim: Claim) -> bytes:
        item, most = claim.item, self._events.max_object
        if item.size > most:
            raise Dead(too_large(item.size, most), claim.note.attempts)
        try:
            body = await self.call(lambda: self._source.read(item, most))
        except Refused as error:
            raise Ours(error.message) from error
        except DataError as error:
            self.counters.store_errors += 1
            raise Ours(error.message, counts=False, unread=True) from error
        if len(body) > most:
            raise Dead(too_large(item.size, most), claim.note.attempts)
        self.counters.bytes_read += len(body)
        return body

    async def _answer(self, request: Request) -> Response:
        """Ask, and stop asking when time is up."""
        asked = asyncio.ensure_future(self._ask(request))
        enough = asyncio.ensure_future(self.abandoned.wait())
        try:
            done, _ = await asyncio.wait(
                (asked, enough), timeout=self._events.timeout, return_when=asyncio.FIRST_COMPLETED
            )
            if asked in done:
                return asked.result()
            if enough in done:
                raise Stopped
            raise Ours(f"no answer within {format_span(self._events.timeout)}", 504)
        except (Ai4Error, OSError, TimeoutError) as error:
            raise Ours(f"{type(error).__name__}: {error}") from error
        except (Stopped, Ours, asyncio.CancelledError):
            raise
        except Exception as error:
            raise Ours(f"{type(error).__name__}: {error}") from error
        finally:
            for task in (asked, enough):
                task.cancel()
            await asyncio.gather(asked, enough, return_exceptions=True)

    async def _publish(self, claim: Claim, kind: str, store: Store, name: str, data: bytes) -> None:
        """Let readers see a result or an error, once."""
        if await self.steadily(claim.is_lost):
            raise Stopped
        patient = kind == "error"  # of an error nothing else can be made
        if not store.moves:
            await self.steadily(lambda: store.create(name, data), patient=patient)
            return
        staged = staged_name(claim.item.key, claim.item.version, claim.number, kind)
        await self.steadily(lambda: store.put(staged, data), patient=patient)
        await self.steadily(lambda: claim.write(state="staged", kind=kind, staged=claim.number))
        if await self.steadily(claim.is_lost):  # who has it now has seen what is staged, or makes its own
            raise Stopped
        await self._move(claim)

    async def _move(self, claim: Claim) -> None:
        """Move what is staged in its place; if it is not there any more, it was."""
        item, note = claim.item, claim.note
        result = note.kind == "result"
        store = self._output if result else self._dead
        name = (result_name if result else error_name)(item.key, item.version)
        staged = staged_name(item.key, item.version, note.staged, note.kind)
        try:
            await self.steadily(lambda: store.move(staged, name), patient=not result)
        except Gone:
            pass
        except Refused as error:
            raise _unwritable(error, claim) from error

    async def _tidy(self, claim: Claim) -> None:
        """Remove what was staged and will not be published any more: by earlier holders, or before it was refused."""
        item = claim.item
        for kind, store in (("result", self._output), ("error", self._dead)):
            for number in range(1, claim.number + 1) if store.moves else ():
                name = staged_name(item.key, item.version, number, kind)
                with contextlib.suppress(DataError):
                    await self.call(lambda: store.remove(name))  # noqa: B023 - done before they change

    async def _bury(self, claim: Claim, dead: Dead) -> None:
        """Write a dead letter: the object's copy, if it can be had, and why."""
        item, copy = claim.item, None
        if item.size <= self._events.max_object:
            with contextlib.suppress(Dead, Ours, Gone):
                body = await self._read(claim)
                name = copy_name(item.key, item.version)
                await self.steadily(lambda: self._dead.put(name, body))
                copy = name
        data = letter(item, self._source.address, copy, dead, claim.note.deaths)
        await self._publish(claim, "error", self._dead, error_name(item.key, item.version), data)
        log.warning(
            "%s is a dead letter: %s", shown(item.key), dead.reason,
            extra={"event": {"event": "dead letter", "key": shown(item.key), "reason": dead.reason}},
        )  # fmt: skip

    def _say(self, what: str, item: Item, **facts: Any) -> None:
        event = {"event": what, "key": shown(item.key), "request": request_id(item), **facts}
        log.info("%s: %s", shown(item.key), what, extra={"event": event})


@contextlib.asynccontextmanager
async def _beating(work: Work, claim: Claim, every: float) -> AsyncIterator[None]:
    """Keep a claim warm; on leaving nothing of it is under way any more."""
    over = asyncio.Event()

    async def beat() -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), every)
                return
            try:
                await work.call(claim.write)
            except DataError as error:
                log.warning("the claim of %s cannot be kept: %s", shown(claim.item.key), error.message)

    task = asyncio.ensure_future(beat())
    try:
        yield
    finally:
        over.set()
        await task


def _unwritable(error: Refused, claim: Claim) -> Dead:
    return Dead(f"its result cannot be written: {error.message}", claim.note.attempts + 1)
