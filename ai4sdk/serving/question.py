"""What a protocol reads of a request, and how it says no."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from ai4sdk.errors import DataError
from ai4sdk.serving.refusals import Refused

__all__ = ["MAX_DEPTH", "Question", "Refused", "Served", "loads", "refused_data"]

MAX_DEPTH = 32


@dataclass(frozen=True, slots=True)
class Served:
    """Under which name and version a model is served."""

    name: str
    version: str


class Question(NamedTuple):
    """The samples of a request.

    Parameters
    ----------
    samples
        An array with samples along the first axis, or a list of records, rows, or encoded pictures or recordings.
    wanted
        What the protocol has to know to write the answer.
    """

    samples: Any
    wanted: Mapping[str, Any] = {}


def loads(body: bytes | memoryview) -> Any:
    """Read JSON.

    Raises
    ------
    Refused
        If it is none.
    """
    try:
        return orjson.loads(body)
    except ValueError as error:
        raise Refused(400, f"the body is no JSON: {error}") from None


def refused_data(error: DataError) -> Refused:
    """Say what is wrong with samples to who sent them."""
    return Refused(400, f"{error.message}; {error.hint}" if error.hint else error.message)
