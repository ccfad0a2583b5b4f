"""A server of events whose objects a trained model is asked about."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ai4sdk.errors import UsageError
from ai4sdk.serving.events.service import EventServer
from ai4sdk.serving.messages import Request, Response
from ai4sdk.serving.models import Models
from ai4sdk.spec import Storage
from ai4sdk.spec.serving import Serving

__all__ = ["asking_models"]


def asking_models(
    serving: Serving, storage: Storage, project: Path, *, once: bool = False
) -> Callable[[Models], EventServer]:
    """Return what makes a server of events of the models that are served.

    Parameters
    ----------
    serving, storage
        Sections of the job; ``serving.events`` is given.
    project
        Folder that relative paths start from.
    once
        Whether to end when what is there is processed.

    Raises
    ------
    UsageError
        If it is not clear which model is asked.
    """
    events = serving.events
    assert events is not None
    names = [events.model] if events.model else list(serving.models)
    if len(names) != 1:
        raise UsageError(
            f"objects are processed by one model, and serving.models has {', '.join(names) or 'none'}",
            hint=f"serving.events.model={names[0]}" if names else "name one in serving.models",
        )

    def make(models: Models) -> EventServer:
        async def ask(request: Request) -> Response:
            found = models.get(names[0])
            assert found is not None, "models are loaded before anything is asked"
            return await found.pick().ask(request, events.timeout)

        return EventServer(events, storage, project, ask, once=once)

    return make
