"""`ai4-metadata.yml`: what a module is, for people and for the platform's catalogue."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from ai4sdk.catalog.schema import mistakes
from ai4sdk.errors import ConfigError, NotFound, Origin, Problem

__all__ = ["METADATA_FILE", "read_metadata", "validate_metadata"]

METADATA_FILE = "ai4-metadata.yml"
"""Name of the file in a module's folder."""

_SCHEMA = Path(__file__).with_name("schemas") / "ai4-metadata-2.3.0.json"
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_metadata(path: Path) -> dict[str, Any]:
    """Read a metadata file, without judging what it says.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    dict
        Its content.

    Raises
    ------
    NotFound
        If there is no such file.
    ConfigError
        If it cannot be read or is no YAML mapping; tells the line.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)
    except FileNotFoundError:
        raise NotFound(f"there is no {path}", hint="copy the one of another module and change it") from None
    except OSError as error:
        raise _unreadable(path, f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise _unreadable(path, "is not text in UTF-8") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _no_yaml(path, error) from error
    if not isinstance(content, dict):
        raise _unreadable(path, "holds no keys", "title: …")
    return content


def validate_metadata(metadata: Mapping[str, Any], *, path: Path | None = None) -> list[Problem]:
    """Check metadata against format 2.3.0, which later 2.x files of the catalogue also fit.

    Parameters
    ----------
    metadata
        Content of a metadata file.
    path
        The file it was read from, so that problems tell their line.

    Returns
    -------
    list of Problem
        Every mistake; empty if there is none.
    """
    marks = _marks(path) if path is not None else {}
    problems = []
    for mistake in mistakes(metadata, _schema()):
        origin = None
        if path is not None:
            line, column = _nearest_mark(marks, mistake.path)
            origin = Origin(str(path), line, column)
        key = ".".join(map(str, mistake.path))
        message = f"{key}: {mistake.message}" if key else mistake.message
        problems.append(Problem(message, key=key, origin=origin, fix=mistake.fix))
    return problems


@lru_cache(maxsize=1)
def _schema() -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(_SCHEMA.read_text(encoding="utf-8"))
    return schema


def _unreadable(path: Path, message: str, fix: str | None = None, line: int = 1, column: int = 1) -> ConfigError:
    return ConfigError([Problem(message, origin=Origin(str(path), line, column), fix=fix)])


def _no_yaml(path: Path, error: Exception) -> ConfigError:
    mark = getattr(error, "problem_mark", None)
    reason = getattr(error, "problem", None) or str(error).splitlines()[0]
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    return _unreadable(path, f"is no YAML: {reason}", line=line, column=column)


def _marks(path: Path) -> dict[tuple[str | int, ...], tuple[int, int]]:
    """Return path of keys → (line, column) for all that stands in a file, counted from one."""
    found: dict[tuple[str | int, ...], tuple[int, int]] = {}

    def visit(node: yaml.Node | None, keys: tuple[str | int, ...]) -> None:
        if isinstance(node, yaml.MappingNode):
            for name, child in node.value:
                found[(*keys, name.value)] = (name.start_mark.line + 1, name.start_mark.column + 1)
                visit(child, (*keys, name.value))
        elif isinstance(node, yaml.SequenceNode):
            for index, child in enumerate(node.value):
                found[(*keys, index)] = (child.start_mark.line + 1, child.start_mark.column + 1)
                visit(child, (*keys, index))

    visit(yaml.compose(path.read_text(encoding="utf-8"), Loader=_LOADER), ())
    return found


def _nearest_mark(marks: Mapping[tuple[str | int, ...], tuple[int, int]], keys: Sequence[str | int]) -> tuple[int, int]:
    place = tuple(keys)
    while place and place not in marks:
        place = place[:-1]
    return marks.get(place, (1, 1))
