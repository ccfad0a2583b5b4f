"""What is in the run directory arrives, once, whatever happens to who ships it."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ai4sdk.tracking import pending

from .conftest import ROOT, Run, client_of, expected_history, history, wait_until

pytestmark = pytest.mark.slow


def _has_or_ended(run: Run, marker: str, shipper: subprocess.Popen[bytes]) -> bool:
    return bool(run.ledger.get(marker)) or shipper.poll() is not None


def client(run: Run) -> Any:
    return client_of(f"sqlite:///{run.paths.root.parent}/mlflow.db")


def status(run: Run) -> str:
    word: str = client(run).get_run(run.ledger["run_id"]).info.status
    return word


def test_killing_the_shipper_again_and_again_loses_nothing_and_doubles_nothing(make_run: Any) -> None:
    run = make_run(flush_every=0.05)
    step, chance = 0, random.Random(7)

    def train(steps: int, attempt: int) -> None:
        nonlocal step
        for _ in range(steps):
            step += 1
            run.log(step, later=attempt, loss=attempt + 1 / step, **{"val/acc": step / 1000} if step % 10 == 0 else {})
        if attempt % 4 == 3:  # the training was killed too, and goes on from an earlier checkpoint
            step -= steps // 2

    for attempt in range(12):
        shipper = run.start_shipper()
        before = run.ledger.get("updated", 0)
        if attempt % 2:  # half of the kills fall into sending, half into anything from the import on
            wait_until(lambda before=before: run.ledger.get("updated", 0) > before, "the shipper to be at work")
        until = time.monotonic() + chance.uniform(0, 1.5)
        while time.monotonic() < until:
            train(20, attempt)
            time.sleep(0.01)
        shipper.send_signal(signal.SIGKILL)
        shipper.wait()
    train(300, 0)
    run.end()
    run.ship()

    assert run.ledger["finished"], run.said
    found = history(client(run), run.ledger["run_id"])
    assert found == expected_history(run.paths.metrics)
    assert len(found["loss"]) > 300
    runs = client(run).search_runs([run.ledger["experiment_id"]])
    assert [one.info.run_name for one in runs] == [run.paths.id]
    assert pending(run.paths.root) == 0


def test_killing_the_shipper_while_it_ends_a_run_makes_one_model_and_one_version(make_run: Any) -> None:
    run = make_run(register_as="digits", alias="champion")
    run.log(1, loss=0.5)
    run.leave_results()
    shipper = run.start_shipper()
    wait_until(lambda: run.ledger.get("described"), "the run")
    run.end()
    for marker in ("scores", "model", "registered", "ending"):
        wait_until(partial(_has_or_ended, run, marker, shipper), marker)
        shipper.send_signal(signal.SIGKILL)
        shipper.wait()
        run.paths.tracking.unlink()  # even with no memory of what it did
        shipper = run.start_shipper()
    assert shipper.wait(timeout=120) == 0

    mlflow = client(run)
    models = mlflow.search_logged_models([run.ledger["experiment_id"]])
    assert [(model.model_id, str(model.status)) for model in models] == [(run.ledger["model"]["id"], "READY")]
    assert [version.version for version in mlflow.search_model_versions("name = 'digits'")] in (["1"], [1])
    outputs = mlflow.get_run(run.ledger["run_id"]).outputs.model_outputs
    assert [output.model_id for output in outputs] == [models[0].model_id]
    accuracy = mlflow.get_metric_history(run.ledger["run_id"], "test/accuracy")
    assert [(point.step, point.value) for point in accuracy] == [(1, 0.975)]


def test_a_run_that_is_resumed_goes_on_in_its_mlflow_run(make_run: Any) -> None:
    run = make_run()
    for step in range(10):
        run.log(step, loss=step)
    run.end("failed", cause="the disk was full")
    run.ship()
    first = run.ledger["run_id"]
    assert status(run) == "FAILED"
    assert client(run).get_run(first).data.tags["ai4sdk.cause"] == "the disk was full"

    run.say("running", attempt=2)
    shipper = run.start_shipper()
    wait_until(lambda: run.ledger.get("finished") is False, "the second attempt")
    assert status(run) == "RUNNING"
    for step in range(5, 20):
        run.log(step, later=30, loss=step + 0.5)
    run.end("succeeded", attempt=2)
    assert shipper.wait(timeout=60) == 0
    assert run.ledger["run_id"] == first
    assert status(run) == "FINISHED"
    assert client(run).get_run(first).data.tags["ai4sdk.cause"] == ""
    assert history(client(run), first) == expected_history(run.paths.metrics)


@pytest.mark.parametrize(
    ("state", "word"),
    [("succeeded", "FINISHED"), ("failed", "FAILED"), ("cancelled", "KILLED"), ("interrupted", "KILLED")],
)
def test_the_end_of_a_run_is_told_in_mlflows_words(make_run: Any, state: str, word: str) -> None:
    run = make_run()
    run.end(state)
    run.ship()
    info = client(run).get_run(run.ledger["run_id"]).info
    assert (info.status, info.start_time, info.end_time) == (word, 1_772_360_100_000, 1_772_360_160_000)


def test_a_run_whose_supervisor_vanished_is_shipped_and_told_as_killed(make_run: Any) -> None:
    run = make_run()
    run.log(1, loss=0.5)
    assert run.lock is not None
    # A supervisor that starts the shipper, and is killed with the run's lock in its hand.
    script = (
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen([{sys.executable!r}, '-m', 'ai4sdk.tracking', {str(run.paths.root)!r}])\n"
        "print(child.pid, flush=True)\ntime.sleep(600)\n"
    )
    supervisor = subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        pass_fds=[run.lock],
    )
    run.let_go()
    run.processes.append(supervisor)
    assert supervisor.stdout is not None
    shipper = int(supervisor.stdout.readline())
    wait_until(lambda: run.ledger.get("offset"), "the first record")
    run.log(2, loss=0.4)
    supervisor.kill()
    supervisor.wait()
    supervisor.stdout.close()
    wait_until(lambda: not Path(f"/proc/{shipper}").exists(), "the shipper to stop")
    assert status(run) == "KILLED"
    assert history(client(run), run.ledger["run_id"]) == expected_history(run.paths.metrics)
    assert pending(run.paths.root) == 0


def test_told_to_stop_it_ships_what_there_is_and_leaves_a_living_run_running(make_run: Any) -> None:
    run = make_run(flush_every=60)
    shipper = run.start_shipper()
    wait_until(lambda: run.ledger.get("described"), "the run")
    run.log(1, loss=0.5)
    shipper.send_signal(signal.SIGTERM)
    assert shipper.wait(timeout=60) == 0
    assert status(run) == "RUNNING"
    assert history(client(run), run.ledger["run_id"]) == expected_history(run.paths.metrics)


def test_a_run_directory_deleted_under_it_ends_it(make_run: Any) -> None:
    run = make_run()
    run.log(1, loss=0.5)
    shipper = run.start_shipper()
    wait_until(lambda: run.ledger.get("offset"), "the first record")
    run_id = run.ledger["run_id"]
    shutil.rmtree(run.paths.root)
    assert shipper.wait(timeout=60) == 0
    assert client(run).get_run(run_id).info.status == "KILLED"
    assert not run.paths.root.exists()


def test_a_second_shipper_leaves_a_run_to_the_first(make_run: Any) -> None:
    run = make_run()
    first = run.start_shipper()
    wait_until(lambda: run.ledger.get("described"), "the first")
    run.ship("--once")
    assert "another process ships this run" in run.said
    assert first.poll() is None
    run.log(1, loss=0.5)
    run.end()
    assert first.wait(timeout=60) == 0
    assert history(client(run), run.ledger["run_id"]) == expected_history(run.paths.metrics)


def test_a_run_that_is_not_recorded_costs_nothing(make_run: Any) -> None:
    run = make_run(kind="none")
    run.log(1, loss=0.5)
    run.end()
    run.ship()
    assert run.ledger == {}
    assert pending(run.paths.root) == 0
    assert not (run.paths.root.parent / "mlflow.db").exists()


def test_a_deleted_mlflow_run_is_not_brought_back_unasked(make_run: Any) -> None:
    run = make_run()
    run.log(1, loss=0.5)
    run.end()
    run.ship()
    run_id = run.ledger["run_id"]
    client(run).delete_run(run_id)
    run.say("running", attempt=2)
    run.log(2, loss=0.4)
    run.end(attempt=2)
    run.ship()
    assert f"mlflow runs restore --run-id {run_id}" in run.ledger["last_error"]
    assert run.ledger["pending"] > 0
    client(run).restore_run(run_id)
    run.ship("--once")
    assert run.ledger["last_error"] is None
    assert history(client(run), run_id) == expected_history(run.paths.metrics)


def test_nan_infinity_and_odd_names_are_kept_as_mlflow_keeps_them(make_run: Any) -> None:
    run = make_run()
    run.log(
        1, **{"loss": float("nan"), "up": float("inf"), "down": float("-inf"), "f1(a)": 1.0, "f1[a]": 2.0, "/x": 3.0}
    )
    run.end()
    run.ship()
    assert run.ledger["finished"], run.said
    values = client(run).get_run(run.ledger["run_id"]).data.metrics
    assert values["loss"] != values["loss"]
    assert (values["up"], values["down"]) == (sys.float_info.max, -sys.float_info.max)
    assert values["f1_a_"] == 1.0
    assert [value for name, value in values.items() if name.startswith("f1_a_-")] == [2.0]
    assert values["x"] == 3.0


def test_fifty_thousand_records_ship_in_bounded_memory(make_run: Any) -> None:
    run = make_run()
    line = '{{"time": {0}.5, "step": {1}, "epoch": 0, "metrics": {{"loss": 0.{1}, "lr": 0.001}}}}\n'
    run.paths.metrics.write_text("".join(line.format(1_772_360_100 + n, n) for n in range(50_000)), encoding="utf-8")
    run.end()
    shipper = run.start_shipper()
    peak = 0
    while shipper.poll() is None:
        try:
            found = Path(f"/proc/{shipper.pid}/status").read_text(encoding="utf-8")
            peak = max(peak, *(int(row.split()[1]) for row in found.splitlines() if row.startswith("VmHWM")))
        except (FileNotFoundError, ProcessLookupError, TypeError):
            break
        time.sleep(0.1)
    assert shipper.wait(timeout=300) == 0
    assert run.ledger["finished"], run.said
    assert history(client(run), run.ledger["run_id"]) == expected_history(run.paths.metrics)
    assert peak < 400 * 1024  # kB; MLflow itself takes 250


def test_a_password_that_was_spelled_out_is_not_uploaded(make_run: Any, tmp_path: Path) -> None:
    def spell_out(plan: dict[str, Any]) -> None:
        plan["job"]["storage"]["password"] = "hunter2-hunter2"

    run = make_run(change=spell_out)
    run.paths.config.write_text("storage:\n  password: hunter2-hunter2\n", encoding="utf-8")
    run.end()
    run.ship()
    uploaded = [file for file in (tmp_path / "runs" / "mlartifacts").rglob("*") if file.is_file()]
    assert {"plan.json", "config.yaml"} <= {file.name for file in uploaded}
    assert not [file for file in uploaded if b"hunter2" in file.read_bytes()]
    assert "hunter2" not in str(client(run).get_run(run.ledger["run_id"]).to_dictionary())


def test_catching_up_says_what_came_of_it(make_run: Any) -> None:
    run = make_run()
    run.log(1, loss=0.5)
    run.end()

    def catch_up() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ai4sdk.tracking", "--sync", str(run.paths.root)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)

    first, second = catch_up(), catch_up()
    assert (first.returncode, second.returncode) == (0, 0)
    assert first.stdout.startswith(f"{run.paths.id}: 4 records and files sent, MLflow run ")
    assert second.stdout.startswith(f"{run.paths.id}: all is there")
    run.paths.plan.unlink()
    third = catch_up()
    assert third.returncode == 6
    assert "Traceback" not in third.stderr
