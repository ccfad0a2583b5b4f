"""Studies of real trainings, disturbed: killed, told to stop, damaged, out of disk; and what is said and left then."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from safetensors.numpy import load_file

import ai4sdk
from ai4sdk.cli.app import main
from ai4sdk.errors import RunInterrupted
from ai4sdk.runs.files import read_json_lines
from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.state import State, hold_lock, is_alive, read_state
from ai4sdk.runs.store import fill_run
from ai4sdk.studies.engine import execute
from ai4sdk.studies.layout import StudyPaths
from ai4sdk.studies.plan import make_study
from ai4sdk.studies.point import PointState

KILLS = int(os.environ.get("AI4SDK_KILLS", "8"))

CODE = """
import os, signal, time


def score(x=0, pause=0.0, do=None):
    if do == "die" and x == 1 and not os.path.exists("mended"):
        os.kill(os.getpid(), signal.SIGKILL)
    if do == "deaf" and x == 1 and not os.path.exists("deaf"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        open("deaf", "w").close()
        pause = 600
    time.sleep(pause)
    return {"loss": (x - 3) ** 2}
"""
CONFIG = """
name: call
function: {_target_: mine.score, x: 0}
hardware: {cpus: 1}
tracking: {kind: none}
sweep: {parallel: 2, objective: loss}
"""
NET = """
import time
import torch
from net import Net as Plain


class Net(Plain):
    def __init__(self, width=8, features=2, pause=0.0):
        super().__init__(width, features)
        self.layers.insert(2, torch.nn.Dropout(0.3))
        self.pause = pause

    def training_step(self, batch, batch_idx):
        time.sleep(self.pause)
        x, y = batch
        return super().training_step((x + 0.1 * torch.randn_like(x), y), batch_idx)
"""
TRAINING = (
    "module._target_=noisy.Net",
    "tracking.kind=none",
    "hardware.cpus=1",
    "sweep.parallel=2",
    "sweep.retries=100",
    "training.max_epochs=8",
    "dataset.loader.batch_size=8",
    "training.checkpoint={monitor: val_loss, every: 0.3s}",
    "backend.grace=5s",
)


@pytest.fixture
def calls(project: Path) -> Path:
    """A project with a function to sweep over, and a network that draws random numbers and takes its time."""
    (project / "mine.py").write_text(CODE)
    (project / "noisy.py").write_text(NET)
    (project / "configs/call.yaml").write_text(CONFIG)
    return project


def wait_until(true: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.05)


def some_ended(study: ai4sdk.Study, count: int = 1) -> bool:
    return sum(result.state.final for result in study.view.results) >= count


def family_of(study: ai4sdk.Study) -> list[psutil.Process]:
    """The engine of a study, its zygote and its workers."""
    engine = psutil.Process(study.status.pid)
    return [engine, *engine.children(recursive=True)]


def is_gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def kill_somebody(study: ai4sdk.Study, rng: random.Random) -> bool:
    """Kill the engine, the zygote, a worker, or all at once; return whether there was anybody to kill."""
    try:
        engine, *others = family_of(study)
    except (psutil.Error, ai4sdk.errors.NotFound):
        return False
    chance = rng.random()
    victims = (
        [engine] if chance < 0.4 else [engine, *others] if chance < 0.55 else rng.sample(others, min(1, len(others)))
    )
    for victim in victims:
        with contextlib.suppress(psutil.Error):
            victim.kill()
    return bool(victims)


def disturb(
    study: ai4sdk.Study,
    rng: random.Random,
    kills: int,
    pause: tuple[float, float],
    look: Callable[[], None] = lambda: None,
) -> int:
    """Kill at random moments and resume each time, then let the study come to its end; return how often."""
    done = 0
    while study.state is not State.SUCCEEDED:
        if done < kills:
            time.sleep(rng.uniform(*pause))
            done += not study.state.ended and kill_somebody(study, rng)
            time.sleep(0.1)
            look()
        else:
            wait_until(lambda: not is_alive(study.paths), 120)
        if not is_alive(study.paths) and study.state is not State.SUCCEEDED:
            assert study.state is State.INTERRUPTED, study.status
            study.resume(wait=False)
    return done


def weights_of(study: ai4sdk.Study) -> dict[int, dict[str, bytes]]:
    found = {}
    for result in study.view.results:
        assert result.run is not None
        arrays = load_file(result.run / "package/weights.safetensors")
        found[result.point.number] = {name: array.tobytes() for name, array in arrays.items()}
    return found


def ended_once(study: ai4sdk.Study) -> None:
    """Every point is in the ledger with one end, and its run has the digest that the ledger says."""
    lines = [json.loads(line) for line in study.paths.ledger.read_text().splitlines()]
    final = [line["number"] for line in lines if line["event"] == "ended" and PointState(line["state"]).final]
    final += [line["number"] for line in lines if line["event"] == "reused"]
    assert Counter(final) == Counter(range(study.view.total))
    assert [result.point.number for result in study.view.results] == list(range(study.view.total))
    for result in study.view.results:
        assert result.run is not None
        assert ai4sdk.Run(RunPaths(result.run)).plan.digest == result.point.digest


@pytest.mark.slow
def test_trainings_killed_at_random_moments_end_with_the_weights_of_an_undisturbed_study(calls):
    job = [*TRAINING, "seed=range(5)"]
    undisturbed = ai4sdk.study("train", *job, "runs=elsewhere")
    study = ai4sdk.study("train", *job, "+module.pause=0.05", wait=False)
    kills = disturb(study, random.Random(11), KILLS, (0.3, 2.5))
    assert kills == KILLS, "it ended before it was disturbed often enough"
    ended_once(study)
    assert weights_of(study) == weights_of(undisturbed)
    assert {r.point.number: r.values for r in study.view.results} == {
        r.point.number: r.values for r in undisturbed.view.results
    }


@pytest.mark.slow
def test_a_pruned_search_killed_at_random_moments_decides_nothing_twice(calls):
    study = ai4sdk.study(
        "train", *TRAINING, "optimizer=sgd", "optimizer.lr=tag(log,interval(1e-6,1))", "sweep.search=tpe",
        "sweep.points=8", "sweep.objective=val_loss", "+sweep.pruner={kind: median, options: {n_startup_trials: 2}}",
        "+module.pause=0.03", wait=False,
    )  # fmt: skip
    before: dict[int, object] = {}

    def nothing_has_changed() -> None:
        found = {r.point.number: (r.state, r.values) for r in study.view.results if r.state.final}
        assert before.items() <= found.items()
        before.update(found)

    disturb(study, random.Random(5), KILLS // 2, (0.5, 3.0), nothing_has_changed)
    nothing_has_changed()
    ended_once(study)
    for result in study.view.results:
        assert result.run is not None
        verdicts = [(line["step"], line["go_on"]) for line in read_json_lines(RunPaths(result.run).verdicts)]
        assert len({step for step, _ in verdicts}) == len(verdicts), "a step was judged twice"
        assert (False in dict(verdicts).values()) == (result.state is PointState.PRUNED)


@pytest.mark.slow
def test_an_engine_told_to_stop_saves_its_points_and_leaves_nobody(calls):
    study = ai4sdk.study("train", *TRAINING, "seed=range(3)", "+module.pause=0.05", wait=False)
    running = [study.paths.point(number) for number in (0, 1)]
    wait_until(lambda: all((run.checkpoints / "last.ckpt").exists() for run in running))
    family = family_of(study)
    family[0].terminate()
    _, alive = psutil.wait_procs(family, timeout=20)
    assert not alive
    assert (study.state, study.status.exit_code) == (State.INTERRUPTED, 5)
    assert study.status.cause == "told to stop (SIGTERM), 3 of 3 points left"
    assert {read_state(run).state for run in running} == {State.CANCELLED}
    study.resume()
    ended_once(study)
    assert {result.attempts for result in study.view.results if result.point.number in (0, 1)} == {2}


@pytest.fixture
def deaf(calls: Path) -> Iterator[tuple[ai4sdk.Study, psutil.Process]]:
    """A study whose engine and zygote were killed, and a worker of it that lives on and does not listen."""
    job = ["function.x=range(3)", "+function.do=deaf", "backend.grace=1s"]
    study = ai4sdk.study("call", *job, wait=False)
    wait_until(lambda: (calls / "deaf").exists() and some_ended(study, 2))
    engine, *others = family_of(study)
    zygote = next(process for process in others if process.ppid() == engine.pid)
    worker = next(process for process in others if process.ppid() == zygote.pid)
    for process in (engine, zygote):
        process.kill()
    wait_until(lambda: not is_alive(study.paths))
    assert is_alive(study.paths.point(1))
    yield study, worker
    with contextlib.suppress(psutil.NoSuchProcess):
        worker.kill()


@pytest.mark.slow
def test_a_worker_that_outlived_its_engine_is_killed_where_it_is_in_the_way(deaf):
    study, worker = deaf
    study.resume()
    assert is_gone(worker)
    ended_once(study)


@pytest.mark.slow
def test_waiting_for_a_worker_that_outlived_its_engine_can_be_cancelled_and_so_can_the_worker(deaf):
    study, worker = deaf
    study.resume(wait=False)
    time.sleep(1.0)
    assert not study.state.ended
    study.cancel()
    assert study.state is State.CANCELLED
    assert not is_gone(worker)
    assert main(["cancel", f"{study.id}/1", "--now"]) == 0
    wait_until(lambda: is_gone(worker))
    assert not is_alive(study.paths.point(1))


@pytest.mark.slow
def test_a_hydra_sweeper_goes_on_after_a_kill_with_the_points_it_had(calls):
    job = ["function.x=range(8)", "sweep.search=hydra:basic", "sweep.options={max_batch_size: 3}"]
    study = ai4sdk.study("call", *job, "+function.pause=0.4", wait=False)
    wait_until(lambda: some_ended(study, 4))
    before = {r.point.number: (r.point.digest, r.attempts) for r in study.view.results if r.state.final}
    os.kill(study.status.pid or 0, signal.SIGKILL)
    wait_until(lambda: not is_alive(study.paths))
    study.resume()
    found = {r.point.number: (r.point.digest, r.attempts) for r in study.view.results}
    assert before.items() <= found.items()
    assert {r.point.number: r.values for r in study.view.results} == {x: (float((x - 3) ** 2),) for x in range(8)}


@pytest.mark.slow
@pytest.mark.parametrize("how", ["no JSON", "no such point"])
def test_a_ledger_damaged_in_the_middle_is_told_with_its_line_and_left_alone(calls, capfd, how):
    study = ai4sdk.study("call", "function.x=range(20)", "+function.pause=0.2", wait=False)
    wait_until(lambda: some_ended(study, 3))
    study.cancel()
    lines = study.paths.ledger.read_bytes().splitlines(keepends=True)
    middle = len(lines) // 2
    damaged = {"no JSON": b"\0" * 20 + b"\n", "no such point": b'{"event": "ended", "number": 99, "state": "failed"}\n'}
    lines[middle] = damaged[how]
    study.paths.ledger.write_bytes(b"".join(lines))
    assert main(["study", "resume", study.id]) == 2
    wait_until(lambda: not is_alive(study.paths))
    assert main(["study", "show", study.id]) == 2
    errors = capfd.readouterr().err
    assert f"points.jsonl:{middle + 1} is no record" in errors
    assert "Traceback" not in errors
    assert f"points.jsonl:{middle + 1} is no record" in (study.status.cause or "")
    assert study.paths.ledger.read_bytes() == b"".join(lines)
    assert not study.paths.log("engine").read_text()
    other = ai4sdk.study("call", "function.x=100,101")
    capfd.readouterr()
    assert main(["study", "list"]) == 2
    listed = capfd.readouterr().out.splitlines()
    assert f"points.jsonl:{middle + 1} is no record" in listed[0]
    assert listed[1].startswith(other.id)
    assert "2 of 2 points" in listed[1]


@pytest.mark.slow
def test_a_line_of_the_ledger_cut_short_by_a_kill_never_counted(calls):
    study = ai4sdk.study("call", "function.x=range(5)", "+function.pause=0.2", wait=False)
    wait_until(lambda: some_ended(study, 2))
    study.cancel()
    with open(study.paths.ledger, "ab") as file:
        file.write(b'{"time": 1, "event": "ended", "number": 4, "sta')
    assert study.view.results[4].state is not PointState.SUCCEEDED
    study.resume()
    ended_once(study)


@pytest.fixture
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A disk of three megabytes."""
    folder = tmp_path_factory.mktemp("small")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], check=False).returncode:
        pytest.skip("no small disk can be made here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=False)


@pytest.mark.slow
def test_a_full_disk_is_named_at_once_and_resuming_completes_the_study(calls, small_disk):
    study = ai4sdk.study("call", "function.x=range(12)", "+function.pause=0.1", f"runs={small_disk}/runs", wait=False)
    wait_until(lambda: some_ended(study, 2))
    with open(small_disk / "filler", "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"0" * 4096)
    wait_until(lambda: not is_alive(study.paths), 20)
    assert (study.state, study.status.exit_code) == (State.FAILED, 7)
    assert "No space left on device" in (study.status.cause or "")
    (small_disk / "filler").unlink()
    study.resume()
    ended_once(study)


@pytest.mark.slow
def test_an_environment_that_has_changed_is_told_and_changing_it_back_helps(calls, monkeypatch):
    (calls / "configs/env.yaml").write_text(
        'defaults: [call, _self_]\nfunction: {pause: "${oc.decode:${oc.env:PAUSE}}"}\n'
    )
    monkeypatch.setenv("PAUSE", "0.3")
    study = ai4sdk.study("env", "function.x=range(5)", wait=False)
    wait_until(lambda: some_ended(study))
    study.cancel()
    monkeypatch.delenv("PAUSE")
    with pytest.raises(ai4sdk.errors.RunFailed, match="needs the environment variable PAUSE"):
        study.resume()
    monkeypatch.setenv("PAUSE", "0.4")
    with pytest.raises(ai4sdk.errors.RunFailed, match="would not be what was planned"):
        study.resume()
    monkeypatch.setenv("PAUSE", "0.3")
    study.resume()
    ended_once(study)


def test_an_exception_of_the_engine_itself_is_no_kill(calls, monkeypatch, capfd):
    paths = StudyPaths(calls / "runs/20260301-120000-call-abcd")
    lock = fill_run(paths.root, {"study.json": make_study("call", ["function.x=1,2"]).to_json()})

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("no sampler divides by nothing")

    monkeypatch.setattr("ai4sdk.studies.engine.Engine", broken)
    execute(paths, lock)
    state = read_state(paths)
    assert (state.state, state.exit_code) == (State.FAILED, 1)
    assert "ZeroDivisionError: no sampler divides by nothing" in (state.cause or "")
    assert "Traceback" in capfd.readouterr().err
    assert hold_lock(paths) is not None


@pytest.mark.slow
def test_what_the_machine_made_fail_too_often_goes_on_when_it_is_resumed(calls):
    with pytest.raises(RunInterrupted, match=r"1 of 3 points could not be finished: point 1: .*SIGKILL"):
        ai4sdk.study("call", "function.x=range(3)", "+function.do=die", "sweep.retries=1")
    study = ai4sdk.open_study()
    assert study.view.results[1].attempts == 2
    (calls / "mended").touch()
    study.resume()
    ended_once(study)
    assert study.view.results[1].attempts == 3
