"""A pod executes its run once, and no other's."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

import ai4sdk
from ai4sdk.backends.kubernetes.pod import execute
from ai4sdk.backends.launch import make_run
from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.state import RunState, State, read_state, write_state


@pytest.fixture
def plan_file(function_project: Path) -> Path:
    Path("configs").mkdir()
    backend = {"kind": "kubernetes", "image": "pond:1", "claim": "pond"}
    Path("configs/cluster.yaml").write_text(json.dumps({"defaults": ["pond", "_self_"], "backend": backend}))
    Path("pond.yaml").rename("configs/pond.yaml")
    file = function_project / "plan.json"
    file.write_text(ai4sdk.plan("cluster").to_json())
    return file


def there(plan_file: Path, **values: object) -> RunPaths:
    """Make a run directory that a pod finds on its claim."""
    run = RunPaths(plan_file.parent / "claim" / "one")
    os.close(make_run(ai4sdk.plan("cluster"), run.root))
    write_state(run, replace(read_state(run), **values))  # type: ignore[arg-type]
    return run


def word_of(plan_file: Path) -> RunState:
    values = json.loads((plan_file.parent / "word").read_text())
    return RunState(**{**values, "state": State(values["state"])})


@pytest.mark.parametrize(
    ("state", "submission", "status"),
    [
        (State.SUCCEEDED, 1, 0),
        (State.SUCCEEDED, 2, 0),
        (State.FAILED, 1, 4),
        (State.CANCELLED, 1, 130),
    ],
)
def test_a_run_that_is_over_is_not_executed_again(plan_file: Path, state: State, submission: int, status: int) -> None:
    run = there(plan_file, state=state, exit_code=status, cause="so it was", extra={"submission": 1})
    before = run.state.read_text()
    assert execute(plan_file, run, submission, plan_file.parent / "word") == status
    assert word_of(plan_file).state is state
    assert run.state.read_text() == before


def test_a_job_that_was_replaced_by_a_resume_touches_nothing(plan_file: Path) -> None:
    run = there(plan_file, state=State.RUNNING, scheduler="kubernetes", extra={"submission": 3})
    before = run.state.read_text()
    assert execute(plan_file, run, 2, plan_file.parent / "word") == 9
    assert "submitted again" in str(word_of(plan_file).cause)
    assert run.state.read_text() == before


def test_the_run_of_another_plan_is_left_alone(plan_file: Path) -> None:
    run = there(plan_file)
    plan_file.write_text(ai4sdk.plan("cluster", "function.boats=5").to_json())
    assert execute(plan_file, run, 1, plan_file.parent / "word") == 2
    assert "is a run of another plan" in str(word_of(plan_file).cause)


def test_a_long_cause_fits_into_a_last_word(plan_file: Path) -> None:
    there(plan_file, state=State.FAILED, exit_code=4, cause='"é"\n' * 2000, extra={"submission": 1})
    execute(plan_file, RunPaths(plan_file.parent / "claim" / "one"), 1, plan_file.parent / "word")
    assert (plan_file.parent / "word").stat().st_size < 4096
    assert word_of(plan_file).exit_code == 4
