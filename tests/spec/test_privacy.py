from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from ai4sdk.spec.privacy import Privacy


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "mode"),
        ({"mode": "central"}, "give noise_multiplier, or epsilon"),
        ({"mode": "central", "noise_multiplier": 0.0}, "greater than 0"),
        ({"mode": "central", "noise_multiplier": 1.0, "delta": 1.0}, "less than 1"),
        ({"mode": "local", "noise_multiplier": 1.0, "sampling": "poisson"}, "the server sees who takes part"),
        ({"mode": "record", "epsilon": 9.0, "budget": 8.0}, "epsilon: 9 of one run is more than budget: 8"),
    ],
)
def test_mistakes_are_told(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Privacy(**values)


def test_nothing_is_assumed_of_who_takes_part_unless_that_is_said() -> None:
    assert Privacy(mode="central", epsilon=8.0).sampling == "none"
    assert Privacy(mode="local", epsilon=8.0).sampling == "none"
    assert Privacy(mode="central", epsilon=8.0, sampling="poisson").sampling == "poisson"
    assert Privacy(mode="record", epsilon=8.0).sampling == "poisson"


def test_a_plan_reads_it_again() -> None:
    for mode in ("central", "local", "record"):
        section = Privacy(mode=mode, noise_multiplier=1.0, budget=3.0)
        assert Privacy.model_validate_json(section.model_dump_json()) == section
