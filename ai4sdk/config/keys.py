"""Which keys a job may have, read from the models of spec/."""

from __future__ import annotations

import ast
import difflib
import inspect
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ai4sdk.spec import Job

__all__ = [
    "all_keys",
    "describe",
    "docs_of",
    "field_at",
    "fields_of",
    "is_known",
    "models_at",
    "models_by_name",
    "models_in",
    "nearest",
    "nearest_key",
    "valid_keys",
    "value_at",
]


def field_at(key: str) -> FieldInfo | None:
    """Return the field a dotted key names, or ``None`` where the models do not go that far."""
    models: tuple[type[BaseModel], ...] = (Job,)
    found: FieldInfo | None = None
    for part in key.split("."):
        if found is not None and models_by_name(found.annotation):
            found = FieldInfo(annotation=get_args(found.annotation)[1])
        else:
            found = next((info for model in models for name, info in fields_of(model).items() if name == part), None)
        if found is None:
            return None
        models = models_in(found.annotation)
    return found


def models_by_name(annotation: Any) -> tuple[type[BaseModel], ...]:
    """Return the sections that stand below each name, where an annotation is a mapping of names to sections."""
    return models_in(get_args(annotation)[1]) if get_origin(annotation) is dict else ()


def is_known(key: str) -> bool:
    """Tell whether the models name this key, so that setting it needs no ``+``."""
    return field_at(key) is not None


def value_at(values: Any, key: str, missing: Any = None) -> Any:
    """Return the value at a dotted key of nested mappings and lists, ``missing`` where there is none."""
    for part in key.split(".") if key else []:
        if isinstance(values, dict) and part in values:
            values = values[part]
        elif isinstance(values, list) and part.isdecimal() and int(part) < len(values):
            values = values[int(part)]
        else:
            return missing
    return values


def models_at(section: str) -> tuple[type[BaseModel], ...]:
    """Return the models a section may be of; none where any key may stand."""
    info = field_at(section)
    return models_in(info.annotation) if info else ()


def valid_keys(section: str) -> list[str] | None:
    """Return the keys a section may have, or ``None`` where any key may stand (arguments of a target, options)."""
    if not section:
        return list(fields_of(Job))
    models = models_at(section)
    if not models:
        return None
    return list(dict.fromkeys(name for model in models for name in fields_of(model)))


@lru_cache(maxsize=1)
def all_keys() -> tuple[str, ...]:
    """Return every dotted key the models name."""
    found: list[str] = []

    def walk(models: tuple[type[BaseModel], ...], prefix: str, depth: int) -> None:
        for model in models:
            for name, info in fields_of(model).items():
                found.append(f"{prefix}{name}")
                if depth < 6:
                    walk(models_in(info.annotation), f"{prefix}{name}.", depth + 1)

    walk((Job,), "", 0)
    return tuple(dict.fromkeys(found))


def fields_of(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return a model's fields by the name they have in YAML."""
    return {info.alias or name: info for name, info in model.model_fields.items()}


def nearest(word: str, words: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the word most like another, by its letters or by the words in it, or ``None`` where none comes near."""
    typed = word.lower()[:200]
    best, most = None, 0.0
    for candidate in words:
        likeness = _likeness(typed, candidate.lower())
        if likeness >= cutoff and likeness > most:
            best, most = candidate, likeness
    return best


def _likeness(one: str, other: str) -> float:
    return max(difflib.SequenceMatcher(None, other, one).ratio(), _shared_words(one, other))


def _shared_words(one: str, other: str) -> float:
    """Return the share of words that two names have in common, in any order; initials stand for what they begin."""
    (ours, theirs) = (re.findall(r"[^\W_]+", name) for name in (one, other))
    if len(ours) < 2 and len(theirs) < 2:
        return 0.0
    met, left = 0, list(theirs)
    for word in ours:
        if covered := _standing_for(word, left):
            met += 1 + len(covered)
            left = [each for index, each in enumerate(left) if index not in covered]
    return met / (len(ours) + len(theirs))


def _standing_for(word: str, words: Sequence[str]) -> range:
    """Return the places of what a word stands for: one of the same stem, or several whose initials it is."""
    for place, other in enumerate(words):
        stem = next(
            (at for at, (a, b) in enumerate(zip(word, other, strict=False)) if a != b), min(len(word), len(other))
        )
        if word == other or (stem >= _STEM and stem >= max(len(word), len(other)) / 2):
            return range(place, place + 1)
    initials = "".join(other[0] for other in words)
    start = initials.find(word) if len(word) > 1 else -1
    return range(start, start + len(word)) if start >= 0 else range(0)


_STEM = 4
"""Letters with which words must begin alike to be forms of one, as scale and scaling."""


def nearest_key(key: str, existing: Sequence[str]) -> str | None:
    """Return the dotted key most like another, keeping its section where the section is right.

    A key of just that name further down in the section is meant rather than one beside it that looks alike.
    """
    section, _, name = key.rpartition(".")
    below = [k for k in existing if section and k.startswith(f"{section}.") and k.endswith(f".{name}")]
    if len(below) == 1:
        return below[0]
    siblings = [k for k in existing if k.rpartition(".")[0] == section]
    if found := nearest(name, [k.rpartition(".")[2] for k in siblings]):
        return f"{section}.{found}".lstrip(".")
    same_name = [k for k in existing if k.rpartition(".")[2] == name]
    same_depth = [k for k in existing if k.count(".") == key.count(".")]
    return nearest(key, same_name, 0.3) or nearest(key, same_depth, 0.7) or nearest(key, existing, 0.8)


@lru_cache(maxsize=64)
def docs_of(model: type[BaseModel]) -> dict[str, str]:
    """Return what the docstring below each field of a class says."""
    docs: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if not issubclass(base, BaseModel) or base is BaseModel:
            continue
        try:
            tree = ast.parse(inspect.getsource(base))
        except (OSError, TypeError, SyntaxError):
            continue
        body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
        for statement, after in pairwise(body):
            if (
                isinstance(statement, ast.AnnAssign)
                and isinstance(statement.target, ast.Name)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
                and isinstance(after.value.value, str)
            ):
                docs[statement.target.id] = " ".join(after.value.value.split())
    return docs


def describe(key: str) -> str:
    """Return one sentence or two on what a key means, or nothing where the models do not name it."""
    section, _, name = key.rpartition(".")
    info = field_at(section) if section else None
    models: tuple[type[BaseModel], ...] = models_in(info.annotation) if info else () if section else (Job,)
    for model in models:
        for field_name, field in model.model_fields.items():
            if (field.alias or field_name) == name:
                return docs_of(model).get(field_name, "")
    return ""


@lru_cache(maxsize=512)
def _cached_models_in(annotation: Any) -> tuple[type[BaseModel], ...]:
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return (annotation,)
    origin = get_origin(annotation)
    if origin in (dict, list, tuple):
        return ()
    return tuple(model for part in get_args(annotation) for model in models_in(part))


def models_in(annotation: Any) -> tuple[type[BaseModel], ...]:
    """Return the sections an annotation allows, those inside lists and mappings left out."""
    try:
        return _cached_models_in(annotation)
    except TypeError:  # an annotation with an unhashable part names no model of ours
        return ()
