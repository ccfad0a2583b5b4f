"""Plain values → text in Hydra's override grammar. Light: Hydra itself is not needed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["encode", "texts_of"]


def encode(value: Any) -> str:
    """Write a plain value so that Hydra's grammar reads it as the same value.

    The inverse of reading: ``parse_override(f"x={encode(value)}").value() == value``.
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return "[" + ",".join(encode(item) for item in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{encode(key)}:{encode(item)}" for key, item in value.items()) + "}"
    text = str(value)
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_./-]*", text) and text.lower() not in ("null", "true", "false", "nan", "inf"):
        return text
    # A backslash is special only before a quote or at the end (override grammar of Hydra 1.1 and later).
    inner = re.sub(r"(\\*)('|$)", lambda match: match[1] * 2 + ("\\'" if match[2] else ""), text)
    return f"'{inner}'"


def texts_of(params: Mapping[str, Any]) -> tuple[str, ...]:
    """Return values by key as overrides that one could type."""
    return tuple(f"{key}={encode(value)}" for key, value in params.items())
