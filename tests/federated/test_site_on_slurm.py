"""A site whose part is a job of its cluster's Slurm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import ai4sdk
from ai4sdk.backends.slurm import submissions
from ai4sdk.testing.helpers import wait_for, weights
from tests.federated.institution import Coordinator, Institution

pytestmark = [pytest.mark.slow, pytest.mark.slurm, pytest.mark.engine, pytest.mark.timeout(600)]

CODE = """
import time

import torch
from net import Net as Plain


class Net(Plain):
    def __init__(self, width=8):
        super().__init__(width)
        self.example_input_array = torch.zeros(1, 2)

    def training_step(self, batch, batch_idx):
        time.sleep(0.05)
        return super().training_step(batch, batch_idx)
"""
HOW = (
    *("training.mode=federated", "training.max_epochs=12", "tracking.kind=none", "module._target_=hospitals.Net"),
    *("federation.min_sites=2", "federation.retries=20", "hardware.cpus=1"),
)
DATA = "dataset={uri: data.csv, label: y, standardize: false}"


def test_a_job_of_slurm_joins_and_joins_again_when_it_is_requeued(
    slurm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sites = {name: Institution(tmp_path / name, CODE) for name in ("cluster", "desk")}
    coordinator = Coordinator(tmp_path / "coordinator", sites, CODE)
    leader = coordinator.lead(*HOW, "--no-data")
    digest = coordinator.terms("desk", sites["desk"])["terms"]["digest"]
    for name, site in sites.items():
        own = (DATA, "+backend={kind: slurm}") if name == "cluster" else (DATA,)
        ask = ("federated", "join", *coordinator.as_site(name), "config=train", *HOW, *own, "--approve", digest)
        site.do(*ask, "--detach")
    wait_for(lambda: (leader.paths.federation / "00003").exists(), 120)
    joined = sites["cluster"].run()
    submission = submissions.latest(joined.paths)
    assert submission is not None
    slurm.ask("scontrol", "requeue", submission.job)
    leader.wait(timeout=300)
    for site in sites.values():
        wait_for(lambda site=site: site.run().state.ended, 60)  # type: ignore[misc]
        assert site.run().status.state == "succeeded"
        assert weights(site.run()) == weights(leader), "the global module of the last round"
    assert joined.status.attempt == 2
    assert [event["number"] for event in leader.events() if event["event"] == "round"] == list(range(1, 13))

    monkeypatch.chdir(coordinator.folder)
    of_each = "++federation.sites={cluster: {" + DATA.replace("=", ": ") + "}, desk: {" + DATA.replace("=", ": ") + "}}"
    assert weights(leader) == weights(ai4sdk.run("train", *HOW, of_each))
