"""The store in a file: made once, by one of many, never overwritten."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from .conftest import client_of, expected_history, history, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store as MLflow makes it; copies of it save five seconds a test."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    SqlAlchemyStore(f"sqlite:///{file}", str(file.parent / "artifacts"))._dispose_engine()
    return file


def test_two_runs_that_start_at_once_make_one_store(make_run: Any) -> None:
    runs = [make_run() for _ in range(3)]
    for run in runs:
        run.log(1, loss=0.5)
    shippers = [run.start_shipper() for run in runs]
    for run in runs:
        wait_until(lambda run=run: run.ledger.get("offset"), "the first record")
        run.log(2, loss=0.4)
        run.end()
    assert [shipper.wait(timeout=120) for shipper in shippers] == [0, 0, 0]

    folder = runs[0].paths.root.parent
    client = client_of(f"sqlite:///{folder}/mlflow.db")
    assert {run.ledger["experiment_id"] for run in runs} == {client.get_experiment_by_name("digits").experiment_id}
    for run in runs:
        assert run.ledger["last_error"] is None
        assert history(client, run.ledger["run_id"]) == expected_history(run.paths.metrics)
        assert "ERROR" not in run.said
    assert sorted(file.name for file in folder.iterdir() if not file.is_dir()) == [".mlflow.lock", "mlflow.db"]


@pytest.mark.parametrize("folder", ["my runs", "Ana's 100% örtchen?#1:8080"])
def test_the_runs_folder_may_have_any_name(make_run: Any, folder: str, tmp_path: Path) -> None:
    run = make_run(folder=folder)
    run.log(1, loss=0.5)
    run.end()
    run.ship()
    assert run.ledger["finished"], run.said
    assert (tmp_path / folder / "mlflow.db").is_file()
    # A copy at a plain address: its user's own quoting is not what is tested.
    shutil.copy(tmp_path / folder / "mlflow.db", tmp_path / "copy.db")
    client = client_of(f"sqlite:///{tmp_path}/copy.db")
    assert history(client, run.ledger["run_id"]) == expected_history(run.paths.metrics)
    names = {file.path for file in client.list_artifacts(run.ledger["run_id"])}
    assert {"plan.json", "config.yaml", "environment"} <= names
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted([folder, "here", "stderr.txt", "copy.db"])


def test_nothing_is_left_in_the_current_folder(make_run: Any, tmp_path: Path) -> None:
    run = make_run()
    run.log(1, loss=0.5)
    run.end()
    run.ship()
    assert list((tmp_path / "here").iterdir()) == []


def test_a_store_whose_making_was_killed_is_made_by_the_next(make_run: Any) -> None:
    run = make_run()
    run.log(1, loss=0.5)
    run.end()
    folder = run.paths.root.parent
    for delay in (0.0, 0.3, 0.8):
        shipper = run.start_shipper()
        wait_until(lambda: list(folder.glob(".mlflow.db.part*")), "the making")
        time.sleep(delay)
        shipper.send_signal(signal.SIGKILL)
        shipper.wait()
    run.ship()
    assert run.ledger["finished"], run.said
    assert list(folder.glob(".mlflow.db.part*")) == []
    client = client_of(f"sqlite:///{folder}/mlflow.db")
    assert history(client, run.ledger["run_id"]) == expected_history(run.paths.metrics)


def damaged(file: Path) -> None:
    file.write_bytes(b"not a database at all" * 1000)


def of_another_program(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE fish (name TEXT)")


def of_an_older_version(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '0123456789ab'")
        connection.execute("DROP TABLE logged_models")


@pytest.mark.parametrize(
    ("spoil", "copied", "words"),
    [
        (damaged, False, "damaged, or not a store of MLflow"),
        (of_another_program, False, "is not a store of MLflow"),
        (of_an_older_version, True, "mlflow db upgrade"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_and_left_alone(
    make_run: Any, empty_store: Path, spoil: Any, copied: bool, words: str
) -> None:
    run = make_run()
    store = run.paths.root.parent / "mlflow.db"
    if copied:
        shutil.copy(empty_store, store)
    spoil(store)
    before = store.read_bytes()
    run.log(1, loss=0.5)
    run.end()
    run.ship()
    assert store.read_bytes() == before
    assert words in run.ledger["last_error"]
    assert str(store) in run.ledger["last_error"]
    assert run.ledger["pending"] >= 2
    assert words in run.said
    assert "Traceback" not in run.said


def test_a_locked_store_delays_records_and_loses_none(make_run: Any, empty_store: Path) -> None:
    run = make_run()
    store = run.paths.root.parent / "mlflow.db"
    shutil.copy(empty_store, store)
    with closing(sqlite3.connect(store, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        run.log(1, loss=0.5)
        shipper = run.start_shipper()
        wait_until(lambda: run.ledger.get("last_error"), "the complaint")
        assert "locked by another process" in run.ledger["last_error"]
        connection.execute("ROLLBACK")
    run.end()
    assert shipper.wait(timeout=120) == 0
    assert run.ledger["last_error"] is None
    assert history(client_of(f"sqlite:///{store}"), run.ledger["run_id"]) == expected_history(run.paths.metrics)


def test_a_store_that_was_thrown_away_is_made_anew_and_filled(make_run: Any) -> None:
    run = make_run()
    for step in range(20):
        run.log(step, loss=step)
    run.end()
    run.ship()
    first = run.ledger["run_id"]
    store = run.paths.root.parent / "mlflow.db"
    store.unlink()
    run.ship("--once")
    assert run.ledger["run_id"] != first
    assert run.ledger["finished"]
    assert history(client_of(f"sqlite:///{store}"), run.ledger["run_id"]) == expected_history(run.paths.metrics)


def test_a_store_named_in_the_job_starts_at_the_project(make_run: Any, tmp_path: Path) -> None:
    project = tmp_path / "project"
    run = make_run(uri="sqlite:///records/mine.db", change=lambda plan: plan["created"].update(project=str(project)))
    run.log(1, loss=0.5)
    run.end()
    run.ship()
    store = project / "records" / "mine.db"
    assert history(client_of(f"sqlite:///{store}"), run.ledger["run_id"]) == expected_history(run.paths.metrics)
    assert (project / "records" / "mlartifacts" / "digits").is_dir()
    assert not (tmp_path / "runs" / "mlflow.db").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_named(make_run: Any) -> None:
    run = make_run()
    run.log(1, loss=0.5)
    run.end()
    folder = run.paths.root.parent
    folder.chmod(0o500)
    try:
        run.ship("--patience", "1")
    finally:
        folder.chmod(0o700)
    assert "Permission denied" in run.ledger["last_error"]
