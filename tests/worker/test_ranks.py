"""A worker knows which of several processes it is from torchrun's variables alone."""

from __future__ import annotations

import pytest

from ai4sdk.errors import EnvironmentFault
from ai4sdk.worker.ranks import ALONE, Rank, read_rank

GIVEN = {
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "10.0.0.1",
    "MASTER_PORT": "29500",
}


def test_the_variables_are_read_whoever_set_them():
    rank = read_rank(4, GIVEN)
    assert rank == Rank(3, 4, 1, 2, "10.0.0.1", 29500)
    assert rank.node == 1
    assert not rank.is_first


def test_a_plan_of_one_process_is_not_misled_by_variables_of_another_launcher():
    assert read_rank(1, GIVEN) is ALONE
    assert ALONE.is_first


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"RANK": ""}, "RANK is ''"),
        ({"LOCAL_RANK": "one"}, "LOCAL_RANK is 'one'"),
        ({"WORLD_SIZE": "8"}, "rank 3 of 8"),
        ({"MASTER_ADDR": ""}, "MASTER_ADDR is not set"),
    ],
)
def test_variables_that_do_not_fit_the_plan_are_refused(change, said):
    with pytest.raises(EnvironmentFault, match=said):
        read_rank(4, {**GIVEN, **change})
