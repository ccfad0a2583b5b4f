"""Studies that really run: nothing twice, nothing lost, whatever is killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from safetensors.numpy import load_file

import ai4sdk
from ai4sdk.cli.app import main
from ai4sdk.errors import RunFailed, RunInterrupted, UsageError
from ai4sdk.runs.state import State, is_alive
from ai4sdk.studies.point import PointState

KILLS = int(os.environ.get("AI4SDK_KILLS", "20"))

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

CODE = """
import os, random, sys, time


def score(x=0, y=0.0, seed_too=False, do=None, pause=0.0, mark=False):
    time.sleep(pause)
    if mark:  # who was called, and how often
        with open("marks", "a") as file:
            file.write(f"{x}\\n")
    if do and x == 1:
        {
            "raise": lambda: 1 / 0,
            "exit": lambda: sys.exit(3),
            "abort": os.abort,
            "kill": lambda: os.kill(os.getpid(), 9),
            "hang": hang,
            "wait": lambda: time.sleep(3600),
            "leak": leak,
            "once": lambda: os.path.exists("mended") or 1 / 0,
        }[do]()
    return {"loss": (x - 3) ** 2 + y + (random.random() if seed_too else 0)}


def hang():
    import signal
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    while True:
        time.sleep(1)


def leak():
    held = []
    while True:
        held.append(bytearray(10_000_000))
        time.sleep(0.01)
"""

CONFIG = """
name: call
function: {_target_: mine.score, x: 0}
hardware: {cpus: 1}
tracking: {kind: none}
sweep: {parallel: 2, objective: loss}
"""


@pytest.fixture
def calls(project: Path) -> Path:
    """A project with a function to sweep over."""
    (project / "mine.py").write_text(CODE)
    (project / "configs/call.yaml").write_text(CONFIG)
    return project


def values_of(study: ai4sdk.Study) -> dict[int, tuple[float, ...] | None]:
    return {result.point.number: result.values for result in study.view.results}


def states_of(study: ai4sdk.Study) -> Counter[str]:
    return Counter(str(result.state) for result in study.view.results)


def wait_until(true: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.05)


def wait_for_end(study: ai4sdk.Study) -> None:
    wait_until(lambda: not is_alive(study.paths))


def processes_of(study: ai4sdk.Study) -> list[psutil.Process]:
    """All processes that work for a study."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and (
                study.id in " ".join(process.cmdline()) or process.environ().get("AI4SDK_STUDY") == study.id
            ):
                found += [process, *process.children(recursive=True)]
        except (psutil.Error, OSError):
            continue
    return list({process.pid: process for process in found}.values())


NET = (
    "module._target_=noisy.Net",
    "tracking.kind=none",
    "hardware.cpus=1",
    "sweep.parallel=2",
    "training.max_epochs=3",
    "+training.checkpoint.monitor=val_loss",
)
NOISY = """
import torch
from net import Net as Plain


class Net(Plain):
    def training_step(self, batch, batch_idx):
        x, y = batch
        return super().training_step((x + 0.1 * torch.randn_like(x), y), batch_idx)
"""


def test_a_point_gives_bit_for_bit_what_its_plan_gives_alone_and_is_never_run_again(project):
    (project / "noisy.py").write_text(NOISY)
    study = ai4sdk.study("train", *NET, "seed=1,2", "optimizer=adam,sgd")
    assert states_of(study) == {"succeeded": 4}
    assert study.best is not None
    assert study.best.scores
    alone = ai4sdk.run("train", *NET, "seed=2", "optimizer=sgd")
    (point,) = [result for result in study.results if set(result.point.overrides) == {"seed=2", "optimizer=sgd"}]
    assert point.run is not None
    ours, theirs = (load_file(folder / "package/weights.safetensors") for folder in (point.run, alone.folder))
    assert {name: array.tobytes() for name, array in ours.items()} == {n: a.tobytes() for n, a in theirs.items()}

    more = ai4sdk.study("train", *NET, "seed=1,2,3", "optimizer=adam,sgd")
    assert Counter(result.reused for result in more.view.results) == {True: 4, False: 2}
    assert {r.point.overrides: r.values for r in study.view.results}.items() <= {
        r.point.overrides: r.values for r in more.view.results
    }.items()
    assert [*more.folder.glob("points/*/plan.json")] == [more.folder / f"points/0000{n}/plan.json" for n in (4, 5)]
    best = ai4sdk.plan(str(more.folder / "best.yaml"))
    assert best.digest == more.results[0].point.digest


def test_the_best_point_has_pictures_and_any_other_gets_them_when_asked_for(project, capsys):
    (project / "noisy.py").write_text(NOISY)
    study = ai4sdk.study("train", *NET, "seed=1,2,3")
    best, second, _ = study.results
    assert list(best.run.glob("evaluation/*.png"))
    assert "data:image/png" in (best.run / "report.html").read_text()
    assert not list(second.run.glob("evaluation/*.png"))
    reference = f"{study.id}/{second.point.number}"
    assert f"ai4sdk report {reference}" in (second.run / "report.html").read_text()
    assert main(["report", reference]) == 0
    assert "data:image/png" in Path(capsys.readouterr().out.strip()).read_text()
    assert list(second.run.glob("evaluation/*.png"))
    (second.run / "evaluation/metrics.json").write_text("{")
    assert main(["report", reference]) == 3


def test_points_that_watch_different_metrics_are_compared_by_the_one_asked_for(project):
    watched = "+training.checkpoint.monitor=val_loss,train_loss"
    study = ai4sdk.study("train", *NET[1:5], watched, "sweep.objective=val_loss")
    for number, by_best in ((0, True), (1, False)):
        run = ai4sdk.open_run(f"{study.id}/{number}")
        losses = [record["metrics"]["val_loss"] for record in run.metrics() if "val_loss" in record["metrics"]]
        assert values_of(study)[number] == (pytest.approx(min(losses) if by_best else losses[-1]),)


def test_a_single_run_counts_as_done_and_equal_points_run_once(calls):
    ai4sdk.run("call", "function.x=2", "+function.mark=true")
    study = ai4sdk.study("call", "+function.mark=true", "function.x=2,4", "tags={a: b},{a: c}")
    assert sorted((calls / "marks").read_text().split()) == ["2", "4"]
    assert states_of(study) == {"succeeded": 4}  # tags change no result: each value ran once
    assert sum(result.reused for result in study.view.results) == 3


def test_a_point_that_fails_fails_alone_and_can_be_tried_again(calls):
    with pytest.raises(RunFailed, match=r"1 of 4 points failed: point 1: .*ZeroDivisionError"):
        ai4sdk.study("call", "function.x=range(4)", "+function.do=once", "+function.mark=true")
    study = ai4sdk.open_study()
    assert states_of(study) == {"succeeded": 3, "failed": 1}
    assert study.status.exit_code == 4
    assert (study.folder / "report.html").exists()
    (calls / "mended").touch()
    study.resume(failed_too=True)
    assert states_of(study) == {"succeeded": 4}
    assert Counter((calls / "marks").read_text().split()) == {"0": 1, "1": 2, "2": 1, "3": 1}


@pytest.mark.parametrize(
    ("do", "options", "cause"),
    [
        ("exit", [], "sys.exit"),
        ("abort", [], "SIGABRT"),
        ("hang", ["hardware.wall_time=2s", "backend.grace=1s"], "hardware.wall_time"),
        ("leak", ["hardware.memory=400MB"], "hardware.memory"),
    ],
)
def test_a_point_that_takes_its_worker_down_harms_no_other(calls, do, options, cause):
    with pytest.raises(RunFailed, match="1 of 3 points failed"):
        ai4sdk.study("call", "function.x=range(3)", f"+function.do={do}", *options)
    results = {result.point.params["function.x"]: result for result in ai4sdk.open_study().view.results}
    assert [str(results[x].state) for x in range(3)] == ["succeeded", "failed", "succeeded"]
    assert cause in (results[1].cause or "")
    assert results[1].attempts == 1


def test_what_the_machine_made_fail_is_tried_again_but_not_for_ever(calls):
    with pytest.raises(RunInterrupted, match=r"1 of 3 points could not be finished: point 1: .*SIGKILL"):
        ai4sdk.study("call", "function.x=range(3)", "+function.do=kill", "sweep.retries=1")
    study = ai4sdk.open_study()
    assert {r.point.number: r.attempts for r in study.view.results} == {0: 1, 1: 2, 2: 1}
    assert states_of(study) == {"succeeded": 2, "interrupted": 1}


def test_a_point_whose_time_is_over_without_anything_saved_has_failed_and_is_not_tried_again(calls):
    study = ai4sdk.study("call", "function.x=1,2", "+function.do=wait", "hardware.wall_time=1s", wait=False)
    with pytest.raises(RunFailed, match="is too short"):
        study.wait()
    assert [(result.state, result.attempts) for result in study.view.results] == [("failed", 1), ("succeeded", 1)]


SLOW = """
import time

from net import Net as Plain


class Net(Plain):
    def training_step(self, batch, batch_idx):
        time.sleep(0.5)
        return super().training_step(batch, batch_idx)
"""


def test_a_point_whose_time_is_over_goes_on_from_its_checkpoint_as_long_as_it_gets_further(project):
    (project / "slow.py").write_text(SLOW)
    job = ["module._target_=slow.Net", *NET[1:3], "training.max_epochs=8", "hardware.wall_time=4s", "sweep.retries=0"]
    study = ai4sdk.study("train", *job, "seed=1,2")
    assert states_of(study) == {"succeeded": 2}
    assert all(result.attempts > 1 for result in study.view.results)


def test_an_objective_that_nothing_measures_ends_the_study_at_its_first_point(calls):
    with pytest.raises(RunFailed, match="it has no los; it has loss, if that is meant"):
        ai4sdk.study("call", "function.x=range(50)", "sweep.objective=los")
    study = ai4sdk.open_study()
    assert study.status.exit_code == 2
    assert states_of(study)["waiting"] > 40
    again = ai4sdk.study("call", "function.x=range(50)")
    assert states_of(again) == {"succeeded": 50}
    assert any(result.reused for result in again.view.results)


def disturb(study: ai4sdk.Study, rng: random.Random, kills: int, pause: tuple[float, float]) -> int:
    """Kill processes of a study at random moments, and resume it each time it has died of that."""
    done = 0
    while done < kills and study.state is not State.SUCCEEDED:
        time.sleep(rng.uniform(*pause))
        status = study.status
        if status.state is not State.SUCCEEDED and not is_alive(study.paths):
            study.resume(wait=False)
            continue
        if (engine := status.pid) is None:
            continue  # still starting
        try:
            family = [process.pid for process in psutil.Process(engine).children(recursive=True)]
            os.kill(rng.choice(family) if family and rng.random() < 0.6 else engine, signal.SIGKILL)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue  # the engine of the last resume is still starting, or the study has just ended
        done += 1
        time.sleep(0.2)
    while study.state is not State.SUCCEEDED:
        wait_for_end(study)
        if study.state is not State.SUCCEEDED:
            study.resume(wait=False)
    return done


@pytest.mark.parametrize("search", ["grid", "random"])
def test_a_study_killed_at_random_moments_ends_with_the_results_of_an_undisturbed_one(calls, search):
    axes = {"grid": ["function.x=range(60)"], "random": ["function.x=int(interval(0,10000))", "sweep.points=60"]}
    job = [*axes[search], f"sweep.search={search}", "+function.seed_too=true", "sweep.retries=100"]
    undisturbed = ai4sdk.study("call", *job, "runs=elsewhere")
    study = ai4sdk.study("call", *job, "+function.pause=0.25", wait=False)
    kills = disturb(study, random.Random(7), KILLS, (0.1, 1.0))
    assert kills >= min(KILLS, 8), "it ended before it was disturbed often enough"
    # The pause is part of the plan, but changes no random number and no value.
    assert values_of(study) == values_of(undisturbed)
    assert states_of(study) == {"succeeded": 60}
    ended = [json.loads(line) for line in study.paths.ledger.read_text().splitlines()]
    assert Counter(e["number"] for e in ended if e["event"] == "ended" and e["state"] == "succeeded") == Counter(
        range(60)
    )


def test_a_search_killed_at_random_moments_has_as_many_points_as_asked_each_once(calls):
    job = ["function.x=interval(0,10)", "sweep.search=tpe", "sweep.points=30", "sweep.retries=100"]
    study = ai4sdk.study("call", *job, "+function.pause=0.3", wait=False)
    disturb(study, random.Random(3), KILLS, (0.2, 1.2))
    results = study.view.results
    assert [result.point.number for result in results] == list(range(30))
    assert states_of(study) == {"succeeded": 30}
    assert len({result.point.digest for result in results}) == 30
    assert study.results[0].values is not None
    assert study.results[0].values[0] < 0.1


def test_points_that_do_not_look_promising_are_given_up_and_stay_so_after_a_kill(project):
    (project / "noisy.py").write_text(NOISY)
    study = ai4sdk.study(
        "train", *NET, "training.max_epochs=8", "optimizer=sgd", "optimizer.lr=tag(log,interval(1e-6,1))",
        "sweep.search=random", "sweep.points=12", "sweep.objective=val_loss",
        "+sweep.pruner={kind: median, options: {n_startup_trials: 2}}", wait=False,
    )  # fmt: skip
    wait_until(lambda: sum(result.state.final for result in study.view.results) >= 3)
    before = {r.point.number: (r.state, r.values) for r in study.view.results if r.state.final}
    os.kill(study.status.pid or 0, signal.SIGKILL)
    wait_for_end(study)
    study.resume()
    found = {r.point.number: (r.state, r.values) for r in study.view.results}
    assert sorted(found) == list(range(12))
    assert before.items() <= found.items()
    assert any(state is PointState.PRUNED for state, _ in found.values())
    assert all(state.final for state, _ in found.values())


def test_a_cancelled_study_goes_on_where_it_was(calls):
    study = ai4sdk.study("call", "function.x=range(8)", "+function.pause=0.5", "+function.mark=true", wait=False)
    wait_until(lambda: any(result.state.final for result in study.view.results))
    study.cancel()
    assert study.state is State.CANCELLED
    wait_until(lambda: not processes_of(study), 20)
    done = {r.point.number for r in study.view.results if r.state.final}
    with pytest.raises(UsageError, match="is not running"):
        study.cancel()
    study.resume()
    assert states_of(study) == {"succeeded": 8}
    called = Counter((calls / "marks").read_text().split())
    assert all(called[str(number)] == 1 for number in done)


def test_a_running_study_is_not_started_twice_and_two_studies_share_a_project(calls):
    one, other = (ai4sdk.study("call", "function.x=range(6)", "+function.pause=0.3", wait=False) for _ in range(2))
    with pytest.raises(UsageError, match=r"is (queued|running)"):
        one.resume()
    one.wait()
    other.wait()
    assert values_of(one) == values_of(other)
    assert states_of(one) == states_of(other) == {"succeeded": 6}


def test_studies_side_by_side_run_what_both_want_once(calls):
    common = ("call", "+function.pause=0.5", "+function.mark=true")
    one = ai4sdk.study(*common, "function.x=range(4)", wait=False)
    other = ai4sdk.study(*common, "function.x=range(2,6)", wait=False)
    one.wait()
    other.wait()
    assert Counter((calls / "marks").read_text().split()) == {str(x): 1 for x in range(6)}
    assert states_of(one) == states_of(other) == {"succeeded": 4}
    assert not list((calls / "runs" / "by-digest").glob("*.claim"))


def test_a_point_that_a_killed_study_was_at_is_taken_over_by_one_that_waits_for_it(calls):
    common = ("call", "+function.do=wait", "function.x=1,2")
    one = ai4sdk.study(*common, wait=False)
    wait_until(lambda: states_of(one)["succeeded"] == 1)
    other = ai4sdk.study(*common, wait=False)
    wait_until(lambda: "waits for another study" in (other.folder / "events.jsonl").read_text())
    for process in processes_of(one):
        process.kill()
    wait_until(lambda: states_of(other)["running"] == 1)
    other.cancel(now=True)
    wait_for_end(other)


def test_what_the_machine_lacks_for_every_point_ends_a_study_early(calls):
    lack = "from ai4sdk.errors import EnvironmentFault\n\ndef score(x=0, mended=False):\n"
    lack += "    if not mended:\n        raise EnvironmentFault('no such device')\n    return {'loss': x}\n"
    (calls / "lacking.py").write_text(lack)
    with pytest.raises(RunInterrupted, match="no point can run here: no such device; 6 of 6 points left"):
        ai4sdk.study("call", "function._target_=lacking.score", "function.x=range(6)", "sweep.parallel=1")
    study = ai4sdk.open_study()
    assert study.status.exit_code == 7
    assert sum(result.attempts for result in study.view.results) <= 3


def test_points_of_several_processes_give_what_their_plans_give_alone(project):
    several = ("train", "tracking.kind=none", "training.mode=ddp", "+training.processes=2", "+hardware.cpus=2")
    study = ai4sdk.study(*several, "module.width=4,5", "+sweep.parallel=1")
    alone = ai4sdk.run(*several, "module.width=5")
    best = study.view.results[1]
    assert (
        load_file(best.run / "package/weights.safetensors").keys()
        == load_file(alone.paths.package / "weights.safetensors").keys()
    )
    for name, array in load_file(alone.paths.package / "weights.safetensors").items():
        assert (load_file(best.run / "package/weights.safetensors")[name] == array).all(), name
    assert (best.run / "logs" / "train.rank1.log").exists()


@pytest.mark.parametrize("file", ["points.jsonl", "study.json"])
def test_a_damaged_file_is_told_and_never_written_to(calls, capsys, file):
    study = ai4sdk.study("call", "function.x=range(4)", "+function.pause=0.3", wait=False)
    wait_until(lambda: any(result.state.final for result in study.view.results))
    study.cancel()
    path = study.folder / file
    damaged = path.read_bytes().replace(b'"', b"\0", 3)
    path.write_bytes(damaged)
    if file == "study.json":
        assert main(["study", "resume", study.id]) == 2
    else:
        assert main(["study", "resume", study.id, "--detach"]) == 0
        wait_for_end(study)
        assert study.state is State.FAILED
        assert "points.jsonl:1 is no record" in (study.status.cause or "")
    assert main(["study", "show", study.id]) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert path.read_bytes() == damaged


def test_a_study_whose_folder_is_deleted_stops(calls):
    study = ai4sdk.study("call", "function.x=range(50)", "+function.pause=0.5", wait=False)
    wait_until(lambda: any(result.state.final for result in study.view.results))
    engine = psutil.Process(study.status.pid)
    family = [engine, *engine.children(recursive=True)]
    subprocess.run(["rm", "-rf", str(study.folder)], check=False)
    _, alive = psutil.wait_procs(family, timeout=20)
    assert not alive, alive


def test_a_full_disk_ends_a_study_clearly_and_nothing_is_lost(calls, tmp_path_factory):
    small = tmp_path_factory.mktemp("small")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(small)], check=False).returncode:
        pytest.skip("no small disk can be made here")
    try:
        study = ai4sdk.study("call", "function.x=range(20)", "+function.pause=0.1", f"runs={small}/runs", wait=False)
        study = ai4sdk.Study(study.paths)
        wait_until(lambda: any(result.state.final for result in study.view.results))
        filler = small / "filler"
        try:
            with open(filler, "wb", buffering=0) as file:
                while True:
                    file.write(b"0" * 4096)
        except OSError:
            pass
        wait_until(lambda: not is_alive(study.paths), 120)
        filler.unlink()
        assert study.state is not State.SUCCEEDED
        for _ in range(3):
            if study.state is not State.SUCCEEDED:
                study.resume(wait=False, failed_too=True)
                wait_until(lambda: study.state.ended, 120)
        assert states_of(study) == {"succeeded": 20}
    finally:
        subprocess.run(["umount", "-l", str(small)], check=False)


def test_editing_the_project_changes_nothing_in_a_study_that_runs(calls):
    study = ai4sdk.study(
        "call", "function.x=interval(0,10)", "sweep.search=tpe", "sweep.points=8", "+function.pause=0.3", wait=False
    )
    wait_until(lambda: any(result.state.final for result in study.view.results))
    (calls / "mine.py").write_text("def score(**_): return {'loss': -1000}\n")
    (calls / "configs/call.yaml").write_text("broken: [\n")
    study.wait()
    values = [value for (value,) in values_of(study).values() if value is not None]
    assert len(values) == 8
    assert min(values) >= 0


def test_a_hydra_sweeper_chooses_the_points_and_ours_runs_them(calls):
    study = ai4sdk.study("call", "function.x=1,2", "+function.y=0.5,1.5", "sweep.search=hydra:basic")
    assert values_of(study) == {0: (4.5,), 1: (5.5,), 2: (1.5,), 3: (2.5,)}
    assert not (calls / "multirun").exists()
    assert not (calls / "outputs").exists()


def test_a_hydra_sweeper_that_was_cut_short_can_be_resumed(calls):
    job = ["function.x=range(4)", "sweep.search=hydra:basic", "+sweep.options={max_batch_size: 2}"]
    study = ai4sdk.study("call", *job, "sweep.max_time=1ms")
    assert "sweep.max_time was over, before its sweeper had all its points" in str(study.status.cause)
    study.resume()  # it succeeded as far as it went, and is not refused


def test_from_the_command_line_a_study_is_shown_listed_and_exported(calls, capsys):
    assert main(["run", "-m", "config=call", "function.x=1,2,3", "seed=0,1"]) == 0
    out = capsys.readouterr().out
    assert "6 points: 6 succeeded" in out
    assert "differ in their seed" in out
    assert main(["study", "show", "--csv"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 7
    assert "function.x" in rows[0]
    assert main(["study", "show", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["points"]) == 6
    assert main(["study", "list"]) == 0
    assert "6 of 6 points" in capsys.readouterr().out
    study = ai4sdk.open_study()
    assert main(["status", f"{study.id}/3"]) == 0
    assert main(["study", "shwo"]) == 2
    assert main(["study", "resume"]) == 2
    assert main(["run", "-m", "config=call", "function.x=1"]) == 2


def test_ctrl_c_stops_a_study_with_what_it_has(calls):
    command = [
        sys.executable,
        "-m",
        "ai4sdk",
        "run",
        "-m",
        "config=call",
        "function.x=range(20)",
        "+function.pause=0.5",
    ]
    process = subprocess.Popen(command, cwd=calls, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    wait_until(lambda: [*calls.glob("runs/*/points/*/state.json")])
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "ai4sdk study resume" in errors
    assert ai4sdk.open_study().state is State.CANCELLED
