"""Points of a study: composed as if alone, planned as if alone, and wrong values found where they are written."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ai4sdk.cli.study import study_lines
from ai4sdk.config.compose import compose_layers
from ai4sdk.config.delta import PointComposer
from ai4sdk.config.encode import encode, texts_of
from ai4sdk.config.load import load_job
from ai4sdk.config.project import Project, find_project
from ai4sdk.errors import ConfigError
from ai4sdk.planning.build import make_plan
from ai4sdk.studies.plan import make_study, read_study_file

TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=12)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-(10**9), 10**9), st.floats(allow_nan=False), TEXTS)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.from_regex(r"[a-z]{1,5}", fullmatch=True), inner, max_size=3)
    ),
)


@given(VALUES)
def test_what_is_encoded_is_read_back_as_it_was(value):
    assert OverridesParser.create().parse_override(f"x={encode(value)}").value() == value


@pytest.fixture
def layered(project, write):
    """A config whose values refer to each other, with groups and things that a point may add."""
    write(
        {
            "configs/refer.yaml": """
                defaults:
                  - train
                  - _self_
                tags:
                  first: ${seed}
                  second: a-${tags.first}
                module:
                  width: 4
                training:
                  max_epochs: ${oc.decode:"2"}
                """,
        },
        project,
    )
    return project


AXES = {
    "seed": st.sampled_from([0, 1, 7, "x", None]),
    "optimizer": st.sampled_from(["adam", "sgd", "nothing"]),
    "optimizer.lr": st.sampled_from([0.1, 1e-5, "a", [1, 2], None]),
    "+optimizer.weight_decay": st.sampled_from([0.0, 0.5]),
    "optimizer.momentum": st.sampled_from([0.5]),
    "tags.first": st.sampled_from(["one", "${name}", "???"]),
    "module.width": st.sampled_from([4, 8, {"a": 1}, "${seed}"]),
    "training.max_epochs": st.sampled_from([1, 2, 0, "2"]),
    "nonsense.key": st.sampled_from([1]),
}


@pytest.mark.parametrize("config", ["train", "refer"])
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_points_are_composed_as_if_each_were_the_only_one(layered, config, data):
    composer = PointComposer(config, ["name=point"])
    for _ in range(4):
        keys = data.draw(st.lists(st.sampled_from(list(AXES)), unique=True, max_size=4))
        params = {key: data.draw(AXES[key]) for key in keys}
        alone = compose_layers(config, ["name=point", *texts_of(params)])
        found = composer.compose(params)
        assert (found.values, found.layers, found.choices) == (alone.values, alone.layers, alone.choices)
        assert found.problems == alone.problems


def test_a_point_is_planned_as_if_it_were_alone(layered):
    study = make_study("train", ["optimizer=adam,sgd", "module.width=4,8", "seed=3"])
    assert len({point.digest for point in study.points}) == study.total == 4
    for point in study.points:
        alone = make_plan(load_job("train", ["seed=3", *point.overrides]))
        assert study.planner.plan(point.params).digest == point.digest == alone.digest


def test_a_study_on_file_needs_nothing_of_the_project_any_more(layered, tmp_path):
    study = make_study("train", ["optimizer=adam,sgd", "module.width=4,8"])
    file = tmp_path / "study.json"
    file.write_text(study.to_json())
    for path in (*layered.glob("configs/*"), layered / "net.py", layered / "data.csv"):
        path.rename(f"{path}.gone")
    again = read_study_file(file, find_project())
    assert again.points == study.points
    assert [again.planner.plan(point.params).digest for point in again.points] == [p.digest for p in study.points]


def test_a_search_reads_all_options_beforehand(layered, tmp_path):
    overrides = [
        "sweep.search=tpe",
        "sweep.points=4",
        "sweep.objective=val_loss",
        "optimizer=adam,sgd",
        "optimizer.lr=interval(0,1)",
    ]
    study = make_study("train", overrides)
    file = tmp_path / "study.json"
    file.write_text(study.to_json())
    expected = {name: study.planner.plan({"optimizer": name, "optimizer.lr": 0.5}).digest for name in ("adam", "sgd")}
    (layered / "configs/optimizer/sgd.yaml").write_text("_target_: torch.optim.SGD\nlr: 1\n")
    again = read_study_file(file, find_project())
    for name, digest in expected.items():
        assert again.planner.plan({"optimizer": name, "optimizer.lr": 0.5}).digest == digest


def test_more_values_leave_the_other_points_as_they_are(layered):
    few = make_study("train", ["module.width=4,8"])
    more = make_study("train", ["module.width=4,6,8"])
    assert {point.digest for point in few.points} < {point.digest for point in more.points}


def test_yaml_and_command_line_describe_the_same_points(layered, write):
    write(
        {
            "configs/swept.yaml": """
                defaults:
                  - train
                  - _self_
                sweep:
                  axes:
                    optimizer: adam, sgd
                    optimizer.lr: [0.1, 0.2]
                    seed: range(2)
                """
        },
        layered,
    )
    typed = make_study("train", ["optimizer=adam,sgd", "optimizer.lr=0.1,0.2", "seed=range(2)"])
    assert make_study("swept").points == typed.points
    overridden = make_study("swept", ["optimizer.lr=0.3", "seed=5,6"])
    assert overridden.total == 4
    assert {point.params["seed"] for point in overridden.points} == {5, 6}
    assert all("optimizer.lr" not in point.params for point in overridden.points)


def test_an_axis_is_there_only_when_its_condition_holds(layered, write):
    write(
        {
            "configs/swept.yaml": """
                defaults:
                  - train
                  - _self_
                sweep:
                  axes:
                    optimizer: adam, sgd
                    optimizer.momentum: {values: "0.5,0.9", when: optimizer=sgd}
                """
        },
        layered,
    )
    assert [dict(point.params) for point in make_study("swept").points] == [
        {"optimizer": "adam"},
        {"optimizer": "sgd", "optimizer.momentum": 0.5},
        {"optimizer": "sgd", "optimizer.momentum": 0.9},
    ]


def test_an_axis_may_give_what_the_config_leaves_open(layered, write):
    write({"configs/open.yaml": "defaults:\n  - train\n  - _self_\nseed: ???\n"}, layered)
    assert make_study("open", ["seed=1,2"]).total == 2


def problems_of(config: str, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        make_study(config, overrides)
    return [str(problem) for problem in raised.value.problems]


def test_every_wrong_value_is_found_at_once_and_where_it_was_typed(layered):
    found = problems_of("train", "seed=1,x,-1", "training.max_epochs=2,0", "optimizer=adam,sdg")
    assert len(found) == 4
    assert sum("command line: seed=1,x,-1" in text for text in found) == 2
    assert any("training.max_epochs=2,0" in text and "at least 1" in text for text in found)
    assert any("optimizer=sgd" in text for text in found)


def test_mistakes_in_how_to_search_hide_none_in_what_to_vary(layered):
    found = problems_of("train", "+sweep.serch=grid", "+sweep.parallel=zero", "seed=1,x", "optimizer.lr=1,2")
    assert len(found) == 3
    assert all(any(key in text for text in found) for key in ("sweep.serch", "sweep.parallel", "seed=1,x"))


def test_a_wrong_value_of_an_argument_is_found_before_anything_runs(layered):
    (found,) = problems_of("train", "optimizer.lr=1e-2,foo")
    assert found.startswith("command line: optimizer.lr=1e-2,foo")
    assert "must be a number, not 'foo'" in found


def test_a_name_that_is_no_key_gets_the_key_with_all_its_values(layered):
    (found,) = problems_of("train", "optimiser.lr=1e-2,1e-3")
    assert found.endswith("→ optimizer.lr=1e-2,1e-3")


def test_what_is_wrong_only_together_with_a_value_names_the_value(layered):
    (found,) = problems_of("quickstart", "optimizer=adam,module")
    assert "a scheduler needs an optimizer in YAML too (with optimizer=module)" in found


@pytest.mark.parametrize("axes", [["optimizer=glob(*)"], ["optimizer=glob(*)", "seed=1,2"]])
def test_options_that_cannot_be_combined_are_named_with_those_that_can(layered, axes):
    (found,) = problems_of("quickstart", *axes)
    assert "(with optimizer=module)" in found
    assert found.endswith("or leave it out: optimizer=adam,adamw,sgd")


def test_the_first_option_may_be_the_one_to_leave_out(layered):
    (found,) = problems_of("quickstart", "optimizer=module,sgd", "seed=1,2")
    assert "(with optimizer=module)" in found
    assert found.endswith("or leave it out: optimizer=sgd")


def test_a_long_axis_hides_no_mistake_in_another(layered):
    (found,) = problems_of("train", "seed=range(2500)", "module.width=8,16", "optimizer.lr=1e-2,foo")
    assert "must be a number, not 'foo'" in found


def test_a_mistake_in_one_of_many_points_is_told_once_at_the_axis_it_is_in(layered):
    (found,) = problems_of("train", f"optimizer.lr={','.join(map(str, range(1, 2100)))},foo", "seed=1,2")
    assert found.startswith("command line: optimizer.lr=1,2,3")
    assert "must be a number, not 'foo'" in found


@pytest.mark.parametrize(
    ("axis", "message", "fix"),
    [
        ("hardware.memory=1GiB,4GiB", "hardware.memory cannot differ", "hardware.memory=4GiB, for all of them"),
        ("hardware.memory=1GiB,null", "hardware.memory cannot differ", "hardware.memory=null, for all of them"),
        ("hardware.wall_time=1m,2m", "hardware.wall_time cannot differ", "hardware.wall_time=120s, for all of them"),
        ("backend.grace=1s,2s", "backend.grace cannot differ", "backend.grace=2s, for all of them"),
        ("+backend=local,slurm", "backend.kind cannot differ", "backend=local, for all of them"),
        ("runs=a,b", "runs cannot differ", "runs=a, for all of them"),
        ("tracking.kind=none,mlflow", "tracking cannot differ", "start a study for each value"),
        ("sweep.seed=1,2", "sweep.seed steers the study itself", "start a study for each value"),
    ],
)
def test_what_a_study_has_once_cannot_be_varied(layered, axis, message, fix):
    (found,) = problems_of("train", "seed=1,2", axis)
    assert found.startswith(f"command line: {axis}")
    assert message in found
    assert f"→ {fix}" in found


def test_a_group_that_sets_what_a_study_has_once_is_told_what_to_set(layered, write):
    write({"configs/hardware/small.yaml": "memory: 1GiB\n", "configs/hardware/large.yaml": "memory: 2GiB\n"}, layered)
    axis = "+hardware=small,large"
    (found,) = problems_of("train", axis)
    assert "1 GiB at first, 2 GiB with +hardware=large" in found
    assert make_study("train", [axis, "hardware.memory=2GiB"]).total == 2


def test_as_many_points_run_at_once_as_the_largest_leaves_room_for(layered, tmp_path):
    study = make_study("train", ["hardware.cpus=1,3,2", "hardware.gpus=0,1"])
    (tmp_path / "study.json").write_text(study.to_json())
    for one in (study, read_study_file(tmp_path / "study.json", Project(layered))):
        assert [(task.cpus, task.gpus) for task in one.largest.tasks] == [(3, 1)]
        assert [(task.cpus, task.gpus) for task in one.first.tasks] == [(1, 0)]


def test_points_that_are_one_and_the_same_are_told_beforehand(layered):
    lines = study_lines(make_study("train", ["seed=1,2,3", "tags={a: b},{a: c}"]), Project(layered))
    assert lines[0] == "study train: grid, 6 points (3 different: equal plans run once)"


def test_points_that_watch_different_metrics_must_be_compared_by_one(layered):
    watched = "training.checkpoint.monitor=val_loss,val_accuracy"
    (found,) = problems_of("train", watched)
    assert "points watch different metrics (val_accuracy, val_loss)" in found
    assert found.endswith("→ sweep.objective=val_accuracy")
    assert make_study("train", [watched, "sweep.objective=val_loss"]).objectives[0].name == "val_loss"


def test_points_that_differ_in_which_way_is_better_must_be_told_one(layered):
    watched = ["training.checkpoint.monitor=val_loss", "training.checkpoint.mode=min,max"]
    (found,) = problems_of("train", *watched)
    assert found.endswith("→ sweep.direction=min")
    assert make_study("train", [*watched, "sweep.direction=max"]).objectives[0].direction == "max"
    assert make_study("train", watched[1:]).objectives == ()  # nothing is watched


def test_what_is_wrong_with_every_value_names_none(layered, write):
    write({"configs/bad.yaml": "defaults: [train, _self_]\nmodule: {wdth: 3}\n"}, layered)
    (found,) = problems_of("bad", "seed=1,2")
    assert "seed" not in found


def test_an_interval_on_the_command_line_is_told_there(layered):
    (found,) = problems_of("train", "optimizer.lr=interval(0,1)")
    assert found.startswith("command line: optimizer.lr=interval(0,1)")


def test_a_hydra_sweeper_that_is_not_installed_is_missed_before_anything_runs(layered):
    (found,) = problems_of("train", "seed=1,2", "sweep.search=hydra:basik", "sweep.objective=loss")
    assert "no Hydra sweeper 'basik'" in found
    assert found.endswith("→ sweep.search=hydra:basic")


def test_a_wrong_option_of_a_hydra_sweeper_is_found_before_anything_runs(layered):
    job = ["seed=1,2", "sweep.search=hydra:basic", "sweep.objective=loss"]
    (found,) = problems_of("train", *job, "+sweep.options={max_batchsize: 2}")
    assert found.startswith("command line: +sweep.options={max_batchsize: 2}")
    assert found.endswith("→ max_batch_size")


@pytest.mark.parametrize(
    ("objective", "direction"), [("val_loss", "min"), ("brier_score", "min"), ("seconds", "min"), ("accuracy", "max")]
)
def test_losses_errors_and_times_are_made_small(layered, objective, direction):
    study = make_study("train", ["seed=1,2", f"sweep.objective={objective}"])
    assert study.objectives[0].direction == direction


def test_a_mistake_in_an_axis_is_named_once(layered, write):
    write({"configs/bad.yaml": "defaults: [train, _self_]\nsweep: {axes: {seed: {values: [1], whn: a}}}\n"}, layered)
    (found,) = problems_of("bad")
    assert "sweep.axes.seed has no key 'whn'" in found


def test_a_wrong_value_in_yaml_is_cited_by_file_and_line(layered, write):
    write(
        {
            "configs/bad.yaml": "defaults:\n  - train\n  - _self_\nsweep:\n  axes:\n    seed: 1, x\n    module.wdth: 1, 2\n"
        },
        layered,
    )
    found = problems_of("bad")
    assert any(text.startswith("configs/bad.yaml:6:5") and "whole number" in text for text in found)
    assert any(text.startswith("configs/bad.yaml:7:5") and "module.width" in text for text in found)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("seed=range(10**9)", "not readable"),
        ("seed=range(1000000000)", "more than 100,000 values"),
        ("seed=range(0,5,0)", "step other than 0"),
        ("optimizer.lr=interval(0,1)", "sweep=random"),
        ("optimizer.lr=interval(1,0)", "holds no numbers"),
        ("optimizer.lr=tag(log,interval(0,1))", "above 0"),
        ("optimizer=glob(x*)", "no option of the group"),
        ("seed=glob(*)", "glob chooses among the options of a group, and seed is none"),
        ("seed=3", "nothing is varied"),
    ],
)
def test_axes_that_make_no_sense_are_refused_with_the_reason(layered, override, says):
    assert any(says in text for text in problems_of("train", override))


def test_a_backend_that_cannot_run_studies_is_told_before_anything_runs(layered, monkeypatch):
    monkeypatch.delattr("ai4sdk.backends.slurm.backend.SlurmBackend.pool")
    (found,) = problems_of("quickstart", "seed=1,2", "backend=slurm")
    assert "backend slurm runs plans one by one; it cannot run studies" in found
    assert found.endswith("→ backend=local")


def test_a_time_for_all_points_needs_somebody_who_hands_them_out(layered):
    (found,) = problems_of("quickstart", "seed=1,2", "backend=slurm", "sweep.max_time=8h")
    assert "nobody stays" in found


def test_a_function_has_nothing_to_prune(function_project):
    (found,) = problems_of("pond.yaml", "function.boats=1,2", "+sweep.pruner={kind: median}", "sweep.objective=fish")
    assert "this job calls a function" in found


@pytest.mark.parametrize("optimizers", ["sgd,adam", "adam,sgd"])
def test_a_key_that_only_one_option_has_is_told_to_depend_on_it(layered, optimizers):
    (found,) = problems_of("train", f"optimizer={optimizers}", "optimizer.momentum=0.5,0.9")
    assert "there is no key 'optimizer.momentum' (with optimizer=adam)" in found
    assert found.endswith("optimizer.momentum: {values: '0.5,0.9', when: optimizer=sgd}")


def test_what_goes_with_no_option_is_told_to_depend_on_none(layered):
    found = problems_of("train", "optimizer=sgd,adam", "+optimizer.momentum=0.5,0.9")
    assert len(found) == 2
    assert not any("when:" in text for text in found)


def test_a_study_whose_axes_are_all_set_by_hand_says_so(layered, write):
    write({"configs/axes.yaml": "defaults: [train, _self_]\nsweep: {axes: {seed: '1,2'}}\n"}, layered)
    (found,) = problems_of("axes", "seed=3")
    assert "nothing is left to vary: seed is set by hand" in found
    assert found.endswith("~sweep.axes")
    assert load_job("axes", ["seed=3", "~sweep.axes"]).job.sweep.axes == {}


@pytest.mark.parametrize("twice", [["seed=1,2", "seed=3"], ["seed=3", "seed=1,2"], ["seed=1,2", "+seed=3,4"]])
def test_a_key_given_twice_is_told_and_not_guessed(layered, twice):
    (found,) = problems_of("train", *twice)
    assert "seed is given twice, and once with several values" in found


def test_what_cannot_be_read_is_the_only_mistake_told(layered):
    (found,) = problems_of("train", "seed=1,,2")
    assert "not readable" in found


def test_all_options_of_a_group_can_be_meant(layered):
    assert {point.params["optimizer"] for point in make_study("train", ["optimizer=glob(*)"]).points} >= {"adam", "sgd"}


def test_many_points_are_planned_without_reading_anything_twice(layered, monkeypatch):
    from ai4sdk.planning import build

    reads: list[Path] = []
    original = build.take_snapshot
    monkeypatch.setattr(build, "take_snapshot", lambda *args: reads.append(args) or original(*args))
    study = make_study("train", ["seed=range(100)", "module.width=1,2,3,4,5"])
    assert len({point.digest for point in study.points}) == study.total == 500
    assert len(reads) == 1
