"""What the front serves by this protocol: its own models, and modules beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ai4sdk.serving.deepaas.package import ServedPackage
from ai4sdk.serving.deepaas.served import Served, ServedModule
from ai4sdk.serving.messages import Request, Response
from ai4sdk.serving.models import Models

__all__ = ["Front"]


class Front(Mapping[str, Served]):
    """Models by name, as they are when they are asked for.

    Parameters
    ----------
    models
        The front's own.
    most
        Bytes a request to one of them may have.
    """

    def __init__(self, models: Models, most: int) -> None:
        self.modules: dict[str, ServedModule] = {}
        self._models = models
        self._most = most
        self._packages: dict[str, tuple[Any, ServedPackage]] = {}

    def __getitem__(self, name: str) -> Served:
        if name in self.modules:
            return self.modules[name]
        found = self._models.get(name)
        if found is None:
            raise KeyError(name)
        facts = next(iter(found.entries.values())).pool.facts
        described, package = self._packages.get(name, (None, None))
        if package is None or described is not facts:

            async def ask(request: Request) -> Response:
                return await found.pick().ask(request)

            package = ServedPackage(name, facts, ask, self._most)
            self._packages[name] = facts, package
        return package

    def __contains__(self, name: object) -> bool:
        return name in self.modules or name in self._models.names

    def __iter__(self) -> Iterator[str]:
        yield from self.modules
        yield from self._models.names

    def __len__(self) -> int:
        return len(self.modules) + len(self._models.names)
