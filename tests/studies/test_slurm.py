"""Studies on a real Slurm: their points are array jobs, and nothing of ours waits for them."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil
import pytest

import ai4sdk
from ai4sdk.backends.slurm import submissions
from ai4sdk.runs.state import State, read_state, write_state
from ai4sdk.testing import helpers
from ai4sdk.testing.helpers import command
from tests.studies.calls import CODE, started, states_of

pytestmark = [pytest.mark.slow, pytest.mark.slurm, pytest.mark.timeout(900), pytest.mark.usefixtures("slurm")]

CONFIG = """
name: call
function: {_target_: mine.score, x: 0}
hardware: {cpus: 1}
tracking: {kind: none}
backend: {kind: slurm}
sweep: {objective: loss}
"""

wait_for = partial(helpers.wait_for, seconds=180.0)


@pytest.fixture
def calls(project: Path) -> Path:
    (project / "mine.py").write_text(CODE)
    (project / "configs/call.yaml").write_text(CONFIG)
    return project


def job_of(study: ai4sdk.Study, number: int) -> str:
    submission = submissions.latest(study.paths.point(number))
    assert submission is not None
    assert submission.job is not None
    return submission.job


def processes_of(study: ai4sdk.Study) -> list[psutil.Process]:
    """The processes of ours that look after a study."""
    return [process for process in psutil.process_iter() if "ai4sdk.studies" in _argv(process, study)]


def _argv(process: psutil.Process, study: ai4sdk.Study) -> list[str]:
    try:
        argv = process.cmdline()
    except psutil.Error:
        return []
    return argv if str(study.folder) in argv else []


def test_a_grid_is_one_array_job_that_nobody_waits_for(slurm, calls):
    done = command(
        "run", "-m", "config=call", "function.x=range(5)", "+function.fails=1", "+function.until=go", "sweep.parallel=3"
    )
    assert done.returncode == 0, done.stderr
    study = ai4sdk.open_study(done.stdout.strip())
    assert not processes_of(study), "nothing stays on the login node"
    assert {job_of(study, number).partition("_")[::2] for number in range(5)} == {
        (job_of(study, 0).partition("_")[0], str(number)) for number in range(5)
    }
    assert "#SBATCH --array=0-4%3\n" in next(study.paths.slurm.glob("*.sh")).read_text()
    assert "job" in command("status", f"{study.id}/4").stdout
    assert "running" in command("study", "show", study.id).stdout
    (calls / "go").touch()
    wait_for(lambda: "failed" in command("study", "show", study.id).stdout.splitlines()[0])
    assert states_of(study) == {"succeeded": 4, "failed": 1}
    assert (study.status.exit_code, study.view.results[3].values) == (4, (0.0,))
    assert "1 of 5 points failed: point 1" in (study.status.cause or "")
    assert (study.folder / "best.yaml").exists()
    assert "the pond is empty" in study.paths.point(1).log("call").read_text()

    (calls / "mended").touch()
    assert command("study", "resume", study.id, "--failed", "--wait").returncode == 0
    assert states_of(study) == {"succeeded": 5}
    assert started(calls) == ["0", "1", "1", "2", "3", "4"]


def test_a_study_that_is_cancelled_leaves_nothing_in_the_queue_and_goes_on(slurm, calls):
    study = ai4sdk.study("call", "function.x=range(4)", "+function.until=go", "sweep.parallel=2", wait=False)
    wait_for(lambda: len(started(calls)) == 2)
    assert command("study", "cancel", study.id).returncode == 0
    assert (study.state, study.status.exit_code) == (State.CANCELLED, 130)
    assert states_of(study) == {"cancelled": 4}
    array = job_of(study, 0).partition("_")[0]
    wait_for(lambda: not slurm.ask("squeue", "--noheader", "--jobs", array).strip())
    (calls / "go").touch()
    study.resume()
    assert states_of(study) == {"succeeded": 4}


KILLED = """#!/bin/sh
[ -e {done} ] && exec {sbatch} "$@"
touch {done}
{first}
kill -9 $PPID
"""


@pytest.mark.parametrize("submitted", [False, True])
def test_of_points_whose_submitter_was_killed_none_is_lost_and_none_runs_twice(
    slurm, calls, monkeypatch, tmp_path_factory, submitted
):
    folder = tmp_path_factory.mktemp("bin")
    sbatch = shutil.which("sbatch")
    first = f'{sbatch} "$@" >/dev/null' if submitted else ":"
    (folder / "sbatch").write_text(KILLED.format(done=folder / "done", sbatch=sbatch, first=first))
    (folder / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    study = ai4sdk.study("call", "function.x=range(4)", "+function.until=go", wait=False)
    assert (folder / "done").exists()
    assert study.state is State.INTERRUPTED
    if submitted:
        wait_for(lambda: len(started(calls)) == 4)
    study.resume(wait=False)
    (calls / "go").touch()
    study.wait()
    assert states_of(study) == {"succeeded": 4}
    assert started(calls) == ["0", "1", "2", "3"]
    assert len(list(study.paths.slurm.glob("*.txt"))) == (1 if submitted else 2)


def test_a_point_that_somebody_takes_from_the_queue_is_told_of_and_resumed(slurm, calls):
    study = ai4sdk.study("call", "function.x=range(3)", "+function.until=go", "sweep.parallel=1", wait=False)
    wait_for(lambda: started(calls))
    slurm.ask("scancel", job_of(study, 2))
    (calls / "go").touch()
    study.wait(check=False)
    # Without an accounting database Slurm forgets at once what of an array was cancelled before it began.
    assert states_of(study) == {"succeeded": 2, "interrupted": 1}
    assert study.state is State.INTERRUPTED
    study.resume()
    assert started(calls) == ["0", "1", "2"]


def test_what_the_cluster_does_not_have_is_told_before_there_is_a_study(slurm, calls, project):
    refused = command("run", "-m", "config=call", "function.x=1,2", "++backend.partition=fast")
    assert refused.returncode == 2
    assert "no partition fast; there are main, urgent" in refused.stderr
    assert not list(project.glob("runs/2*"))


def test_what_the_cluster_refuses_is_told_with_what_to_do(slurm, calls):
    refused = command("run", "-m", "config=call", "function.x=1,2", "++backend.directives={no-such-option: 3}")
    assert refused.returncode == 2
    assert "unrecognized option" in refused.stderr
    assert "ai4sdk study resume" in refused.stderr
    study = ai4sdk.open_study()
    assert {read_state(study.paths.point(number)).state for number in (0, 1)} == {State.INTERRUPTED}


def test_a_cluster_with_small_arrays_gets_several_one_after_the_other(slurm, calls, monkeypatch):
    conf = Path(slurm.conf)
    text = conf.read_text()
    conf.write_text(text + "MaxArraySize=3\n")
    try:
        slurm.ask("scontrol", "reconfigure")
        study = ai4sdk.study("call", "function.x=range(7)", "sweep.parallel=2")
    finally:
        conf.write_text(text)
        slurm.ask("scontrol", "reconfigure")
    assert states_of(study) == {"succeeded": 7}
    scripts = [file.read_text() for file in sorted(study.paths.slurm.glob("*.sh"))]
    assert ["--array=0-2%2" in script for script in scripts] == [True, True, False]
    assert ["afterany" in script for script in scripts] == [False, True, True]


SEARCH = ("sweep.search=tpe", "sweep.points=5", "function.x=range(50)", "+function.until=go", "sweep.parallel=2")


def engine_of(study: ai4sdk.Study) -> str:
    submission = submissions.latest(study.paths)
    assert submission is not None
    assert submission.job is not None
    return submission.job


@pytest.mark.parametrize("killed", [False, True])
def test_a_search_that_learns_is_a_small_job_that_may_lose_its_place(slurm, calls, killed):
    study = ai4sdk.study("call", *SEARCH, wait=False)
    wait_for(lambda: len(started(calls)) == 2)
    if killed:
        (engine,) = (process for process in processes_of(study) if "--job" in process.cmdline())
        engine.kill()
        wait_for(lambda: study.state.ended)
        study.resume(wait=False)
    else:
        slurm.ask("scancel", "--batch", "--signal=USR1", engine_of(study))  # as when its time is almost over
        wait_for(lambda: "Restarts=1" in slurm.ask("scontrol", "show", "job", engine_of(study)))
    (calls / "go").touch()
    study.wait()
    results = study.view.results
    assert states_of(study) == {"succeeded": 5}
    assert Counter(started(calls)) == Counter(str(r.point.params["function.x"]) for r in results if not r.reused)
    assert {result.attempts for result in results if not result.reused} == {1}


def test_an_engine_whose_place_another_has_taken_touches_nothing_more(slurm, calls):
    study = ai4sdk.study("call", *SEARCH, wait=False)
    wait_for(lambda: len(started(calls)) == 2)
    taken = replace(read_state(study.paths), started=1.0)  # as the one does that is started again on another node
    write_state(study.paths, taken)
    wait_for(lambda: not [process for process in processes_of(study) if "--job" in process.cmdline()])
    assert read_state(study.paths) == taken
    study.cancel(now=True)


def test_a_search_is_cancelled_while_its_engine_works_and_while_it_waits(slurm, calls):
    study = ai4sdk.study("call", *SEARCH, wait=False)
    wait_for(lambda: len(started(calls)) == 2)
    assert study.cancel() is State.CANCELLED
    study.resume(wait=False)
    wait_for(lambda: len(started(calls)) == 4)
    job = engine_of(study)
    slurm.ask("scontrol", "requeuehold", job)
    wait_for(lambda: study.state is State.QUEUED)
    assert command("study", "cancel", study.id).returncode == 0
    assert study.state is State.CANCELLED
    wait_for(lambda: str(calls) not in slurm.ask("squeue", "--noheader", "--format=%Z"))
