"""Records of a site are protected: batches, clipping and noise are those that were accounted for."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import ai4sdk
from ai4sdk.data.loaders import SplitData
from ai4sdk.errors import ConfigError, RunFailed
from ai4sdk.federated.dp_sgd import PoissonBatches, PrivateGradients, require_mean_loss
from ai4sdk.runs.files import read_json
from ai4sdk.spec import Loader

SECRET = bytes(32)
SAMPLES, BATCH, CLIP = 40, 10, 0.5


class Net(pl.LightningModule):
    """Two layers, and whatever a test wants of the loss."""

    def __init__(self, loss: Any = functional.mse_loss, *, norm: bool = False) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.body = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6) if norm else nn.Tanh(), nn.Linear(6, 1))
        self.loss = loss
        self.given: list[Tensor] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        self.given.append(x)
        loss: Tensor = self.loss(self.body(x).squeeze(1), y)
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=1.0)


def samples() -> TensorDataset:
    draw = np.random.default_rng(3)
    x = torch.from_numpy(draw.normal(size=(SAMPLES, 4)).astype("f4"))
    return TensorDataset(x, 5 * x.sum(1))


def trained(net: Net, private: PrivateGradients, steps: int = 1) -> dict[str, Tensor]:
    """Train so many steps, and return how the weights changed; with a learning rate of 1 a step is the gradient."""
    before = {name: value.detach().clone() for name, value in net.named_parameters()}
    loader = DataLoader(samples(), batch_sampler=private.batches)
    trainer = pl.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[private],
    )
    trainer.fit(net, loader)
    return {name: before[name] - value.detach() for name, value in net.named_parameters()}


def private(deviation: float = 0.0, clip: float = CLIP, label: str = "a", batch: int = BATCH) -> PrivateGradients:
    return PrivateGradients(PoissonBatches(SAMPLES, batch, SECRET, label), clip, deviation, SECRET, label)


def by_hand(net: Net, x: Tensor, y: Tensor, clip: float) -> dict[str, Tensor]:
    """Return the sum of the clipped gradients of single records, each found by itself."""
    total = {name: torch.zeros_like(value) for name, value in net.named_parameters()}
    for one, target in zip(x, y, strict=True):
        gradients = torch.autograd.grad(net.loss(net.body(one[None]).squeeze(1), target[None]), list(net.parameters()))
        norm = math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients))
        for name, gradient in zip(total, gradients, strict=True):
            total[name] += gradient * min(1.0, clip / norm)
    return total


@pytest.mark.parametrize("clip", [0.5, 5.0, 1e6])
def test_a_step_is_the_sum_of_clipped_gradients_divided_by_the_size_that_batches_have_on_average(clip: float) -> None:
    net, reference = Net(), Net()
    step = trained(net, private(clip=clip))
    (x,) = net.given
    assert len(x) != BATCH  # a batch is as large as chance makes it
    expected = by_hand(reference, x, 5 * x.sum(1), clip)
    for name, change in step.items():
        assert torch.allclose(change, expected[name] / BATCH, rtol=1e-4, atol=1e-6), name


def test_one_record_moves_the_weights_by_no_more_than_its_part_of_the_norm() -> None:
    normal = trained(Net(), private())

    class Hostile(Net):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            x, y = batch
            return super().training_step((x, torch.cat([y[:1] + 1e6, y[1:]])), batch_idx)

    moved = trained(Hostile(), private())
    distance = math.sqrt(sum(float((moved[name] - normal[name]).square().sum()) for name in moved))
    assert 0 < distance <= 2 * CLIP / BATCH * 1.001  # it was in both, so that it counts twice


def test_noise_is_what_was_accounted_for_on_every_weight() -> None:
    changes = []
    for number in range(200):
        with_noise = trained(Net(), private(deviation=3.0, label=str(number)))
        without = trained(Net(), private(label=str(number)))
        changes += [(with_noise[name] - without[name]).flatten() for name in without]
    drawn = torch.cat(changes) * BATCH
    count = len(drawn)
    assert float(drawn.std()) == pytest.approx(3.0, rel=6 / math.sqrt(2 * count))
    assert abs(float(drawn.mean())) < 6 * 3.0 / math.sqrt(count)


def test_batches_are_drawn_record_by_record_with_the_same_chance() -> None:
    sizes, seen = [], np.zeros(SAMPLES)
    for number in range(400):
        batches = PoissonBatches(SAMPLES, BATCH, SECRET, str(number))
        assert len(batches) == 4
        for batch in batches:
            sizes.append(len(batch))
            seen[batch] += 1
    chance = BATCH / SAMPLES
    draws = 1600
    assert np.mean(sizes) == pytest.approx(BATCH, abs=6 * math.sqrt(SAMPLES * chance * (1 - chance) / draws))
    assert np.var(sizes) == pytest.approx(SAMPLES * chance * (1 - chance), rel=0.2)  # of a fixed size it would be none
    assert np.abs(seen / draws - chance).max() < 6 * math.sqrt(chance * (1 - chance) / draws)


def test_a_batch_without_records_is_noise_alone() -> None:
    label = next(text for text in map(str, range(1000)) if not drawn_sizes(PoissonBatches(SAMPLES, 2, SECRET, text))[0])
    step = trained(Net(), private(label=label, batch=2))
    assert all(not change.any() for change in step.values())
    step = trained(Net(), private(label=label, batch=2, deviation=1.0))
    assert all(change.any() for change in step.values())


def drawn_sizes(batches: PoissonBatches) -> list[int]:
    list(batches)
    return batches.sizes


def test_a_round_done_again_gives_the_same_and_another_question_or_secret_gives_another() -> None:
    once, again = (trained(Net(), private(deviation=1.0), 3) for _ in range(2))
    assert all((once[name] == again[name]).all() for name in once)
    other = trained(Net(), private(deviation=1.0, label="b"), 3)
    batches = PoissonBatches(SAMPLES, BATCH, b"\1" * 32, "a")
    stranger = trained(Net(), PrivateGradients(batches, CLIP, 1.0, b"\1" * 32, "a"), 3)
    for changed in (other, stranger):
        assert all((once[name] != changed[name]).any() for name in once)


def summed(prediction: Tensor, target: Tensor) -> Tensor:
    return functional.mse_loss(prediction, target, reduction="sum")


def contrasted(prediction: Tensor, target: Tensor) -> Tensor:
    return (prediction - prediction.mean() - target).square().mean()


class Penalised(Net):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return super().training_step(batch, batch_idx) + 0.1 * self.body[0].weight.square().sum()  # type: ignore[union-attr]


class Unused(Net):
    def __init__(self) -> None:
        super().__init__()
        self.spare = nn.Linear(2, 2)


class Manual(Net):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: Net(contrasted), "is not the mean of the gradients of single records"),
        (Penalised, "is not the mean of the gradients of single records"),
        (Unused, "spare.weight is not used"),
        (lambda: Net(norm=True), "cannot be told apart"),
    ],
    ids=["contrast", "penalty", "unused", "batch norm"],
)
def test_a_module_whose_records_cannot_be_told_apart_is_refused_and_never_trained(make: Any, why: str) -> None:
    with pytest.raises(RunFailed, match=why):
        trained(make(), private())


class Dict(Net):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return {"loss": super().training_step(batch, batch_idx)}


class AsksTrainer(Net):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return super().training_step(batch, batch_idx) * self.trainer.max_epochs


class Drops(Net):
    def __init__(self) -> None:
        super().__init__()
        self.body.append(nn.Dropout(0.5))


def test_a_loss_that_grows_with_the_batch_is_refused_as_the_other_records_would_then_tell_of_one() -> None:
    data = SplitData({"train": samples()}, Loader())
    for net in (Net(), Dict(), Drops()):
        require_mean_loss(net, data)
    for make, why in (
        (lambda: Net(summed), "it is no mean"),
        (Manual, "one optimizer"),
        (AsksTrainer, "without a trainer"),
    ):
        with pytest.raises(RunFailed, match=why):
            require_mean_loss(make(), data)


@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        (("++federation.privacy={mode: record, epsilon: 1, sampling: none}",), "with the same chance"),
        (("++federation.privacy={mode: record, epsilon: 1}", "training.accumulate_grad_batches=2"), "accumulated"),
        (("++federation.privacy={mode: record, epsilon: 1}", "training.precision=16-mixed"), "16 bits"),
    ],
)
def test_what_gradients_of_records_cannot_be_had_with_is_found_before_anything_runs(
    project: Path, overrides: tuple[str, ...], why: str
) -> None:
    with pytest.raises(ConfigError, match=why):
        ai4sdk.plan("train", "training.mode=federated", "++federation.partition.sites=2", *overrides)


@pytest.mark.slow
def test_each_site_finds_the_noise_that_its_size_needs_and_says_what_it_spent(project: Path) -> None:
    how = ("tracking.kind=none", "training.mode=federated", "training.max_epochs=2", "dataset.loader.batch_size=16")
    sites = "++federation.partition={method: quantity, sites: 2, alpha: 1.0}"
    privacy = "++federation.privacy={mode: record, epsilon: 3.0, delta: 1e-3, budget: 4.0}"
    run = ai4sdk.run("train", *how, sites, privacy)
    told = read_json(run.paths.federation / "privacy.json")
    assert told["mechanism"]["mode"] == "record"
    assert told["mechanism"]["sampling"] == "poisson"
    assert set(told["sites"]) == {"site-1", "site-2"}
    assert all(0 < epsilon <= 3.0 * 1.001 for epsilon in told["sites"].values())
    assert told["epsilon"] == max(told["sites"].values()) > 2.9
    assert any("one record of a site" in line for line in told["means"])
    counts = read_json(run.paths.federation / "partition.json")
    assert told["mechanism"]["population"] in [sum(classes.values()) for classes in counts.values()]
    with pytest.raises(ConfigError, match=r"only 1(\.\d+)? is left"):
        ai4sdk.plan("train", *how, sites, privacy)
