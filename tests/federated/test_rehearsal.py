"""A federation of the module that trained on the laptop, unchanged."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

import ai4sdk
from ai4sdk.cli import main
from ai4sdk.errors import ConfigError, RunFailed, RunInterrupted
from ai4sdk.runs.files import read_json
from ai4sdk.testing.helpers import wait_for, weights

SLOW_NET = """
import time
from net import Net as Plain


class Net(Plain):
    def training_step(self, batch, batch_idx):
        time.sleep(0.05)
        return super().training_step(batch, batch_idx)
"""
HOSPITALS = {"method": "column", "column": "hospital"}


@pytest.fixture
def hospitals(project: Path) -> Path:
    """Return a project whose samples come from three hospitals, of different size."""
    rows = [f"{i % 7},{i % 5},{'abbc'[i % 4]},{'no' if i % 2 else 'yes'}" for i in range(200)]
    (project / "data.csv").write_text("\n".join(["a,b,hospital,y", *rows]) + "\n", encoding="utf-8")
    (project / "slow.py").write_text(SLOW_NET, encoding="utf-8")
    return project


def run(*overrides: str, wait: bool = True) -> ai4sdk.Run:
    return ai4sdk.run("train", "tracking.kind=none", *overrides, wait=wait)


FEDERATED_IID = ("training.mode=federated", "++federation.partition.sites=2")
FEDERATED = ("training.mode=federated", "++federation.partition={method: column, column: hospital}")


@pytest.mark.slow
def test_one_site_with_one_round_is_a_training_in_one_place(project: Path) -> None:
    common = ("training.max_epochs=1", "module.width=16")
    alone = run(*common)
    federated = run(*common, "training.mode=federated", "++federation.partition.sites=1")
    assert weights(federated) == weights(alone)


@pytest.mark.slow
def test_a_kill_in_the_middle_changes_nothing_of_what_comes_out(hospitals: Path) -> None:
    how = (*FEDERATED, "module._target_=slow.Net", "training.max_epochs=4", "++federation.strategy=fedadam")
    whole = run(*how)
    assert list((whole.paths.federation / "00004").iterdir())
    broken = run(*how, "++federation.processes=2", wait=False)
    wait_for(lambda: (broken.paths.federation / "00002").exists())
    worker = next(event["pid"] for event in broken.events() if event["event"] == "task started")
    os.kill(worker, signal.SIGKILL)
    with pytest.raises(RunInterrupted):
        broken.wait()
    broken.resume()
    assert weights(broken) == weights(whole)
    rounds = [event["number"] for event in broken.events() if event["event"] == "round"]
    assert rounds == [1, 2, 3, 4]

    counts = read_json(broken.paths.federation / "partition.json")
    assert {site: sum(classes.values()) for site, classes in counts.items()}.keys() == {"a", "b", "c"}
    assert sum(counts["b"].values()) > sum(counts["a"].values())
    page = broken.paths.report.read_text()
    assert all(told in page for told in ("Samples of each class and site", "val_loss by round", "3 sites, 4 rounds"))
    assert read_json(broken.paths.federation / "participation.json")["counts"] == {"a": 4, "b": 4, "c": 4}


@pytest.mark.slow
def test_the_terminal_tells_of_rounds_and_of_no_epoch(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "config=train", "tracking.kind=none", *FEDERATED_IID, "training.max_epochs=2"]) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("training")]
    # it looks from time to time, so that not each round is seen
    assert any(re.match(r"training  round [12] of 2, 2 of 2 sites  val_loss", line) for line in told)
    assert not any("epoch" in line for line in told)


@pytest.mark.slow
def test_what_cannot_work_fails_with_advice(project: Path) -> None:
    (project / "own.py").write_text("from pytorch_lightning import LightningDataModule as Own\n")
    with pytest.raises(RunFailed, match="'val_los', which the module does not log; it logs: train_loss, val_loss"):
        run(*FEDERATED_IID, "++training.early_stopping={monitor: val_los}")
    with pytest.raises(RunFailed, match="cannot be shared among sites"):
        run("training.mode=federated", "++federation.partition.sites=2", "dataset={_target_: own.Own}")


@pytest.mark.slow
def test_what_a_private_federation_spends_is_written_down_for_the_dataset(project: Path) -> None:
    private = "++federation.privacy={mode: central, epsilon: 8, budget: 10}"
    first = run("training.mode=federated", "++federation.partition.sites=3", private)
    told = read_json(first.paths.federation / "privacy.json")
    assert 7.9 < told["epsilon"] <= 8
    assert "whole site" in told["means"][0]
    with pytest.raises(ConfigError, match="of the budget of 10 only"):
        run("training.mode=federated", "++federation.partition.sites=3", private, "seed=2")
