"""What goes to sites and back is the module's state, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from ai4sdk.federated.weights import State, average, from_records, load_state, state_of, to_record


def module() -> nn.Module:
    torch.manual_seed(1)
    made = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2).to(torch.bfloat16))
    made[0].bias.requires_grad_(False)
    made[1](made[0](torch.arange(6.0).reshape(2, 3)))
    return made


def test_trained_parameters_and_buffers_are_exchanged_and_frozen_ones_stay() -> None:
    state = state_of(module())
    assert set(state.parameters) == {"0.weight", "1.weight", "1.bias", "2.weight", "2.bias"}
    assert set(state.buffers) == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}


def test_a_state_comes_back_through_records_as_it_was_whatever_its_types() -> None:
    origin, copy = module(), module()
    for value in (*copy.parameters(), *copy.buffers()):
        value.data.zero_()
    state = state_of(origin)
    sent = State(from_records(to_record(state.parameters)), from_records(to_record(state.buffers)))
    load_state(copy, sent)
    for name, value in origin.state_dict().items():
        if name != "0.bias":
            assert torch.equal(copy.state_dict()[name], value), name


def test_a_state_is_a_copy() -> None:
    origin = module()
    state = state_of(origin)
    before = state.parameters["0.weight"].copy()
    origin[0].weight.data.add_(1)
    assert np.array_equal(state.parameters["0.weight"], before)


@pytest.mark.parametrize("shape", [(), (3,), (2, 2)])
def test_a_mean_has_the_shapes_and_types_of_what_was_sent(shape: tuple[int, ...]) -> None:
    template = {"x": np.zeros(shape, np.float16), "n": np.zeros(shape, np.int64)}
    parts = [{"x": np.full(shape, 1, np.float16), "n": np.full(shape, value)} for value in (1, 4)]
    mean = average(parts, [3, 1], template)
    assert (mean["x"].dtype, mean["x"].shape) == (np.float16, shape)
    assert (mean["n"].dtype, mean["n"].shape) == (np.int64, shape)
    assert np.all(mean["n"] == 2)  # 1.75
