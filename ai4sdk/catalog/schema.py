"""Checking a value against the JSON Schema of module metadata.

Only the keywords which that schema uses are known. A full validator would cost a dependency and 0.1 s, and its
messages speak of schemas, not of what to type.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["KEYWORDS", "Mistake", "mistakes"]

KEYWORDS = frozenset(
    {"$ref", "type", "properties", "required", "items", "enum", "pattern", "uniqueItems", "minimum", "not"}
)
"""Keywords that are checked."""

_TYPES: dict[str, tuple[type | tuple[type, ...], str]] = {
    "object": (Mapping, "a mapping"),
    "array": (list, "a list"),
    "string": (str, "text"),
    "integer": (int, "a whole number"),
    "number": ((int, float), "a number"),
}


@dataclass(frozen=True)
class Mistake:
    """A value that breaks its schema.

    Parameters
    ----------
    path
        Keys and indices that lead to the value.
    message
        What is wrong.
    fix
        What to write instead.
    """

    path: tuple[str | int, ...]
    message: str
    fix: str | None = None


def mistakes(
    value: Any, schema: Mapping[str, Any], *, root: Mapping[str, Any] | None = None, path: tuple[str | int, ...] = ()
) -> Iterator[Mistake]:
    """Yield every mistake in a value.

    Parameters
    ----------
    value
        Mapping, list, text or number as read from YAML or JSON.
    schema
        What it must be.
    root
        The whole schema, which ``$ref`` refers to.
    path
        Where the value stands.
    """
    root = schema if root is None else root
    if "$ref" in schema:
        yield from mistakes(value, _referred(schema["$ref"], root), root=root, path=path)
    if "type" in schema and not _is_a(value, schema["type"]):
        yield _wrong_type(value, schema["type"], path)
        return
    if isinstance(value, Mapping):
        yield from _in_mapping(value, schema, root, path)
    elif isinstance(value, list):
        yield from _in_list(value, schema, root, path)
    if "enum" in schema and value not in schema["enum"]:
        near = difflib.get_close_matches(str(value), schema["enum"], n=1, cutoff=0.5)
        yield Mistake(path, f"{value!r} is not in the vocabulary", near[0] if near else "one of " + _listed(schema))
    if "pattern" in schema and isinstance(value, str) and not re.search(schema["pattern"], value):
        example = schema.get("example")
        yield Mistake(path, f"{value!r} has not the form it must have", f"such as {example}" if example else None)
    if "minimum" in schema and isinstance(value, int | float) and value < schema["minimum"]:
        yield Mistake(path, f"{value} is less than {schema['minimum']}")


def _in_mapping(
    value: Mapping[Any, Any], schema: Mapping[str, Any], root: Mapping[str, Any], path: tuple[str | int, ...]
) -> Iterator[Mistake]:
    properties: Mapping[str, Any] = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in value:
            meaning = properties.get(name, {}).get("description", "")
            yield Mistake(path, f"{name} is missing", f"{name}: …" + (f"   ({meaning.rstrip('.')})" if meaning else ""))
    for excluded in schema.get("not", {}).get("anyOf", ()):
        for name in excluded["required"]:
            if name in value:
                yield Mistake((*path, name), f"{name} is a key of version 1 of the format", "ai4-metadata migrate FILE")
    for name, child in properties.items():
        if name in value:
            yield from mistakes(value[name], child, root=root, path=(*path, name))


def _in_list(
    value: list[Any], schema: Mapping[str, Any], root: Mapping[str, Any], path: tuple[str | int, ...]
) -> Iterator[Mistake]:
    for index, item in enumerate(value):
        if "items" in schema:
            yield from mistakes(item, schema["items"], root=root, path=(*path, index))
        if schema.get("uniqueItems") and item in value[:index]:
            yield Mistake((*path, index), f"{item!r} stands twice", "take one of them out")


def _is_a(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return False
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES[kind][0])


def _wrong_type(value: Any, kind: str, path: tuple[str | int, ...]) -> Mistake:
    name = path[-1] if path else "the metadata"
    plain = kind == "string" and not isinstance(value, list | Mapping) and value is not None
    return Mistake(path, f"{name} must be {_TYPES[kind][1]}, not {value!r}", f"'{value}'" if plain else None)


def _referred(reference: str, root: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Any = root
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    assert isinstance(found, Mapping)
    return found


def _listed(schema: Mapping[str, Any]) -> str:
    return ", ".join(map(str, schema["enum"]))
