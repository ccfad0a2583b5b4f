"""Who works on which version: small objects in the output, so that servers share one prefix and none is done twice.

Claim 1 of a version belongs to who could create it; who takes it over creates number 2, and so on. Only its holder
writes a claim over. A version is finished once any of its claims says so.

Who takes over reads the claim before once more after creating its own, and a holder looks for a next one between saying
that something is staged and moving it. So either the holder sees that it has lost the version, or its successor sees
what was staged: however long one of them sleeps in between, both do not publish.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from ai4sdk.serving.events.ledger import FINAL
from ai4sdk.serving.events.names import claim_name
from ai4sdk.serving.events.stores.base import Item, Store

__all__ = ["Claim", "Claims", "Finished", "Held", "Note", "read_note"]

ClaimState = Literal["claimed", "staged", "released", "done", "dead"]
log = logging.getLogger("ai4sdk.serving.events")

_MOST = 1000
"""Claims of a version; more are a sign that a store tells another version each time it is asked."""
_MOST_WATCHED = 10_000
"""Claims of others that are watched; of more, the oldest are watched from anew."""


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
    kind, staged
        What is staged, ``result`` or ``error``, and the number of the claim under which it was.
    attempts
        Tries that failed.
    deaths
        Servers that ended while they worked on it.
    beat
        Counts while the holder is alive.
    life
        Tells lives of a server apart.
    """

    server: str
    key: str
    version: str
    state: ClaimState = "claimed"
    kind: str = ""
    staged: int = 0
    attempts: int = 0
    deaths: int = 0
    beat: int = 0
    life: str = ""

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
            note = replace(self.note, **{"beat": self.note.beat + 1, **changes})
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
        self._life = uuid.uuid4().hex[:12]
        self._watched: dict[tuple[str, str], tuple[bytes, int, float]] = {}

    def take(self, item: Item) -> Claim | Finished | Held:
        """Claim a version, unless it is finished or another server's.

        This server must not be working on it: a claim of its own is taken for one of an earlier life.
        """
        new = Note(self._server, item.key, item.version, life=self._life)
        if self._store.create(claim_name(item.key, item.version, 1), new.encode()):
            return Claim(self._store, item, 1, new, None)
        notes: list[Note] = []
        data = b""
        while (found := self._store.fetch(claim_name(item.key, item.version, len(notes) + 1))) is not None:
            data = found
            notes.append(read_note(data, item))
            if (finished := _finished(notes[-1])) is not None:
                self._watched.pop((item.key, item.version), None)
                return finished
            if len(notes) > _MOST:
                log.warning("%s is left alone: it has %d claims in %s", item.key, len(notes), self._store.address)
                return Held()
        # There may be none: it was there a moment ago.
        if not notes or not self._may_take(item, notes[-1], data, len(notes)):
            return Held()
        return self._take_over(item, notes)

    def _take_over(self, item: Item, notes: list[Note]) -> Claim | Finished | Held:
        new = _successor(notes, self._server, self._life)
        number = len(notes) + 1
        if not self._store.create(claim_name(item.key, item.version, number), new.encode()):
            return Held()
        self._watched.pop((item.key, item.version), None)
        claim = Claim(self._store, item, number, new, notes[-1])
        # Its holder may have gone on until it could see the new claim.
        if (data := self._store.fetch(claim_name(item.key, item.version, number - 1))) is not None:
            notes[-1] = read_note(data, item)
        if (finished := _finished(notes[-1])) is not None:
            return finished
        if (now := _successor(notes, self._server, self._life)) != new:
            claim.write(**asdict(now))
        return claim

    def _may_take(self, item: Item, before: Note, data: bytes, number: int) -> bool:
        if before.server == self._server or before.state == "released":
            return True
        pair, now = (item.key, item.version), self._clock()
        seen, which, since = self._watched.get(pair, (b"", 0, now))
        if (seen, which) == (data, number):
            return now - since >= self._lease
        self._watched.pop(pair, None)
        if len(self._watched) >= _MOST_WATCHED:
            del self._watched[next(iter(self._watched))]
        self._watched[pair] = (data, number, now)
        return False


def _finished(note: Note) -> Finished | None:
    return Finished(note.state) if note.state == "done" or note.state == "dead" else None


def _successor(notes: Sequence[Note], server: str, life: str) -> Note:
    """Return what the claim after others says: what was counted, and what is staged already."""
    last = notes[-1]
    ended = last.state == "claimed" and last.life != life  # of this life, it is an answer of the store that was lost
    new = Note(
        server,
        last.key,
        last.version,
        attempts=max(note.attempts for note in notes),
        deaths=max(note.deaths for note in notes) + ended,
        life=life,
    )
    staged = next((note for note in reversed(notes) if note.state == "staged"), None)
    return new if staged is None else replace(new, state="staged", kind=staged.kind, staged=staged.staged)


def read_note(data: bytes, item: Item) -> Note:
    """Read a claim; a damaged one says no more than that somebody has it."""
    nothing = Note("", item.key, item.version)
    try:
        note = Note(**{**json.loads(data), "key": item.key, "version": item.version})
    except (ValueError, TypeError, RecursionError):
        return nothing
    if any(type(value) is not type(getattr(nothing, name)) for name, value in asdict(note).items()):
        return nothing
    return note if note.state in get_args(ClaimState) else replace(note, state="claimed")


assert set(FINAL) <= set(get_args(ClaimState))
