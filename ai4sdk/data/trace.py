"""Traces of when sites were up, from files."""

from __future__ import annotations

import csv
import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ai4sdk.errors import DataError, NotFound
from ai4sdk.spec.availability import TraceAvailability, span_problem

__all__ = ["parse_trace", "read_trace"]

COLUMNS = ("site", "from", "to")

Spans = dict[str, list[int | list[float | int]]]
"""As in `TraceAvailability.up`."""
_Entry = tuple[int, Mapping[str, Any]]
"""Line and what it says."""


def read_trace(how: TraceAvailability, root: Path, sites: Sequence[str] = ()) -> TraceAvailability:
    """Return the section with what its file says in its place, so that a plan holds all that decides.

    Parameters
    ----------
    how
        The section.
    root
        Folder that a relative path starts from.
    sites
        Sites that the trace must tell of.

    Raises
    ------
    NotFound
        If there is no such file.
    DataError
        If it cannot be understood, or a site is missing.
    """
    if how.file is not None:
        path = root / how.file
        try:
            text = path.read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            raise NotFound(
                f"there is no trace {path}", hint="correct the path in federation.availability.file"
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(
                f"{path} cannot be read: {error}", hint="save it as UTF-8 text that you may read"
            ) from error
        spans = parse_trace(text, str(path), in_rounds=how.round_time is None)
        how = TraceAvailability(kind="trace", up=spans, round_time=how.round_time)
    _check_sites(how.up or {}, sites)
    return how


def parse_trace(text: str, name: str, *, in_rounds: bool = True) -> Spans:
    """Read a trace.

    Parameters
    ----------
    text
        Content of the file.
    name
        Its name; JSON if it ends in ``.json``, else CSV.
    in_rounds
        Whether ``from`` and ``to`` are rounds, both included, instead of seconds.

    Returns
    -------
    dict
        Site → spans it is up, in order; those that overlap or touch are one.

    Raises
    ------
    DataError
        If a line makes no sense.
    """
    entries = _json_entries(text, name) if name.endswith(".json") else _csv_entries(text, name)
    spans: dict[str, list[list[float]]] = {}
    for line, entry in entries:
        if missing := [column for column in COLUMNS if entry.get(column) in (None, "")]:
            raise _mistake(name, line, f"has no {' and no '.join(missing)}", "write site, from and to in every line")
        first, last = (_number(name, line, column, entry[column]) for column in COLUMNS[1:])
        if problem := span_problem([first, last], in_rounds=in_rounds):
            unit = "whole rounds, counted from 1" if in_rounds else "seconds since the federation began"
            raise _mistake(name, line, f"from {first:g} to {last:g} {problem}", f"write from and to as {unit}")
        spans.setdefault(str(entry["site"]).strip(), []).append([first, last])
    if not spans:
        raise _mistake(name, 1, "holds no spans", "write a line site,from,to for each time that a site was up")
    return {site: _merged(those, int(in_rounds)) for site, those in spans.items()}


def _mistake(name: str, line: int, what: str, hint: str) -> DataError:
    return DataError(f"{name}:{line} {what}", hint=hint)


def _number(name: str, line: int, column: str, value: Any) -> float:
    if not isinstance(value, bool):
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            pass
        else:
            if number == number:
                return int(number) if number.is_integer() else number
    raise _mistake(name, line, f"has {value!r} as {column}, which is no number", f"write {column} as a number")


def _csv_entries(text: str, name: str) -> Iterator[_Entry]:
    """Yield lines as header → cell; empty lines and those that begin with # say nothing."""
    header: list[str] | None = None
    reader = csv.reader(text.splitlines(), skipinitialspace=True)
    for cells in reader:
        cells = [cell.strip() for cell in cells]
        if not any(cells) or cells[0].startswith("#"):
            continue
        if header is None:
            header = [cell.lower() for cell in cells]
            if missing := [column for column in COLUMNS if column not in header]:
                raise _mistake(
                    name, reader.line_num, f"has no column {', '.join(missing)}", "begin with the line: site,from,to"
                )
            continue
        if len(cells) != len(header):
            raise _mistake(
                name, reader.line_num, f"has {len(cells)} cells, the header {len(header)}",
                "put a site that contains a comma in quotation marks",
            )  # fmt: skip
        yield reader.line_num, dict(zip(header, cells, strict=True))


def _json_entries(text: str, name: str) -> Iterator[_Entry]:
    """Yield the objects of a list, one after another, as only so the line of each is known."""
    shape = 'write a list of objects such as {"site": "a", "from": 1, "to": 5}'
    decoder = json.JSONDecoder()

    def line_at(position: int) -> int:
        return text.count("\n", 0, position) + 1

    def skip(position: int) -> int:
        while position < len(text) and text[position].isspace():
            position += 1
        return position

    position = skip(0)
    if text[position : position + 1] != "[":
        raise _mistake(name, line_at(position), "is no list", shape)
    position = skip(position + 1)
    while text[position : position + 1] != "]":
        try:
            entry, end = decoder.raw_decode(text, position)
        except ValueError as error:
            told = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            at = error.pos if isinstance(error, json.JSONDecodeError) else position
            raise _mistake(name, line_at(at), f"is no JSON: {told}", shape) from None
        if not isinstance(entry, dict):
            raise _mistake(name, line_at(position), f"has {entry!r} in the list, which is no object", shape)
        yield line_at(position), entry
        position = skip(end)
        if text[position : position + 1] == ",":
            position = skip(position + 1)
        elif text[position : position + 1] != "]":
            raise _mistake(name, line_at(position), "is no JSON: a comma or ] is missing", shape)


def _merged(spans: Sequence[list[float]], gap: int) -> list[int | list[float]]:
    """Join spans that overlap, or follow one another."""
    merged: list[list[float]] = []
    for first, last in sorted(spans):
        if merged and first <= merged[-1][1] + gap:
            merged[-1][1] = max(merged[-1][1], last)
        else:
            merged.append([first, last])
    return [*merged]


def _check_sites(up: Mapping[str, Any], sites: Sequence[str]) -> None:
    if missing := [site for site in sites if site not in up]:
        near = difflib.get_close_matches(missing[0], list(up), n=1)
        listed = ", ".join(missing[:8]) + (", ..." if len(missing) > 8 else "")
        there = f"is {near[0]!r} meant to be {missing[0]!r}?" if near else f"it tells of {', '.join(list(up)[:8])}"
        raise DataError(
            f"the trace does not tell when {listed} can be reached",
            hint=f"{there} Add a line for each site; one that is never up is [] under availability.up",
        )
