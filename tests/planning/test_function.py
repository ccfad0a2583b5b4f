"""Jobs that call a function are planned as those that train are: checked, frozen, known by one digest."""

from __future__ import annotations

import pytest

from ai4sdk.config.load import inspect_job, load_job
from ai4sdk.errors import ConfigError
from ai4sdk.planning.build import make_plan
from ai4sdk.planning.plan import read_plan_file


def plan(*overrides: str):
    return make_plan(load_job("pond.yaml", list(overrides)))


def problems(*overrides: str):
    with pytest.raises(ConfigError) as caught:
        plan(*overrides)
    return caught.value.problems


def test_it_is_one_task_without_data_and_heavy_packages(function_project):
    frozen = plan()
    assert [(task.name, task.kind) for task in frozen.tasks] == [("call", "call")]
    assert frozen.data == {}
    assert [file["path"] for file in frozen.code["files"]] == ["pond.py"]
    assert set(frozen.packages) == {"ai4sdk"}


def test_what_its_code_imports_is_in_the_plan(function_project):
    (function_project / "pond.py").write_text("def catch(boats):\n    import numpy\n")
    assert set(plan().packages) == {"ai4sdk", "numpy"}


def test_the_same_inputs_give_the_same_digest(function_project):
    assert plan().digest == plan("name=other", "hardware.wall_time=2h").digest


@pytest.mark.parametrize("override", ["function.boats=4", "+function.nets=1", "seed=7", "hardware.cpus=1"])
def test_what_changes_results_changes_the_digest(function_project, override):
    assert plan(override).digest != plan().digest


def test_settings_of_trainings_are_no_part_of_the_digest(function_project, monkeypatch):
    """A later version may give them other defaults: what was called before must not be called again for that."""
    before = plan().digest
    monkeypatch.setattr("ai4sdk.planning.build.check_job", lambda *_: [])
    assert plan("training.max_epochs=77", "evaluation.split=val", "task=regression").digest == before


def test_changed_code_changes_the_digest(function_project):
    before = plan().digest
    (function_project / "pond.py").write_text((function_project / "pond.py").read_text() + "\n# changed\n")
    assert plan().digest != before


def test_files_that_its_arguments_name_are_fingerprinted(function_project):
    (function_project / "fish.txt").write_text("cod\n")
    before = plan("+function.table=fish.txt")
    assert set(before.data["function"]["paths"]) == {"table"}
    (function_project / "fish.txt").write_text("eel\n")
    assert plan("+function.table=fish.txt").digest != before.digest


def test_a_plan_survives_its_file(function_project, tmp_path):
    frozen = plan()
    (tmp_path / "plan.json").write_text(frozen.to_json())
    assert read_plan_file(tmp_path / "plan.json") == frozen


def test_an_argument_it_does_not_take_is_cited_where_it_is_written(function_project, write):
    write({"pond.yaml": "defaults: [base, _self_]\nfunction:\n  _target_: pond.catch\n  boats: 3\n  net: 1\n"})
    (problem,) = problems()
    assert str(problem.origin) == "pond.yaml:5:3"
    assert "nets" in problem.fix


def test_an_argument_it_needs_is_asked_for(function_project):
    (problem,) = problems("~function.boats")
    assert "needs the argument 'boats'" in problem.message


def test_a_function_that_is_not_there_gets_the_nearest(function_project):
    (problem,) = problems("function._target_=pond.catsh")
    assert problem.key == "function._target_"
    assert "pond.catch" in problem.fix


def test_what_refers_to_data_says_that_there_is_none(function_project):
    (problem,) = problems("function.boats=${data:rows}")
    assert "there is no dataset" in problem.message


@pytest.mark.parametrize(
    "override",
    [
        "optimizer=adam",
        "scheduler=cosine",
        "training.max_epochs=3",
        "training.checkpoint.monitor=val_loss",
        "evaluation.split=val",
        "task=regression",
    ],
)
def test_what_would_be_ignored_is_refused_where_it_is_written(function_project, override):
    found = [problem for problem in problems(override) if "calls a function" in problem.message]
    assert [problem.key for problem in found] == [override.partition("=")[0]]
    assert found[0].origin is not None


def test_a_module_beside_it_is_refused(function_project):
    found = inspect_job("pond.yaml", ["+module._target_=net.Net"])[2]
    assert [(problem.key, problem.origin.source) for problem in found] == [("module", "command line")]
    assert "remove one of the two" in found[0].message


def test_several_gpus_are_its_own_affair(function_project):
    assert plan("hardware.gpus=4").tasks[0].gpus == 4
