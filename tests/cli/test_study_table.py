"""The table of a study is sorted, lines up, fits the terminal and says what it leaves out."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest

from ai4sdk.cli import study_watch
from ai4sdk.cli.study_table import seed_lines, table_lines
from ai4sdk.cli.study_watch import closing_lines, next_step
from ai4sdk.runs.state import RunState, State
from ai4sdk.studies.layout import StudyPaths
from ai4sdk.studies.outcome import NOTHING_MEASURED
from ai4sdk.studies.point import Objective, Point, PointState, Result, StudyView

LOSS = Objective("val_loss", "min")


def result(number, params, values=None, state=PointState.SUCCEEDED, **facts):
    return Result(Point(number, params, (), f"sha256:{number}"), state, values, **facts)


def view(*results, axes=("training.optimizer.lr", "optimizer"), total=None, objectives=(LOSS,)):
    return StudyView("id", "fish", "fish", "grid", objectives, axes, total or len(results), results, "running")


STUDY = view(
    result(0, {"training.optimizer.lr": 0.1, "optimizer": "sgd"}, (12.5,), took=90.0),
    result(1, {"training.optimizer.lr": 0.01, "optimizer": "adam"}, (0.123456,), took=4.2, reused=True),
    result(2, {"training.optimizer.lr": 0.001}, (math.nan,), took=3.0),
    result(3, {"training.optimizer.lr": 0.0001, "optimizer": "adam"}, None, PointState.FAILED),
    result(10, {"training.optimizer.lr": 1, "optimizer": "adam"}, None, PointState.RUNNING),
    total=12,
)


def test_the_table_is_sorted_and_lines_up():
    assert table_lines(STUDY, 100) == [
        " #  val_loss      lr  optimizer        took  state",
        " 1    0.1235    0.01  adam            4.2 s  succeeded (reused)",
        " 0     12.50     0.1  sgd        1 min 30 s  succeeded",
        " 2       nan   0.001  -               3.0 s  succeeded",
        "10                 1  adam                   running",
        " 3            0.0001  adam                   failed",
        "12 points: 7 waiting, 1 running, 3 succeeded, 1 failed, 1 reused",
        "best: #1, val_loss 0.1235, lr=0.01 optimizer=adam",
    ]


def test_what_is_left_out_is_said():
    lines = table_lines(STUDY, 100, most=2)
    assert lines[3] == "… and 3 more"
    assert len(lines) == 6


@pytest.mark.parametrize("width", [1, 20, 40])
def test_lines_fit_the_terminal(width):
    assert all(len(line) <= width for line in table_lines(STUDY, width))


def test_axes_that_end_alike_keep_what_tells_them_apart():
    study = view(result(0, {"a.lr": 1, "b.lr": 2, "c.depth": 3}, (1.0,)), axes=("a.lr", "b.lr", "c.depth"))
    assert table_lines(study, 100)[0].split() == ["#", "val_loss", "a.lr", "b.lr", "depth", "took", "state"]


def test_a_text_of_many_lines_stays_one_cell():
    study = view(result(0, {"prompt": "one\ntwo\x1b[31m" + "x" * 99}, (1.0,)), axes=("prompt",))
    lines = table_lines(study, 200)
    assert len(lines) == 4
    assert not any("\n" in line or "\x1b" in line for line in lines)
    assert len(lines[1]) < 80


def test_a_study_without_points_or_objectives_has_lines():
    assert table_lines(view(total=3), 80) == ["3 points: 3 waiting"]
    assert table_lines(view(), 80) == ["no points yet"]
    lines = table_lines(view(result(0, {"x": 1}), axes=("x",), objectives=()), 80)
    assert lines[0].split() == ["#", "x", "took", "state"]
    assert not any(line.startswith("best") for line in lines)


def test_seeds_are_a_mean_and_a_deviation_a_line():
    points = [result(n, {"m.lr": n // 2 + 1, "data.seed": n % 2}, (float(4 - n),)) for n in range(4)]
    assert seed_lines(view(*points, axes=("m.lr", "data.seed"))) == [
        "n  val_loss (mean ± sd)  points that differ in their seed only",
        "2          1.500 ± 0.71  lr=2",
        "2          3.500 ± 0.71  lr=1",
    ]
    assert seed_lines(STUDY) == []


def test_seeds_alone_are_summed_up_as_all():
    lines = seed_lines(view(*(result(number, {"seed": number}, (0.5,)) for number in range(2)), axes=("seed",)))
    assert lines[-1].endswith("  all")


def test_with_several_objectives_the_pareto_front_is_named():
    points = [result(number, {"lr": number}, values) for number, values in enumerate([(1, 3), (2, 2), (3, 3)])]
    lines = table_lines(view(*points, axes=("lr",), objectives=(LOSS, Objective("seconds", "min"))), 100)
    assert lines[-1] == "Pareto front: #0, #1"


def test_the_closing_words_say_where_reused_points_have_their_records(tmp_path, monkeypatch):
    monkeypatch.setattr(study_watch, "read_ledger", lambda _: SimpleNamespace(last_error=None, uri="http://records"))
    state = RunState(State.SUCCEEDED)
    told = "\n".join(closing_lines(StudyPaths(tmp_path), view(result(0, {}), result(1, {}, reused=True)), state))
    assert "(of 1 reused point where they ran, not below this study)" in told
    assert "reused point" not in "\n".join(closing_lines(StudyPaths(tmp_path), view(result(0, {})), state))


def test_a_study_that_cannot_go_on_with_its_objective_is_not_told_to_resume(tmp_path):
    paths = StudyPaths(tmp_path)
    wrong = RunState(State.FAILED, cause=f"{NOTHING_MEASURED}: point 0: it has no los", exit_code=2)
    assert "start anew" in next_step(paths, wrong)
    assert "resume" not in next_step(paths, wrong)
    assert "--failed" in next_step(paths, RunState(State.FAILED, cause="1 of 2 points failed", exit_code=4))


def test_a_pruner_that_nobody_told_anything_is_told_of(tmp_path):
    def told(*results, pruner="median"):
        found = replace(view(*results), pruner=pruner)
        return "could give up no point" in "\n".join(
            closing_lines(StudyPaths(tmp_path), found, RunState(State.SUCCEEDED))
        )

    silent, heard = result(0, {}, (1.0,)), result(1, {}, (1.0,), reports={0: 2.0})
    assert told(silent)
    assert not told(silent, heard)
    assert not told(result(0, {}, (1.0,), reused=True))
    assert not told(silent, pruner=None)
