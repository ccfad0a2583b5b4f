"""Division of samples into training, validation and test.

Everything here is decided by the order of the samples and ``splits.seed``: the same on every machine and with every
version of every library.
"""

from __future__ import annotations

import random
from collections.abc import Hashable, Sequence
from typing import Any

from ai4sdk.data.order import by_value, shuffled
from ai4sdk.data.source import SPLITS
from ai4sdk.errors import DataError
from ai4sdk.spec import Splits

__all__ = ["divide"]

Indices = dict[str, list[int]]


def divide(splits: Splits, count: int, values: Sequence[Any] | None = None) -> Indices:
    """Divide samples.

    Parameters
    ----------
    splits
        How.
    count
        Number of samples.
    values
        One value a sample: its class for ``stratified``, its group for ``group``, its time for ``time``, the name
        of its split for ``given``. Not needed for ``fraction``.

    Returns
    -------
    dict
        Names of the splits asked for, with the positions of their samples, ascending (for ``time``, in the order of
        time). No sample is in two of them, and but for ``given`` each sample is in one.

    Raises
    ------
    DataError
        If a split that is asked for would be empty.
    """
    if splits.method == "given":
        return _given(splits, values or ())
    shares = {name: float(share) for name in SPLITS if (share := getattr(splits, name))}
    if count < len(shares):
        raise DataError(
            f"{count} samples cannot be divided into {', '.join(shares)}",
            hint="add data, or set splits.val or splits.test to null and adjust splits.train",
        )
    if splits.method == "fraction":
        return _by_position(shuffled(count, random.Random(splits.seed).random), shares)
    if values is None or len(values) != count:
        raise ValueError(f"splits.method: {splits.method} needs one value for each of {count} samples")
    if splits.method == "time":
        order = sorted(range(count), key=values.__getitem__)
        return _by_position(order, shares, keep_order=True)
    found = _by_group(values, shares, splits) if splits.method == "group" else _by_class(values, shares, splits)
    for name, chosen in found.items():
        if not chosen:
            raise DataError(
                f"splits.method: {splits.method} leaves no sample for {name}",
                hint=f"add data, or give splits.{name} a larger share",
            )
    return found


def _sizes(count: int, shares: dict[str, float]) -> dict[str, int]:
    """Cut a number into whole parts nearest to the shares, none of them empty."""
    sizes = {name: int(count * share + 1e-9) for name, share in shares.items()}
    rest = sorted(shares, key=lambda name: sizes[name] - count * shares[name])
    for name in rest[: count - sum(sizes.values())]:
        sizes[name] += 1
    for name, size in sizes.items():
        if size == 0:
            sizes[max(sizes, key=lambda other: sizes[other])] -= 1
            sizes[name] = 1
    return sizes


def _by_position(order: list[int], shares: dict[str, float], *, keep_order: bool = False) -> Indices:
    found: Indices = {}
    start = 0
    for name, size in _sizes(len(order), shares).items():
        chosen = order[start : start + size]
        found[name] = chosen if keep_order else sorted(chosen)
        start += size
    return found


def _by_class(values: Sequence[Hashable], shares: dict[str, float], splits: Splits) -> Indices:
    """Divide each class by the shares, each part within one sample of its share.

    A class's odd samples go where they are most needed: to training if it has none of the class yet, else to the
    split that is furthest behind its share of all samples so far.
    """
    members = by_value(values)
    if len(members) == len(values) or max(map(len, members.values())) < len(shares):
        raise DataError(
            f"no class has enough samples for a stratified split: {len(members)} classes in {len(values)} samples",
            hint="set splits.method: fraction, or name another column in dataset.label",
        )
    order = shuffled(len(values), random.Random(splits.seed).random)
    rank = {index: position for position, index in enumerate(order)}
    found: Indices = {name: [] for name in shares}
    seen = 0
    for chosen in members.values():
        count = len(chosen)
        seen += count
        sizes = {name: int(count * share + 1e-9) for name, share in shares.items()}
        behind = {name: seen * share - len(found[name]) - sizes[name] for name, share in shares.items()}
        odd = [name for name in shares if count * shares[name] - sizes[name] > 1e-9]
        odd.sort(key=lambda name: (name == "train" and sizes[name] == 0, behind[name]), reverse=True)
        for name in odd[: count - sum(sizes.values())]:
            sizes[name] += 1
        chosen = sorted(chosen, key=rank.__getitem__)
        start = 0
        for name, size in sizes.items():
            found[name] += chosen[start : start + size]
            start += size
    return {name: sorted(chosen) for name, chosen in found.items()}


def _by_group(values: Sequence[Hashable], shares: dict[str, float], splits: Splits) -> Indices:
    """Give whole groups, largest first, to the split that is furthest behind its share."""
    members = list(by_value(values).values())
    if len(members) < len(shares):
        raise DataError(
            f"column {splits.column!r} has {len(members)} groups, too few for {', '.join(shares)}",
            hint="name a column with more groups in splits.column, or ask for fewer splits",
        )
    order = sorted(shuffled(len(members), random.Random(splits.seed).random), key=lambda index: -len(members[index]))
    found: Indices = {name: [] for name in shares}
    for done, index in enumerate(order):
        empty = [name for name in shares if not found[name]]
        # As soon as there are only as many groups left as splits without any, each gets one.
        open_ = empty if len(empty) == len(order) - done else list(shares)
        behind = {name: len(values) * shares[name] - len(found[name]) for name in open_}
        found[max(open_, key=behind.__getitem__)] += members[index]
    return {name: sorted(chosen) for name, chosen in found.items()}


def _given(splits: Splits, values: Sequence[Any]) -> Indices:
    found: Indices = {}
    for name in SPLITS:
        asked = getattr(splits, name)
        if asked is None:
            continue
        found[name] = [index for index, value in enumerate(values) if value == asked]
        if not found[name]:
            there = sorted({str(value) for value in values})
            raise DataError(
                f"no sample has {asked!r} in column {splits.column!r}, which splits.{name} names",
                hint=f"its values are {', '.join(there[:8])}",
            )
    return found
