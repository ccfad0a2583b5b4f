"""Memory is estimated as it is: compared with sums by hand, and with what autograd and optimizers really keep."""

from __future__ import annotations

from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from ai4sdk.worker.estimate import estimate_memory

MEBI = 2**20


class Net(pl.LightningModule):
    """A wide layer, of which everything is known by hand."""

    def __init__(self, width: int = 1024, optimizer: str = "Adam") -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, width), nn.Linear(width, 10)
        self.optimizer = optimizer

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(x)))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        loss = nn.functional.cross_entropy(self(x), y)
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        options = {"SGD": {"lr": 0.1}, "momentum": {"lr": 0.1, "momentum": 0.9}}.get(self.optimizer, {})
        made = getattr(torch.optim, {"momentum": "SGD"}.get(self.optimizer, self.optimizer))(
            self.parameters(), **options
        )
        return {"optimizer": made, "lr_scheduler": torch.optim.lr_scheduler.StepLR(made, 1)}


def batch(size: int = 256) -> list[Tensor]:
    return [torch.rand(size, 64), torch.zeros(size, dtype=torch.int64)]


WEIGHTS = 4 * (64 * 1024 + 1024 + 1024 * 10 + 10)


@pytest.mark.parametrize(("optimizer", "copies"), [("SGD", 0), ("momentum", 1), ("Adam", 2), ("AdamW", 2)])
def test_weights_gradients_and_optimizer_state(optimizer, copies):
    found = estimate_memory(Net(optimizer=optimizer), batch())
    assert found.weights == found.gradients == WEIGHTS
    assert found.optimizer == pytest.approx(copies * WEIGHTS, abs=64)  # Adam counts steps, too
    assert found.batch == 256 * (64 * 4 + 8)
    assert found.complete
    assert found.notes == ()
    assert found.total == 2 * WEIGHTS + found.optimizer + found.activations + found.batch


def test_activations_are_what_autograd_keeps():
    hidden, scores = 256 * 1024 * 4, 256 * 10 * 4
    found = estimate_memory(Net(), batch()).activations
    # the ReLU's output, which is the second layer's input, and the logarithms of the probabilities
    assert hidden + scores <= found <= hidden + 3 * scores
    assert estimate_memory(Net(), batch(512)).activations == pytest.approx(2 * found, rel=0.01)


def test_a_module_too_large_for_this_machine_is_estimated_and_left_as_it_was():
    with torch.device("meta"):
        module = Net(width=2**31)
    assert estimate_memory(module, batch(2**16)).activations > 2**48

    module = Net()
    module.eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    estimate_memory(module, batch())
    assert not module.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert all(parameter.grad is None and parameter.device.type == "cpu" for parameter in module.parameters())


def test_frozen_weights_have_no_gradients_and_no_state():
    module = Net()
    module.first.requires_grad_(False)
    found = estimate_memory(module, batch())
    assert found.weights == WEIGHTS
    assert found.gradients == 4 * (1024 * 10 + 10)
    assert found.optimizer == pytest.approx(2 * found.gradients, abs=64)


@pytest.mark.parametrize(("precision", "factor"), [("bf16-true", 0.5), ("64-true", 2), ("16-mixed", 1)])
def test_precision_counts(precision, factor):
    found = estimate_memory(Net(), batch(), precision)
    assert found.weights == factor * WEIGHTS
    assert found.activations == pytest.approx(factor * estimate_memory(Net(), batch()).activations, rel=0.05)
    assert bool(found.notes) == (precision == "16-mixed")


class Peeking(Net):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        print(loss.item())
        return loss


class Alone(Net):
    def configure_optimizers(self) -> Any:
        return torch.optim.lr_scheduler.OneCycleLR(
            torch.optim.SGD(self.parameters(), lr=1), 1, total_steps=self.trainer.max_steps
        )

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * x.sum().item()


def test_a_step_that_looks_at_values_is_replaced_by_forward_and_what_is_not_known_is_said():
    found = estimate_memory(Peeking(), batch())
    assert found.complete
    assert "forward alone" in found.notes[0]
    found = estimate_memory(Alone(), batch())
    assert (found.optimizer, found.activations) == (None, None)
    assert not found.complete
    assert len(found.notes) == 2
    assert found.total == 2 * WEIGHTS + found.batch
