"""Every mistake is reported with its place, what it overrode, the nearest key and the fix; all at once."""

from __future__ import annotations

import pytest

from ai4sdk.config.load import inspect_job, load_job
from ai4sdk.errors import ConfigError


def problems(config: str = "train", *overrides: str):
    return inspect_job(config, list(overrides))[2]


def only(found):
    assert len(found) == 1, [str(problem) for problem in found]
    return found[0]


def test_a_good_config_has_none(project):
    assert problems() == []


def test_an_unknown_key_names_its_place_and_the_nearest_key(project, write):
    write({"configs/training/short.yaml": "# comment\nmax_epoch: 2\n"})
    problem = only(problems())
    assert str(problem.origin) == "configs/training/short.yaml:2:1"
    assert "max_epoch" in problem.message
    assert problem.fix == "max_epochs:"


def test_a_wrong_type_names_the_winner_and_what_it_overrode(project, write):
    write({"configs/high.yaml": "defaults:\n  - train\n  - _self_\ntraining:\n  max_epochs: many\n"})
    problem = only(problems("high"))
    assert str(problem.origin) == "configs/high.yaml:5:3"
    assert [str(loser) for loser in problem.overridden] == ["configs/training/short.yaml:1:1"]
    assert problem.message == "training.max_epochs must be a whole number, not 'many'"


def test_an_override_is_cited_as_typed(project):
    problem = only(problems("train", "training.max_epochs=ten"))
    assert str(problem.origin) == "command line: training.max_epochs=ten"
    assert problem.fix.startswith("training.max_epochs=10")


@pytest.mark.parametrize(
    ("override", "fix"),
    [
        ("optimizer=adma", "optimizer=adam"),
        ("optimiser.lr=1", "optimizer.lr=1"),
        ("module.widht=3", "module.width=3"),
        ("trainig.max_epochs=3", "training.max_epochs=3"),
        ("training.max_epoch=3", "training.max_epochs=3"),
        ("training.lr_scaling=true", "training.scale_learning_rate=true"),
        ("training.epochs_max=3", "training.max_epochs=3"),
        ("dataset.rate=8000", "dataset.audio.rate=8000"),
        ("dataset.batch_size=8", "dataset.loader.batch_size=8"),
        ("+optimizer.lr=3", "optimizer.lr=3"),
        ("~optimizer.momentumm", None),
        ("hydra.run.dir=x", "runs=FOLDER"),
        ("seed=1,2", "'seed=[1,2]'"),
        ("seed", "seed=VALUE"),
        ("name=[", "\"name='['\""),
        ("training.precision=bf16-mixd", "training.precision=bf16-mixed"),
        ("sweep.search=rndom", "sweep.search=random"),
        ("name=7", "name='7'"),
    ],
)
def test_a_mistaken_override_gets_the_fix_to_type(project, override, fix):
    problem = only(problems("train", override))
    assert str(problem.origin) == f"command line: {override}"
    assert (fix is None) or fix in problem.fix


def test_all_mistakes_come_at_once_in_the_order_of_mending(project, write):
    write(
        {
            "configs/bad.yaml": """
                defaults:
                  - module: nett
                  - optimizer: adam
                  - _self_
                seed: ${nowhere}
                training:
                  max_epoch: 3
                  precision: 31
                hardware:
                  memory: 12 elephants
                  cpus: two
                dataset:
                  uri: data.csv
                  splits: {method: stratfied}
                """
        }
    )
    found = problems("bad", "optimizer.lrr=3", "foo")
    places = [str(problem.origin) for problem in found]
    assert places == [
        "command line: foo",
        "command line: optimizer.lrr=3",
        "configs/bad.yaml:2:5",
        "configs/bad.yaml:5:1",
        "configs/bad.yaml:7:3",
        "configs/bad.yaml:8:3",
        "configs/bad.yaml:10:3",
        "configs/bad.yaml:11:3",
        "configs/bad.yaml:14:12",
    ]
    assert found[2].fix == "module: net"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: [1, 2\nb: 3\n", 2, "not readable"),
        ("a:\n\tb: x\n", 2, "indent with spaces"),
        ("name: x\nname: y\n", 2, "twice"),
        ("- 1\n- 2\n", 1, "a config is a mapping"),
        ("name: a: b\n", 1, "quote"),
        ("description: ${oops\n", 1, "description"),
    ],
)
def test_a_file_that_is_no_yaml_is_cited_by_line(project, write, text, line, words):
    write({"configs/optimizer/adam.yaml": text})
    problem = next(p for p in problems() if p.origin and p.origin.source == "configs/optimizer/adam.yaml")
    assert problem.origin.line == line
    assert words in problem.message


def test_a_file_that_unfolds_without_end_is_refused(project, write):
    levels = "\n".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]" for i in range(1, 9))
    write({"configs/optimizer/adam.yaml": f"l0: &l0 [x,x,x,x,x,x,x,x,x]\n{levels}\n"})
    assert any("unfold" in problem.message for problem in problems())


def test_a_file_that_is_not_text_is_cited(project):
    (project / "configs/optimizer/adam.yaml").write_bytes(b"\xff\xfe\x00lr")
    assert any("UTF-8" in problem.message for problem in problems())


def test_references_that_lead_nowhere_say_where_they_stand(project, write, monkeypatch):
    monkeypatch.delenv("NOPE", raising=False)
    write(
        {
            "configs/train.yaml": """
                defaults: [{module: net}, {optimizer: adam}, _self_]
                name: ${nmae}
                description: ${oc.env:NOPE}
                seed: ${oc.envv:X}
                dataset: {uri: '${dataset.uri}'}
                """
        }
    )
    found = {problem.key: problem for problem in problems()}
    assert "NOPE" in found["description"].message
    assert "export NOPE" in found["description"].fix
    assert "unknown resolver" in found["seed"].message
    assert "itself" in found["dataset.uri"].message
    assert found["name"].origin.line == 2


def test_a_value_still_to_be_given_is_asked_for(project, write):
    write({"configs/train.yaml": "defaults: [{module: net}, _self_]\ndataset: {uri: '???'}\n"})
    problem = only(problems())
    assert problem.key == "dataset.uri"
    assert "must be given" in problem.message


def test_what_is_required_and_missing_is_named_with_what_to_add(project, write):
    write({"configs/empty.yaml": "name: x\n"})
    keys = {problem.key: problem.fix for problem in problems("empty")}
    assert set(keys) == {"module", "dataset"}
    assert "+module=NAME" in keys["module"]


@pytest.mark.parametrize(
    "defaults",
    [
        "defaults: 3",
        "defaults: {a: b}",
        "defaults: [{a: b, c: d}]",
        "defaults: [3]",
        "defaults: [{module: 3}]",
        "defaults: [train]",
    ],
)
def test_a_bad_defaults_list_is_a_mistake_not_a_crash(project, write, defaults):
    write({"configs/train.yaml": f"{defaults}\nname: x\n"})
    found = problems()
    assert found
    assert all(problem.message for problem in found)


def test_a_union_does_not_show_its_machinery(project):
    messages = [problem.message for problem in problems("train", "dataset.splits.train=[1]")]
    assert messages == ["dataset.splits.train must be a number or text or nothing, not [1]"] or all(
        "files" not in message for message in messages
    )


def test_the_error_is_raised_with_all_problems(project):
    with pytest.raises(ConfigError) as caught:
        load_job("train", ["a=1", "b=2"])
    assert len(caught.value.problems) == 2
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("value", ["foo", "hydra", "hydra:", "optuna"])
def test_a_search_that_is_none_is_told_the_searches_there_are(project, value):
    problem = only(problems("train", f"sweep.search={value}"))
    assert "one of grid, random, tpe, cmaes, gp or nsga2 or hydra:NAME for a Hydra sweeper" in problem.message
    assert "^" not in str(problem)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["sweep.objective=[loss,loss]"], "objective names loss twice"),
        (["sweep.direction=[min,max]"], "direction has 2 values for 1 objective"),
    ],
)
def test_objectives_and_directions_that_do_not_fit_are_told(project, overrides, says):
    assert says in only(problems("train", *overrides)).message
