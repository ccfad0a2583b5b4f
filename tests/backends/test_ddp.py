"""Runs of several processes: whoever is killed, none is left behind, the reason is told, and resume ends the same."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import ai4sdk
from ai4sdk.backends.launch import make_run
from ai4sdk.cli import main
from ai4sdk.planning.plan import digest_of, results_of
from ai4sdk.runs.files import read_json_lines
from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.state import State, is_alive
from ai4sdk.spec import Job
from ai4sdk.testing.helpers import weights

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

NET = """
import time
from pathlib import Path

import torch
from net import Net as Plain


class Net(Plain):
    \"\"\"Draws random numbers in every step, and takes its time until it is told to hurry.\"\"\"

    def __init__(self, width=8, features=2, hurry="", fails=""):
        super().__init__(width, features)
        self.layers.insert(1, torch.nn.BatchNorm1d(width))
        self.layers.insert(2, torch.nn.Dropout(0.3))
        self.hurry, self.fails = hurry, fails

    def training_step(self, batch, batch_idx):
        if self.fails == f"rank {self.global_rank}, step {self.global_step}":
            raise ValueError("the pond is dry")
        if not Path(self.hurry).exists():
            time.sleep(0.1)
        x, y = batch
        return super().training_step((x + 0.1 * torch.randn_like(x), y), batch_idx)
"""

JOB = (
    "module._target_=ponds.Net",
    "tracking.kind=none",
    "training.max_epochs=40",
    "++training.mode=ddp",
    "+training.processes=2",
    "dataset.loader.batch_size=8",
    "training.checkpoint={monitor: val_loss, every: 0.5s}",
    "+scheduler.schedule={_target_: torch.optim.lr_scheduler.ReduceLROnPlateau, patience: 1}",
    "+scheduler.monitor=val_loss",
)


@pytest.fixture
def pond(project: Path) -> Path:
    (project / "ponds.py").write_text(NET)
    return project


def checkpoints(run: ai4sdk.Run) -> int:
    return sum(event["event"] == "checkpoint" for event in run.events())


def wait_for_another_checkpoint(run: ai4sdk.Run, before: int) -> None:
    while checkpoints(run) <= before:
        assert not run.state.ended, run
        time.sleep(0.02)


def processes(run: ai4sdk.Run) -> tuple[psutil.Process, list[psutil.Process]]:
    """Return the agent and the ranks of a run."""
    agent = psutil.Process([event["pid"] for event in run.events() if event["event"] == "task started"][-1])
    ranks = sorted(agent.children(), key=lambda process: int(process.environ()["RANK"]))
    return agent, ranks


def wait_until_gone(run: ai4sdk.Run, all_of_them: list[psutil.Process]) -> None:
    psutil.wait_procs(all_of_them)
    while is_alive(run.paths):
        time.sleep(0.02)


def kill_a_rank(run: ai4sdk.Run) -> None:
    """Kill rank 1 once there is a checkpoint, and wait until the run is interrupted."""
    wait_for_another_checkpoint(run, 0)
    agent, ranks = processes(run)
    ranks[1].kill()
    wait_until_gone(run, [agent, *ranks])
    assert run.state is State.INTERRUPTED


def test_a_run_disturbed_in_every_way_ends_with_the_same_weights(pond, tmp_path_factory):
    hurry = tmp_path_factory.mktemp("pond") / "hurry"
    hurry.touch()
    job = (*JOB, f"+module.hurry={hurry}")
    expected = weights(ai4sdk.run("train", *job))
    hurry.unlink()

    run = ai4sdk.run("train", *job, wait=False)
    kill_a_rank(run)
    assert run.status.cause.startswith("rank 1 was killed (SIGKILL")

    run.resume(wait=False)
    wait_for_another_checkpoint(run, checkpoints(run))
    agent, ranks = processes(run)
    agent.kill()
    wait_until_gone(run, [agent, *ranks])
    assert run.state is State.INTERRUPTED

    run.resume(wait=False)
    wait_for_another_checkpoint(run, checkpoints(run))
    agent, ranks = processes(run)
    run.cancel()
    wait_until_gone(run, [agent, *ranks])
    assert run.state is State.CANCELLED
    saved = [(event["epoch"], event["step"]) for event in run.events() if event["event"] == "checkpoint"]
    stopped = [
        (event["epoch"], event["step"]) for event in run.events() if event["event"] == "stopping" and "step" in event
    ]
    assert stopped == saved[-1:], "it stopped in good order, with a checkpoint of that very step"

    hurry.touch()
    run.resume()
    assert run.state is State.SUCCEEDED
    assert weights(run) == expected
    assert sorted(path.name for path in run.paths.logs.glob("train*")) == ["train.log", "train.rank1.log"]


def test_a_run_with_divided_parameters_goes_on_after_a_kill_and_leaves_whole_weights(pond, tmp_path_factory):
    hurry = tmp_path_factory.mktemp("pond") / "hurry"
    hurry.touch()
    job = (*JOB, "++training.mode=fsdp", "training.max_epochs=12", f"+module.hurry={hurry}")
    whole = ai4sdk.run("train", *job)
    hurry.unlink()

    run = ai4sdk.run("train", *job, wait=False)
    kill_a_rank(run)

    hurry.touch()
    run.resume()
    assert run.state is State.SUCCEEDED
    assert weights(run) == weights(whole)
    assert len(ai4sdk.load_model(run.paths.root)([[1.0, 2.0]]).values) == 1


def test_the_rank_that_failed_is_named_and_its_log_shown(pond, capsys):
    status = main(["run", "config=train", *JOB, "++module.fails='rank 1, step 4'"])
    run = ai4sdk.open_run("latest")
    said = capsys.readouterr().err
    assert status == 4
    assert "failed: rank 1: ValueError: the pond is dry" in said
    assert f"ai4sdk logs {run.id} --rank 1" in said
    assert main(["logs", run.id, "--rank", "1"]) == 0
    assert "the pond is dry" in capsys.readouterr().out
    assert not any("the pond is dry" in line for line in run.paths.log("train").read_text().splitlines()), (
        "rank 0 did not fail"
    )
    assert list(read_json_lines(run.paths.metrics))
    left = [text for text in map(_command, psutil.process_iter()) if "ai4sdk.worker" in text]
    assert not [text for text in left if str(run.paths.root) in text]


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def test_now_stops_ranks_whose_supervisor_and_agent_were_killed(pond):
    run = ai4sdk.run("train", *JOB, wait=False)
    wait_for_another_checkpoint(run, 0)
    agent, ranks = processes(run)
    for process in ranks:
        process.suspend()  # so that they do not hear that the others are gone
    supervisor = psutil.Process(run.status.pid)
    supervisor.kill()
    agent.kill()
    psutil.wait_procs([supervisor])  # a process that dies has its files for a moment still
    assert is_alive(run.paths)
    run.cancel(now=True)
    wait_until_gone(run, [agent, *ranks])


def test_workers_that_somebody_else_started_on_two_nodes_need_only_torchruns_variables(pond):
    """As a scheduler does it: no agent, no supervisor, nodes of one process each, a port that rank 0 opens."""
    plan = ai4sdk.plan("train", *JOB, f"+module.hurry={pond}", "training.max_epochs=2")
    job = {
        **plan.job,
        "hardware": {**plan.job["hardware"], "nodes": 2},
        "training": {**plan.job["training"], "processes": 1},
    }
    tasks = [plan.tasks[0].model_copy(update={"nodes": 2, "processes": 1})]
    digests = {**plan.digests, "job": digest_of(results_of(Job.model_validate(job)))}
    plan = plan.model_copy(update={"job": job, "tasks": tasks, "digests": digests, "digest": digest_of(digests)})
    run = RunPaths(pond / "runs" / "apart")
    lock = make_run(plan, run.root)
    with socket.socket() as looked_for:
        looked_for.bind(("127.0.0.1", 0))
        port = looked_for.getsockname()[1]
    workers = [
        subprocess.Popen(
            [sys.executable, "-P", "-m", "ai4sdk.worker", str(run.root), "train"],
            env={
                **os.environ,
                "RANK": str(rank),
                "WORLD_SIZE": "2",
                "LOCAL_RANK": "0",
                "LOCAL_WORLD_SIZE": "1",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "SLURM_NTASKS": "7",  # nobody asks a scheduler
                "SLURM_PROCID": "3",
                "SLURM_JOB_ID": "1",
            },
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [worker.communicate()[1] for worker in workers]
    os.close(lock)
    assert [worker.returncode for worker in workers] == [0, 0], said
    assert (run.package / "weights.safetensors").exists()
