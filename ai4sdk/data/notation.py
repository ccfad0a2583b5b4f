"""How cells that are texts are read: as the files that a model learnt from write them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

from ai4sdk.spec.dataset import CsvOptions

__all__ = ["Notation", "parse_number"]


def parse_number(text: str, decimal: str = ".") -> float | None:
    """Read a number as CSV files write it.

    Returns
    -------
    float or None
        Nothing where the text is no number.
    """
    if decimal != ".":
        text = text.replace(".", "?").replace(decimal, ".")
    if "_" in text:  # Python's own grouping of digits; in data it is a name
        return None
    try:
        return float(text)
    except ValueError:
        return None


@dataclass(frozen=True)
class Notation:
    """How a number is written, and what says that there is none.

    Parameters
    ----------
    decimal
        Character before the fraction of a number.
    na_values
        Texts of an empty cell, besides the usual ones. Those that are numbers mean every way to write that number.
    """

    decimal: str = "."
    na_values: tuple[str, ...] = ()

    @classmethod
    def of(cls, options: CsvOptions) -> Self:
        """Return what files of these options are written in."""
        return cls(options.decimal, tuple(dict.fromkeys(value.strip() for value in options.na_values)))

    @classmethod
    def common(cls, each: Iterable[Self]) -> Self:
        """Return what reads texts of several: what is empty to one is so to all, a fraction is theirs if they agree."""
        found = list(each)
        decimals = {one.decimal for one in found}
        return cls(
            decimals.pop() if len(decimals) == 1 else ".",
            tuple(dict.fromkeys(value for one in found for value in one.na_values)),
        )

    def to_json(self) -> dict[str, Any]:
        """Return what differs from the usual, as a mapping for JSON; `from_json` makes an equal one."""
        return {} if self == type(self)() else {"decimal": self.decimal, "na_values": list(self.na_values)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote, beside whatever else is in the mapping."""
        return cls(str(value.get("decimal", ".")), tuple(str(each) for each in value.get("na_values", ())))

    def number(self, text: str) -> float | None:
        """Read a number, which is not a number where it says that there is none; nothing where the text is none."""
        number = parse_number(text, self.decimal)
        return float("nan") if number in self._numbers else number

    def is_missing(self, cell: Any) -> bool:
        """Tell whether a cell is one of ``na_values``, as the text or as the number that it says."""
        if isinstance(cell, str):
            return cell.strip() in self.na_values
        return isinstance(cell, int | float) and not isinstance(cell, bool) and cell in self._numbers

    @cached_property
    def _numbers(self) -> frozenset[float]:
        numbers = (parse_number(value, self.decimal) for value in self.na_values)
        return frozenset(number for number in numbers if number is not None)
