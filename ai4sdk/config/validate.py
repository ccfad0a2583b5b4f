"""A composed mapping → a `Job`, or every reason why it is none."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from ai4sdk.config.compose import COMMAND_LINE, Composition
from ai4sdk.config.history import history, place
from ai4sdk.config.keys import (
    all_keys,
    describe,
    field_at,
    fields_of,
    models_at,
    nearest,
    valid_keys,
    value_at,
)
from ai4sdk.errors import Problem
from ai4sdk.spec import Job
from ai4sdk.spec.backend import backends_of_packages
from ai4sdk.spec.base import complete
from ai4sdk.spec.site import written_out

__all__ = ["located", "validate"]

MISSING = "???"
_ALTERNATIVES = ("files", "target", "other")
"""What alternatives of a union are called that have no kind to be told by."""
GROUPS_OF_KINDS = ("backend",)
"""Sections whose ``kind`` decides which keys they have."""


def validate(composition: Composition) -> tuple[Job | None, list[Problem]]:
    """Make a job of what was composed.

    Parameters
    ----------
    composition
        Values and the mistakes found while composing.

    Returns
    -------
    job
        The job, or ``None`` if the values are none.
    problems
        All mistakes, those of composing first, each with the place it was made.
    """
    problems = list(composition.problems)
    reported = {problem.key for problem in problems if problem.key}
    values = composition.values
    if not values and problems:
        return None, [_with_origin(composition, problem) for problem in problems]
    values = written_out(values)
    for key in _missing(values):
        if _of_another_section(composition, values, key):
            continue
        problems.append(Problem(f"{key} must be given", key=key, fix=_example(composition, key)))
        reported.add(key)
    job: Job | None = None
    complete(Job)
    try:
        job = Job.model_validate(values)
    except ValidationError as error:
        found = [p for p in _problems(composition, values, error) if not _reported(p.key, reported)]
        problems += [p for p in found if not _of_another_section(composition, values, p.key)]
    except RecursionError:
        problems.append(Problem("the config is nested too deeply"))
    return (None if problems else job), _in_order(_with_origin(composition, problem) for problem in problems)


def _of_another_section(composition: Composition, values: Any, key: str) -> bool:
    """Tell whether a site has a value only because the job has it, where what is wrong with it is told already."""
    if not key.startswith("federation.sites."):
        return False
    absent = object()
    return value_at(composition.values, key, absent) is absent and value_at(values, key, absent) is not absent


def _in_order(problems: Iterable[Problem]) -> list[Problem]:
    """Sort problems as one would mend them: the command line first, then file by file from the top."""

    def key(problem: Problem) -> tuple[bool, str, int, int]:
        origin = problem.origin
        if origin is None or origin.line is None:
            return (False, "", 0, 0)
        return (True, origin.source, origin.line, origin.column or 0)

    return sorted(problems, key=key)


def located(composition: Composition, key: str, message: str, fix: str | None = None) -> Problem:
    """Make a problem about a key, with the place that set its value and the layers that lost to it."""
    return _with_origin(composition, Problem(message, key=key, fix=fix))


def _with_origin(composition: Composition, problem: Problem) -> Problem:
    if problem.origin is not None or not problem.key:
        return problem
    origins = history(composition, problem.key)
    if origins:
        return replace(problem, origin=origins[-1], overridden=tuple(reversed(origins[:-1])))
    return replace(problem, origin=place(composition, problem.key))


def _reported(key: str, reported: set[str]) -> bool:
    return any(key == known or key.startswith(f"{known}.") for known in reported)


def _missing(value: Any, prefix: str = "") -> Iterator[str]:
    """Yield the keys whose value is still to be given (`???`)."""
    if isinstance(value, str) and value == MISSING:
        yield prefix
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, child in items:
        yield from _missing(child, f"{prefix}.{name}".lstrip("."))


def _problems(composition: Composition, values: dict[str, Any], error: ValidationError) -> Iterator[Problem]:
    seen: dict[str, list[Any]] = {}
    for detail in error.errors(include_url=False):
        seen.setdefault(_key(values, detail["loc"]), []).append(detail)
    for key, details in seen.items():
        kinds = {detail["type"] for detail in details}
        if "extra_forbidden" in kinds:
            yield _unknown(composition, key)
        elif kinds == {"missing"}:
            section = key.rpartition(".")[0]
            where = f" in {section}" if section else ""
            yield Problem(f"{key.rpartition('.')[2]} is missing{where}", key=key, fix=_example(composition, key))
        else:
            yield _wrong(composition, values, key, details)


def _key(values: Any, location: Sequence[Any]) -> str:
    """Turn pydantic's location into the key as written: without the names it gives to alternatives of a union."""
    parts: list[str] = []
    node = values
    for index, part in enumerate(location):
        inside = isinstance(node, dict) and part in node
        if inside or (isinstance(node, list) and isinstance(part, int) and part < len(node)):
            node = node[part]
        elif isinstance(node, dict) and index == len(location) - 1 and part not in _ALTERNATIVES:
            pass  # a key that is missing
        else:
            continue
        parts.append(str(part))
    return ".".join(parts)


def _unknown(composition: Composition, key: str) -> Problem:
    section, _, name = key.rpartition(".")
    valid = valid_keys(section) or []
    where = f"{section} has no key" if section else "there is no key"
    if name in valid:  # of another alternative that the section has
        owners = [model for model in models_at(section) if name in fields_of(model) and "kind" in fields_of(model)]
        kinds = [str(fields_of(model)["kind"].default) for model in owners]
        return Problem(f"{where} {name!r}", key=key, fix=f"{section}={kinds[0]} has it" if kinds else "remove it")
    near = nearest(name, valid)
    if near:
        return Problem(f"{where} {name!r}", key=key, fix=_rename(composition, key, f"{section}.{near}".lstrip(".")))
    elsewhere = [known for known in all_keys() if known.rpartition(".")[2] == name]
    if elsewhere:
        return Problem(f"{where} {name!r}", key=key, fix=_rename(composition, key, elsewhere[0]))
    fix = f"remove it; valid keys are {', '.join(sorted(valid))}" if valid else "remove it"
    return Problem(f"{where} {name!r}", key=key, fix=fix)


def _rename(composition: Composition, key: str, to: str) -> str:
    origins = history(composition, key)
    if origins and origins[-1].source == COMMAND_LINE and (text := origins[-1].text):
        return f"{to}={text.partition('=')[2]}"
    section, _, name = to.rpartition(".")
    return (
        f"{name}:"
        if section == key.rpartition(".")[0]
        else f"{name}: under {section}:"
        if section
        else f"{name}: at the top"
    )


def _wrong(composition: Composition, values: dict[str, Any], key: str, details: list[Any]) -> Problem:
    value = value_at(values, key)
    detail = details[0]
    reason = _reason(details)
    shown = "" if detail["type"] == "value_error" and not key else f", not {_shown(value)}"
    if detail["type"] in ("union_tag_invalid", "union_tag_not_found") and key in GROUPS_OF_KINDS:
        ours = [str(kind.default) for model in models_at(key) if not (kind := fields_of(model)["kind"]).is_required()]
        kinds = [*ours, *backends_of_packages()]
        tag = value.get("kind", "") if isinstance(value, dict) else ""
        near = nearest(str(tag), kinds) or kinds[0]
        fix = f"{key}={near}" if near in ours else f"{key}.kind={near}"
        return Problem(f"{key}.kind must be one of {', '.join(kinds)}, not {_shown(tag)}", key=f"{key}.kind", fix=fix)
    if detail["type"] == "value_error":
        message = str(detail["ctx"]["error"]) if "ctx" in detail and "error" in detail["ctx"] else detail["msg"]
        name = key or "the job"
        return Problem(f"{name}: {message}", key=key, fix=_example(composition, key) if _is_scalar(value) else None)
    return Problem(f"{key} must be {reason}{shown}", key=key, fix=_correction(composition, key, value, details))


def _is_scalar(value: Any) -> bool:
    return not isinstance(value, dict | list)


_REASONS = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping of keys to values",
    "model_attributes_type": "a mapping of keys to values",
    "none_required": "nothing (null)",
    "union_tag_invalid": "a dataset: a mapping with uri or _target_",
    "finite_number": "a finite number",
}


def _reason(details: list[Any]) -> str:
    reasons = []
    for detail in details:
        kind, context = detail["type"], detail.get("ctx", {})
        if kind == "literal_error":
            reasons.append("one of " + str(context["expected"]).replace("'", ""))
        elif kind == "string_pattern_mismatch":
            reasons.append(f"text that fits {context['pattern']}")
        elif kind in ("greater_than_equal", "greater_than", "less_than_equal", "less_than"):
            word = {"greater_than_equal": "at least", "greater_than": "more than", "less_than_equal": "at most"}
            bound = next(iter(context.values()))
            reasons.append(f"{word.get(kind, 'less than')} {bound}")
        else:
            reasons.append(_REASONS.get(kind, re.sub(r"^Input should be ", "", detail["msg"])))
    return " or ".join(dict.fromkeys(reasons))


def _correction(composition: Composition, key: str, value: Any, details: list[Any]) -> str | None:
    for detail in details:
        if detail["type"] == "literal_error":
            options = [option.strip(" '") for option in re.split(r",| or ", str(detail["ctx"]["expected"]))]
            if near := nearest(str(value), options):
                return _assign(composition, key, near)
        if detail["type"] == "string_type" and isinstance(value, int | float):
            return _assign(composition, key, f"'{value}'")
        if detail["type"] in ("int_type", "float_type") and isinstance(value, str):
            try:
                number = float(value)
            except ValueError:
                continue
            return _assign(composition, key, f"{number:g}")
        if detail["type"] == "list_type" and _is_scalar(value) and value is not None:
            return _assign(composition, key, f"[{value}]")
    return _example(composition, key)


def _assign(composition: Composition, key: str, value: str) -> str:
    origins = history(composition, key)
    if origins and origins[-1].source == COMMAND_LINE:
        return f"{key}={value}" if " " not in value and "'" not in value else f'"{key}={value}"'
    return f"{key.rpartition('.')[2]}: {value}"


def _example(composition: Composition, key: str) -> str | None:
    """Return a value that would do, from the model's default, or what the key means."""
    info = field_at(key)
    meaning = describe(key).replace("``", "")
    if info is not None and not info.is_required() and info.default_factory is None and info.default is not None:
        default = str(info.default).lower() if isinstance(info.default, bool) else str(info.default)
        example = _assign(composition, key, default)
        return f"{example}   ({meaning})" if meaning else example
    if key in ("module", "dataset"):
        return f"add a {key}: `ai4sdk configs {key}` lists those there are; then +{key}=NAME"
    return meaning or (f"{key}=VALUE" if key else None)


def _shown(value: Any) -> str:
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
