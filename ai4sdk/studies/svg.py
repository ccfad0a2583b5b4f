"""Scales of charts and their ticks."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ai4sdk.studies.axes import as_number, shows_decades, value_key, value_text

__all__ = ["Scale", "scale_of"]

MOST_LABELS = 12
"""More labels on an axis of words could not be read."""
MOST_CHOICES = 8
"""So few different numbers, tried again and again, were chosen from a list: each has a place, as words have."""
MISSING = 0.08
"""Part of an axis kept free for points that lack its value."""


@dataclass(frozen=True)
class Scale:
    """Where values lie between the two ends of an axis.

    Parameters
    ----------
    kind
        ``linear``, ``log`` or ``slots`` (a place for each value).
    low, high
        The ends of numbers; their logarithms to base 10 for ``log``.
    slots
        What has a place, by `value_key`, in order.
    names
        How the slots are labelled.
    missing
        Whether some points have no value: they lie at the end of the axis.
    whole
        Whether there are whole numbers only, so that there is nothing between two of them to label.
    """

    kind: str
    low: float = 0.0
    high: float = 1.0
    slots: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    missing: bool = False
    whole: bool = False

    def at(self, value: Any, *, present: bool = True) -> float:
        """Return where a value lies, in 0..1."""
        if not present:
            return 0.0
        if self.kind == "slots":
            place = (self.slots.index(value_key(value)) + 0.5) / len(self.slots)
        else:
            number = math.log10(value) if self.kind == "log" else float(value)
            # In halves, as the span of the largest floats is none.
            span = self.high / 2 - self.low / 2
            place = (number / 2 - self.low / 2) / span if span else 0.5
        return MISSING + (1 - MISSING) * place if self.missing else place

    def ticks(self) -> list[tuple[float, str]]:
        """Return where labels go, in 0..1, and what they say."""
        if self.kind == "slots":
            every = math.ceil(len(self.slots) / MOST_LABELS)
            marks = [
                ((index + 0.5) / len(self.slots), name) for index, name in enumerate(self.names) if not index % every
            ]
            marks = [(MISSING + (1 - MISSING) * place if self.missing else place, name) for place, name in marks]
        elif self.kind == "log":
            marks = [(self.at(10.0**power), f"{10.0**power:g}") for power in _powers(self.low, self.high)]
        else:
            marks = [(self.at(number), f"{number:.6g}") for number in _round_numbers(self.low, self.high, self.whole)]
        return [(0.0, "none"), *marks] if self.missing else marks


def scale_of(values: Sequence[Any], *, choices: bool = False, missing: bool = False, room: float = 0.0) -> Scale:
    """Return the scale that shows values best.

    Parameters
    ----------
    values
        Of any kind.
    choices
        Whether a few different numbers get a place each, like 16, 32 and 128 of a grid.
    missing
        Whether some points have no value.
    room
        Part of the span of numbers that is left free at both ends.
    """
    numbers = [number for value in values if (number := as_number(value)) is not None]
    different = len(set(numbers))
    listed = choices and different <= MOST_CHOICES and 2 * different <= len(numbers)
    if not numbers or len(numbers) < len(values) or listed:
        names = {value_key(value): value_text(value) for value in values}
        # Numbers among words, such as 10, 20 and null, keep their order.
        keys = sorted(names, key=_number_first)
        return Scale("slots", slots=tuple(keys), names=tuple(names[key] for key in keys), missing=missing)
    log = shows_decades(numbers)
    if log:
        numbers = [math.log10(number) for number in numbers]
    low, high = min(numbers), max(numbers)
    spare = (high / 2 - low / 2) * 2 * room if math.isfinite(high - low) else 0.0
    largest = sys.float_info.max
    low, high = max(low - spare, -largest), min(high + spare, largest)
    whole = all(isinstance(value, int) for value in values)
    return Scale("log" if log else "linear", low, high, missing=missing, whole=whole)


def _number_first(key: str) -> tuple[bool, float, str]:
    try:
        number = float(key)
    except ValueError:
        return True, 0.0, key
    return not math.isfinite(number), number if math.isfinite(number) else 0.0, key


def _powers(low: float, high: float) -> list[int]:
    first, last = math.ceil(low - 1e-9), math.floor(high + 1e-9)
    every = math.ceil((last - first + 1) / 8)
    # Beyond the smallest and largest floats there is no power of ten.
    return [power for power in range(first, last + 1, max(1, every)) if -308 <= power <= 308]


def _round_numbers(low: float, high: float, whole: bool) -> list[float]:
    """Return about five round numbers between two, or whole ones; the number itself where they are the same."""
    span = high - low
    if not math.isfinite(span) or span <= abs(high) * 1e-12 or span < 1e-300:
        return [low] if low == high else [low, high]
    rough = max(1.0, span / 5) if whole else span / 5
    power = 10.0 ** math.floor(math.log10(rough))
    steps = [power * factor for factor in (1, 2, 2.5, 5, 10)]
    step = next(one for one in steps if one >= rough * (1 - 1e-9) and (not whole or one.is_integer()))
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]
