"""What is sent to whoever answers, and where the answer goes."""

from __future__ import annotations

import sys
from pathlib import Path

from ai4sdk.errors import EnvironmentFault, NotFound

__all__ = ["content_of", "give"]


def content_of(name: str, most: int = -1) -> bytes:
    """Return what ``--input`` names, or its first bytes; a dash is what comes on the standard input."""
    if name == "-":
        return sys.stdin.buffer.read()
    try:
        with open(name, "rb") as file:
            return file.read(most)
    except OSError as error:
        raise NotFound(f"{name} cannot be read: {error.strerror or error}", hint="--input FILE") from error


def give(content: bytes, output: str | None) -> None:
    """Write an answer to the file that ``--output`` names, or to the terminal."""
    if output is None:
        sys.stdout.flush()
        sys.stdout.buffer.write(content)
        if not content.endswith(b"\n"):
            sys.stdout.buffer.write(b"\n")
        return
    try:
        Path(output).write_bytes(content)
    except OSError as error:
        raise EnvironmentFault(
            f"{output} cannot be written: {error.strerror or error}", hint="--output FILE"
        ) from error
