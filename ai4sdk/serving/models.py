"""Which models are served, in which versions, and who gets which share of the requests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ai4sdk.serving.pool import Pool

__all__ = ["Models", "Name"]


@dataclass(eq=False)
class _Entry:
    pool: Pool
    weight: float
    credit: float = 0.0


@dataclass(eq=False)
class Name:
    """The versions of a model.

    Parameters
    ----------
    name
        Its name.
    entries
        Version → its processes and its share.
    """

    name: str
    entries: dict[str, _Entry] = field(default_factory=dict)

    def pick(self) -> Pool:
        """Return the version that is next: each gets its share exactly and evenly (smooth weighted round robin)."""
        if len(self.entries) == 1:
            return next(iter(self.entries.values())).pool
        total = 0.0
        best: _Entry | None = None
        for entry in self.entries.values():
            entry.credit += entry.weight
            total += entry.weight
            if entry.weight and (best is None or entry.credit > best.credit):
                best = entry
        assert best is not None, "one version at least has a weight"
        best.credit -= total
        return best.pool

    def version(self, version: str | None) -> Pool | None:
        """Return a version's processes, those of the version that is next where none is named."""
        if version is None:
            return self.pick()
        entry = self.entries.get(version)
        return entry.pool if entry else None


class Models:
    """Name → versions → processes."""

    def __init__(self) -> None:
        self._names: dict[str, Name] = {}
        self.modules: dict[str, Callable[[], bool]] = {}
        """Modules that are served beside the models, and what tells whether they can answer."""
        self.complete = True
        """Whether everything that shall be served has been loaded once; it is loaded one after the other."""

    @property
    def names(self) -> list[str]:
        """Names of the models."""
        return list(self._names)

    @property
    def only(self) -> str | None:
        """The name, where there is one model."""
        return next(iter(self._names)) if len(self._names) == 1 else None

    @property
    def ready(self) -> bool:
        """Whether every version that shall be served can answer now."""
        every = [pool.ready for pool in self.pools()] + [is_ready() for is_ready in self.modules.values()]
        return self.complete and bool(every) and all(every)

    def add(self, name: str, version: str, pool: Pool, weight: float) -> Pool | None:
        """Serve a version from now on; return the processes that did so until now."""
        entries = self._names.setdefault(name, Name(name)).entries
        before = entries.get(version)
        entries[version] = _Entry(pool, weight)
        return before.pool if before else None

    def remove(self, name: str, version: str) -> Pool:
        """Serve a version no more; return its processes."""
        entries = self._names[name].entries
        pool = entries.pop(version).pool
        if not entries:
            del self._names[name]
        return pool

    def get(self, name: str) -> Name | None:
        """Return the versions of a model."""
        return self._names.get(name)

    def pools(self) -> Iterator[Pool]:
        """Yield the processes of every version."""
        for name in self._names.values():
            for entry in name.entries.values():
                yield entry.pool
