"""From a request to values by argument, in the order webargs 5 looks for them: query, form, JSON. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from ai4sdk.serving.deepaas.arguments import Argument
from ai4sdk.serving.deepaas.forms import BadRequest, Body, Upload, read_json

__all__ = ["Call", "InvalidJson", "parse_query", "tagged", "values_of"]

_ANYWHERE = ("query", "form", "json")
_ALIASES = {"querystring": "query", "files": "form"}
_MOST_PAIRS = 1000
_MISSING = object()


class InvalidJson(Exception):
    """The body should be JSON, is looked at, and is none."""


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


def values_of(call: Call, arguments: Iterable[Argument]) -> dict[str, Any]:
    """Return what a request has of these arguments, unchecked; what else it has is ignored.

    Raises
    ------
    InvalidJson
        If an argument is to be looked for in a body that should be JSON and is none.
    """
    found = {argument.name: _value(call, argument) for argument in arguments}
    return {name: value for name, value in found.items() if value is not _MISSING}


def tagged(value: Any) -> dict[str, Any]:
    """Return a value as an agent takes it: what it is stands beside it, so that nobody's JSON can pass for a file."""
    if isinstance(value, Upload):
        file = {"path": str(value.path), "original_name": value.original_name, "content_type": value.content_type}
        return {"file": file}
    if isinstance(value, list) and any(isinstance(part, Upload) for part in value):
        return {"list": [tagged(part) for part in value]}
    return {"value": value}


def _value(call: Call, argument: Argument) -> Any:
    location = argument.location
    for place in _ANYWHERE if location is None else (_ALIASES.get(location, location),):
        value = _look(call, argument, place)
        if value is not _MISSING:
            return value
    return _MISSING


def _look(call: Call, argument: Argument, place: str) -> Any:
    if place == "json":
        return _in_json(call.body, argument)
    if place == "headers":
        text = call.headers.get(argument.name.lower())
        return _MISSING if text is None else [text] if argument.many else text
    if place == "cookies":
        return _cookies(call).get(argument.name, _MISSING)
    values = (call.query if place == "query" else call.body.form).get(argument.name)
    if not values:
        return _MISSING
    read = [_from_text(value, argument) for value in values]
    return read if argument.many else read[0]


def _in_json(body: Body, argument: Argument) -> Any:
    if body.broken_json:
        raise InvalidJson
    if not isinstance(body.json, dict) or argument.name not in body.json:
        return _MISSING
    value = body.json[argument.name]
    return [value] if argument.many and not isinstance(value, list) and value is not None else value


def _from_text(value: str | Upload, argument: Argument) -> Any:
    """Read what a query or form can hold as text only: a mapping is written as JSON there."""
    if isinstance(value, str) and argument.item.get("type") == "object":
        try:
            return read_json(value)
        except ValueError:
            return value  # the module's own check says what it is not
    return value


def _cookies(call: Call) -> dict[str, str]:
    pairs = (part.strip().partition("=") for part in call.headers.get("cookie", "").split(";"))
    return {name: value for name, _, value in pairs if name}
