"""Runs on a real Slurm: pre-emption, time limits, lost nodes, and everything else that a cluster does to a job."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import time
from functools import partial
from pathlib import Path

import pytest

import ai4sdk
from ai4sdk.backends.launch import resume_run
from ai4sdk.backends.slurm import client, submissions
from ai4sdk.errors import EnvironmentFault, RunFailed, RunInterrupted, UsageError
from ai4sdk.runs.files import read_json, write_json
from ai4sdk.runs.state import State, read_state
from ai4sdk.testing import helpers
from ai4sdk.testing.helpers import command, weights

pytestmark = [pytest.mark.slow, pytest.mark.slurm, pytest.mark.timeout(900), pytest.mark.usefixtures("slurm")]

NET = """
import time
from pathlib import Path

import torch
from net import Net as Plain


class Net(Plain):
    def __init__(self, width=8, features=2, until=""):
        super().__init__(width, features)
        self.until = until

    def training_step(self, batch, batch_idx):
        if self.until and self.current_epoch >= 2 and not Path(self.until).exists():
            time.sleep(0.4)
        x, y = batch
        return super().training_step((x + 0.1 * torch.randn_like(x), y), batch_idx)
"""
JOB = ("module._target_=slow.Net", "tracking.kind=none", "dataset.loader.batch_size=8", "+backend={kind: slurm}")


def ai4(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "ai4sdk", *argv], capture_output=True, text=True, check=False)


wait_for = partial(helpers.wait_for, seconds=180.0)


def training(run: ai4sdk.Run) -> bool:
    try:
        return int(read_json(run.paths.progress).get("epoch") or 0) >= 2
    except (OSError, ValueError):
        return False


def job_of(run: ai4sdk.Run) -> str:
    submission = submissions.latest(run.paths)
    assert submission is not None
    assert submission.job is not None
    return submission.job


@pytest.fixture
def go_on(project: Path) -> Path:
    (project / "slow.py").write_text(NET)
    return project / "go-on"


def start(*overrides: str, epochs: int = 2) -> ai4sdk.Run:
    words = [f"++{word}" if word.startswith("backend.") else word for word in overrides]
    return ai4sdk.run("train", *JOB, f"training.max_epochs={epochs}", *words, wait=False)


def start_held(go_on: Path, *overrides: str) -> ai4sdk.Run:
    """Start a run that takes its time until it is let go, and wait until it trains."""
    run = start(f"+module.until={go_on}", *overrides, epochs=60)
    wait_for(lambda: training(run) or run.state.ended)
    assert run.state is State.RUNNING, run
    return run


@functools.cache
def weights_of_a_whole_run() -> dict[str, bytes]:
    return weights(start(epochs=60).wait(timeout=300))


@pytest.fixture
def undisturbed(go_on: Path) -> dict[str, bytes]:
    return weights_of_a_whole_run()


def warn(run: ai4sdk.Run, slurm) -> None:
    """Do what Slurm does when the time is almost over; it rounds to minutes, and a test need not wait for them."""
    slurm.ask("scancel", "--batch", "--signal=USR1", job_of(run))


def put_back(run: ai4sdk.Run, slurm) -> None:
    slurm.ask("scontrol", "requeue", job_of(run))


def preempt(run: ai4sdk.Run, slurm) -> None:
    argv = ("--partition=urgent", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 1")
    slurm.ask("sbatch", *argv)


def test_a_plan_gives_the_same_weights_as_on_this_machine(slurm, undisturbed):
    here = ai4sdk.run("train", *JOB, "backend={kind: local}", "training.max_epochs=60", wait=False)
    assert weights(here.wait(timeout=300)) == undisturbed


def test_a_run_begins_once_the_one_it_waits_for_has_succeeded(slurm, go_on):
    first = start_held(go_on)
    second = ai4sdk.run("train", *JOB, "training.max_epochs=1", wait=False, after=[first])
    assert f"is waiting (for {first.id})" in command("status", second.id).stdout
    assert second.state is State.QUEUED
    go_on.touch()
    second.wait(timeout=300)
    assert read_state(second.paths).started >= read_state(first.paths).ended - 1


def test_a_run_never_begins_if_the_one_it_waits_for_does_not_succeed(slurm, go_on):
    first = start_held(go_on)
    second = ai4sdk.run("train", *JOB, "training.max_epochs=1", wait=False, after=[first])
    first.cancel(now=True)
    wait_for(lambda: second.state.ended)
    told = f"it never ran: {first.id}, which it waited for, is cancelled"
    assert (second.state, second.status.cause) == (State.INTERRUPTED, told)
    with pytest.raises(UsageError, match=f"{first.id}, which it is to wait for, is cancelled"):
        second.resume()
    again = command("run", "config=train", *JOB, "--after", first.id)
    assert again.returncode == 2
    assert f"ai4sdk resume {first.id}, then this again" in again.stderr
    go_on.touch()
    first.resume(wait=False)
    second.resume(wait=False)
    second.wait(timeout=300)
    assert (first.state, second.state) == (State.SUCCEEDED, State.SUCCEEDED)


@pytest.mark.parametrize("how", [warn, put_back, preempt])
def test_a_job_that_loses_its_place_goes_on_by_itself_and_ends_with_the_same_weights(slurm, go_on, undisturbed, how):
    run = start_held(go_on)
    how(run, slurm)
    wait_for(lambda: read_state(run.paths).attempt == 2)
    go_on.touch()
    run.wait(timeout=300)
    assert (run.state, run.status.attempt) == (State.SUCCEEDED, 2)
    assert weights(run) == undisturbed
    assert "requeued" in [event["event"] for event in run.events()]
    assert len(list(run.paths.slurm.glob("*.json"))) == 1, "it is one job all along"


@pytest.mark.parametrize("how", [warn, put_back])
def test_a_job_goes_on_no_more_often_than_allowed(slurm, go_on, undisturbed, how):
    run = start_held(go_on, "backend.requeues=1")
    how(run, slurm)
    wait_for(lambda: read_state(run.paths).attempt == 2 and training(run) and run.state is State.RUNNING)
    wait_for(lambda: "phase phase=fit" in run.log()[run.log().rindex("task train of") :])
    how(run, slurm)
    with pytest.raises(RunInterrupted, match=r"backend.requeues"):
        run.wait(timeout=120)
    go_on.touch()
    assert job_of(run) not in slurm.ask("squeue", "--noheader", "--states=pending", "--format=%i").split()
    resume_run(run.paths, run.folder.parent.parent)
    run.wait(timeout=300)
    assert weights(run) == undisturbed
    assert len(list(run.paths.slurm.glob("*.json"))) == 2


def test_a_node_that_is_lost_costs_nothing_but_time(slurm, go_on, undisturbed):
    run = start_held(go_on)
    slurm.kill(f"slurmd-{slurm.node_of(job_of(run))}")
    wait_for(lambda: read_state(run.paths).attempt == 2)
    go_on.touch()
    run.wait(timeout=300)
    assert run.state is State.SUCCEEDED
    assert weights(run) == undisturbed
    assert len([event for event in run.events() if event["event"] == "task ended"]) == 1, "the first start said nothing"


def test_a_job_that_waits_says_why_and_can_be_cancelled(slurm, go_on):
    run = start("++backend.directives={hold: true}")
    shown = ai4("status", run.id)
    assert f"{run.id}  queued" in shown.stdout
    assert f"job {job_of(run)} is waiting (JobHeldUser)" in shown.stdout
    assert "queued" in ai4("ps").stdout
    again = ai4("resume", run.id)
    assert again.returncode == 2
    assert "is queued" in again.stderr
    assert ai4("cancel", run.id).returncode == 0
    assert run.state is State.CANCELLED
    assert read_state(run.paths).state is State.CANCELLED, "written down, as Slurm forgets"


@pytest.mark.parametrize("running", [False, True])
def test_a_job_that_somebody_cancels_at_slurm_is_told_of_honestly(slurm, go_on, running):
    run = start_held(go_on) if running else start("++backend.directives={hold: true}")
    slurm.ask("scancel", job_of(run))
    wait_for(lambda: run.state.ended)
    assert run.state is (State.INTERRUPTED if running else State.CANCELLED)
    assert "cancelled" in (run.status.cause or "")
    if running:
        assert run.paths.last_checkpoint.exists()


def test_set_up_that_fails_is_a_failure_with_a_log(slurm, go_on):
    run = start("backend.setup=['echo no such module >&2', 'false', 'echo not reached']")
    wait_for(lambda: run.state.ended)
    assert (run.state, run.status.exit_code) == (State.FAILED, 7)
    assert ai4("logs", run.id, "--task", "slurm").stdout == "no such module\n"


def test_a_job_gets_the_gpus_memory_and_cpus_it_asks_for(slurm, go_on):
    run = start(
        "hardware={cpus: 2, memory: 1GiB, gpu_model: A100}",
        "backend.setup=['scontrol show job $SLURM_JOB_ID', 'exit 1']",
    )
    wait_for(lambda: run.state.ended)
    shown = run.paths.log("slurm").read_text()
    assert "TRES=cpu=2,mem=1G,node=1" in shown


def test_what_slurm_counted_is_told(slurm, go_on):
    run = start().wait(timeout=300)
    counted = run.status.extra["accounting"]
    assert counted["elapsed"] > 0
    assert counted["waited"] >= 0
    assert counted["max_rss"] > 50 * 2**20
    assert 0 < counted["cpu_efficiency"] <= 1.1
    assert "peak memory" in ai4("status", run.id).stdout


def test_a_run_that_is_waited_for_shows_its_job_and_its_end(slurm, go_on):
    done = ai4("run", "--wait", "config=train", *JOB, "training.max_epochs=2")
    assert done.returncode == 0, done.stderr
    assert re.search(r"job \d+ is (waiting|running)", done.stderr)
    assert "succeeded" in done.stdout


def test_a_run_returns_at_once_with_its_id(slurm, go_on):
    done = ai4("run", "config=train", *JOB, "training.max_epochs=2")
    assert done.returncode == 0, done.stderr
    run = ai4sdk.open_run(done.stdout.strip())
    assert f"job {job_of(run)}" in done.stderr
    run.wait(timeout=300)


def test_many_runs_cost_one_question(slurm, go_on, tmp_path, monkeypatch):
    runs = [start("++backend.directives={hold: true}") for _ in range(3)]
    counting = tmp_path / "bin"
    counting.mkdir()
    (counting / "squeue").write_text(f'#!/bin/sh\necho >>{tmp_path}/asked\nexec {shutil.which("squeue")} "$@"\n')
    (counting / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{counting}:{os.environ['PATH']}")
    listed = ai4("ps").stdout
    assert listed.count("queued") == 3
    assert (tmp_path / "asked").read_text() == "\n"
    for run in runs:
        run.cancel()


def test_a_run_that_was_submitted_already_is_refused(slurm, go_on, project):
    run = start("++backend.directives={hold: true}")
    with pytest.raises(UsageError, match="is queued"):
        resume_run(run.paths, project)
    before = submissions.latest(run.paths)
    submissions.claim(run.paths, before)
    with pytest.raises(FileExistsError):
        submissions.claim(run.paths, before)


def test_a_job_that_is_not_the_one_that_was_meant_touches_nothing(slurm, go_on):
    run = start("++backend.directives={hold: true}")
    job = job_of(run)
    submissions.claim(run.paths, submissions.latest(run.paths))
    before = run.paths.state.read_bytes()
    slurm.ask("scontrol", "release", job)
    wait_for(lambda: "FAILED" in slurm.ask("squeue", "--noheader", "--states=all", "--format=%T", "--jobs", job))
    assert run.paths.state.read_bytes() == before
    assert "another job was submitted" in run.paths.log("slurm").read_text()


def test_a_job_whose_number_was_not_written_down_is_found_by_its_name(slurm, go_on):
    run = start("++backend.directives={hold: true}")
    job = job_of(run)
    write_json(run.paths.slurm / "1.json", {"time": time.time() - 3600})
    assert f"job {job} is waiting" in ai4("status", run.id).stdout
    assert job_of(run) == job
    run.cancel()


def test_a_controller_that_does_not_answer_is_said_and_nothing_is_made_up(slurm, go_on, project):
    run = start("++backend.directives={hold: true}")
    slurm.stop("slurmctld")
    told = ai4("status", run.id)
    assert told.returncode == 0
    assert "queued" in told.stdout
    assert "Slurm does not answer" in told.stdout
    before = sorted(project.joinpath("runs").iterdir())
    refused = ai4("run", "config=train", *JOB)
    assert refused.returncode == EnvironmentFault.exit_code
    assert "Slurm does not answer" in refused.stderr
    assert "scontrol ping" in refused.stderr
    assert sorted(project.joinpath("runs").iterdir()) == before
    planned = ai4("plan", "config=train", *JOB)
    assert planned.returncode == 0, planned.stderr
    assert "cluster    nothing was checked: " in planned.stdout
    slurm.up()
    assert run.cancel() is State.CANCELLED


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("++backend.partition=fast", ["no partition fast", "there are main, urgent"]),
        ("++backend.constraint=quantum", ["no feature quantum", "backend.constraint"]),
        ("hardware={memory: 9TB, cpus: 9, wall_time: 40d}", ["3 problems", "memory", "hardware.cpus=4", "=86400s"]),
        ("++backend.directives={no-such-option: 3}", ["unrecognized option", "man sbatch"]),
        ("++backend.gres=abacus", ["no generic resource abacus", "gpu"]),
    ],
)
def test_what_the_cluster_refuses_is_told_with_what_to_do(slurm, go_on, project, override, words):
    gpus = ["++hardware.gpus=1"] if "gres" in override else []
    refused = ai4("run", "config=train", *JOB, override, *gpus)
    assert refused.returncode == 2, refused.stderr
    for word in words:
        assert word in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not list(project.glob("runs/2*"))


def test_a_machine_without_slurm_says_so(go_on, project, monkeypatch):
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    refused = ai4("run", "config=train", *JOB)
    assert refused.returncode == EnvironmentFault.exit_code
    assert "no sbatch on this machine's PATH" in refused.stderr


def test_status_as_json_names_the_job(slurm, go_on):
    run = start("++backend.directives={hold: true}")
    told = json.loads(ai4("status", run.id, "--json").stdout)
    assert (told["state"], told["scheduler"], told["job"]) == ("queued", "slurm", job_of(run))
    run.cancel()


def test_how_a_job_ended_is_known_when_it_has_left_the_queue(slurm, go_on):
    run = start("++backend.directives={hold: true}")
    job = job_of(run)
    assert client.completed([job]) == {}
    run.cancel()
    assert client.completed([job])[job].state == "CANCELLED"
    assert client.jobs(["999999"]) == {}


MEETING = """
import os
import torch


def meet():
    torch.distributed.init_process_group("gloo")
    total = torch.tensor([float(torch.distributed.get_rank() + 1)])
    torch.distributed.all_reduce(total)
    print("node", os.environ["SLURMD_NODENAME"], "local rank", os.environ["LOCAL_RANK"], flush=True)
    torch.distributed.destroy_process_group()
    return {"total": float(total), "world": int(os.environ["WORLD_SIZE"]), "local": int(os.environ["LOCAL_WORLD_SIZE"])}
"""


def test_a_task_of_several_nodes_is_one_worker_a_rank_that_meet(slurm, project):
    (project / "meeting.py").write_text(MEETING)
    (project / "meet.yaml").write_text("defaults: [base, _self_]\nname: meet\nfunction: {_target_: meeting.meet}\n")
    run = ai4sdk.run("meet.yaml", "backend=slurm", "hardware.nodes=2", "tracking=none", wait=False)
    run.wait(timeout=300)
    assert run.scores == {"total": 3.0, "world": 2, "local": 1}
    assert "node n1 local rank 0" in run.log("call")
    assert "node n2 local rank 0" in (run.paths.logs / "call.rank1.log").read_text()


@pytest.mark.parametrize("each", [1, 2], ids=["one a node", "two a node"])
def test_a_training_on_two_nodes_gives_the_weights_of_as_many_processes_on_this_machine(slurm, project, each):
    several = ("training.mode=ddp", "training.max_epochs=1", "tracking.kind=none", "dataset.loader.batch_size=4")
    there = ("+backend={kind: slurm}", "+hardware={nodes: 2, cpus: 2}", f"+training.processes={each}")
    cluster = ai4sdk.run("train", *several, *there, wait=False)
    cluster.wait(timeout=300)
    here = ai4sdk.run("train", *several, f"+training.processes={2 * each}", "+hardware={cpus: 4}")
    assert weights(cluster) == weights(here)
    logs = sorted(path.name for path in cluster.paths.logs.glob("train*"))
    assert len(logs) == 2 * each
    counted = cluster.status.extra["accounting"]
    assert counted["max_rss"] > 50 * 2**20, "of a rank, not of the script that waits for them"
    assert 0 < counted["cpu_efficiency"] <= 1.1


def test_a_rank_that_fails_ends_the_others_and_gives_the_reason(slurm, project):
    code = """
        import os, time

        def fail():
            if os.environ["RANK"] == "1":
                raise ValueError("the pond is empty")
            while True:
                time.sleep(0.1)
        """
    (project / "failing.py").write_text(textwrap.dedent(code))
    (project / "fail.yaml").write_text("defaults: [base, _self_]\nname: fail\nfunction: {_target_: failing.fail}\n")
    run = ai4sdk.run("fail.yaml", "backend=slurm", "hardware.nodes=2", "tracking=none", wait=False)
    with pytest.raises(RunFailed, match="the pond is empty"):
        run.wait(timeout=300)


WAITING = """
import time
from pathlib import Path


def wait():
    Path(f"waits-{time.time_ns()}").touch()
    while True:
        time.sleep(0.1)
"""


@pytest.mark.parametrize("now", [False, True])
def test_a_task_of_several_nodes_is_stopped_as_one(slurm, project, now):
    (project / "waiting.py").write_text(WAITING)
    (project / "wait.yaml").write_text("defaults: [base, _self_]\nname: wait\nfunction: {_target_: waiting.wait}\n")
    run = ai4sdk.run("wait.yaml", "backend=slurm", "hardware.nodes=2", "tracking=none", wait=False)
    wait_for(lambda: len(list(project.glob("waits-*"))) == 2)
    assert run.cancel(now=now) is State.CANCELLED
    ends = run.paths.slurm / "ranks" / f"{job_of(run)}-0-call"
    assert now or [read_json(ends / f"{rank}.json")["status"] for rank in (0, 1)] == [130, 130]
    wait_for(lambda: not slurm.ask("squeue", "--noheader", "--jobs", job_of(run)).strip())
