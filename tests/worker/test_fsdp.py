"""What is gathered by itself when parameters are divided; the trainings are in test_ddp.py."""

from __future__ import annotations

from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from ai4sdk.errors import RunFailed
from ai4sdk.worker.fsdp import _explained, _refuse_what_cannot_be_divided, parts_to_gather


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2)  # uses a parameter of a part without calling it
        self.mlp = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 8))


class Transformer(nn.Module):
    def __init__(self, depth: int, *, tied: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 8)
        self.blocks = nn.ModuleList(Block() for _ in range(depth))
        self.head = nn.Sequential(nn.Linear(8, 50, bias=False))
        if tied:
            self.head[0].weight = self.embedding.weight


def test_blocks_are_gathered_one_at_a_time_and_small_parts_with_them():
    net = Transformer(12)
    assert parts_to_gather(net) == [*net.blocks, net.head[0]]


def test_large_parts_of_blocks_are_gathered_before_them():
    net = nn.Sequential(nn.Sequential(nn.Linear(9, 9), nn.ReLU(), nn.Linear(9, 9)), nn.Linear(9, 1))
    assert parts_to_gather(net) == [net[0][0], net[0][2], net[1]]


def test_shared_parameters_stay_with_the_whole():
    net = Transformer(12, tied=True)
    assert parts_to_gather(net) == [*net.blocks]


def test_a_module_without_blocks_is_gathered_whole():
    assert parts_to_gather(nn.Linear(3, 3)) == []


class Odd(pl.LightningModule):
    def __init__(self, *parameters: Any) -> None:
        super().__init__()
        self.all = nn.ParameterList(parameters)


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ([torch.zeros(())], "all.0, which is a single number"),
        ([torch.zeros(1), torch.zeros(1, dtype=torch.float64)], "all.0 is float32, all.1 is float64"),
    ],
)
def test_what_cannot_be_divided_is_named(parameters, said):
    with pytest.raises(RunFailed, match=said):
        _refuse_what_cannot_be_divided(Odd(*parameters))


def test_parameters_used_without_calling_their_part_are_explained():
    def step() -> None:
        raise RuntimeError("aten.mm.default: got mixed torch.Tensor and DTensor, need to convert")

    with pytest.raises(RunFailed, match="without calling it") as caught:
        _explained(step, (), {})
    assert "training=ddp" in str(caught.value.hint)
