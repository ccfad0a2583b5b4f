"""The steps as functions: the same checks, errors as exceptions, objects that show themselves shortly."""

from __future__ import annotations

import pytest

import ai4sdk
from ai4sdk.errors import ConfigError, NotFound
from ai4sdk.runs.layout import RunPaths
from ai4sdk.studies.layout import StudyPaths


def test_compose_gives_a_typed_job_that_shows_itself(project):
    loaded = ai4sdk.compose("train", "seed=7")
    assert loaded.job.seed == 7
    assert repr(loaded) == "<Job train: net.Net from config 'train'>"
    assert "seed: 7" in loaded.to_yaml()
    assert "<pre>" in loaded._repr_html_()


def test_a_plan_shows_itself_without_its_code(project):
    plan = ai4sdk.plan("train")
    assert repr(plan) == f"<Plan train {plan.short_digest}: train>"
    assert plan.digest in plan._repr_html_()
    assert len(repr(plan)) < 100


def test_mistakes_are_exceptions_with_problems(project):
    with pytest.raises(ConfigError) as caught:
        ai4sdk.compose("train", "optimiser.lr=1", "seed=many")
    assert len(caught.value.problems) == 2


def test_a_project_is_named_without_entering_it(project, monkeypatch, tmp_path_factory):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert ai4sdk.plan("train", project=project).name == "train"
    with pytest.raises(NotFound):
        ai4sdk.plan("train")


def test_a_run_that_is_not_there_is_named(project):
    with pytest.raises(NotFound, match="no runs"):
        ai4sdk.open_run("latest")
    with pytest.raises(NotFound):
        ai4sdk.load_model("nobody")


@pytest.mark.slow
def test_from_config_to_prediction(project):
    run = ai4sdk.run("train", "tracking.kind=none")
    assert run.state == "succeeded"
    assert 0 <= run.scores["accuracy"] <= 1
    assert any("val_loss" in record["metrics"] for record in run.metrics())
    model = ai4sdk.load_model(run)
    prediction = model([{"a": 1.0, "b": 2.0}, {"a": 3.0, "b": 4.0}])
    assert [record["prediction"] in ("yes", "no") for record in prediction.to_records()] == [True, True]
    assert run.id in repr(run)
    assert "succeeded" in run._repr_html_()


def test_runs_and_studies_are_held_alike():
    both = {"id", "name", "folder", "status", "state", "report", "log", "events", "wait", "check", "cancel", "resume"}
    for kind in (ai4sdk.Run, ai4sdk.Study):
        assert {name for name in dir(kind) if not name.startswith("_")} >= both


def test_what_is_gone_still_shows_itself_and_says_so(tmp_path):
    for gone in (ai4sdk.Run(RunPaths(tmp_path / "gone")), ai4sdk.Study(StudyPaths(tmp_path / "gone"))):
        assert "gone" in repr(gone)
        assert "gone" in gone._repr_html_()
        with pytest.raises(NotFound, match="is gone"):
            _ = gone.state
    with pytest.raises(NotFound, match="is gone"):
        _ = ai4sdk.Study(StudyPaths(tmp_path / "gone")).results
