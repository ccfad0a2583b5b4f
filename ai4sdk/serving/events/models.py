"""A server of events whose objects a trained model is asked about."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ai4sdk.errors import UsageError
from ai4sdk.serving.events.counters import Counters
from ai4sdk.serving.events.service import EventServer
from ai4sdk.serving.link import Spawned
from ai4sdk.serving.messages import Request, Response
from ai4sdk.serving.models import Models
from ai4sdk.serving.pool import Pool
from ai4sdk.serving.server import pool_settings, wanted_of
from ai4sdk.serving.sources import Sources
from ai4sdk.spec import Storage
from ai4sdk.spec.serving import Serving

__all__ = ["serve_model_events"]


class _Nobody:
    """Is told what a pool does, and does nothing with it."""

    def batch(self, requests: int, facts: Mapping[str, Any]) -> None:
        pass

    def died(self) -> None:
        pass


def serve_model_events(
    serving: Serving,
    storage: Storage,
    sources: Sources,
    project: Path,
    *,
    once: bool = False,
    spawned: Sequence[Spawned] = (),
    tell: Callable[[str], None],
) -> Counters:
    """Ask a model about objects as they arrive, until a signal says to stop, or about those that are there.

    Parameters
    ----------
    serving, storage
        Sections of the job; ``serving.events`` is given.
    sources
        Finds the model.
    project
        Folder that relative paths start from.
    once
        Whether to end when what is there is processed.
    spawned
        Model processes that were started already, to be used first.
    tell
        Told what the user should know.

    Raises
    ------
    Ai4Error
        If addresses, stores or the model are not as they should be; with ``once`` if there are dead letters.
    """
    events = serving.events
    assert events is not None
    wanted = wanted_of(serving)
    count = len({each.name for each in wanted})
    if count != 1:
        raise UsageError(
            f"objects are processed by one model, and serving.models has {count or 'none'}",
            hint="name one; it may have several versions",
        )
    models = Models()

    async def ask(request: Request) -> Response:
        name = models.get(wanted[0].name)
        assert name is not None, "models are loaded before anything is asked"
        return await name.pick().ask(request)

    async def serve() -> Counters:
        server = EventServer(events, storage, project, ask, once=once)
        early = list(spawned)
        try:
            for each in wanted:
                located = await asyncio.to_thread(sources.find, each.source)
                pool = Pool(replace(pool_settings(serving, each, located), timeout=events.timeout), _Nobody())
                models.add(each.name, each.version, pool, each.weight)
                await pool.start(early[: serving.workers])
                early = early[serving.workers :]
                tell(f"{each.name} version {each.version} is ready ({located.folder})")
            await server.serve()
        finally:
            server.close()
            for pool in models.pools():
                await pool.close()
        return server.counters

    return asyncio.run(serve())
