"""One way to prepare samples, made of those that several datasets of one kind were measured for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ai4sdk.data.notation import Notation
from ai4sdk.data.preprocessing import ColumnRule, Preprocessing
from ai4sdk.errors import DataError

__all__ = ["listed", "pooled", "with_common_notation"]

Moments = tuple[int, NDArray[np.float64], NDArray[np.float64]]
"""Number of samples; mean and variance of each input, before it was scaled."""


def pooled(each: Mapping[str, tuple[Preprocessing, NDArray[Any]]]) -> Preprocessing:
    """Return what prepares the samples of all: numbers are scaled by the mean and the deviation over all of them.

    Parameters
    ----------
    each
        Name of a dataset → what prepares its samples, and its training samples prepared by it, shape (samples,
        inputs) for tables and for arrays of one axis a sample.

    Returns
    -------
    Preprocessing
        That of the first where all are the same; texts are read as the files of all allow.

    Raises
    ------
    DataError
        If datasets have other columns, kinds of columns, categories or classes.
    """
    (first, (one, _)), *others = each.items()
    one = with_common_notation([rules for rules, _ in each.values()])
    for name, (other, _) in others:
        if difference := _difference(one, other):
            what, ours, theirs = difference
            raise DataError(
                f"{name} and {first} differ in {what}: {theirs} and {ours}",
                hint="bring them into the same form; columns that not all have are left out with dataset.drop",
            )
    if all(other == one for _, (other, _) in others):
        return one
    moments = [_moments(rules, samples) for rules, samples in each.values()]
    mean, variance = _all(moments)
    std = np.sqrt(variance)
    std = np.where(std > 1e-13 * np.abs(mean), std, 1.0)  # as each is measured alone
    if one.kind == "array":
        fills = [rules.fill for rules, _ in each.values()]
        fill = _weighted([n for n, *_ in moments], fills) if one.fill is not None else None
        scaled = one.mean is not None
        return replace(
            one, mean=tuple(mean.tolist()) if scaled else None, std=tuple(std.tolist()) if scaled else None, fill=fill
        )
    columns, place = [], 0
    for index, rule in enumerate(one.columns):
        rules = [other.columns[index] for other, _ in each.values()]
        columns.append(_column(rules, [n for n, *_ in moments], float(mean[place]), float(std[place])))
        place += rule.width
    return replace(one, columns=tuple(columns))


def with_common_notation(each: Sequence[Preprocessing]) -> Preprocessing:
    """Return the first of several, which reads texts as the files of all allow."""
    notation = Notation.common(rules.notation for rules in each)
    return each[0] if each[0].notation == notation else replace(each[0], notation=notation)


def _difference(one: Preprocessing, other: Preprocessing) -> tuple[str, str, str] | None:
    """Return in what two cannot be put together, and both values as text."""
    pairs: list[tuple[str, Any, Any]] = [
        ("what they hold", one.kind, other.kind),
        ("the kind of task", one.task, other.task),
        ("the classes", one.class_names, other.class_names),
        ("the columns", one.column_names, other.column_names),
    ]
    for a, b in zip(one.columns, other.columns, strict=False):
        pairs.append((f"the kind of column {a.name}", a.kind, b.kind))
        pairs.append((f"the texts of column {a.name}", a.categories, b.categories))
    pairs += [("how files are read", one.media, other.media), ("the shape of a sample", one.shape, other.shape)]
    pairs.append(("whether numbers are scaled", one.mean is None, other.mean is None))
    return next(((what, _text(a), _text(b)) for what, a, b in pairs if a != b), None)


def _text(value: Any) -> str:
    return listed(value) if isinstance(value, tuple | list) else str(value)


def listed(values: Sequence[Any]) -> str:
    """Write the first dozen of some values, for a message."""
    return ", ".join(str(value) for value in values[:12]) + (", …" if len(values) > 12 else "")


def _moments(rules: Preprocessing, samples: NDArray[Any]) -> Moments:
    wide = np.asarray(samples, dtype=np.float64)
    mean, std = _scale(rules, wide.shape[1])
    return len(wide), mean + std * wide.mean(axis=0), std**2 * wide.var(axis=0)


def _scale(rules: Preprocessing, width: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if rules.kind == "table":
        means = [rule.mean for rule in rules.columns for _ in range(rule.width)]
        stds = [rule.std for rule in rules.columns for _ in range(rule.width)]
        return np.asarray(means), np.asarray(stds)
    if rules.mean is None or rules.std is None:
        return np.zeros(width), np.ones(width)
    return np.asarray(rules.mean), np.asarray(rules.std)


def _all(moments: list[Moments]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and variance over all samples (Chan, Golub, LeVeque 1979, Updating formulae … for variances)."""
    count = sum(n for n, *_ in moments)
    mean = np.sum([n * own for n, own, _ in moments], axis=0) / count
    variance = np.sum([n * (of + (own - mean) ** 2) for n, own, of in moments], axis=0) / count
    return mean, variance


def _column(rules: list[ColumnRule], counts: list[int], mean: float, std: float) -> ColumnRule:
    one = rules[0]
    fill = one.fill
    if one.kind == "text" and fill is not None:
        votes = dict.fromkeys(one.categories, 0)
        for count, rule in zip(counts, rules, strict=True):
            votes[str(rule.fill)] += count
        fill = max(votes, key=lambda text: votes[text])
    elif fill is not None:
        (fill,) = _weighted(counts, [(rule.fill,) for rule in rules])
        fill = float(fill >= 0.5) if one.kind == "bool" else fill
    scaled = one.kind == "number" and any((rule.mean, rule.std) != (0.0, 1.0) for rule in rules)
    return replace(one, mean=mean, std=std, fill=fill) if scaled else replace(one, fill=fill)


def _weighted(counts: list[int], values: list[Any]) -> tuple[float, ...]:
    return tuple(np.average(np.asarray(values, dtype=np.float64), axis=0, weights=counts).tolist())
