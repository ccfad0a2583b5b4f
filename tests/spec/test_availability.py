from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from ai4sdk.spec.availability import AlwaysAvailable, Availability

read = TypeAdapter(Availability).validate_python


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"kind": "sometimes"}, "does not match any of the expected tags"),
        ({"kind": "dropout", "probability": 1.5}, "less than or equal to 1"),
        ({"kind": "markov", "up_to_down": 0.0, "down_to_up": 0.0}, "nothing ever changes"),
        ({"kind": "diurnal", "period": "24h"}, "round_time must say how long a round is"),
        ({"kind": "diurnal", "period": 0}, "greater than 0"),
        ({"kind": "trace"}, "give either file, or up"),
        ({"kind": "trace", "file": "a.csv", "up": {}}, "give either file, or up"),
        ({"kind": "trace", "up": {"a": [0]}}, "greater than or equal to 1"),
        ({"kind": "trace", "up": {"a": [[5, 3]]}}, r"up.a: \[5, 3\] ends before it begins"),
        ({"kind": "trace", "up": {"a": [[1, 2, 3]]}}, "no pair"),
        ({"kind": "trace", "up": {"a": [[1.5, 3]]}}, "whole rounds"),
        ({"kind": "trace", "up": {"a": [[1, float("inf")]]}}, "whole rounds"),
        ({"kind": "trace", "up": {"a": [[-1, 3]]}, "round_time": 60}, "not begin before 0"),
        ({"kind": "trace", "up": {"a": [[float("nan"), 3]]}, "round_time": 60}, "must be finite"),
        ({"kind": "trace", "up": {"a": [4]}, "round_time": 60}, "pairs of seconds"),
    ],
)
def test_mistakes_are_told(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        read(values)


def test_all_sites_are_there_unless_something_else_is_said() -> None:
    assert read({}) == AlwaysAvailable()


def test_a_day_is_written_as_rounds_or_as_a_time() -> None:
    assert read({"kind": "diurnal", "period": 12}).period == 12
    assert read({"kind": "diurnal", "period": "24h", "round_time": "10m"}).period == 86400
