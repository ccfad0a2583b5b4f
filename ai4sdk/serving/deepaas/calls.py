"""From a request to values by argument, in the order webargs 5 looks for them: query, form, JSON. Pure.

What is JSON is read by who answers, not here: see `forms.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from ai4sdk.serving.deepaas.arguments import Argument
from ai4sdk.serving.deepaas.forms import BadRequest, Body, Upload

__all__ = ["Call", "Found", "find_values", "parse_query"]

_ANYWHERE = ("query", "form", "json")
_ALIASES = {"querystring": "query", "files": "form"}
_MOST_PAIRS = 1000
_MISSING = object()
_IN_JSON = object()


@dataclass(frozen=True)
class Call:
    """A request as far as arguments may be in it.

    Parameters
    ----------
    query
        Values of the query by name, in the order they stand there.
    headers
        Header fields by lower-case name.
    body
        What the body holds.
    """

    query: Mapping[str, Sequence[str]] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body = field(default_factory=Body)


def parse_query(text: str) -> dict[str, list[str]]:
    """Return a query's values by name.

    Raises
    ------
    BadRequest
        If it has too many.
    """
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=_MOST_PAIRS)
    except ValueError as error:
        raise BadRequest(400, f"the query cannot be read: {error}") from error
    values: dict[str, list[str]] = {}
    for name, value in pairs:
        values.setdefault(name, []).append(value)
    return values


@dataclass(frozen=True)
class Found:
    """What a request has of some arguments.

    Parameters
    ----------
    values
        Those that are outside of a JSON body, by name, unchecked.
    mappings
        Names of those that should be mappings, which a query or form has as JSON.
    in_json
        Those that are to be looked for in it, by name; whether each is a list.
    json
        That body.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    mappings: frozenset[str] = frozenset()
    in_json: Mapping[str, bool] = field(default_factory=dict)
    json: bytes = b""

    def to_json(self) -> dict[str, Any]:
        """Return it as an agent takes it, without the body."""
        values = {
            name: _tagged(value, "json" if name in self.mappings else "value") for name, value in self.values.items()
        }
        return {"values": values, "in_json": dict(self.in_json)}


def find_values(call: Call, arguments: Sequence[Argument]) -> Found:
    """Say what a request has of these arguments; what else it has is ignored."""
    values: dict[str, Any] = {}
    in_json: dict[str, bool] = {}
    mappings = frozenset(argument.name for argument in arguments if argument.item.get("type") == "object")
    for argument in arguments:
        value = _value(call, argument)
        if value is _IN_JSON:
            in_json[argument.name] = argument.many
        elif value is not _MISSING:
            values[argument.name] = value
    return Found(values, mappings, in_json, call.body.json if in_json else b"")


def _tagged(value: Any, kind: str) -> dict[str, Any]:
    """Return a value as an agent takes it: what it is stands beside it, so that nobody's JSON can pass for a file."""
    if isinstance(value, list):
        return {"list": [_tagged(part, kind) for part in value]}
    if isinstance(value, Upload):
        file = {"path": str(value.path), "original_name": value.original_name, "content_type": value.content_type}
        return {"file": file}
    return {kind: value}


def _value(call: Call, argument: Argument) -> Any:
    location = argument.location
    for place in _ANYWHERE if location is None else (_ALIASES.get(location, location),):
        value = _look(call, argument, place)
        if value is not _MISSING:
            return value
    return _MISSING


def _look(call: Call, argument: Argument, place: str) -> Any:
    if place == "json":
        return _IN_JSON if call.body.json else _MISSING
    if place == "headers":
        text = call.headers.get(argument.name.lower())
        return _MISSING if text is None else [text] if argument.many else text
    if place == "cookies":
        return _cookies(call).get(argument.name, _MISSING)
    values = (call.query if place == "query" else call.body.form).get(argument.name)
    if not values:
        return _MISSING
    return list(values) if argument.many else values[0]


def _cookies(call: Call) -> dict[str, str]:
    pairs = (part.strip().partition("=") for part in call.headers.get("cookie", "").split(";"))
    return {name: value for name, _, value in pairs if name}
