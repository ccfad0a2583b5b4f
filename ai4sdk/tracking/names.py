"""Names and values as MLflow takes them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["ValidNames", "cut", "flatten", "slug", "valid_name"]

NAME_LIMIT = 250
"""Characters of a metric's, parameter's or tag's name."""

_NOT_ALLOWED = re.compile(r"[^/\w.\- :]")


def valid_name(name: str) -> str:
    """Return the nearest name that MLflow takes for a metric, a parameter or a tag.

    Letters, digits, ``_``, ``-``, ``.``, ``:``, blanks and ``/`` are kept; a name must also stay what it is when read
    as a path. A name that is too long ends in eight digits that tell it from others with the same beginning.
    """
    parts = [part for part in _NOT_ALLOWED.sub("_", name).split("/") if part not in ("", ".")]
    text = "/".join("__" if part == ".." else part for part in parts) or "_"
    if len(text) > NAME_LIMIT:
        text = f"{text[: NAME_LIMIT - 9]}-{_digits(name)}"
    return text


def _digits(name: str) -> str:
    return hashlib.sha256(name.encode(errors="replace")).hexdigest()[:8]


class ValidNames:
    """Valid names for the names of one run, never the same for two of them.

    The answers depend on the order of the questions: ask in the order of a file, and they are always the same.
    """

    def __init__(self) -> None:
        self._valid: dict[str, str] = {}
        self._taken: set[str] = set()

    def __call__(self, name: str) -> str:
        """Return the valid name that stands for a name."""
        known = self._valid.get(name)
        if known is not None:
            return known
        text = valid_name(name)
        if text in self._taken:
            text = f"{text[: NAME_LIMIT - 9]}-{_digits(name)}"
        self._valid[name] = text
        self._taken.add(text)
        return text


def cut(text: str, limit: int) -> str:
    """Return a text of at most ``limit`` characters; a text that was cut ends in ``…``."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def slug(text: str, limit: int = 60) -> str:
    """Return a text that can name a file or a model everywhere: letters, digits, ``_`` and ``-``."""
    return re.sub(r"[^\w-]+", "_", text).strip("_")[:limit] or "unnamed"


def flatten(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield dotted keys and texts of nested mappings; lists of plain values stay one value.

    What is ``None`` or empty is left out.
    """
    for key, item in value.items():
        yield from _flatten(item, f"{prefix}{key}")


def _flatten(item: Any, key: str) -> Iterator[tuple[str, str]]:
    if item is None or item == {} or item == []:
        return
    if isinstance(item, Mapping):
        yield from flatten(item, f"{key}.")
    elif isinstance(item, list | tuple) and any(isinstance(entry, Mapping | list | tuple) for entry in item):
        for index, entry in enumerate(item):
            yield from _flatten(entry, f"{key}.{index}")
    elif isinstance(item, list | tuple):
        yield key, json.dumps(item, ensure_ascii=False)
    else:
        yield key, str(item)
