"""Frames between us and an agent: a JSON head and bytes. The other end is in `agent.py`."""

from __future__ import annotations

import json
import struct
from asyncio import StreamReader
from collections.abc import Mapping
from typing import Any

__all__ = ["BrokenFrame", "read_frame", "write_frame"]

_HEADER = struct.Struct(">IQ")
_LONGEST_HEAD = 16 << 20


class BrokenFrame(Exception):
    """What came is no frame."""


def write_frame(head: Mapping[str, Any], body: bytes = b"") -> bytes:
    """Return a frame."""
    text = json.dumps(head).encode()
    return b"".join((_HEADER.pack(len(text), len(body)), text, body))


async def read_frame(stream: StreamReader, most: int) -> tuple[dict[str, Any], bytes]:
    """Read a frame.

    Parameters
    ----------
    stream
        Where it comes from.
    most
        Bytes a body may have.

    Raises
    ------
    BrokenFrame
        If it is none, or larger.
    asyncio.IncompleteReadError
        If the other side is gone.
    """
    head_size, body_size = _HEADER.unpack(await stream.readexactly(_HEADER.size))
    if head_size > _LONGEST_HEAD or body_size > most:
        raise BrokenFrame(f"a frame of {head_size} + {body_size} bytes")
    try:
        head = json.loads(await stream.readexactly(head_size))
    except ValueError as error:
        raise BrokenFrame(str(error)) from error
    if not isinstance(head, dict):
        raise BrokenFrame("a head that is no mapping")
    return head, await stream.readexactly(body_size)
