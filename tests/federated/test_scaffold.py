"""SCAFFOLD on quadratics, where the answer is known: sites that pull apart no longer bend the result."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from flwr.app import RecordDict
from torch import Tensor
from torch.utils.data import TensorDataset

from ai4sdk.config.load import load_job
from ai4sdk.config.project import Project
from ai4sdk.data.module import SplitData
from ai4sdk.federated.app import make_app
from ai4sdk.federated.inline import InlineGrid
from ai4sdk.federated.learner import Learner
from ai4sdk.federated.ledger import Ledger
from ai4sdk.federated.memory import Memory
from ai4sdk.federated.rounds import Server
from ai4sdk.federated.scaffold import CONTROL
from ai4sdk.federated.strategies import make_strategy
from ai4sdk.federated.weights import state_of
from ai4sdk.spec.dataset import Loader
from ai4sdk.worker.signals import StopRequest
from tests.federated.noop import bits, server_of

SITES = {"steep": (4.0, -1.0), "flat": (0.5, 3.0)}
"""Site → curvature and place of its own best weight."""
STEPS = 10
"""Of a site in a round: as many samples, each a batch."""
BEST = sum(a * b for a, b in SITES.values()) / sum(a for a, _ in SITES.values())
"""Where the mean of both losses is least."""


class Quadratic(pl.LightningModule):
    """One weight, and a loss ``a / 2 * (w - b)²`` of samples ``(a, b)``."""

    def __init__(self) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch: Any, _: int) -> Tensor:
        (a, b), _unused = batch[0].T, batch[1]
        return (a / 2 * (self.w - b) ** 2).mean()


@pytest.fixture
def federation(project: Path) -> Callable[..., Server]:
    """Return what makes a federation over the sites, of plain gradient descent."""

    def make(name: str, folder: str, *sites: str) -> Server:
        overrides = ["optimizer=sgd", "optimizer.lr=0.05", "optimizer.momentum=0", "training.mode=federated"]
        overrides += ["++federation.partition.sites=2", f"++federation.strategy={name}", "++federation.local_epochs=1"]
        overrides += ["++federation.evaluate=none", "++federation.rounds=100"]
        job = load_job("train", overrides, Project(project)).job
        data = {
            site: SplitData(
                {"train": TensorDataset(torch.tensor([SITES[site]] * STEPS), torch.zeros(STEPS))}, Loader(batch_size=1)
            )
            for site in sites or SITES
        }
        module = Quadratic()
        learner = Learner(job, module, data, StopRequest(), Memory(project / folder / "sites"), 1)
        grid = InlineGrid(make_app(learner), list(data))
        strategy = make_strategy(job.federation.strategy)
        server = Server(job.federation, job.seed, strategy, grid, Ledger(project / folder / "rounds"))
        server.begin(state_of(module))
        return server

    return make


def weight(server: Server) -> float:
    return float(server.state.parameters["w"])


@pytest.mark.slow
def test_it_finds_what_averaging_misses(federation: Callable[..., Server]) -> None:
    averaged, corrected = federation("fedavg", "averaged"), federation("scaffold", "corrected")
    for _ in range(25):
        averaged.round()
        corrected.round()
    assert abs(weight(corrected) - BEST) < 0.01
    assert abs(weight(averaged) - BEST) > 0.2


@pytest.mark.slow
def test_alone_a_site_corrects_nothing(federation: Callable[..., Server]) -> None:
    averaged, corrected = federation("fedavg", "averaged", "flat"), federation("scaffold", "corrected", "flat")
    for _ in range(3):
        averaged.round()
        corrected.round()
    assert weight(corrected) == pytest.approx(weight(averaged), rel=1e-6)


@pytest.mark.slow
def test_one_round_is_what_the_paper_says(federation: Callable[..., Server]) -> None:
    server = federation("scaffold", "rounds")
    x, c, own, lr = 0.0, 0.0, dict.fromkeys(SITES, 0.0), 0.05
    for _ in range(3):
        moved, changed = [], []
        for site, (a, b) in SITES.items():
            y = x
            for _ in range(STEPS):
                y -= lr * (a * (y - b) - own[site] + c)
            new = own[site] - c + (x - y) / (STEPS * lr)  # option II
            moved.append(y - x)
            changed.append(new - own[site])
            own[site] = new
        x, c = x + float(np.mean(moved)), c + float(np.mean(changed))
        server.round()
        assert weight(server) == pytest.approx(x, rel=1e-4)


@pytest.mark.slow
def test_a_restart_before_each_round_changes_nothing(federation: Callable[..., Server]) -> None:
    whole = federation("scaffold", "whole")
    for _ in range(4):
        whole.round()
        parts = federation("scaffold", "parts")
        parts.round()
    assert bits(parts.state) == bits(whole.state)


def test_a_change_that_is_none_is_refused(tmp_path: Path) -> None:
    def change(site: str, number: int, answer: RecordDict) -> None:
        if site == "site-1":
            del answer[CONTROL]

    record = server_of(tmp_path, 3, change, strategy="scaffold").round()
    assert list(record.answered) == ["site-2", "site-3"]
    assert "not an answer of this federation" in record.refused["site-1"]
