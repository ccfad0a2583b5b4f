"""A plan is a lockfile: the same inputs give the same digest, and nothing else changes it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ai4sdk.config.load import load_job
from ai4sdk.config.project import Project
from ai4sdk.data.storage import Location
from ai4sdk.errors import ConfigError, NotFound, UsageError
from ai4sdk.planning.build import make_plan
from ai4sdk.planning.compare import compare
from ai4sdk.planning.plan import read_plan_file


def plan(*overrides: str, project: Path | None = None):
    return make_plan(load_job("train", list(overrides), Project(project) if project else None))


def problems(*overrides: str):
    with pytest.raises(ConfigError) as caught:
        plan(*overrides)
    return caught.value.problems


def test_the_same_inputs_give_the_same_digest(project):
    assert plan().digest == plan().digest


def test_the_digest_does_not_depend_on_the_folder(project, tmp_path_factory):
    first = plan().digest
    other = tmp_path_factory.mktemp("elsewhere") / "copy"
    shutil.copytree(project, other)
    assert plan(project=other).digest == first


@pytest.mark.parametrize(
    "override",
    [
        "seed=7",
        "module.width=9",
        "optimizer.lr=0.5",
        "optimizer=sgd",
        "training.max_epochs=3",
        "training.precision=64-true",
        "dataset.splits.seed=1",
        "dataset.loader.batch_size=7",
        "hardware.cpus=1",
        "evaluation.split=val",
    ],
)
def test_what_changes_results_changes_the_digest(project, override):
    assert plan(override).digest != plan().digest


def test_the_files_of_a_dataset_are_listed_once(project, monkeypatch):
    listed, entries = [], Location.entries
    monkeypatch.setattr(Location, "entries", lambda location: listed.append(location.path) or entries(location))
    plan()
    assert listed == [str(project / "data.csv")]


@pytest.mark.parametrize(
    "override",
    [
        "name=other",
        "description=words",
        "log_level=debug",
        "runs=elsewhere",
        "tags={a: b}",
        "tracking.kind=none",
        "tracking.uri=http://127.0.0.1:1",
        "backend.grace=5s",
        "hardware.memory=4GiB",
        "hardware.wall_time=2h",
        "training.log_every_n_steps=1",
        "training.checkpoint.every=10s",
        "dataset.uri=./data.csv",
    ],
)
def test_what_changes_nothing_leaves_the_digest(project, override):
    assert plan(override).digest == plan().digest


def test_changed_code_changes_the_digest_and_unrelated_files_do_not(project):
    first = plan().digest
    (project / "notes.py").write_text("print('unrelated')\n")
    assert plan().digest == first
    (project / "net.py").write_text((project / "net.py").read_text() + "\n# changed\n")
    assert plan().digest != first


def test_changed_data_changes_the_digest(project):
    first = plan().digest
    (project / "data.csv").write_text((project / "data.csv").read_text() + "1,2,yes\n")
    assert plan().digest != first


def test_what_the_module_must_know_of_the_data_is_filled_in(project):
    frozen = plan("+module.features=${data:features}")
    assert frozen.job["module"]["features"] == 2
    assert frozen.data["dataset"]["summary"]["classes"] == 2


def test_planning_imports_no_heavy_library(project):
    code = (
        "import sys; from ai4sdk.cli import main; status = main(['plan', 'config=train']);"
        "heavy = {'torch', 'pytorch_lightning', 'lightning', 'mlflow', 'flwr', 'ray', 'pandas'} & set(sys.modules);"
        "print(sorted(heavy)); sys.exit(status or bool(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_mistakes_in_several_sections_come_at_once(project):
    found = problems("module._target_=net.Nett", "+optimizer.lrr=1", "dataset.uri=nowhere.csv")
    text = "\n".join(str(problem) for problem in found)
    assert len(found) == 3
    assert "net.Net" in text
    assert "lr" in text
    assert "nowhere.csv" in text


def test_an_argument_the_module_does_not_take_is_cited_where_it_is_written(project, write):
    write({"configs/module/net.yaml": "_target_: net.Net\nwidht: 8\n"})
    (problem,) = problems()
    assert str(problem.origin) == "configs/module/net.yaml:2:1"
    assert "width" in str(problem)


@pytest.mark.parametrize(
    ("value", "fix"), [("foo", None), ("'1e-2'", "optimizer.lr=0.01, without quotes"), ("[1e-2,1e-3]", None)]
)
def test_text_where_a_number_is_asked_for_is_found_before_anything_runs(project, value, fix):
    (found,) = problems(f"optimizer.lr={value}")
    assert found.key == "optimizer.lr"
    assert "must be a number" in found.message
    assert found.fix == fix


def test_a_fraction_where_a_whole_number_is_asked_for_is_found_before_anything_runs(project, write):
    write({"net.py": (project / "net.py").read_text().replace("width=8", "width: int = 8")})
    (found,) = problems("module.width=8.5")
    assert "module.width must be a whole number, not 8.5" in found.message
    assert plan("module.width=8.0").job["module"]["width"] == 8.0


def test_unreadable_data_ends_with_the_status_for_data(project):
    with pytest.raises(ConfigError) as caught:
        plan("dataset.uri=nowhere.csv")
    assert caught.value.exit_code == 3
    assert str(caught.value.problems[0].origin) == "command line: dataset.uri=nowhere.csv"


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("+scheduler.schedule._target_=torch.optim.lr_scheduler.ReduceLROnPlateau", "scheduler"),
        ("+training.trainer.max_epochs=3", "training.trainer.max_epochs"),
        ("+training.trainer.limit_train_batchess=3", "training.trainer.limit_train_batchess"),
        ("hardware.gpus=4", "hardware.gpus"),
        ("hardware.nodes=2", "hardware.nodes"),
        ("storage.password=hunter2", "storage.password"),
        ("module._target_=torch.nn.Linear", "module"),
        ("training.init_from=nobody", "training.init_from"),
        ("dataset.fingerprint=sha256:0", "dataset.uri"),
    ],
)
def test_sections_that_do_not_fit_are_refused(project, override, key):
    found = problems(override)
    assert any(problem.key.startswith(key) for problem in found), [str(problem) for problem in found]
    assert all(problem.fix for problem in found)


def test_a_plain_password_is_refused_and_a_reference_is_kept(project):
    assert plan("storage.password=${secret:PW}").job["storage"]["password"] == "${secret:PW}"


def test_a_plan_survives_its_file(project, tmp_path):
    frozen = plan()
    (tmp_path / "plan.json").write_text(frozen.to_json())
    assert read_plan_file(tmp_path / "plan.json") == frozen


@pytest.mark.parametrize(
    "damage",
    [
        lambda values: values["job"].update(seed=43),
        lambda values: values["job"]["module"].update(width=9),
        lambda values: values.update(digest="sha256:0"),
        lambda values: values.update(format="ai4sdk.plan/99"),
        lambda values: values.pop("tasks"),
        lambda values: values["job"].update(unknown=1),
    ],
)
def test_a_plan_that_was_changed_is_refused(project, tmp_path, damage):
    values = json.loads(plan().to_json())
    damage(values)
    (tmp_path / "plan.json").write_text(json.dumps(values))
    with pytest.raises(UsageError):
        read_plan_file(tmp_path / "plan.json")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\x00"])
def test_a_file_that_is_no_plan_is_refused(tmp_path, text):
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises((UsageError, NotFound)):
        read_plan_file(tmp_path / "plan.json")


def test_a_comparison_says_what_matters_first(project):
    found = compare(plan(), plan("seed=7", "name=other"))
    assert [(difference.key, difference.matters) for difference in found] == [("seed", True), ("name", False)]


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan"])
def test_numbers_without_end_are_planned_as_they_are(project, write, tmp_path, value):
    write({"configs/endless.yaml": f"defaults:\n  - train\n  - _self_\noptimizer:\n  lr: {value}\n"}, project)
    plan = make_plan(load_job("endless"))
    file = tmp_path / "plan.json"
    file.write_text(plan.to_json())
    assert repr(read_plan_file(file).job["optimizer"]["lr"]) == repr(float(value.replace(".", ""))) != "None"


def test_the_number_nan_is_not_the_text_nan(project):
    digests = {make_plan(load_job("train", [f"module.width={text}"])).digest for text in ("nan", "'nan'")}
    assert len(digests) == 2
