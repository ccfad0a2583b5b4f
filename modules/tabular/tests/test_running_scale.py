"""Batches add up to what all rows at once would have given."""

import pytest
import torch
from tabular_mlp import RunningScale


@pytest.mark.parametrize("sizes", [[100], [50, 50], [1, 99], [33, 33, 33, 1]])
def test_mean_and_deviation_do_not_depend_on_how_rows_are_batched(sizes):
    rows = torch.randn(100, 3) * torch.tensor([1.0, 50.0, 0.01]) + torch.tensor([0.0, 1e4, -3.0])
    scale = RunningScale(3)
    for part in rows.split(sizes):
        scale.update(part)
    torch.testing.assert_close(scale.mean, rows.mean(dim=0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(scale.deviation, rows.std(dim=0, correction=0), rtol=1e-3, atol=1e-6)
    assert scale.count == 100


def test_scaled_rows_have_mean_zero_and_deviation_one_and_come_back():
    rows = torch.rand(200, 2) * 300
    scale = RunningScale(2)
    scale.update(rows)
    scaled = scale(rows)
    torch.testing.assert_close(scaled.mean(dim=0), torch.zeros(2), rtol=0, atol=1e-4)
    torch.testing.assert_close(scaled.std(dim=0, correction=0), torch.ones(2), rtol=1e-3, atol=0)
    torch.testing.assert_close(scale.restore(scaled), rows, rtol=1e-4, atol=1e-3)


def test_a_column_that_never_changes_gives_zeros_not_infinities():
    scale = RunningScale(1)
    scale.update(torch.full((4, 1), 7.0))
    assert torch.equal(scale(torch.full((2, 1), 7.0)), torch.zeros(2, 1))


def test_without_rows_nothing_is_changed():
    rows = torch.randn(3, 2)
    assert torch.equal(RunningScale(2)(rows), rows)


def test_the_scale_is_kept_with_the_weights():
    scale = RunningScale(2)
    scale.update(torch.randn(10, 2) * 9)
    other = RunningScale(2)
    other.load_state_dict(scale.state_dict())
    rows = torch.randn(3, 2)
    assert torch.equal(other(rows), scale(rows))
