"""Starting from weights that exist, and keeping some of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ai4sdk.errors import NotFound, RunFailed
from ai4sdk.worker.checkpoint import write_checkpoint
from ai4sdk.worker.finetune import freeze, load_weights, read_weights


class Net(nn.Module):
    def __init__(self, classes: int = 3, extra: bool = False) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5))
        self.head = nn.Linear(5, classes)
        if extra:
            self.gate = nn.Linear(1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone(x))


def test_a_replaced_head_starts_fresh_and_is_listed() -> None:
    old, new = Net(3), Net(7)
    fresh = new.head.weight.detach().clone()
    report = load_weights(new, old.state_dict(), "run-1")
    assert torch.equal(new.backbone[0].weight, old.backbone[0].weight)
    assert torch.equal(new.head.weight, fresh)
    assert report.mismatched == {"head.bias": ([7], [3]), "head.weight": ([7, 5], [3, 5])}
    assert (report.missing, report.unexpected) == ([], [])
    assert report.to_json()["loaded"] == 7


def test_missing_and_unexpected_names_are_listed() -> None:
    report = load_weights(Net(extra=True), Net().state_dict(), "run-1")
    assert report.missing == ["gate.bias", "gate.weight"]
    report = load_weights(Net(), Net(extra=True).state_dict(), "run-1")
    assert report.unexpected == ["gate.bias", "gate.weight"]


def test_tied_weights_are_not_called_missing() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter = nn.Linear(3, 3, bias=False)
            self.leave = nn.Linear(3, 3, bias=False)
            self.leave.weight = self.enter.weight

    module = Tied()
    report = load_weights(module, {"enter.weight": torch.ones(3, 3)}, "package")
    assert report.missing == []
    assert torch.equal(module.leave.weight, torch.ones(3, 3))


def test_weights_of_which_nothing_fits_are_an_error_with_names_of_both() -> None:
    with pytest.raises(RunFailed, match=r"nothing of run-1 fits.*other\.weight.*backbone\.0\.weight"):
        load_weights(Net(), {"other.weight": torch.ones(1)}, "run-1")


def test_weights_are_read_from_packages_and_checkpoints(tmp_path: Path) -> None:
    state = Net().state_dict()
    save_file(state, tmp_path / "weights.safetensors")
    write_checkpoint({"state_dict": state, "epoch": 3}, tmp_path / "best.ckpt")
    for name in ("weights.safetensors", "best.ckpt"):
        weights = read_weights(tmp_path / name)
        assert weights.keys() == state.keys()
        assert torch.equal(weights["head.weight"], state["head.weight"])


def test_weights_that_are_gone_or_damaged_are_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="are gone"):
        read_weights(tmp_path / "weights.safetensors")
    (tmp_path / "weights.safetensors").write_bytes(b"\x10" * 100)
    with pytest.raises(RunFailed, match="damaged"):
        read_weights(tmp_path / "weights.safetensors")


def test_frozen_parameters_and_running_statistics_do_not_move() -> None:
    torch.manual_seed(0)
    module = Net()
    assert freeze(module, ["backbone.*"]) == [
        "backbone.0.weight",
        "backbone.0.bias",
        "backbone.1.weight",
        "backbone.1.bias",
    ]
    before = {name: value.clone() for name, value in module.state_dict().items()}
    module.train()  # as Lightning does at the start and after each validation
    optimizer = torch.optim.SGD([each for each in module.parameters() if each.requires_grad], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        module(torch.randn(8, 4)).square().sum().backward()
        optimizer.step()
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith("backbone"), name
    assert module.head.training
    assert not module.backbone[1].training


def test_a_normalisation_that_is_still_trained_keeps_counting() -> None:
    module = Net()
    freeze(module, ["backbone.0.*"])
    module.train()
    assert module.backbone[1].training


@pytest.mark.parametrize(
    ("pattern", "hint"),
    [("backbon.*", r"did you mean backbone\*"), ("encoder.*", "the names begin with backbone, head")],
)
def test_a_pattern_that_fits_nothing_is_an_error_with_the_nearest_names(pattern: str, hint: str) -> None:
    module = Net()
    with pytest.raises(RunFailed, match=hint):
        freeze(module, ["head.*", pattern])
    assert all(each.requires_grad for each in module.parameters())


def test_freezing_everything_is_an_error() -> None:
    with pytest.raises(RunFailed, match="nothing to train"):
        freeze(Net(), ["backbone.*", "head.*"])
