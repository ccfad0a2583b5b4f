"""What can be told of a run's records without MLflow."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ai4sdk.errors import EnvironmentFault, NotFound
from ai4sdk.tracking import pending, sync, tracking_uri_of
from ai4sdk.tracking.describe import datasets_of, figures_of, params_of, tags_of
from ai4sdk.tracking.ledger import Ledger, read_ledger, write_ledger
from ai4sdk.tracking.settings import Redactor, credentials_in, read_settings

from .conftest import ROOT, plan_of


def test_importing_the_room_imports_nothing_heavy() -> None:
    heavy = "{'mlflow', 'pydantic', 'torch', 'pandas', 'numpy', 'requests', 'psutil', 'sqlalchemy'}"
    script = f"import sys, ai4sdk.tracking; print({heavy} & {{name.split('.')[0] for name in sys.modules}})"
    found = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


def test_the_default_store_lies_in_the_runs_folder(make_run: Any, tmp_path: Path) -> None:
    run = make_run(folder="my runs")
    assert tracking_uri_of(run.paths.root) == f"sqlite:///{tmp_path}/my runs/mlflow.db"
    assert read_settings(run.paths.root).artifacts == tmp_path / "my runs" / "mlartifacts"


def test_a_run_directory_may_be_named_relative_to_the_current_folder(
    make_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run()
    monkeypatch.chdir(run.paths.root.parent)
    assert tracking_uri_of(Path(run.paths.id)) == f"sqlite:///{tmp_path}/runs/mlflow.db"


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("https://mlflow.example.org/", "https://mlflow.example.org"),
        ("https://ana:pw@mlflow.example.org", "https://mlflow.example.org"),
        ("sqlite:////data/mlflow.db", "sqlite:////data/mlflow.db"),
        ("postgresql+psycopg2://u:p@db/mlflow", "postgresql+psycopg2://db/mlflow"),
    ],
)
def test_an_address_is_shown_without_a_user(make_run: Any, uri: str, shown: str) -> None:
    assert tracking_uri_of(make_run(uri=uri).paths.root) == shown


@pytest.mark.parametrize("uri", ["mlruns", "file:///tmp/mlruns", "ftp://x/y", "sqlite://", ""])
def test_an_address_that_mlflow_cannot_record_at_is_refused_with_one_that_it_can(make_run: Any, uri: str) -> None:
    with pytest.raises(EnvironmentFault, match="cannot record at") as caught:
        tracking_uri_of(make_run(uri=uri).paths.root)
    assert "sqlite:///" in str(caught.value.hint)


def test_a_run_that_is_not_recorded_has_no_address_and_nothing_pending(make_run: Any) -> None:
    run = make_run(kind="none")
    run.log(1, loss=0.5)
    run.end()
    assert tracking_uri_of(run.paths.root) == ""
    assert pending(run.paths.root) == 0
    assert sync(run.paths.root).uri == ""


@pytest.mark.parametrize("text", ["", "no json", "[]", "{}", '{"job": 3}', '{"job": {"tracking": {"kind": "fish"}}}'])
def test_a_plan_that_cannot_be_read_is_named(make_run: Any, text: str) -> None:
    run = make_run()
    run.paths.plan.write_text(text, encoding="utf-8")
    with pytest.raises(NotFound, match=run.paths.id):
        pending(run.paths.root)


def test_a_run_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="cannot be read"):
        pending(tmp_path / "nowhere")


def test_pending_counts_records_then_files_and_the_end(make_run: Any) -> None:
    run = make_run()
    assert pending(run.paths.root) == 0
    for step in range(5):
        run.log(step, loss=1)
    with open(run.paths.metrics, "a", encoding="utf-8") as file:
        file.write('{"half')
    assert pending(run.paths.root) == 5
    run.paths.report.write_text("report", encoding="utf-8")
    run.end()
    # 5 records, plan.json, config.yaml, report.html and the end itself
    assert pending(run.paths.root) == 9


@pytest.mark.parametrize("text", ["", "{", "[]", '{"offset": "x"}', '{"offset": -1}', '{"files": 3}'])
def test_a_ledger_that_makes_no_sense_is_an_empty_one(tmp_path: Path, text: str) -> None:
    file = tmp_path / "tracking.json"
    file.write_text(text, encoding="utf-8")
    assert read_ledger(file) == Ledger()


def test_a_ledger_is_read_as_written(tmp_path: Path) -> None:
    ledger = Ledger(uri="u", offset=7, files={"a": [1, 2]}, model={"id": "m", "digest": "d", "ready": True})
    write_ledger(tmp_path / "tracking.json", ledger)
    assert read_ledger(tmp_path / "tracking.json") == ledger


def test_secrets_never_show(tmp_path: Path) -> None:
    redact = Redactor({"s3cret", "s3cret-longer"})
    assert redact("s3cret-longer and s3cret at https://me:pw@host/x") == "*** and *** at https://host/x"
    job = {"storage": {"password": "plain", "token": "${secret:T}", "username": "me"}, "x": [{"token": "t"}]}
    assert credentials_in(job) == {"plain", "t"}
    assert params_of(job) == {
        "storage.password": "***",
        "storage.token": "${secret:T}",
        "storage.username": "***",
        "x.0.token": "***",
    }


def test_what_was_typed_shows_no_secret_either() -> None:
    plan = plan_of()
    plan["job"]["storage"]["password"] = "hunter2"
    plan["created"]["command"] = ["ai4sdk", "run", "storage.password=hunter2", "dataset.uri=https://me:pw@h/x"]
    assert tags_of("id", plan, "")["mlflow.source.name"] == "ai4sdk run storage.password=*** dataset.uri=https://h/x"
    assert params_of({"dataset": {"uri": "https://me:pw@h/x"}}) == {"dataset.uri": "https://h/x"}


def test_long_parameters_are_cut_at_mlflows_limit() -> None:
    assert len(params_of({"module": {"text": "x" * 10_000}})["module.text"]) == 6000


def test_a_users_tag_never_takes_the_place_of_ours() -> None:
    plan = plan_of()
    plan["job"]["tags"] = {"ai4sdk.run_id": "forged", "mlflow.user": "eve", "a(b": "c" * 9000}
    tags = tags_of("real", plan, "bob")
    assert (tags["ai4sdk.run_id"], tags["mlflow.user"]) == ("real", "ana")
    assert len(tags["a_b"]) == 8000


@pytest.mark.parametrize(
    ("uri", "kind", "source", "name"),
    [
        ("data/fish.csv", "local", {"uri": "data/fish.csv"}, "fish.csv"),
        ("https://u:p@h.org/fish.csv", "http", {"url": "https://h.org/fish.csv"}, "fish.csv"),
        ("s3://bucket/fish/", "s3", {"uri": "s3://bucket/fish/"}, "fish"),
        ("storage://fish", "storage", {"uri": "storage://fish"}, "fish"),
    ],
)
def test_a_dataset_is_told_with_its_source(uri: str, kind: str, source: dict[str, str], name: str) -> None:
    plan = plan_of()
    plan["data"]["dataset"]["uri"] = uri
    (found,) = datasets_of(plan)
    assert (found.source_type, json.loads(found.source), found.name) == (kind, source, name)


def test_a_table_has_its_columns_as_schema() -> None:
    plan = plan_of()
    plan["data"]["dataset"]["summary"] = {
        "rows": 10,
        "features": 2,
        "feature_names": ["length", "weight"],
        "shape": [2],
        "label": "species",
        "label_kind": "class",
        "class_counts": {"0": 5, "1": 5},
        "targets": None,
    }
    (found,) = datasets_of(plan)
    columns = json.loads(found.schema or "")["mlflow_colspec"]
    assert [(column["name"], column["type"]) for column in columns] == [
        ("length", "double"),
        ("weight", "double"),
        ("species", "string"),
    ]
    profile = json.loads(found.profile or "")
    assert (profile["num_rows"], profile["num_elements"], profile["class_counts"]) == (10, 20, {"0": 5, "1": 5})
    assert "targets" not in profile


def test_a_dataset_of_the_users_code_is_told_by_its_target() -> None:
    plan = plan_of()
    plan["job"]["dataset"] = {"_target_": "pond.FishData"}
    plan["data"] = {"dataset": {"uri": "pond.FishData", "fingerprint": "sha256:" + "a" * 64, "paths": {}}}
    (found,) = datasets_of(plan)
    assert (found.source_type, found.schema) == ("code", None)


def test_figures_are_flat_and_only_those_that_are_defined() -> None:
    scores = {
        "accuracy": 0.9,
        "samples": 10,
        "ok": True,
        "roc_auc": None,
        "task": "classification",
        "confusion_matrix": [[1, 2], [3, 4]],
        "classes": [{"name": "cat", "recall": 1.0, "roc_auc": None}],
        "macro_average": {"f1": 0.5},
    }
    assert figures_of(scores, "val") == {
        "val/accuracy": 0.9,
        "val/samples": 10.0,
        "val/classes/cat/recall": 1.0,
        "val/macro_average/f1": 0.5,
    }
    many = {"classes": [{"name": str(number), "recall": 1.0} for number in range(1000)]}
    assert figures_of(many, "test") == {}


def test_what_a_function_returned_keeps_its_names() -> None:
    assert figures_of({"split": 0.5, "fish": 6.0}, None) == {"split": 0.5, "fish": 6.0}


def test_of_a_function_only_what_it_uses_is_a_parameter() -> None:
    job = {"seed": 1, "function": {"_target_": "pond.catch", "boats": 3}, "module": None, "training": {"max_epochs": 1}}
    assert params_of(job) == {"seed": "1", "function._target_": "pond.catch", "function.boats": "3"}


def test_a_file_that_a_function_reads_is_an_input() -> None:
    entry = {"uri": "pond.catch", "fingerprint": "sha256:" + "f" * 64, "paths": {"table": "sha256:0"}}
    plan = {"job": {"function": {"_target_": "pond.catch"}, "dataset": None}, "data": {"function": entry}}
    (found,) = datasets_of(plan)
    assert (found.name, found.source_type, found.context) == ("pond.catch", "code", "function")
