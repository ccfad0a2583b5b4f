"""Several processes train as one would, agree on everything, and go on after any kill as if nothing had happened."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from ai4sdk.runs.files import read_json, read_json_lines

SCENARIOS = Path(__file__).with_name("together.py")
CASES = (
    "plain",
    "accumulation",
    "plateau of validation",
    "plateau of training",
    "validation within epochs",
    "early stopping within epochs",
    "loaders made anew",
    "weighted sampling",
    "a generator of its own",
    "divided",
    "divided and accumulated",
)


def train_together(folder: Path, processes: int) -> Path:
    code = (
        "import sys; from pathlib import Path; from ai4sdk.backends.agent import start_ranks; "
        "from ai4sdk.runs.layout import RunPaths; folder, scenarios, count = sys.argv[1:]; "
        "sys.exit(start_ranks(RunPaths(Path(folder)), 'train', int(count), [sys.executable, scenarios, folder]))"
    )
    (folder / "logs").mkdir()
    command = [sys.executable, "-c", code, str(folder), str(SCENARIOS), str(processes)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    other = folder / "logs" / "train.rank1.log"
    assert done.returncode == 0, f"{done.stderr[-3000:]}\n{other.read_text()[-3000:]}"
    return folder


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run all trainings once, on two processes."""
    return train_together(tmp_path_factory.mktemp("together"), 2)


@pytest.fixture(scope="module")
def seen(out: Path) -> list[dict[str, Any]]:
    """Return what each rank saw."""
    return [torch.load(out / f"seen.{rank}", weights_only=False) for rank in range(2)]


def same(some: dict[str, Any], other: dict[str, Any]) -> bool:
    return some.keys() == other.keys() and all(torch.equal(some[name], other[name]) for name in some)


def parameters(one: dict[str, Any]) -> dict[str, Any]:
    """Return what must be the same everywhere; of batch normalisation each process has figures of its own."""
    return {name: weight for name, weight in one["weights"].items() if "running" not in name}


@pytest.mark.parametrize("name", CASES)
def test_resuming_before_any_batch_changes_nothing(seen, name):
    whole, again = seen[0][name]["whole"], seen[0][name]["again"]
    assert again
    for one in again:
        assert one["fitted"] == whole["fitted"]
        assert same(one["weights"], whole["weights"])
        for place, value in one["figures"].items():
            assert value == whole["figures"][place] or value != value, place


def test_three_processes_add_up_gradients_in_the_same_order_after_a_resume(tmp_path):
    three = torch.load(train_together(tmp_path, 3) / "seen.0", weights_only=False)["three"]
    assert three["again"]
    for one in three["again"]:
        assert same(one["weights"], three["whole"]["weights"])


@pytest.mark.parametrize("name", CASES)
def test_all_processes_end_alike(seen, name):
    first, second = (of[name]["whole"] for of in seen)
    assert first["fitted"] == second["fitted"]
    assert same(parameters(first), parameters(second))


@pytest.mark.parametrize("name", ["exact", "exact divided"])
def test_two_processes_make_the_steps_of_one_with_batches_twice_as_large(seen, name):
    two, one = seen[0][name], seen[0][f"{name} alone"]
    for name, weight in one["weights"].items():
        torch.testing.assert_close(two["weights"][name], weight)
    assert two["figures"].keys() == one["figures"].keys()


@pytest.mark.parametrize("figure", ["val_loss", "train_loss_step", "train_loss_epoch"])
def test_figures_are_those_of_all_samples_though_validation_divides_unevenly(seen, figure):
    two, one = (
        {k: v for k, v in of["figures"].items() if k[2] == figure} for of in (seen[0]["exact"], seen[0]["exact alone"])
    )
    assert one
    assert two == pytest.approx(one, rel=1e-5)


def test_a_figure_that_is_a_maximum_is_the_maximum_of_all_processes(seen):
    worst = {k[:2]: v for k, v in seen[0]["exact"]["figures"].items() if k[2] == "worst"}
    mean = {k[:2]: v for k, v in seen[0]["exact"]["figures"].items() if k[2] == "train_loss_epoch"}
    assert all(worst[place] > mean[place] for place in worst)


@pytest.mark.parametrize("name", ["changing", "changing, not looked for"])
def test_a_loss_that_no_longer_depends_on_a_parameter_is_an_error_that_names_it_before_a_wrong_step(seen, name):
    for rank in seen:
        assert rank[name]["step"] == 3, "it failed in the very step"
        assert "does not depend on branch.weight, branch.bias" in rank[name]["failed"]
    assert same(*(parameters(of[name]) for of in seen))


@pytest.mark.parametrize("name", ["changing, looked for", "left out at first"])
def test_parameters_that_only_some_steps_or_ranks_use_are_trained_where_each_step_looks(seen, name):
    first, second = (of[name] for of in seen)
    assert "failed" not in first
    assert first["fitted"] == second["fitted"]
    assert same(parameters(first), parameters(second))


def test_a_request_to_stop_that_one_process_got_stops_all_at_the_same_step(seen):
    first, second = (of["stop"] for of in seen)
    assert first["stopped"] == second["stopped"] == "stopped on request"
    assert first["step"] == second["step"]
    assert same(seen[0]["stop resumed"]["weights"], seen[1]["stop resumed"]["weights"])


def test_records_are_written_once(out):
    records = list(read_json_lines(out / "exact" / "metrics.jsonl"))
    places = [(record["step"], name) for record in records for name in record["metrics"]]
    assert len(places) == len(set(places))
    assert [event["event"] for event in read_json_lines(out / "stop" / "events.jsonl")].count("stopping") == 1
    assert read_json(out / "exact" / "checkpoints" / "fit.json")["finished"]
