"""`plan --deep` looks into a plan with torch: numbers that are right, refusals that are sure."""

from __future__ import annotations

import json
import math

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset

import ai4sdk
from ai4sdk.cli.app import main
from ai4sdk.spec import Training
from ai4sdk.worker.deep import look
from ai4sdk.worker.pace import Pace, measure_pace


@pytest.fixture
def looked(project, monkeypatch):
    """Look into the project's plan in this process."""
    monkeypatch.syspath_prepend(str(project))

    def looked_at(*overrides, **options):
        return look(ai4sdk.plan("train", *overrides), project, **options)

    return looked_at


def test_what_the_module_and_a_batch_take_is_told(looked):
    rows = looked().rows
    assert rows["parameters"] == f"{2 * 8 + 8 + 8 * 2 + 2}"
    assert "weights 168 B + gradients 168 B + optimizer 3" in rows["memory"]
    assert "activations" in rows["memory"]
    assert rows["batches"].endswith("an epoch")
    assert "float32" in rows["batch"]
    assert "float32" in rows["  output"]


def test_several_processes_have_smaller_batches_each_and_all_that_they_need_is_counted(looked):
    one = looked()
    two = looked("training.mode=ddp", "training.processes=2", "training.global_batch_size=16")
    assert two.rows["batch"].startswith("8×")
    assert "buckets 168 B" in two.rows["memory"]
    assert "process" in one.rows
    assert "node" in two.rows
    assert looked("training.mode=ddp", "training.processes=2", "hardware.memory=300MiB").refused


def test_frozen_parameters_are_told_apart(looked):
    assert looked("training.freeze=[layers.0.*]").rows["parameters"] == "42, 18 of them trained"


@pytest.mark.parametrize(
    ("overrides", "key"),
    [(["hardware.memory=50MiB"], "hardware.memory"), (["hardware.gpus=1", "hardware.gpu_memory=400MiB"], "hardware.gpu_memory")],
)  # fmt: skip
def test_what_cannot_fit_is_refused_with_the_numbers(looked, overrides, key):
    found = looked(*overrides, calibrate=True)
    assert found.key == key
    assert "it needs at least" in found.refused
    assert f"{key} is" in found.refused
    assert "time" not in found.rows, "nothing is trained that cannot run"
    assert looked(*(text.replace("MiB", "GiB") for text in overrides)).refused is None


@pytest.mark.slow
def test_from_the_command_line_a_refusal_names_what_set_the_limit(project, capsys):
    assert main(["plan", "config=train", "--deep", "hardware.memory=50MiB"]) == 2
    out, err = capsys.readouterr()
    assert "parameters" in out
    assert "hardware.memory=50MiB" in err
    assert "it needs at least" in err
    assert main(["plan", "config=train", "--calibrate", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["deep"]["rows"]
    assert rows["time"].startswith("about ")
    assert "tried here" in rows["pace"]
    (project / "net.py").write_text((project / "net.py").read_text() + "\n1 / 0\n")
    assert main(["plan", "config=train", "--deep"]) == 7
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_the_pace_is_that_of_the_job(looked, monkeypatch):
    monkeypatch.setattr("ai4sdk.worker.pace._SECONDS", 0.0)

    def loader(batches):
        rows = 4 * batches
        return DataLoader(TensorDataset(torch.rand(rows, 2), torch.zeros(rows, dtype=torch.int64)), batch_size=4)

    class Data(pl.LightningDataModule):
        def train_dataloader(self):
            return loader(7)

        def val_dataloader(self):
            return loader(30)

    from net import Net

    pace = measure_pace(ai4sdk.compose("train").job, Net(), Data())
    assert (pace.batches, pace.validations) == (7, 30)
    assert 5 <= pace.steps <= 7
    assert pace.batch > 0
    assert pace.validation > 0


PACE = Pace(batch=0.5, validation=0.25, batches=100, validations=20, steps=9)


@pytest.mark.parametrize(
    ("training", "seconds"),
    [
        ({"max_epochs": 10}, 10 * (50 + 5)),
        ({"max_epochs": None, "max_steps": 200}, 100 + 2 * 5),
        ({"max_epochs": None, "max_steps": 200, "accumulate_grad_batches": 2}, 200 + 4 * 5),
        ({"max_epochs": 10, "max_time": "60s"}, 60),
        ({"max_epochs": 1, "max_steps": 10**6}, 55),
    ],
)
def test_the_whole_time_is_that_of_the_first_end(training, seconds):
    assert math.isclose(PACE.whole(Training(**training)), seconds)


def test_data_without_an_end_has_no_known_time():
    endless = Pace(batch=0.5, validation=0.0, batches=None, validations=0, steps=9)
    assert endless.whole(Training(max_epochs=3)) is None
    assert endless.whole(Training(max_epochs=None, max_steps=10)) == 5
