"""Filling in `${data:…}`: what a module must know of the data it will learn from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ai4sdk.planning.checks import Finding

__all__ = ["fill_in"]

_WHOLE = re.compile(r"\$\{data:(\w+)\}")
NAMES = ("features", "classes", "rows", "shape", "channels")


def fill_in(value: Any, summary: Mapping[str, Any] | None, key: str = "") -> tuple[Any, list[Finding]]:
    """Replace references to the data's summary.

    Parameters
    ----------
    value
        A job as plain values.
    summary
        What is known of the dataset: ``features``, ``classes``, ``rows`` (numbers), ``shape`` (list) and ``channels``;
        ``None`` if its code must run to know, empty if there is no dataset.
    key
        Dotted key of ``value``.

    Returns
    -------
    value
        The same with numbers in place of references.
    findings
        References that cannot be filled in.
    """
    if isinstance(value, dict):
        pairs = {name: fill_in(child, summary, f"{key}.{name}".lstrip(".")) for name, child in value.items()}
        return {name: pair[0] for name, pair in pairs.items()}, [f for pair in pairs.values() for f in pair[1]]
    if isinstance(value, list):
        items = [fill_in(child, summary, f"{key}.{index}") for index, child in enumerate(value)]
        return [item[0] for item in items], [f for item in items for f in item[1]]
    if not isinstance(value, str) or "${data:" not in value:
        return value, []
    match = _WHOLE.fullmatch(value)
    if not match or match[1] not in NAMES:
        fix = "one of " + ", ".join(f"${{data:{name}}}" for name in NAMES)
        return value, [Finding(key, f"{value} is no reference to the data's summary", fix)]
    found = (summary or {}).get(match[1])
    if found is None:
        known = "the data does not tell" if summary else "there is no dataset"
        why = "the dataset is made by code" if summary is None else known
        return value, [Finding(key, f"{value} is not known: {why}", f"write the number: {key}=N")]
    return found, []
