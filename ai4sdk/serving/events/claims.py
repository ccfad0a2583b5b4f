"""Who works on which version: small objects in the output, so that servers share one prefix and none is done twice.

Claim 1 of a version belongs to who could create it; who takes it over creates number 2, and so on. Only its holder
writes a claim over. A version is finished once any of its claims says so.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from ai4sdk.errors import DataError
from ai4sdk.serving.events.ledger import FINAL
from ai4sdk.serving.events.names import claim_name
from ai4sdk.serving.events.stores.base import Item, Store

__all__ = ["Claim", "Claims", "Finished", "Held", "Note"]

ClaimState = Literal["claimed", "staged", "released", "done", "dead"]
_MOST = 1000


@dataclass(frozen=True)
class Note:
    """What a claim says.

    Parameters
    ----------
    server
        Who holds it.
    key, version
        Of the object, for people who read it.
    state
        ``claimed`` while it is worked on; ``staged`` when what came of it only has to be moved in place;
        ``released`` if its holder gave it back; ``done`` or ``dead`` in the end.
    kind
        What is staged: ``result`` or ``error``.
    attempts
        Tries that failed.
    deaths
        Servers that ended while they worked on it.
    beat
        Counts while the holder is alive.
    """

    server: str
    key: str
    version: str
    state: ClaimState = "claimed"
    kind: str = ""
    attempts: int = 0
    deaths: int = 0
    beat: int = 0

    def encode(self) -> bytes:
        """Return it as JSON."""
        return json.dumps(asdict(self)).encode()


@dataclass(frozen=True)
class Finished:
    """A version is ``done`` or ``dead`` already."""

    state: Literal["done", "dead"]


@dataclass(frozen=True)
class Held:
    """Another server is working on a version, as far as is known."""


class Claim:
    """A version that is this server's. Its methods block."""

    def __init__(self, store: Store, item: Item, number: int, note: Note, before: Note | None) -> None:
        self._store, self.item, self.number, self.note = store, item, number, note
        self.before = before
        """What the claim said that this one took over."""
        self._one_at_a_time = threading.Lock()

    def write(self, **changes: Any) -> None:
        """Change what the claim says."""
        with self._one_at_a_time:  # a beat must not undo what is just written
            note = replace(self.note, beat=self.note.beat + 1, **changes)
            self._store.put(self._name(self.number), note.encode())
            self.note = note

    def is_lost(self) -> bool:
        """Tell whether another server has taken the version over."""
        return self._store.exists(self._name(self.number + 1))

    def _name(self, number: int) -> str:
        return claim_name(self.item.key, self.item.version, number)


class Claims:
    """The claims of one server.

    Parameters
    ----------
    store
        The output.
    server
        Name of this server, the same in each of its lives.
    lease
        Seconds after which a claim that does not change is taken over.
    clock
        A clock that only goes forward.
    """

    def __init__(self, store: Store, server: str, lease: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._store, self._server, self._lease, self._clock = store, server, lease, clock
        self._watched: dict[tuple[str, str], tuple[bytes, int, float]] = {}

    def take(self, item: Item) -> Claim | Finished | Held:
        """Claim a version, unless it is finished or another server's.

        This server must not be working on it: a claim of its own is taken for one of an earlier life.
        """
        new = Note(self._server, item.key, item.version)
        if self._store.create(claim_name(item.key, item.version, 1), new.encode()):
            return Claim(self._store, item, 1, new, None)
        number, data = 0, b""
        while (found := self._store.fetch(claim_name(item.key, item.version, number + 1))) is not None:
            number, data = number + 1, found
            before = _note(data, item)
            if before.state == "done" or before.state == "dead":
                self._watched.pop((item.key, item.version), None)
                return Finished(before.state)
            if number > _MOST:
                raise DataError(f"{item.key} has {number} claims in {self._store.address}", hint="remove them")
        if number == 0:  # it was there a moment ago
            return Held()
        if not self._may_take(item, before, data, number):
            return Held()
        deaths = before.deaths + (before.state == "claimed")
        kind = before.kind if before.state == "staged" else ""
        new = replace(
            new, state=before.state if kind else "claimed", kind=kind, attempts=before.attempts, deaths=deaths
        )
        if not self._store.create(claim_name(item.key, item.version, number + 1), new.encode()):
            return Held()
        self._watched.pop((item.key, item.version), None)
        return Claim(self._store, item, number + 1, new, before)

    def _may_take(self, item: Item, before: Note, data: bytes, number: int) -> bool:
        if before.server == self._server or before.state == "released":
            return True
        pair, now = (item.key, item.version), self._clock()
        seen, which, since = self._watched.get(pair, (b"", 0, now))
        if (seen, which) == (data, number):
            return now - since >= self._lease
        self._watched[pair] = (data, number, now)
        return False


def _note(data: bytes, item: Item) -> Note:
    """Read a claim; a damaged one says no more than that somebody has it."""
    try:
        note = Note(**json.loads(data))
    except (ValueError, TypeError):
        return Note("", item.key, item.version)
    return note if note.state in get_args(ClaimState) else replace(note, state="claimed")


assert set(FINAL) <= set(get_args(ClaimState))
