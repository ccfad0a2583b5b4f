"""What the API serves, and a module as such."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from ai4sdk.errors import EnvironmentFault
from ai4sdk.serving.deepaas.arguments import Argument, Description
from ai4sdk.serving.deepaas.calls import Call, Found, find_values, parse_query
from ai4sdk.serving.deepaas.forms import BodyReader, Limits, Scratch
from ai4sdk.serving.deepaas.messages import JSON_TEXT, HttpRequest, answer_json, complaint
from ai4sdk.serving.deepaas.module import Invalid, Module, ModuleFailed
from ai4sdk.serving.deepaas.trainings import TooMany, Trainings
from ai4sdk.serving.messages import Response

__all__ = ["Served", "ServedModule", "read_call"]

_MEDIA_TYPE = re.compile(r"[\w.+*-]+/[\w.+*-]+( *;[ -~]*)?", re.ASCII)


class Served(Protocol):
    """A model behind the API."""

    @property
    def description(self) -> Description:
        """What it is, takes and answers."""
        ...

    async def predict(self, request: HttpRequest) -> Response:
        """Answer a request to predict."""
        ...

    async def train(self, request: HttpRequest) -> Response:
        """Start a training."""
        ...

    async def trainings(self) -> Response:
        """List its trainings."""
        ...

    async def training(self, uuid: str) -> Response:
        """Tell about a training."""
        ...

    async def cancel(self, uuid: str) -> Response:
        """Stop a training, or take away one that has ended."""
        ...


@asynccontextmanager
async def read_call(request: HttpRequest, arguments: Sequence[Argument], limits: Limits) -> AsyncIterator[Found]:
    """Read a request's arguments; files that came with it are removed at the end.

    Raises
    ------
    BadRequest
        If the request cannot be read, or brings too much.
    """
    with Scratch() as scratch:
        reader = BodyReader(request.content_type, scratch, limits)
        try:
            async for chunk in request.body:
                reader.write(chunk)
            body = reader.finish()
        finally:
            reader.close()
        yield find_values(Call(parse_query(request.query), request.headers, body), arguments)


class ServedModule:
    """A module behind the API.

    Parameters
    ----------
    module
        The module, started.
    folder
        Where its trainings are kept.
    limits
        What a request may bring.
    """

    def __init__(self, module: Module, folder: Path, limits: Limits | None = None) -> None:
        self.module = module
        self._limits = limits or Limits()
        self._trainings = Trainings(folder, module.python, module.name, len(module.workers))

    @property
    def description(self) -> Description:
        """What it is, takes and answers."""
        return self.module.description

    async def predict(self, request: HttpRequest) -> Response:
        """Answer a request to predict."""
        async with read_call(request, self.description.predict, self._limits) as found:
            content_type, body = await self.module.predict(found)
        if not _MEDIA_TYPE.fullmatch(content_type):  # a module may take whatever a client asks for
            raise Invalid({"accept": ["Not a media type."]})
        return Response(200, JSON_TEXT if content_type == "application/json" else content_type, body)

    async def train(self, request: HttpRequest) -> Response:
        """Start a training in a process of its own."""
        async with read_call(request, self.description.train, self._limits) as found:
            args = await self.module.check("train", found)
            try:
                record = await asyncio.to_thread(self._trainings.start, found, args)
            except TooMany as error:
                raise ModuleFailed(503, str(error)) from error
            except (EnvironmentFault, OSError) as error:
                raise ModuleFailed(500, f"the training cannot be started: {error}") from error
        return answer_json(record)

    async def trainings(self) -> Response:
        """List its trainings."""
        return answer_json(await asyncio.to_thread(self._trainings.list))

    async def training(self, uuid: str) -> Response:
        """Tell about a training."""
        return _record_or_404(await asyncio.to_thread(self._trainings.get, uuid), uuid)

    async def cancel(self, uuid: str) -> Response:
        """Stop a training, or take away one that has ended."""
        return _record_or_404(await asyncio.to_thread(self._trainings.cancel, uuid), uuid)


def _record_or_404(record: dict[str, Any] | None, uuid: str) -> Response:
    return complaint(404, f"there is no training {uuid}") if record is None else answer_json(record)
