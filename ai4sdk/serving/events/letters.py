"""What is written about an object that could not be processed."""

from __future__ import annotations

import json
import time

from ai4sdk.serving.events.faults import Dead
from ai4sdk.serving.events.names import shown, version_mark
from ai4sdk.serving.events.stores.base import Item

__all__ = ["letter", "request_id"]


def request_id(item: Item) -> str:
    """Name the request about a version, the same in each life of a server: the log has it, too."""
    return version_mark(f"{item.key}\0{item.version}")


def letter(item: Item, source: str, copy: str | None, dead: Dead, deaths: int) -> bytes:
    """Return the dead letter of a version, as JSON.

    Parameters
    ----------
    item
        The version.
    source
        Address of the input.
    copy
        Name of the object's copy beside the letter; nothing if there is none.
    dead
        Why, and after how many tries.
    deaths
        Servers that ended while they worked on it.
    """
    said = {
        "reason": dead.reason,
        "status": dead.status,
        "key": shown(item.key),
        "version": item.version,
        "size": item.size,
        "input": source,
        "copy": copy,
        "attempts": dead.attempts,
        "deaths": deaths,
        "request": request_id(item),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    return (json.dumps(said, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "replace")
