"""Who is at fault if an object has no result: the object, we, or nobody."""

from __future__ import annotations

import contextlib
import json

from ai4sdk.serving.messages import JSON, Response
from ai4sdk.spec.units import format_size

__all__ = ["Dead", "Ours", "Stopped", "judge", "too_large"]

_NOT_NOW = (429, 503)
_TOO_LATE = 408
_LONGEST = 2000
"""Characters of a reason; some answers hold a whole traceback."""


class Dead(Exception):
    """An object is at fault, or was tried often enough: ``attempts`` times."""

    def __init__(self, reason: str, attempts: int, status: int | None = None) -> None:
        super().__init__(reason)
        self.reason, self.attempts, self.status = reason, attempts, status


class Ours(Exception):
    """A try failed, and not because of the object; if it ``counts``, so many are made and no more.

    ``unread`` if the object could not even be read, which may be so for this one alone.
    """

    def __init__(self, reason: str, status: int | None = None, *, counts: bool = True, unread: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.status, self.counts, self.unread = reason, status, counts, unread


class Stopped(Exception):
    """The server is to end, or the version is another server's now."""


def judge(response: Response, attempts: int) -> None:
    """Say whose fault an answer tells of; nothing is raised if it is a result.

    Raises
    ------
    Dead
        If asking again would not help.
    Ours
        If it may.
    """
    status = response.status
    if 200 <= status < 300:
        if response.content_type.partition(";")[0].strip().lower() != JSON:
            raise Dead(f"the model answers with {response.content_type}, not with JSON", attempts, status)
    elif 400 <= status < 500 and status not in (_TOO_LATE, *_NOT_NOW):
        raise Dead(_reason(response), attempts, status)
    else:
        raise Ours(_reason(response), status, counts=status not in _NOT_NOW)


def too_large(size: int, most: int) -> str:
    """Say that an object is larger than allowed; its size may not be known."""
    told = format_size(size) if size > 0 else "more"
    return f"it has {told}; serving.events.max_object is {format_size(most)}"


def _reason(response: Response) -> str:
    """Find what an answer says is wrong."""
    text = bytes(response.body[:_LONGEST]).decode("utf-8", "replace").strip()
    with contextlib.suppress(ValueError, RecursionError):
        said = json.loads(response.body)
        if isinstance(said, dict):
            text = next((said[key] for key in ("error", "message", "detail") if isinstance(said.get(key), str)), text)
    return text[:_LONGEST] or f"status {response.status}"
