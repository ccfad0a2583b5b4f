"""A server of events as a whole: stores, ledger, claims, the loop and its endpoint, from the job to the end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from ai4sdk.data.secrets import resolve_secret
from ai4sdk.errors import EnvironmentFault, RunFailed, RunInterrupted
from ai4sdk.runs.files import write_text
from ai4sdk.serving.events.claims import Claims
from ai4sdk.serving.events.counters import Counters
from ai4sdk.serving.events.endpoint import SLOW, Endpoint
from ai4sdk.serving.events.ledger import Ledger
from ai4sdk.serving.events.loop import Loop
from ai4sdk.serving.events.pruning import Pruning
from ai4sdk.serving.events.stores.base import Store
from ai4sdk.serving.events.stores.opening import locations, open_store
from ai4sdk.serving.events.stores.s3 import S3Store
from ai4sdk.serving.events.work import Ask, Work
from ai4sdk.spec import Storage
from ai4sdk.spec.serving_events import EventsEndpoint, ServingEvents

__all__ = ["EventServer", "serve_events"]

log = logging.getLogger("ai4sdk.serving.events")

_CONNECTIONS = 256
"""Clients at once: stores that notify, and monitors. Further ones are told to come again."""


class EventServer:
    """Processes objects as they arrive, in a running event loop.

    Parameters
    ----------
    events, storage
        Sections of the job.
    project
        Folder that relative paths start from.
    ask
        What answers.
    once
        Whether to process what is there and end.

    Raises
    ------
    Ai4Error
        If addresses are wrong, a store cannot be reached, or the ledger cannot be used.
    """

    def __init__(self, events: ServingEvents, storage: Storage, project: Path, ask: Ask, *, once: bool = False) -> None:
        where = locations(events, storage, project)
        folder = project.absolute() / Path(events.state).expanduser()
        self.counters = Counters()
        self._events, self._once = events, once
        self._token = None if events.listen is None or not events.listen.token else resolve_secret(events.listen.token)
        self._ledger = Ledger(folder, where["input"].address, where["output"].address)
        try:
            name = _server_name(folder)
            self._source = open_store(where["input"], name, events.settle)
            self._source.prepare(writing=False)
            output, dead = (_writable(open_store(where[key], name)) for key in ("output", "dead_letter"))
            claims = Claims(output, name, events.lease)
            pruning = Pruning(self._source, output, dead, name, events.prefixes, events.keep)
            self._work = Work(events, self._source, output, dead, self._ledger, claims, ask, self.counters, once=once)
        except BaseException:
            self._ledger.close()
            raise
        self._closed = self._asked_to_stop = False
        self._loop = Loop(events, self._source, self._work, self._ledger, pruning)

    @property
    def endpoint(self) -> Endpoint:
        """ASGI application that takes notifications and tells how it goes."""
        source = self._source
        watched = (source.bucket, source.prefix) if isinstance(source, S3Store) else None
        return Endpoint(watched, self._loop.offer, self.counters, self._token)

    def stop(self) -> None:
        """Begin nothing more, and end what was begun."""
        self._asked_to_stop = True
        self._loop.stop()

    def close(self) -> None:
        """Let the folder go; `run` does so at its end."""
        if not self._closed:
            self._closed = True
            self._work.close()
            self._ledger.close()

    def lines(self) -> Iterator[str]:
        """Yield figures, in Prometheus's text form."""
        return self.counters.lines()

    async def run(self) -> None:
        """Listen and work until `stop`, or until everything is done with ``once``.

        Raises
        ------
        RunFailed
            With ``once``, if something became a dead letter.
        RunInterrupted
            With ``once``, if it was stopped before the end.
        Ai4Error
            If it cannot go on.
        """
        try:
            async with _listening(self._events.listen, self.endpoint):
                await self._loop.run(once=self._once)
        finally:
            self.close()
            log.info("ended", extra={"event": {"event": "ended", **self.counters.values()}})
        if self._once and self.counters.dead:
            number = int(self.counters.dead)
            raise RunFailed(
                f"{number} object{'s' if number > 1 else ''} could not be processed",
                hint=f"the reasons are in {self._events.dead_letter}, in files that end in .error.json",
            )
        if self._once and self._asked_to_stop:
            raise RunInterrupted(
                "stopped before everything was processed", hint="run the same command again; what is done stays done"
            )


def serve_events(events: ServingEvents, storage: Storage, project: Path, ask: Ask, *, once: bool = False) -> Counters:
    """Process objects as they arrive until SIGTERM or SIGINT, or those that are there with ``once``.

    Returns
    -------
    Counters
        What was done.
    """

    async def serve() -> Counters:
        server = EventServer(events, storage, project, ask, once=once)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, server.stop)
        await server.run()
        return server.counters

    return asyncio.run(serve())


@contextlib.asynccontextmanager
async def _listening(listen: EventsEndpoint | None, endpoint: Endpoint) -> AsyncIterator[None]:
    """Listen, if that is wanted."""
    if listen is None:
        yield
        return
    try:
        import uvicorn

        from ai4sdk.serving.http import HttpProtocol
    except ImportError:
        raise EnvironmentFault("listening needs the package uvicorn", hint="pip install 'ai4sdk[serving]'") from None
    host, _, port = listen.address.rpartition(":")
    host = host.strip("[]")
    try:
        sock = socket.create_server((host, int(port)), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        raise EnvironmentFault(
            f"cannot listen at {listen.address}: {error}",
            hint="stop what listens there, or change serving.events.listen.address",
        ) from error

    class Protocol(HttpProtocol):
        slow = SLOW

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield  # signals are ours

    config = uvicorn.Config(
        endpoint,
        http=Protocol,
        lifespan="off",
        log_config=None,
        access_log=False,
        ws="none",
        limit_concurrency=_CONNECTIONS,
        timeout_graceful_shutdown=2,
    )
    server = Server(config)
    task = asyncio.ensure_future(server.serve([sock]))
    try:
        yield
    finally:
        server.should_exit = True
        await task


def _writable(store: Store) -> Store:
    store.prepare(writing=True)
    if not store.atomic:
        log.warning(
            "%s cannot create an object only if there is none; let one server at a time work with it", store.address
        )
    return store


def _server_name(folder: Path) -> str:
    """Return the name of the server whose folder this is, the same in each of its lives."""
    path = folder / "server"
    try:
        if path.exists() and (name := path.read_text(encoding="utf-8").strip()):
            return name
        name = uuid.uuid4().hex
        write_text(path, f"{name}\n")
    except OSError as error:
        raise EnvironmentFault(f"cannot write {path}: {error.strerror}", hint="check its permissions") from error
    return name
