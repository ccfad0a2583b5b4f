"""Plain numbers of what goes on, for Prometheus and for the end of the log."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

__all__ = ["Counters"]


def _counted(text: str) -> Any:
    return field(default=0, metadata={"help": text, "kind": "counter"})


def _now(text: str) -> Any:
    return field(default=0, metadata={"help": text, "kind": "gauge"})


@dataclass
class Counters:
    """Numbers since the start; `in_flight` and `waiting` are of now."""

    done: float = _counted("Objects with a result.")
    dead: float = _counted("Objects that became dead letters.")
    recognised: float = _counted("Objects that others had finished, or an earlier life of this server.")
    held: float = _counted("Times an object was left to another server.")
    gone: float = _counted("Objects that changed or vanished before they were read.")
    released: float = _counted("Objects that were given back when the server was stopped.")
    forgotten: float = _counted("Objects that are gone from the input for long enough to be forgotten.")
    retries: float = _counted("Tries that failed and were repeated.")
    unavailable: float = _counted("Times the model could not take an object.")
    store_errors: float = _counted("Times a store did not do what it was asked.")
    listings: float = _counted("Listings of the input.")
    notifications: float = _counted("Notifications that were taken.")
    notifications_refused: float = _counted("Notifications that were refused.")
    bytes_read: float = _counted("Bytes of objects that were read.")
    seconds: float = _counted("Seconds in which the model was asked, of all objects.")
    in_flight: float = _now("Objects that are being processed.")
    waiting: float = _now("Objects that wait for a retry.")

    def values(self) -> dict[str, float]:
        """Return names and numbers."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    def lines(self, prefix: str = "ai4sdk_events_") -> Iterator[str]:
        """Yield lines of Prometheus's text format."""
        for each in fields(self):
            kind = each.metadata["kind"]
            name = f"{prefix}{each.name}{'_total' if kind == 'counter' else ''}"
            yield f"# HELP {name} {each.metadata['help']}"
            yield f"# TYPE {name} {kind}"
            yield f"{name} {getattr(self, each.name):.15g}"
