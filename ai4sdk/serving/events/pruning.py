"""Claims of versions that have long been gone from the input are removed, so that they do not gather over the years.

Once a version is missed in a listing, a mark beside its claims says since when, and by whom. It goes when the version
is listed again. After ``keep``, and another look for the object, the claims go, the first one first: then a claim that
is created meanwhile, for an object that comes back just then, is never one of those that are to be removed.
"""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from ai4sdk.serving.events.claims import Note, read_note
from ai4sdk.serving.events.ledger import FINAL
from ai4sdk.serving.events.names import claim_name, claims_folder, digest_of, mark_name, staged_name
from ai4sdk.serving.events.stores.base import Item, Store

__all__ = ["Pruning", "Traces", "Turn", "judge", "traces_of"]

_EVERY = 60.0
"""Seconds between turns, at least, unless one left something over. Each is for one of 256 folders of claims."""

_AT_ONCE = 200
"""Versions that something is done about in a turn."""

_NAME = re.compile(r"([0-9a-f]{40})\.(?:(\d{1,6})|missed-(\d{1,15})-(\w+))", re.ASCII)


Verdict = Literal["leave", "mark", "unmark", "forget"]


@dataclass(frozen=True)
class Traces:
    """What lies in the folder of claims of one version.

    Parameters
    ----------
    claims
        Their numbers, in order.
    marks
        Since when, in seconds of the epoch, and by which server it is missed; the oldest first.
    """

    claims: tuple[int, ...] = ()
    marks: tuple[tuple[int, str], ...] = ()


def traces_of(names: Iterable[str]) -> dict[str, Traces]:
    """Return digests of versions and what there is of each; names of something else are left out."""
    claims: dict[str, list[int]] = {}
    marks: dict[str, list[tuple[int, str]]] = {}
    for name in names:
        if (match := _NAME.fullmatch(name)) is not None:
            digest, number, since, server = match.groups()
            if number is None:
                marks.setdefault(digest, []).append((int(since), server))
            else:
                claims.setdefault(digest, []).append(int(number))
    return {
        digest: Traces(tuple(sorted(claims.get(digest, ()))), tuple(sorted(marks.get(digest, ()))))
        for digest in {**claims, **marks}
    }


def judge(traces: Traces, *, listed: bool, now: float, keep: float, server: str) -> Verdict:
    """Say what is to be done about a version.

    Whoever marked it first removes it after ``keep``; others after twice that, if it did not. So two never do at once.
    """
    if listed or not traces.claims:
        return "unmark" if traces.marks else "leave"
    if not traces.marks:
        return "mark"
    since, who = traces.marks[0]
    return "forget" if now - since >= (keep if who == server else 2 * keep) else "leave"


class Turn:
    """The listing of a turn: hears which versions are in the input."""

    def __init__(self, shard: str) -> None:
        self.shard = shard
        self.listed: set[str] = set()

    def saw(self, item: Item) -> None:
        """Hear of a version."""
        digest = digest_of(item.key, item.version)
        if digest.startswith(self.shard):
            self.listed.add(digest)


class Pruning:
    """Looks after one folder of claims now and then.

    Parameters
    ----------
    source, output, dead
        Stores.
    server
        Name of this server.
    prefixes
        Beginnings of the keys that are listed: of others nothing is known.
    keep
        Seconds for which a version must be gone.
    now, clock
        Time of day and a clock that only goes forward.
    """

    def __init__(
        self,
        source: Store,
        output: Store,
        dead: Store,
        server: str,
        prefixes: Sequence[str],
        keep: float,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source, self._output, self._dead = source, output, dead
        self._server, self._prefixes, self._keep = server, tuple(prefixes), keep
        self._now, self._clock = now, clock
        self._last = -_EVERY
        self._left_over: str | None = None
        """Digits of the folder where more is to be done than a turn may do."""

    def begin(self) -> Turn | None:
        """Begin a turn with a listing of the input, if it is time for one."""
        if self._left_over is None and self._clock() - self._last < _EVERY:
            return None
        self._last = self._clock()
        shard, self._left_over = self._left_over or f"{random.randrange(256):02x}", None
        return Turn(shard)

    def end(self, turn: Turn) -> tuple[int, list[Item]]:
        """Do what is to be done after the whole input was listed; blocks.

        Returns
        -------
        int
            Versions that are forgotten.
        list of Item
            Versions that are gone and that somebody began and did not end: what is staged of them is still to be
            published.

        Raises
        ------
        DataError
            If a store is away; what is left is for later turns.
        """
        now = self._now()
        due = []
        for digest, traces in traces_of(self._output.names(claims_folder(turn.shard))).items():
            what = judge(traces, listed=digest in turn.listed, now=now, keep=self._keep, server=self._server)
            if what != "leave":
                due.append((digest, traces, what))
        chosen = random.sample(due, min(len(due), _AT_ONCE))
        done = [self._act(digest, traces, what, now) for digest, traces, what in chosen]
        begun = [each for each in done if isinstance(each, Item)]
        # Of those that stay as they are there may be ever so many: they are no reason to hurry.
        if len(due) > _AT_ONCE > 2 * (done.count("leave") + len(begun)):
            self._left_over = turn.shard
        return done.count("forget"), begun

    def _act(self, digest: str, traces: Traces, what: Verdict, now: float) -> Verdict | Item:
        """Do what is to be done about a version; return what was done, or the version if it is to be processed."""
        if what == "unmark":
            self._unmark(digest, traces)
            return what
        notes = self._notes(digest, traces)
        if notes is None or not notes[-1].key.startswith(self._prefixes or ""):
            return "leave"
        item = Item(notes[-1].key, notes[-1].version)
        if _is_begun(notes):
            return item
        if what == "mark":
            self._output.create(mark_name(digest, int(now), self._server), b"")
        elif self._source.stat(item.key) == item:  # where listings do not show it
            self._unmark(digest, traces)
            return "unmark"
        else:
            self._forget(item, digest, traces)
        return what

    def _notes(self, digest: str, traces: Traces) -> list[Note] | None:
        """Read the claims of a version; nothing if they do not say which it is, or are just being removed."""
        notes = []
        for number in traces.claims:
            data = self._output.fetch(f"{claims_folder(digest)}/{digest}.{number}")
            item = None if data is None else _item(data)
            if data is None or item is None or digest_of(item.key, item.version) != digest:
                return None
            notes.append(read_note(data, item))
        return notes

    def _unmark(self, digest: str, traces: Traces) -> None:
        for since, server in traces.marks:
            self._output.remove(mark_name(digest, since, server))

    def _forget(self, item: Item, digest: str, traces: Traces) -> None:
        for number in traces.claims:
            for kind, store in (("result", self._output), ("error", self._dead)):
                if store.moves:  # what a kill may have left
                    store.remove(staged_name(item.key, item.version, number, kind))
            self._output.remove(claim_name(item.key, item.version, number))
        self._unmark(digest, traces)


def _is_begun(notes: Sequence[Note]) -> bool:
    states = {note.state for note in notes}
    return not states & set(FINAL) and (notes[-1].state == "claimed" or "staged" in states)


def _item(data: bytes) -> Item | None:
    """Return which version a claim is about."""
    try:
        said = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict) or not isinstance(said.get("key"), str) or not isinstance(said.get("version"), str):
        return None
    return Item(said["key"], said["version"])
