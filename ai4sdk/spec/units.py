"""Quantities people write with units: sizes of memory and disk, spans of time.

A size is kept in bytes and a span in seconds, so that two spellings of one quantity are one value.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

_SIZES = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
}
_SPANS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_MOST = 2**63
"""Beyond what can be counted in 64 bits."""
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|min|s|m|h|d)\s*")


def parse_size(value: Any) -> int:
    """Read a size.

    Parameters
    ----------
    value
        A whole number of bytes, or text such as ``16GiB``, ``500 MB``, ``2TB``.

    Returns
    -------
    int
        The size in bytes.

    Raises
    ------
    ValueError
        If the text is no size or the number is negative.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"a size is a number of bytes or text such as 16GiB, not {value!r}")
    if isinstance(value, int | float):
        if not 0 <= value < _MOST or value != int(value):
            raise ValueError(f"a size is a whole number of bytes, at least 0, not {value!s:.20}")
        return int(value)
    match = _SIZE.fullmatch(value)
    if not match or match[2].upper() not in _SIZES:
        raise ValueError(f"{value!r} is no size; write a number and B, kB, MB, GB, TB, KiB, MiB, GiB or TiB")
    size = float(match[1]) * _SIZES[match[2].upper()]
    if size >= _MOST:
        raise ValueError(f"{value[:20]!r} is more than any machine has as a size")
    return round(size)


def parse_span(value: Any) -> float:
    """Read a span of time.

    Parameters
    ----------
    value
        A number of seconds, text such as ``2h``, ``1h30m``, ``90s``, or ``HH:MM:SS``.

    Returns
    -------
    float
        The span in seconds.

    Raises
    ------
    ValueError
        If the text is no span or the number is negative or not finite.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"a span is a number of seconds or text such as 2h, not {value!r}")
    if isinstance(value, int | float):
        if not 0 <= value < _MOST:
            raise ValueError(f"a span is a number of seconds, at least 0, not {value!s:.20}")
        return float(value)
    text = value.strip()
    if clock := re.fullmatch(r"(?:(\d+)-)?(\d+):([0-5]\d):([0-5]\d)", text):
        days, hours, minutes, seconds = (int(part or 0) for part in clock.groups())
        return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
    parts = _SPAN.findall(text)
    if not parts or _SPAN.sub("", text).strip():
        raise ValueError(f"{value!r} is no span; write a number and ms, s, m, h or d, such as 90s or 1h30m")
    return parse_span(sum(float(number) * _SPANS[unit] for number, unit in parts))


def format_size(size: int) -> str:
    """Write a size in the largest binary unit that keeps it readable, such as ``1.5 GiB``."""
    value, unit = float(size), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{value:g} {unit}" if value == int(value) else f"{value:.1f} {unit}"


def format_span(seconds: float) -> str:
    """Write a span in its two largest units, such as ``1 h 30 min`` or ``4.2 s``."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


Size = Annotated[
    int,
    BeforeValidator(parse_size),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0},
                {"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*([kKMGT]?i?B)?\s*$"},
            ]
        }
    ),
]
"""A size in bytes; YAML may say ``16GiB``."""

Span = Annotated[
    float,
    BeforeValidator(parse_span),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": 0},
                {
                    "type": "string",
                    "pattern": r"^\s*(\d+(\.\d+)?\s*(ms|min|s|m|h|d)\s*)+$|^(\d+-)?\d+:[0-5]\d:[0-5]\d$",
                },
            ]
        }
    ),
]
"""A span of time in seconds; YAML may say ``2h``."""

Fraction = Annotated[float, Field(ge=0, le=1)]
"""A share between 0 and 1."""
