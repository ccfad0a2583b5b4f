"""A job that calls a function: what it may return, what it imports, and what is wrong is said where it stands."""

from __future__ import annotations

import math
import platform
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import ai4sdk
from ai4sdk.cli.app import main
from ai4sdk.errors import ConfigError, RunFailed, RunInterrupted
from ai4sdk.tracking.outcome import scores_of
from ai4sdk.tracking.settings import read_settings
from ai4sdk.worker.call import figures_of


@pytest.fixture
def calls(project: Path) -> Path:
    (project / "mine.py").write_text(
        "import random, sys\n\n\n"
        "def score(x=1, what=None, file=None):\n"
        "    if what == 'raise':\n        raise ValueError('no such fish')\n"
        "    if what == 'exit':\n        sys.exit(7)\n"
        "    if what == 'text':\n        return 'fine'\n"
        "    return {'loss': x * 2.0, 'heavy': float('torch' in sys.modules), 'drawn': random.random()}\n"
    )
    (project / "configs/call.yaml").write_text(
        "name: call\nfunction: {_target_: mine.score, x: 3, what: null}\ntracking: {kind: none}\n"
    )
    return project


@pytest.mark.parametrize(
    ("returned", "figures"),
    [
        (None, {}),
        (3, {"value": 3.0}),
        (np.float32(0.5), {"value": 0.5}),
        (torch.tensor(2.0), {"value": 2.0}),
        ({"a": 1, "b": np.int64(2)}, {"a": 1.0, "b": 2.0}),
        (float("inf"), {"value": math.inf}),
    ],
)
def test_nothing_a_number_or_names_with_numbers_are_figures(returned, figures):
    assert figures_of(returned) == figures


@pytest.mark.parametrize("returned", ["text", [1, 2], True, {"a": "b"}, {"a": None}, np.zeros(2), object()])
def test_anything_else_is_refused(returned):
    with pytest.raises(RunFailed, match="the function returned a"):
        figures_of(returned)


def test_a_job_trains_or_calls_and_never_both(calls):
    plan = ai4sdk.plan("call")
    assert [(task.name, task.kind) for task in plan.tasks] == [("call", "call")]
    with pytest.raises(ConfigError) as raised:
        ai4sdk.plan("train", "+function._target_=mine.score")
    assert "calls a function has no" in str(raised.value)
    with pytest.raises(ConfigError) as raised:
        ai4sdk.plan("call", "~function")
    assert "module is missing" in str(raised.value)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("function._target_=mine.scroe", "mine.score"),
        ("+function.y=1", "function.y"),
        ("+training.max_epochs=3", "is about trainings"),
    ],
)
def test_what_does_not_fit_a_function_is_found_when_planning(calls, override, says):
    with pytest.raises(ConfigError) as raised:
        ai4sdk.plan("call", override)
    assert says in str(raised.value)


def test_the_digest_covers_what_the_function_uses_and_nothing_else(calls):
    plain = ai4sdk.plan("call").digest
    assert ai4sdk.plan("call", "log_level=debug", "name=other").digest == plain
    assert ai4sdk.plan("call", "function.x=4").digest != plain
    assert ai4sdk.plan("call", "seed=7").digest != plain
    (calls / "notes.txt").write_text("cod")
    first = ai4sdk.plan("call", "+function.file=notes.txt").digest
    (calls / "notes.txt").write_text("haddock")
    assert ai4sdk.plan("call", "+function.file=notes.txt").digest != first


@pytest.mark.slow
def test_a_function_runs_like_a_training_but_imports_nothing_heavy(calls, capsys):
    run = ai4sdk.run("call", "seed=5")
    assert run.scores["loss"] == 6.0
    assert run.scores["heavy"] == 0.0
    assert ai4sdk.run("call", "seed=5").scores == run.scores
    assert ai4sdk.run("call", "seed=6").scores["drawn"] != run.scores["drawn"]
    assert main(["run", "config=call"]) == 0
    out = capsys.readouterr().out
    assert "loss" in out
    assert "report" not in out
    assert "predict" not in out
    assert main(["predict", "latest", "--input", "x.csv"]) == 6
    assert "called a function" in capsys.readouterr().err
    assert main(["logs"]) == 0
    assert "task call" in capsys.readouterr().out


BATCHES = """
import resource
import numpy

def faults():
    for batch in range(20):
        tensors = [numpy.ones(size * 2**20, dtype=numpy.uint8) for size in (2, 2, 2, 50)]
        del tensors
        if batch == 0:
            warm = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - warm
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators keep memory in ways of their own")
def test_a_task_keeps_the_memory_of_a_batch_for_the_next(calls):
    (calls / "mine.py").write_text(BATCHES)
    (calls / "configs/call.yaml").write_text("name: call\nfunction: {_target_: mine.faults}\ntracking: {kind: none}\n")
    assert ai4sdk.run("call").scores["value"] < 1000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "says"), [("raise", "no such fish"), ("exit", "sys.exit"), ("text", "returned a str")]
)
def test_a_function_that_fails_says_why(calls, what, says):
    with pytest.raises(RunFailed, match=says):
        ai4sdk.run("call", f"function.what={what}")


def test_the_worker_of_a_call_imports_no_torch():
    code = (
        "import sys, ai4sdk.worker.__main__, ai4sdk.worker.call; print({'torch', 'sklearn', 'mlflow'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.slow
def test_the_seed_decides_what_libraries_draw_that_are_imported_late(calls):
    (calls / "mine.py").write_text(
        "def score(x, what):\n"
        "    from sklearn.utils import check_random_state\n"
        "    return float(check_random_state(None).rand())\n"
    )
    drawn = [ai4sdk.run("call", f"seed={seed}").scores["value"] for seed in (5, 5, 6)]
    assert drawn[0] == drawn[1] != drawn[2]


WAITING = """
import time
from pathlib import Path


def score(x, what):
    try:
        Path("began").touch()
        time.sleep(60)
    except BaseException:
        if what != "stubborn":
            raise
    finally:
        Path("closed").touch()
    return 1
"""


@pytest.mark.slow
@pytest.mark.parametrize("what", ["tame", "stubborn"])
def test_a_function_that_is_stopped_closes_what_it_opened_and_has_no_figures(calls, what):
    (calls / "mine.py").write_text(WAITING)
    run = ai4sdk.run("call", f"function.what={what}", wait=False)
    deadline = time.monotonic() + 60
    while not (calls / "began").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert run.cancel() == "cancelled"
    assert (calls / "closed").exists()
    assert run.scores == {}


@pytest.mark.slow
def test_a_function_that_takes_too_long_is_stopped_within_its_time(calls):
    (calls / "mine.py").write_text(WAITING)
    with pytest.raises(RunInterrupted, match="wall time reached"):
        ai4sdk.run("call", "hardware.wall_time=4s")
    assert (calls / "closed").exists()


@pytest.mark.slow
def test_figures_are_recorded_under_the_names_the_function_gave_them(calls):
    (calls / "mine.py").write_text("def score(x, what):\n    return {'split': 0.5, 'task': 2, 'fish': 6}\n")
    run = ai4sdk.run("call")
    _, points = scores_of(run.paths, read_settings(run.folder), 0)
    assert {point.name: point.value for point in points} == {"split": 0.5, "task": 2.0, "fish": 6.0}
