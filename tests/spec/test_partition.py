from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from ai4sdk.spec.partition import Partition


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "needs sites"),
        ({"method": "column"}, "needs column"),
        ({"sites": 3, "alpha": 0.5}, "alpha is for method: dirichlet or quantity, not iid"),
        ({"sites": 3, "method": "dirichlet", "classes": 2}, "classes is for method: label"),
        ({"sites": 3, "method": "dirichlet", "alpha": 0.0}, "greater than 0"),
        ({"sites": 0}, "greater than or equal to 1"),
        ({"sites": 3, "column": "hospital"}, "column is for method: column"),
        ({"method": "column", "column": "h", "groups": {"n": ["a", "b"], "s": ["b"]}}, "'b' twice: in n and in s"),
        ({"method": "column", "column": "h", "groups": {"n": ["1", 1]}}, "'1' twice"),
        ({"method": "column", "column": "h", "sites": 2, "groups": {"n": ["a"]}}, "either sites"),
        ({"sites": 3, "methd": "iid"}, "Extra inputs"),
    ],
)
def test_mistakes_are_told(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Partition(**values)


def test_a_plan_shows_what_nobody_set_and_reads_it_again() -> None:
    assert Partition(method="dirichlet", sites=3).alpha == 0.5
    assert Partition(method="label", sites=3).classes == 2
    assert Partition(method="quantity", sites=3).sizes == "dirichlet"
    for method in ("iid", "dirichlet", "label", "quantity"):
        how = Partition(method=method, sites=3)
        assert Partition(**how.model_dump()) == how
        assert Partition.model_validate_json(how.model_dump_json()) == how
