"""Charts are well-formed whatever is drawn, mark every point once, and say what each mark is."""

import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ai4sdk.studies.charts import (
    MOST_DOTS,
    MOST_LINES,
    MOST_SLICES,
    history_chart,
    importance_chart,
    parallel_chart,
    pareto_chart,
    slice_charts,
)
from ai4sdk.studies.importance import Importances
from ai4sdk.studies.point import PointState
from ai4sdk.studies.svg import scale_of

from .views import ACCURACY, LOSS, fish, losses, result, view

SVG = "{http://www.w3.org/2000/svg}"


def marks(chart, kind):
    return [each for each in ElementTree.fromstring(chart).iter() if each.get("class") == kind]


def title(mark):
    return mark.find(f"{SVG}title").text


def all_charts(study):
    importances = Importances(dict.fromkeys(study.axes, 1.0))
    found = [history_chart(study), importance_chart(importances, "loss"), parallel_chart(study), pareto_chart(study)]
    return [chart for chart in [*found, *slice_charts(study, importances)] if chart]


def test_history_marks_each_point_by_how_it_ended():
    chart = history_chart(fish())
    assert (len(marks(chart, "dot")), len(marks(chart, "pruned")), len(marks(chart, "failed"))) == (48, 7, 4)
    assert len(marks(chart, "best")) == 1
    assert title(marks(chart, "best")[0]).startswith("best: #8, val_loss 0.2052, lr=0.005791 hidden=128")
    assert "failed" in title(marks(chart, "failed")[0])


def test_the_best_so_far_only_gets_better():
    [line] = marks(history_chart(losses(3.0, 1.0, 2.0, 0.5)), "so-far")
    corners = [tuple(map(float, pair.split(","))) for pair in line.get("points").split()]
    # Lower values lie lower, where y is larger.
    assert [y for _, y in corners] == sorted(y for _, y in corners)
    assert [x for x, _ in corners] == sorted(x for x, _ in corners)
    assert len({y for _, y in corners}) == 3


def test_parallel_coordinates_have_a_line_a_point_and_the_best_on_top():
    chart = parallel_chart(fish())
    lines = marks(chart, "line")
    assert len(lines) == 48
    assert "--rank:100%" in lines[-1].get("style")
    [best] = marks(chart, "best-line")
    assert best.get("points") == lines[-1].get("points")
    names = [each.text for each in marks(chart, "name")]
    assert names == ["lr", "hidden", "optimizer", "seed", "momentum", "val_loss"]
    ticks = [each.text for each in marks(chart, "label")]
    assert {"0.01", "0.001", "16", "128", "adam", "sgd", "none"} <= set(ticks)


def test_the_pareto_front_is_marked():
    chart = pareto_chart(
        view(
            *(result(n, values=pair) for n, pair in enumerate([(1.0, 0.5), (2.0, 0.9), (3.0, 0.8)])),
            objectives=(LOSS, ACCURACY),
        )
    )
    assert len(marks(chart, "best")) == 2
    assert len(marks(chart, "dot")) == 1
    assert pareto_chart(losses(1.0, 2.0)) == ""


def test_slices_are_of_the_axes_that_vary_the_important_first():
    study = view(*(result(n, {"a": n, "b": n % 2, "c": 1}, (float(n),)) for n in range(6)))
    first, second = slice_charts(study, Importances({"b": 0.9, "a": 0.1}))
    assert "val_loss by b" in first
    assert "val_loss by a" in second
    many = view(*(result(n, {f"x{i}": n for i in range(30)}, (float(n),)) for n in range(3)))
    assert len(slice_charts(many)) == MOST_SLICES


def test_bars_are_as_long_as_their_shares():
    bars = marks(importance_chart(Importances({"a.lr": 0.75, "b.lr": 0.25}), "loss"), "amount")
    assert float(bars[0].get("width")) == pytest.approx(3 * float(bars[1].get("width")), rel=0.01)
    assert importance_chart(Importances(), "loss") == ""


def test_many_points_are_thinned_and_the_best_stays():
    study = view(*(result(n, {"x": n}, (float((n * 7919) % 10_007),)) for n in range(10_000)))
    assert len(marks(history_chart(study), "dot")) <= MOST_DOTS
    assert len(marks(parallel_chart(study), "line")) <= MOST_LINES
    assert title(marks(parallel_chart(study), "best-line")[0]).startswith("best: #0,")
    assert len(history_chart(study)) < 400_000


def test_nothing_to_draw_is_no_chart():
    for study in (view(), losses(math.nan, math.inf), view(result(0), result(1)), losses(1.0, 2.0, objectives=())):
        assert all_charts(study)[1:] == []
        assert history_chart(study) == parallel_chart(study) == ""


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([0, 10], ["0", "2", "4", "6", "8", "10"]),
        ([1e-4, 1e-1], ["0.0001", "0.001", "0.01", "0.1"]),
        ([0.001, 0.01, 0.1], ["0.001", "0.01", "0.1"]),
        ([-1, 1000], ["0", "250", "500", "750", "1000"]),
        ([5, 5], ["5"]),
        ([0, 1], ["0", "1"]),
        ([0, 3], ["0", "1", "2", "3"]),
        ([0, 11], ["0", "5", "10"]),
        ([0.0, 1.0], ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
        (["sgd", "adam"], ["adam", "sgd"]),
        ([True, False], ["false", "true"]),
        ([20, None, 3], ["3", "20", "null"]),
    ],
)
def test_scales_suit_their_values(values, labels):
    ticks = scale_of(values).ticks()
    assert [label for _, label in ticks] == labels
    assert all(-1e-9 <= place <= 1 + 1e-9 for place, _ in ticks)


def test_a_few_numbers_tried_again_and_again_have_a_place_each():
    scale = scale_of([16, 32, 128] * 2, choices=True)
    assert [scale.at(value) for value in (16, 32, 128)] == pytest.approx([1 / 6, 1 / 2, 5 / 6])
    assert scale_of([16, 32, 128], choices=True).kind == "linear"


plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.lists(st.integers())
names = st.sampled_from(["a", "b.lr", "c.lr", "<b>&\"'", "\x00\ud800"])
states = st.sampled_from(PointState)


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(st.dictionaries(names, plain), st.tuples(st.floats(), st.floats()), states), max_size=12))
def test_any_study_is_drawn_well_formed_within_its_frame(points):
    results = [result(n, params, values, state) for n, (params, values, state) in enumerate(points)]
    for chart in all_charts(view(*results, objectives=(LOSS, ACCURACY))):
        drawn = ElementTree.fromstring(chart)
        width, height = map(float, drawn.get("viewBox").split()[2:])
        assert "nan" not in re.sub(r"<title>.*?</title>|>[^<]*<|aria-label=\"[^\"]*\"", "", chart, flags=re.DOTALL)
        for circle in drawn.iter(f"{SVG}circle"):
            assert 0 <= float(circle.get("cx")) <= width
            assert 0 <= float(circle.get("cy")) <= height
