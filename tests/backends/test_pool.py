"""A pool gives each run what it would have had alone, and lives through all that runs, zygotes and engines can do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from safetensors.numpy import load_file

import ai4sdk
from ai4sdk.backends.base import Ended, Pool
from ai4sdk.backends.launch import make_run, requeue_run
from ai4sdk.backends.local.backend import LocalBackend
from ai4sdk.backends.local.machine import slots_for, visible_gpus
from ai4sdk.planning.plan import Plan, TaskPlan, read_plan_file
from ai4sdk.runs.files import read_json, read_json_lines
from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.state import State, is_alive, read_state

NOISY_NET = """
import ctypes, os, signal, sys, time
import numpy
import torch
from net import Net as Plain

LEAK = []


class Net(Plain):
    \"\"\"Draws random numbers in every step; from the fourth step on it may do worse.\"\"\"

    def __init__(self, width=8, features=2, act="train", pause=0.0):
        super().__init__(width, features)
        self.layers.insert(2, torch.nn.Dropout(0.3))
        self.act, self.pause = act, pause
        print("GPUs:", os.environ.get("CUDA_VISIBLE_DEVICES"))

    def training_step(self, batch, batch_idx):
        time.sleep(self.pause)
        if self.global_step >= 3:
            getattr(self, self.act, lambda: None)()
        x, y = batch
        return super().training_step((x + 0.1 * torch.randn_like(x), y), batch_idx)

    def fail(self):
        raise ValueError("the pond is empty")

    def exit(self):
        sys.exit(0)

    def vanish(self):
        os._exit(0)

    def segfault(self):
        ctypes.string_at(0)

    def abort(self):
        os.abort()

    def leak(self):
        LEAK.append(numpy.ones(8_000_000))
        self.pause = 0.02

    def hang(self):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("hanging")
        while True:
            time.sleep(1)
"""

JOB = ("module._target_=noisy.Net", "tracking.kind=none", "training.max_epochs=6", "dataset.loader.batch_size=8")
SLOWLY = ("+module.pause=0.1", "training.checkpoint.every=0.3s")


class Points:
    """Runs in the test's folder, and pools to run them in."""

    def __init__(self, project: Path) -> None:
        self.project, self.folder = project, project / "study"
        (self.folder / "logs").mkdir(parents=True)
        self.pools: list[Pool] = []

    def plan(self, *overrides: str) -> Plan:
        return ai4sdk.plan("train", *JOB, *overrides)

    def pool(self, plan: Plan, parallel: int = 2) -> Pool:
        pool = LocalBackend().pool(plan, self.folder / "logs", self.project, parallel=parallel)
        self.pools.append(pool)
        return pool

    def start(self, pool: Pool, plan: Plan) -> RunPaths:
        run = RunPaths(self.folder / "points" / f"{len(list(self.folder.glob('points/*'))):05d}")
        pool.start(run, LocalBackend().render(plan, run, self.project), make_run(plan, run.root))
        return run

    def resume(self, pool: Pool, run: RunPaths) -> None:
        plan = read_plan_file(run.root)
        pool.start(run, LocalBackend().render(plan, run, self.project), requeue_run(run, plan))

    @property
    def zygote_log(self) -> str:
        return (self.folder / "logs" / "zygote.log").read_text()


@pytest.fixture
def points(project: Path) -> Iterator[Points]:
    (project / "noisy.py").write_text(NOISY_NET)
    points = Points(project)
    yield points
    for pool in points.pools:
        pool.close()


UNDISTURBED: dict[str, bytes] = {}


@pytest.fixture
def alone(points: Points) -> dict[str, bytes]:
    """Return the weights of the job when nothing disturbs it; the same in any folder."""
    if not UNDISTURBED:
        UNDISTURBED.update(weights(ai4sdk.run("train", *JOB).paths))
    return UNDISTURBED


def weights(run: RunPaths) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in load_file(run.package / "weights.safetensors").items()}


def until_ended(pool: Pool, *runs: RunPaths, seconds: float = 120.0) -> dict[str, Ended]:
    ended: dict[str, Ended] = {}
    deadline = time.monotonic() + seconds
    while len(ended) < len(runs):
        assert time.monotonic() < deadline, f"only {list(ended)} ended"
        ended |= {one.run.id: one for one in pool.wait(1.0)}
    for run in runs:
        assert not is_alive(run), "who is told of an end may resume the run"
    return ended


def until(pool: Pool, condition: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        assert pool.wait(0.05) == []


def step(run: RunPaths) -> int:
    try:
        return read_json(run.progress).get("step") or 0
    except (OSError, ValueError):
        return 0


def worker_of(run: RunPaths) -> int:
    return next(
        event["pid"] for event in reversed(list(read_json_lines(run.events))) if event["event"] == "task started"
    )


def hangs(run: RunPaths) -> bool:
    log = run.log("train")
    return log.exists() and "hanging" in log.read_text()


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


# ---------------------------------------------------------------------- as if alone


@pytest.mark.slow
def test_each_point_has_the_weights_of_its_plan_run_alone_and_imports_are_paid_once(points, alone):
    other = weights(ai4sdk.run("train", *JOB, "seed=7").paths)
    plans = [points.plan(), points.plan("seed=7"), points.plan(), points.plan("optimizer.lr=0.01")]
    pool = points.pool(plans[0])
    first, second = (points.start(pool, plan) for plan in plans[:2])
    ended = until_ended(pool, first, second)
    assert [one.state.state for one in ended.values()] == [State.SUCCEEDED, State.SUCCEEDED]
    third, fourth = (points.start(pool, plan) for plan in plans[2:])
    until_ended(pool, third, fourth)
    assert weights(first) == alone
    assert weights(second) == other != alone
    assert weights(third) == alone
    assert weights(fourth) != alone
    assert points.zygote_log.count("imported ai4sdk.worker.phases") == 1
    for run in (first, second, third, fourth):
        assert "torch is imported" in run.log("train").read_text()
        assert read_state(run).state is State.SUCCEEDED
    events = [event["event"] for event in read_json_lines(third.events)]
    assert events[:2] == ["queued", "running"]
    assert "task started" in events[2:5]  # told by the pool, while the worker may already be telling its phases
    assert events[-2:] == ["task ended", "succeeded"]


@pytest.mark.slow
def test_tasks_run_one_after_the_other_on_the_gpus_of_their_run(points, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,-1,6")
    plan = points.plan()
    plan = plan.model_copy(update={"tasks": [plan.tasks[0], plan.tasks[0].model_copy(update={"name": "again"})]})
    pool = points.pool(plan.model_copy(update={"tasks": [task.model_copy(update={"gpus": 1}) for task in plan.tasks]}))
    first, second = points.start(pool, plan), points.start(pool, plan)
    until_ended(pool, first, second)
    assert {run.log("train").read_text().split("GPUs: ")[1][0] for run in (first, second)} == {"3", "5"}
    tasks = [(event["event"], event["task"]) for event in read_json_lines(first.events) if "task" in event]
    assert tasks == [(what, name) for name in ("train", "again") for what in ("task started", "task ended")]
    assert read_state(first).state is State.SUCCEEDED


# ---------------------------------------------------------------------- what code may do


@pytest.mark.slow
def test_what_a_point_does_to_itself_is_its_own_failure(points):
    acts = {
        "fail": "ValueError: the pond is empty",
        "exit": "the code called sys.exit",
        "vanish": "before the work was done",
        "segfault": "SIGSEGV",
        "abort": "SIGABRT",
    }
    pool = points.pool(points.plan())
    runs = {act: points.start(pool, points.plan(f"+module.act={act}")) for act in acts}
    ended = until_ended(pool, *runs.values())
    for act, run in runs.items():
        state = ended[run.id].state
        assert (state.state, state.exit_code) == (State.FAILED, 4), act
        assert acts[act] in (state.cause or ""), act
        assert read_state(run) == state
    good = points.start(pool, points.plan())
    assert until_ended(pool, good)[good.id].state.state is State.SUCCEEDED


@pytest.mark.slow
def test_a_run_that_takes_too_much_memory_is_killed(points):
    plan = points.plan("hardware.memory=1GiB")
    pool = points.pool(plan)
    leaking = points.start(pool, points.plan("hardware.memory=1GiB", "+module.act=leak"))
    good = points.start(pool, plan)
    ended = until_ended(pool, leaking, good)
    state = ended[leaking.id].state
    assert (state.state, state.exit_code, state.cause) == (State.FAILED, 4, "used more than hardware.memory (1 GiB)")
    assert ended[good.id].state.state is State.SUCCEEDED, "the imports they share are nobody's own memory"


@pytest.mark.slow
def test_a_run_that_does_not_end_in_time_is_killed(points):
    plan = points.plan("hardware.wall_time=8s", "backend.grace=1s", "+module.act=hang")
    pool = points.pool(plan)
    run = points.start(pool, plan)
    state = until_ended(pool, run, seconds=40)[run.id].state
    assert (state.state, state.exit_code) == (State.FAILED, 4)
    assert state.cause == "over its time limit (hardware.wall_time=8s)"


# ---------------------------------------------------------------------- stopping and killing


@pytest.mark.slow
@pytest.mark.parametrize("how", ["stop", "request"])
def test_a_stopped_run_goes_on_in_another_pool_to_the_same_weights(points, alone, how):
    plan = points.plan(*SLOWLY)
    pool = points.pool(plan)
    run = points.start(pool, plan)
    until(pool, lambda: step(run) >= 3)
    if how == "stop":
        pool.stop(run)
    else:
        LocalBackend().cancel(run)
    state = until_ended(pool, run)[run.id].state
    assert (state.state, state.exit_code) == (State.CANCELLED, 130)
    assert run.last_checkpoint.exists()
    pool.close()
    pool = points.pool(plan)
    points.resume(pool, run)
    state = until_ended(pool, run)[run.id].state
    assert (state.state, state.attempt) == (State.SUCCEEDED, 2)
    assert weights(run) == alone


@pytest.mark.slow
def test_a_run_that_does_not_stop_is_killed_after_the_grace_or_at_once(points):
    plan = points.plan("+module.act=hang", "backend.grace=1s")
    pool = points.pool(plan)
    patient, at_once = points.start(pool, plan), points.start(pool, plan)
    unborn = points.start(pool, plan)
    pool.stop(unborn)
    assert until_ended(pool, unborn)[unborn.id].state.state is State.CANCELLED
    assert not unborn.log("train").exists()
    until(pool, lambda: hangs(patient) and hangs(at_once))
    pool.stop(patient)
    pool.stop(at_once, now=True)
    ended = until_ended(pool, patient, at_once, seconds=10)
    assert {one.state.state for one in ended.values()} == {State.CANCELLED}
    assert list(ended) == [at_once.id, patient.id]


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["worker", "zygote"])
def test_a_killed_run_is_interrupted_and_goes_on_in_the_same_pool(points, alone, victim):
    plan = points.plan(*SLOWLY, "dataset.loader.num_workers=1")
    pool = points.pool(plan)
    run = points.start(pool, plan)
    until(pool, lambda: step(run) >= 3)
    worker = psutil.Process(worker_of(run))
    helpers = worker.children()
    (worker if victim == "worker" else worker.parent()).kill()
    state = until_ended(pool, run, seconds=30)[run.id].state
    assert (state.state, state.exit_code) == (State.INTERRUPTED, 5)
    assert ("its zygote was killed" if victim == "zygote" else "SIGKILL") in state.cause
    assert helpers
    assert all(gone(process.pid) for process in [worker, *helpers])
    points.resume(pool, run)
    assert until_ended(pool, run)[run.id].state.state is State.SUCCEEDED
    assert weights(run) == alone


ENGINE = """
import sys
from pathlib import Path
from ai4sdk.backends.local.backend import LocalBackend
from ai4sdk.backends.launch import make_run
from ai4sdk.planning.plan import read_plan_file
from ai4sdk.runs.layout import RunPaths

plan, project = read_plan_file(Path(sys.argv[1])), Path.cwd()
pool = LocalBackend().pool(plan, project / "study" / "logs", project, parallel=len(sys.argv) - 2)
for folder in sys.argv[2:]:
    run = RunPaths(Path(folder))
    pool.start(run, LocalBackend().render(plan, run, project), make_run(plan, run.root))
while True:
    pool.wait(1.0)
"""


@pytest.mark.slow
def test_nothing_outlives_a_killed_engine_and_its_runs_go_on(points, alone):
    plan = points.plan(*SLOWLY, "backend.grace=2s")
    (points.project / "plan.json").write_text(plan.to_json())
    stubborn = points.plan(*SLOWLY, "backend.grace=2s", "+module.act=hang")
    runs = [RunPaths(points.folder / "points" / name) for name in ("a", "b")]
    engine = subprocess.Popen([sys.executable, "-c", ENGINE, "plan.json", *(str(run.root) for run in runs)])
    (points.project / "stubborn.json").write_text(stubborn.to_json())
    hung = RunPaths(points.folder / "points" / "hung")
    other = subprocess.Popen([sys.executable, "-c", ENGINE, "stubborn.json", str(hung.root)])
    deadline = time.monotonic() + 60
    while not (all(step(run) >= 3 for run in runs) and hangs(hung)):
        assert time.monotonic() < deadline, "they did not train"
        time.sleep(0.05)
    workers = [worker_of(run) for run in (*runs, hung)]
    zygotes = [psutil.Process(worker).ppid() for worker in workers]
    for process in (engine, other):
        process.kill()
        process.wait()
    deadline = time.monotonic() + 15
    while not all(gone(pid) for pid in (*workers, *zygotes)) or any(is_alive(run) for run in (*runs, hung)):
        assert time.monotonic() < deadline, "somebody lives on"
        time.sleep(0.05)
    assert all(read_state(run).state is State.INTERRUPTED for run in (*runs, hung))
    pool = points.pool(plan)
    for run in runs:
        points.resume(pool, run)
    until_ended(pool, *runs)
    assert [weights(run) == alone for run in runs] == [True, True]


@pytest.mark.slow
def test_a_run_directory_deleted_under_a_point_ends_it(points):
    plan = points.plan(*SLOWLY, "training.max_epochs=100")
    pool = points.pool(plan)
    run = points.start(pool, plan)
    until(pool, lambda: step(run) >= 1)
    worker = worker_of(run)
    while run.root.exists():
        shutil.rmtree(run.root, ignore_errors=True)
    state = until_ended(pool, run, seconds=10)[run.id].state
    assert (state.state, state.cause) == (State.FAILED, "its run directory was deleted")
    assert gone(worker)
    assert not run.state.exists()


@pytest.mark.slow
def test_a_closed_pool_leaves_interrupted_runs_and_no_process(points):
    plan = points.plan(*SLOWLY)
    pool = points.pool(plan, parallel=1)
    run = points.start(pool, plan)
    until(pool, lambda: step(run) >= 1)
    worker = psutil.Process(worker_of(run))
    zygote = worker.ppid()
    pool.close()
    assert gone(worker.pid)
    assert gone(zygote)
    assert read_state(run).state is State.INTERRUPTED
    assert "study was stopped" in read_state(run).cause


# ---------------------------------------------------------------------- what imports may do


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("raise RuntimeError('not here')", "torch is imported"),
        ("import os; os.abort()", "torch is not imported"),
        ("import threading, time; threading.Thread(target=time.sleep, args=[600], daemon=True).start()", "task train"),
    ],
)
def test_an_import_that_does_harm_costs_no_point(points, alone, code, expected):
    run, pool = start_with_hostile_import(points, code)
    assert until_ended(pool, run)[run.id].state.state is State.SUCCEEDED
    assert weights(run) == alone
    log = run.log("train").read_text()
    assert expected in log
    assert ("forked" in log) == ("start cold" not in points.zygote_log)


@pytest.mark.slow
def test_a_fork_that_fails_is_the_machines_fault(points):
    code = "import errno, os\ndef fork(): raise OSError(errno.EAGAIN, 'no more processes')\nos.fork = fork"
    run, pool = start_with_hostile_import(points, code)
    state = until_ended(pool, run)[run.id].state
    assert (state.state, state.exit_code) == (State.FAILED, 7)
    assert state.cause == "no process can be started: no more processes"


def start_with_hostile_import(points: Points, code: str) -> tuple[RunPaths, Pool]:
    site = points.project / "site"
    site.mkdir()
    (site / "hostile.py").write_text(code)
    path = f"{site}:{os.environ.get('PYTHONPATH', '')}"
    plan = points.plan(f"+backend.env.PYTHONPATH='{path}'")
    pool = points.pool(plan.model_copy(update={"code": {**plan.code, "external": ["hostile"]}}))
    return points.start(pool, plan), pool


# ---------------------------------------------------------------------- light


def test_as_many_fit_as_the_scarcest_allows(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    total = psutil.virtual_memory().total
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")

    def fitting(**hardware: int) -> int:
        return slots_for(TaskPlan(name="train", kind="train", **hardware))

    assert fitting(cpus=2) == 8
    assert fitting(cpus=2, memory=total // 3) == 3
    assert fitting(cpus=2, gpus=1) == 3
    assert fitting(cpus=2, gpus=2) == 1
    assert fitting(cpus=64) == 1


@pytest.mark.parametrize(("value", "names"), [("", []), ("-1", []), ("2,0", ["2", "0"]), ("1,-1,2", ["1"])])
def test_gpus_are_those_that_cuda_would_see(monkeypatch, value, names):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert visible_gpus() == names


def test_a_run_is_not_started_where_its_folder_cannot_be_written(points):
    plan = points.plan()
    pool = points.pool(plan)
    run = RunPaths(points.folder / "points" / "x")
    lock = make_run(plan, run.root)
    submission = LocalBackend().render(plan, run, points.project)
    shutil.rmtree(run.root)
    with pytest.raises(ai4sdk.errors.EnvironmentFault, match="x cannot be started"):
        pool.start(run, submission, lock)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(lock)
    assert pool.wait(0.0) == []


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_runs_beyond_the_slots_wait_for_their_turn(points):
    plan = points.plan(*SLOWLY)
    pool = points.pool(plan, parallel=1)
    first, second, third = [points.start(pool, plan) for _ in range(3)]
    until(pool, lambda: read_state(first).state is State.RUNNING)
    assert read_state(second).state is State.QUEUED
    assert read_state(second).started is None, "waiting is not working"
    pool.stop(second)
    ended = until_ended(pool, first, second, third)
    assert ended[second.id].state.state is State.CANCELLED
    for run in (first, third):
        assert ended[run.id].state.state is State.SUCCEEDED
    assert read_state(third).started >= read_state(first).ended
