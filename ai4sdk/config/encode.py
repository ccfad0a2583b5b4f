"""Plain values → text in Hydra's override grammar. Light: Hydra itself is not needed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["encode", "texts_of", "unwritable_keys"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
_WORDS = ("null", "true", "false", "nan", "inf")


def encode(value: Any) -> str:
    """Write a plain value so that Hydra's grammar reads it as the same value.

    The inverse of reading: ``parse_override(f"x={encode(value)}").value() == value``, but for `unwritable_keys`.
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
    if _is_name(text):
        return text
    # A backslash is special only before a quote or at the end (override grammar of Hydra 1.1 and later).
    inner = re.sub(r"(\\*)('|$)", lambda match: match[1] * 2 + ("\\'" if match[2] else ""), text)
    return f"'{inner}'"


def unwritable_keys(value: Any) -> list[Any]:
    """Return the keys of mappings in a value that are not plain names: the grammar knows no quotes there.

    Numbers as keys are among them: in JSON they would be text.
    """
    if isinstance(value, list | tuple):
        return [key for item in value for key in unwritable_keys(item)]
    if not isinstance(value, Mapping):
        return []
    here = [key for key in value if not (isinstance(key, str) and _is_name(key))]
    return here + [key for item in value.values() for key in unwritable_keys(item)]


def _is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None and text.lower() not in _WORDS


def texts_of(params: Mapping[str, Any]) -> tuple[str, ...]:
    """Return values by key as overrides that one could type."""
    return tuple(f"{key}={encode(value)}" for key, value in params.items())
