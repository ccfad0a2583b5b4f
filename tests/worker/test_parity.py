"""Whether several processes give what one gives: what is compared, and what is named as a good reason to differ."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

import ai4sdk
from ai4sdk.cli import main
from ai4sdk.runs.files import append_json_line
from ai4sdk.runs.layout import RunPaths
from ai4sdk.worker.parity import compare, reasons_to_differ


@pytest.fixture
def trained(project: Path):
    """Make what a short training leaves."""
    plan = ai4sdk.plan("train")

    def make(name: str, *, weight: float = 1.0, losses: tuple[float, ...] = (3.0, 2.0), left_out: int = 0) -> RunPaths:
        paths = RunPaths(project / name)
        paths.checkpoints.mkdir(parents=True)
        paths.code.symlink_to(project)
        paths.plan.write_text(plan.to_json())
        torch.save({"state_dict": {"a": torch.tensor([weight, 2.0])}}, paths.last_checkpoint)
        for step, loss in enumerate(losses):
            append_json_line(paths.metrics, {"step": step, "epoch": 0, "metrics": {"train_loss": loss}})
        if left_out:
            append_json_line(paths.events, {"event": "samples left out", "samples": left_out})
        return paths

    return make


def test_the_same_losses_and_weights_agree(trained):
    found = compare(trained("one"), trained("two", weight=1.0 + 1e-7), 1e-6)
    assert found["agree"]
    assert (found["steps"], found["loss"]["difference"], found["notes"]) == (2, 0.0, [])


def test_the_place_of_the_largest_difference_is_told(trained):
    found = compare(trained("one"), trained("two", weight=1.5, losses=(3.0, 2.2), left_out=1), 1e-6)
    assert not found["agree"]
    assert found["loss"] == {"difference": pytest.approx(0.1), "where": "train_loss, step 1"}
    assert found["weights"] == {"difference": pytest.approx(0.25), "where": "a"}
    assert found["notes"] == ["1 samples at the end of an epoch cannot be divided evenly and are left out"]


def test_a_figure_that_is_no_number_on_one_side_is_a_difference(trained):
    assert compare(trained("one"), trained("two", losses=(3.0, math.nan)), 1e-6)["loss"]["difference"] == math.inf


def test_different_numbers_of_steps_do_not_agree(trained):
    found = compare(trained("one"), trained("two", losses=(3.0,)), 1e-6)
    assert not found["agree"]
    assert found["notes"] == ["one process made 2 steps, several made 1"]


def test_good_reasons_to_differ_are_named():
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout(0.1), nn.Dropout(0.0))
    assert [note.split(":")[0] for note in reasons_to_differ(module, sync_batchnorm=False)] == [
        "dropout (2)",
        "batch normalisation (1)",
    ]
    assert len(reasons_to_differ(module, sync_batchnorm=True)) == 1


@pytest.mark.slow
def test_verify_parity_trains_both_ways_and_leaves_nothing_behind(project, capsys):
    assert main(["verify", "parity", "config=train", "dataset.loader.batch_size=8", "--steps", "4"]) == 0
    assert "1 process and 2 agree over 4 steps" in capsys.readouterr().out
    assert not (project / "runs" / "parity").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["pond", "config=train"], "ai4sdk verify parity"),
        (["parity", "config=train", "--processes", "1"], "at least 2"),
        (["parity", "config=train", "optimizer.lr=1,2"], "a study"),
        (["parity", "config=train", "~dataset.uri", "~dataset.label", "+dataset._target_=net.Net"], "user's own"),
    ],
)
def test_what_cannot_be_verified_is_refused(project, capsys, arguments, said):
    assert main(["verify", *arguments]) == 2
    assert said in capsys.readouterr().err
