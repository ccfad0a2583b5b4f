"""Division of one dataset among sites, to rehearse a federation.

Everything here is decided by the order of the samples and ``partition.seed``: the same on every machine and with every
version of every library, as with splits.

``dirichlet``, ``label`` and ``quantity`` are what Q. Li, Y. Diao, Q. Chen, B. He: Federated Learning on Non-IID Data
Silos (https://arxiv.org/abs/2102.02079) call distribution-based and quantity-based label imbalance, and quantity skew.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import islice, repeat
from typing import Any

from ai4sdk.data.dirichlet import cut, dirichlet, power_law
from ai4sdk.data.order import Draw, by_value, shuffled
from ai4sdk.errors import DataError
from ai4sdk.spec.partition import Partition

__all__ = ["class_counts", "partition"]

DRAWS = 100
"""How often shares are drawn until every site has ``min_samples``."""

Positions = dict[str, list[int]]
Sizes = list[list[int]]
"""For each class (or for all samples as one), how many of its samples each site gets."""


def partition(
    how: Partition, count: int, labels: Sequence[Any] | None = None, column: Sequence[Any] | None = None
) -> Positions:
    """Divide samples among sites.

    Parameters
    ----------
    how
        The section ``partition``.
    count
        Number of samples.
    labels
        The class of each sample; for ``dirichlet`` and ``label``.
    column
        The value of ``how.column`` of each sample; for ``column``.

    Returns
    -------
    dict
        Names of the sites, with the positions of their samples, ascending. Each sample is at one site. Sites are called
        ``site-1`` and so on (``site-01`` if there are ten); those of a column as its values, those of ``groups`` as
        there.

    Raises
    ------
    DataError
        If the data cannot be divided like that, or a site would have fewer than ``min_samples``.
    """
    if how.method == "column":
        return _by_column(how, _known(column, count, f"column {how.column!r}"))
    sites = how.sites or 1
    if count < sites * how.min_samples:
        raise DataError(
            f"{count} samples are too few for {sites} sites of at least {how.min_samples}",
            hint=f"add data, or {_fewer(how)}",
        )
    draw = _draw(how.seed)
    order = shuffled(count, draw)
    classes = [order]
    if how.method in ("dirichlet", "label"):
        values = _known(labels, count, "the label")
        rank = {index: place for place, index in enumerate(order)}
        classes = [sorted(members, key=rank.__getitem__) for members in by_value(values).values()]
        if len(classes) > 1 and 2 * len(classes) > count:
            raise DataError(
                f"the labels look like numbers, not classes: {len(classes)} different ones in {count} samples",
                hint="set partition.method: quantity or column, or name another column in dataset.label",
            )
    sizes = _enough(how, _sizes(how, [len(members) for members in classes], sites, draw))
    names = _names(sites)
    found: Positions = {name: [] for name in names}
    for chosen, parts in zip(classes, sizes, strict=True):
        rest = iter(chosen)
        for name, size in zip(names, parts, strict=True):
            found[name] += islice(rest, size)
    return {name: sorted(chosen) for name, chosen in found.items()}


def class_counts(parts: Mapping[str, Sequence[int]], labels: Sequence[Any]) -> dict[str, dict[str, int]]:
    """Return site → class → number of samples, the classes in order; what the picture is drawn from."""
    names = _in_order(set(map(str, labels)))
    counted = {site: Counter(str(labels[index]) for index in chosen) for site, chosen in parts.items()}
    return {site: {name: counts[name] for name in names} for site, counts in counted.items()}


def _draw(seed: int) -> Draw:
    """Return random numbers that splits of the same seed do not draw, else a site could be just the test split."""
    own = blake2b(f"partition\0{seed}".encode(), digest_size=8).digest()
    return random.Random(int.from_bytes(own, "big")).random


def _names(sites: int) -> list[str]:
    width = len(str(sites))
    return [f"site-{number:0{width}}" for number in range(1, sites + 1)]


def _known(values: Sequence[Any] | None, count: int, what: str) -> list[Any]:
    """Return the values, none of which may be missing."""
    if values is None or len(values) != count:
        raise ValueError(f"partition needs {what} of each of {count} samples")
    # NaN is what differs from itself.
    missing = [index for index, value in enumerate(values) if value is None or value != value or str(value) == ""]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DataError(
            f"{what} is empty in sample {missing[0] + 1}{more}, so no site can be told for it",
            hint="fill it in, leave out those rows, or set another partition.method",
        )
    return list(values)


def _sizes(how: Partition, counts: Sequence[int], sites: int, draw: Draw) -> Iterator[Sizes]:
    """Yield sizes, as often as drawing again may change them."""
    if how.method == "iid":
        yield [cut(count, power_law(0, sites)) for count in counts]
    elif how.method == "label":
        yield _by_label(how, counts, sites, draw)
    elif how.sizes == "power":
        yield [cut(count, power_law(_alpha(how), sites)) for count in counts]
    else:
        for _ in repeat(None, DRAWS):
            yield [cut(count, dirichlet(_alpha(how), sites, draw)) for count in counts]


def _alpha(how: Partition) -> float:
    assert how.alpha is not None  # the section sees to it
    return how.alpha


def _enough(how: Partition, drawn: Iterator[Sizes]) -> Sizes:
    """Return the first sizes that give each site enough."""
    draws, best, where = 0, -1, 0
    for sizes in drawn:
        draws += 1
        totals = [sum(parts) for parts in zip(*sizes, strict=True)]
        least = min(totals)
        if least >= how.min_samples:
            return sizes
        if least > best:
            best, where = least, totals.index(least)
    name = _names(how.sites or 1)[where]
    often = f" at best, in {draws} draws" if draws > 1 else ""
    change = {
        "label": "lower partition.classes, so that fewer sites share a rare class",
        "quantity": "lower partition.alpha" if how.sizes == "power" else "raise partition.alpha",
        "dirichlet": "raise partition.alpha",
    }.get(how.method, "add data")
    raise DataError(
        f"partition.method: {how.method} leaves {name} with {best} samples{often}, "
        f"fewer than partition.min_samples: {how.min_samples}",
        hint=f"{change}, or {_fewer(how)}",
    )


def _fewer(how: Partition) -> str:
    return "ask for fewer partition.sites" + (" or partition.min_samples" if how.min_samples > 1 else "")


def _by_label(how: Partition, counts: Sequence[int], sites: int, draw: Draw) -> Sizes:
    """Deal classes to the sites like cards, and divide each among those that hold it.

    Packs of all classes, each shuffled, are dealt one after another, so that no class is held by two sites more than
    another.
    """
    each = how.classes or 1
    if each > len(counts):
        raise DataError(
            f"partition.classes is {each}, but the data has {len(counts)} classes",
            hint=f"set partition.classes={len(counts)} or fewer",
        )
    if each * sites < len(counts):
        raise DataError(
            f"{sites} sites of {each} classes hold at most {each * sites} of the data's {len(counts)} classes",
            hint=f"set partition.classes={math.ceil(len(counts) / sites)} or more, or ask for more partition.sites",
        )
    holders: list[list[int]] = [[] for _ in counts]
    pack: list[int] = []
    for site in range(sites):
        hand: set[int] = set()
        while len(hand) < each:
            pack = pack or shuffled(len(counts), draw)
            # At the start of a new pack a site may be offered a class that it holds from the one before.
            card = next(card for card in pack if card not in hand)
            pack.remove(card)
            hand.add(card)
            holders[card].append(site)
    totals = [0] * sites
    sizes = []
    for count, those in zip(counts, holders, strict=True):
        parts = [0] * sites
        for place, site in enumerate(sorted(those, key=totals.__getitem__)):
            # Odd samples go to those that have the fewest so far.
            parts[site] = count // len(those) + (place < count % len(those))
        totals = [total + part for total, part in zip(totals, parts, strict=True)]
        sizes.append(parts)
    return sizes


def _by_column(how: Partition, column: Sequence[Any]) -> Positions:
    """Make each value a site, or put values together."""
    members = by_value([_text(value) for value in column])
    if how.groups is not None:
        members = _grouped(how, members)
    elif how.sites is not None:
        members = _put_together(how, members)
    else:
        members = {name: members[name] for name in _in_order(members)}
    if not members:
        raise DataError("there are no samples to divide among sites", hint="add data")
    small = {name: len(chosen) for name, chosen in members.items() if len(chosen) < how.min_samples}
    if small:
        listed = ", ".join(f"{name} ({size})" for name, size in list(small.items())[:8])
        raise DataError(
            f"{len(small)} of {len(members)} sites of column {how.column!r} have fewer samples than "
            f"partition.min_samples: {how.min_samples}: {listed}{', ...' if len(small) > 8 else ''}",
            hint="put values together with partition.groups or partition.sites, or lower partition.min_samples",
        )
    return members


def _text(value: Any) -> str:
    """Write a value as a name; whole numbers without a fraction, as a column with gaps may hold them as floats."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _in_order(values: Iterable[str]) -> list[str]:
    """Sort names, as numbers if all of them are."""
    try:
        return sorted(values, key=lambda value: (float(value), value))
    except ValueError:
        return sorted(values)


def _grouped(how: Partition, members: Mapping[str, list[int]]) -> Positions:
    groups = {site: [str(value) for value in values] for site, values in (how.groups or {}).items()}
    named = {value for values in groups.values() for value in values}
    there = _in_order(members)
    if unknown := [value for value in named if value not in members]:
        raise DataError(
            f"column {how.column!r} does not hold {', '.join(map(repr, sorted(unknown)))} of partition.groups",
            hint=f"its values are {', '.join(there[:8])}{', ...' if len(there) > 8 else ''}",
        )
    if left := [value for value in there if value not in named]:
        raise DataError(
            f"{len(left)} values of column {how.column!r} are in no group: "
            f"{', '.join(left[:8])}{', ...' if len(left) > 8 else ''}",
            hint="name them in partition.groups, or leave out those rows",
        )
    return {site: sorted(index for value in values for index in members[value]) for site, values in groups.items()}


def _put_together(how: Partition, members: Mapping[str, list[int]]) -> Positions:
    """Give values, those with the most samples first, to the site with the fewest so far."""
    sites = how.sites or 1
    if len(members) < sites:
        raise DataError(
            f"column {how.column!r} has {len(members)} values, too few for {sites} sites",
            hint=f"set partition.sites={len(members)} or fewer, or name another column",
        )
    draw = _draw(how.seed)
    values = _in_order(members)
    order = sorted(shuffled(len(values), draw), key=lambda index: -len(members[values[index]]))
    found: Positions = {name: [] for name in _names(sites)}
    for index in order:
        fewest = min(found, key=lambda name: len(found[name]))
        found[fewest] += members[values[index]]
    return {name: sorted(chosen) for name, chosen in found.items()}
