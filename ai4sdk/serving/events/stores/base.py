"""What the loop needs of a store, and how it hears of trouble."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from ai4sdk.data.reach import explain
from ai4sdk.errors import Ai4Error, DataError

__all__ = ["PAGE", "Gone", "Item", "Refused", "Store", "status_of", "trouble", "troubled"]

PAGE = 1000
"""Objects listed at a time."""

_REFUSALS = (400, 403, 405, 411, 413, 414, 415, 422)
_HINT = "check the addresses of serving.events, the section storage, and the rights there"


@dataclass(frozen=True, slots=True)
class Item:
    """A version of an object.

    Parameters
    ----------
    key
        Its name below the prefix.
    version
        What tells it from other versions of the same key.
    size
        Bytes; -1 where not told.
    settled
        Whether it is whole, as far as can be told.
    """

    key: str
    version: str
    size: int = field(default=-1, compare=False)
    settled: bool = field(default=True, compare=False)


class Gone(Exception):
    """An object is not there any more, or not in this version."""


class Refused(DataError):
    """The store is there, and will not let this object be read or written however often it is asked."""


class Store(Protocol):
    """A folder or prefix. Methods block; each raises DataError if the store cannot be reached."""

    address: str
    """What to call it; holds no credentials."""

    atomic: bool
    """Whether of several that `create` a name at once one wins. Known after `prepare`."""

    moves: bool
    """Whether it can `move`, in one step."""

    def prepare(self, *, writing: bool) -> None:
        """See that it is there, and what it can do."""

    def pages(self, prefixes: Sequence[str]) -> Iterator[list[Item]]:
        """Yield what is there, at most about `PAGE` at a time; hidden names are left out."""

    def stat(self, key: str) -> Item | None:
        """Return the version of a key that is there now."""

    def read(self, item: Item, most: int) -> bytes:
        """Return the content of a version, or ``most`` bytes and one of it; raises `Gone` and `Refused`."""

    def create(self, name: str, data: bytes) -> bool:
        """Write a whole object at once unless there is one of that name; tell whether it did."""

    def put(self, name: str, data: bytes) -> None:
        """Write a whole object at once, in place of what was there."""

    def fetch(self, name: str) -> bytes | None:
        """Return an object's content, of whatever version."""

    def exists(self, name: str) -> bool:
        """Tell whether there is an object."""

    def move(self, source: str, target: str) -> bool:
        """Rename in one step unless the target is there; tell whether it did. Raises `Gone` without a source."""

    def names(self, folder: str) -> list[str]:
        """Return the names of the objects in a folder, hidden ones, too; none if there is no such folder."""

    def remove(self, name: str) -> None:
        """Delete an object, if it is there."""


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status behind an error of a client."""
    link: BaseException | None = error
    while link is not None:
        for value in (getattr(link, "status_code", None), getattr(link, "status", None)):
            if isinstance(value, int):
                return value
        response = getattr(link, "response", None)
        if isinstance(response, dict):
            value = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            if isinstance(value, int):
                return value
        elif isinstance(value := getattr(response, "status_code", None), int):
            return value
        link = link.__cause__ or link.__context__
    return None


def trouble(error: BaseException, address: str, verb: str) -> DataError:
    """Say why something cannot be done at ``address``."""
    said = explain(error, address)
    reason = said.message.removeprefix(f"cannot read {address}: ")
    kind = Refused if status_of(error) in _REFUSALS else DataError
    return kind(f"cannot {verb} {address}: {reason}", hint=_HINT)


@contextmanager
def troubled(address: str, verb: str) -> Iterator[None]:
    """Turn whatever a client raises inside into a `DataError`, or into `Refused`."""
    try:
        yield
    except (Ai4Error, Gone):
        raise
    except Exception as error:
        raise trouble(error, address, verb) from error
