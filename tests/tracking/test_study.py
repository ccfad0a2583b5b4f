"""A study is one parent run in MLflow with its points below it, once, whatever happens to who ships it."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ai4sdk.tracking import pending, sync, tracking_uri_of
from ai4sdk.tracking.settings import read_settings

from .conftest import ROOT, Server, Study, client_of, expected_history, history, wait_until


def client(study: Study) -> Any:
    return client_of(tracking_uri_of(study.paths.root))


def runs_of(study: Study, mlflow: Any) -> tuple[Any, dict[int, Any]]:
    """Return a study's run in MLflow and its points' by number, and see that there are no others of it."""
    experiment = mlflow.get_experiment_by_name("digits").experiment_id
    (parent,) = mlflow.search_runs([experiment], f"tags.`ai4sdk.run_id` = '{study.paths.id}'")
    points = mlflow.search_runs([experiment], f"tags.`ai4sdk.study` = '{study.paths.id}'")
    assert {point.data.tags["mlflow.parentRunId"] for point in points} <= {parent.info.run_id}
    by_number = {int(point.data.tags["ai4sdk.point"]): point for point in points}
    assert len(by_number) == len(points)
    return parent, by_number


def values(mlflow: Any, run: Any, name: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in mlflow.get_metric_history(run.info.run_id, name)]


def picture(study: Study, mlflow: Any) -> dict[str, Any]:
    """All that a user sees of a study, but for MLflow's own ids."""
    parent, points = runs_of(study, mlflow)

    def seen(run: Any) -> dict[str, Any]:
        tags = {key: value for key, value in sorted(run.data.tags.items()) if key != "mlflow.parentRunId"}
        metrics = {name: sorted(values(mlflow, run, name)) for name in run.data.metrics}
        files = sorted(file.path for file in mlflow.list_artifacts(run.info.run_id))
        times = (run.info.status, run.info.start_time, run.info.end_time)
        return {
            "tags": tags,
            "params": dict(sorted(run.data.params.items())),
            "metrics": metrics,
            "files": files,
            "times": times,
        }

    return {"parent": seen(parent), **{str(number): seen(run) for number, run in sorted(points.items())}}


# -- without MLflow


def test_a_point_is_recorded_where_its_study_is(make_study: Any, make_run: Any, tmp_path: Path) -> None:
    study = make_study()
    point = study.run_point(7, 0.5)
    alone = make_run()
    store = f"sqlite:///{tmp_path}/runs/mlflow.db"
    for folder in (alone.paths.root, study.paths.root, point.paths.root):
        assert tracking_uri_of(folder) == store
    settings = read_settings(point.paths.root)
    assert settings.identity == f"{study.paths.id}/points/00007"
    assert settings.to_sync == study.paths.id
    assert settings.title == "00007 lr=0.0125, hidden=7"
    assert settings.parent is None, "the study is not in MLflow yet"


def test_a_study_that_was_moved_takes_its_points_along(make_study: Any, tmp_path: Path) -> None:
    study = make_study()
    point = study.run_point(0, 0.5)
    moved = tmp_path / "elsewhere" / study.paths.id
    shutil.move(study.paths.root, moved)
    assert tracking_uri_of(moved / "points" / point.paths.root.name) == f"sqlite:///{tmp_path}/elsewhere/mlflow.db"
    taken_out = tmp_path / "elsewhere" / "alone"
    shutil.move(moved / "points" / point.paths.root.name, taken_out)
    assert read_settings(taken_out).tags == {}


def test_what_a_study_has_pending_is_its_own_and_its_points(make_study: Any) -> None:
    study = make_study()
    assert pending(study.paths.root) == 0
    point = study.start_point(0, steps=5)
    assert pending(study.paths.root) == 2 + 5  # asked and started; 5 records
    study.end_point(point, 0.5)
    # ended; plan.json, config.yaml and the end of the point
    assert pending(study.paths.root) == 2 + 5 + 1 + 3
    study.end()
    # study.json, points.jsonl and the end of the study
    assert pending(study.paths.root) == 2 + 5 + 1 + 3 + 3


# -- with a store in a file


@pytest.mark.slow
def test_a_study_is_a_tree_with_its_values_at_the_root(make_study: Any, make_run: Any) -> None:
    study = make_study()
    shipper = study.start_shipper("--study")
    wait_until(lambda: study.ledger.get("described"), "the parent")
    mlflow = client(study)
    parent, points = runs_of(study, mlflow)
    assert (parent.info.status, points) == ("RUNNING", {})

    first = study.start_point(0)
    wait_until(lambda: first.ledger.get("offset"), "the first point, while it runs")
    assert runs_of(study, mlflow)[1][0].info.status == "RUNNING"
    study.run_point(1, 0.9)
    study.end_point(first, 0.8)
    study.run_point(2, state="failed")
    study.run_point(3, 0.2, state="pruned")
    study.event("reused", 4, run="20260101-000000-digits-abcd", values=[0.85], digest="sha256:1")
    wait_until(lambda: study.paths.point(3).tracking.exists(), "the last point")
    study.leave_results()
    study.end()
    assert shipper.wait(timeout=60) == 0
    assert study.ledger["finished"], study.said
    assert pending(study.paths.root) == 0

    parent, points = runs_of(study, mlflow)
    assert (parent.info.run_name, parent.info.status) == (study.paths.id, "FINISHED")
    tags = parent.data.tags
    assert {key: tags[key] for key in tags if key.startswith("ai4sdk.") and key != "ai4sdk.run_id"} == {
        "ai4sdk.digest": "sha256:" + "5" * 64,
        "ai4sdk.kind": "study",
        "ai4sdk.state": "succeeded",
        "ai4sdk.attempts": "1",
        "ai4sdk.cause": "",
        "ai4sdk.points": "2 succeeded, 1 failed, 1 pruned, 1 reused",
        "ai4sdk.reused": "1",
        "ai4sdk.reused.runs": "20260101-000000-digits-abcd",
        "ai4sdk.best": f"{study.paths.id}/points/00001",
    }
    assert parent.data.params == {
        "training.lr": "0.1,0.01",
        "module.hidden": "range(1,5)",
        "config": "digits",
        "search": "grid",
        "objectives": "val/acc (max)",
    }
    assert sorted(values(mlflow, parent, "point.val/acc")) == [(0, 0.8), (1, 0.9), (3, 0.2), (4, 0.85)]
    assert values(mlflow, parent, "best.val/acc")[-1] == (4, 0.9)
    assert parent.data.metrics["best.val/acc"] == 0.9
    files = {file.path for file in mlflow.list_artifacts(parent.info.run_id)}
    assert {"study.json", "points.jsonl", "report.html", "best.yaml", "environment"} == files

    assert sorted(points) == [0, 1, 2, 3]
    assert [points[number].info.status for number in range(4)] == ["FINISHED", "FINISHED", "FAILED", "FAILED"]
    assert points[1].info.run_name == "00001 lr=0.05, hidden=1"
    assert points[1].data.params["module.hidden"] == "1"
    assert points[1].data.tags["ai4sdk.run_id"] == f"{study.paths.id}/points/00001"
    for number, point in points.items():
        assert history(mlflow, point.info.run_id) == expected_history(study.paths.point(number).metrics)
        assert not [name for name in point.data.metrics if name.startswith("system/")]


@pytest.mark.slow
def test_of_a_study_the_best_point_is_registered_and_no_other(make_study: Any) -> None:
    study = make_study(register_as="digits", alias="champion")
    for number, accuracy in enumerate((0.7, 0.9, 0.8)):
        point = study.start_point(number)
        point.leave_results()
        (point.paths.package / "number.txt").write_text(str(number), encoding="utf-8")
        study.end_point(point, accuracy)
    study.end()
    study.ship()
    study.paths.tracking.unlink()
    study.ship("--once")
    assert study.ledger["finished"], study.said
    mlflow = client(study)
    _, points = runs_of(study, mlflow)
    (version,) = mlflow.search_model_versions("name = 'digits'")
    assert version.run_id == points[1].info.run_id
    assert str(mlflow.get_model_version_by_alias("digits", "champion").version) == str(version.version)
    assert len(mlflow.search_logged_models([study.ledger["experiment_id"]])) == 3


@pytest.mark.slow
def test_two_studies_with_the_same_points_have_points_of_their_own(make_study: Any) -> None:
    studies = [make_study(), make_study()]
    for study in studies:
        study.run_point(0, 0.5)
        study.end()
        study.ship()
    mlflow = client(studies[0])
    ids = {runs_of(study, mlflow)[1][0].info.run_id for study in studies}
    assert len(ids) == 2


@pytest.mark.slow
def test_a_point_sent_alone_comes_under_its_study_later(make_study: Any) -> None:
    study = make_study()
    point = study.run_point(3, 0.5)
    report = sync(point.paths.root)
    assert (report.run, report.pending) == (f"{study.paths.id}/points/00003", 0)
    mlflow = client(study)
    assert "mlflow.parentRunId" not in mlflow.get_run(report.mlflow_run_id).data.tags
    study.end()
    assert sync(study.paths.root).pending == 0
    _, points = runs_of(study, mlflow)
    assert [points[3].info.run_id] == [report.mlflow_run_id]
    assert sync(point.paths.root).sent == 0


@pytest.mark.slow
def test_a_point_that_cannot_be_recorded_keeps_no_other_from_it(make_study: Any) -> None:
    study = make_study()
    broken, whole = study.run_point(0, 0.5), study.run_point(1, 0.6)
    plan = broken.paths.plan.read_text(encoding="utf-8")
    broken.paths.plan.write_text("no json", encoding="utf-8")
    study.end()
    study.ship()
    assert whole.ledger["finished"]
    assert f"point 0: the plan of {study.paths.id}/0 cannot be read" in study.ledger["last_error"]
    assert study.ledger["pending"] == pending(study.paths.root) > 0
    broken.paths.plan.write_text(plan, encoding="utf-8")
    assert sync(study.paths.root).pending == 0
    assert sorted(runs_of(study, client(study))[1]) == [0, 1]


@pytest.mark.slow
def test_a_store_that_was_thrown_away_is_filled_again_with_the_whole_tree(make_study: Any) -> None:
    study = make_study()
    for number in range(2):
        study.run_point(number, number / 10)
    study.end()
    study.ship()
    before = picture(study, client(study))
    (study.paths.root.parent / "mlflow.db").unlink()
    study.ship("--once")
    assert study.ledger["finished"], study.said
    assert picture(study, client(study)) == before


@pytest.mark.slow
def test_a_study_that_is_resumed_goes_on_in_its_mlflow_run(make_study: Any) -> None:
    study = make_study()
    failed = study.run_point(0, state="failed")
    study.run_point(1, 0.4)
    study.end("interrupted", cause="the machine went down")
    study.ship()
    mlflow = client(study)
    parent, points = runs_of(study, mlflow)
    assert (parent.info.status, points[0].info.status) == ("KILLED", "FAILED")

    study.say("running", attempt=2)
    failed.say("running", attempt=2)
    study.event("started", 0, run="points/00000", attempt=2)
    failed.log(10, loss=0.1)
    study.end_point(failed, 0.9, attempt=2)
    study.end(attempt=2)
    study.ship()
    again, points_again = runs_of(study, mlflow)
    assert again.info.run_id == parent.info.run_id
    assert {number: point.info.run_id for number, point in points_again.items()} == {
        number: point.info.run_id for number, point in points.items()
    }
    assert (again.info.status, points_again[0].info.status) == ("FINISHED", "FINISHED")
    assert again.data.metrics["best.val/acc"] == 0.9
    assert history(mlflow, points[0].info.run_id) == expected_history(failed.paths.metrics)


@pytest.mark.slow
def test_a_folder_that_is_no_study_is_refused(make_run: Any) -> None:
    run = make_run()
    command = [sys.executable, "-m", "ai4sdk.tracking", "--study", str(run.paths.root)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "no study.json" in done.stderr


# -- with a server


@pytest.mark.slow
@pytest.mark.engine
def test_killing_the_shipper_again_and_again_doubles_nothing(make_study: Any, server: Server) -> None:
    chance = random.Random(11)
    killed = make_study(uri=server.uri)
    undisturbed = make_study(uri=server.uri)

    def one_more(study: Study, number: int) -> None:
        if number == 3:
            study.event("reused", 3, run="earlier", values=[0.4])
        elif number == 4:
            study.run_point(4, state="failed")
        else:
            study.run_point(number, 0.5 + 0.01 * (number % 4))

    number = 0
    for attempt in range(6):
        shipper = killed.start_shipper("--study")
        before = killed.ledger.get("updated", 0)
        if attempt % 2:  # half of the kills fall into sending, half into anything from the import on
            wait_until(lambda before=before: killed.ledger.get("updated", 0) > before, "the shipper to be at work")
        until = time.monotonic() + chance.uniform(0.1, 1.2)
        while time.monotonic() < until or number < 3 * (attempt + 1):
            one_more(killed, number)
            one_more(undisturbed, number)
            number += 1
            time.sleep(0.2)
        if attempt == 5:
            killed.end()
            time.sleep(0.4)
        shipper.send_signal(signal.SIGKILL)
        shipper.wait()
        if attempt in (2, 4):  # even with no memory of what it did
            killed.paths.tracking.unlink(missing_ok=True)
            for ledger in killed.paths.points.glob("*/tracking.json"):
                ledger.unlink()
    undisturbed.end()
    for study in (killed, undisturbed):
        study.ship("--study")
        assert study.ledger["finished"], study.said
        assert pending(study.paths.root) == 0
    mlflow = client_of(server.uri)
    pictures = [picture(study, mlflow) for study in (killed, undisturbed)]
    assert str(pictures[0]).replace(killed.paths.id, undisturbed.paths.id) == str(pictures[1])
    assert len(pictures[0]) == number, "the study itself, and all points but the one that ran elsewhere"


@pytest.mark.slow
@pytest.mark.engine
def test_what_a_dead_server_missed_is_caught_up_with_all_points(make_study: Any, server: Server) -> None:
    study = make_study(uri=server.uri)
    for number in range(3):
        study.run_point(number, number / 10)
    shipper = study.start_shipper("--study", "--patience", "1")
    wait_until(lambda: study.paths.point(2).tracking.exists(), "the first points")
    server.kill()
    try:
        for number in range(3, 6):
            study.run_point(number, number / 10)
        wait_until(lambda: study.ledger.get("last_error"), "the complaint")
        study.leave_results()
        study.end()
        assert shipper.wait(timeout=60) == 0
        assert study.ledger["pending"] == pending(study.paths.root) > 9
        assert f"`ai4sdk sync {study.paths.id}` sends them" in study.said
    finally:
        server.start()
    command = [sys.executable, "-m", "ai4sdk.tracking", "--sync", str(study.paths.root)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "records and files sent, MLflow run" in done.stdout
    parent, points = runs_of(study, client_of(server.uri))
    assert parent.info.status == "FINISHED"
    assert sorted(points) == list(range(6))
    assert parent.data.metrics["best.val/acc"] == 0.5
    assert sync(study.paths.root).sent == 0
