"""What a study chooses from: no combination twice, none forgotten, and a drawn point that stays what it is."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai4sdk.config.axes import Axis, Choice, Interval, Space
from ai4sdk.errors import ConfigError
from ai4sdk.studies.space import active, check, grid, identity, listed, sample, size

PLAIN = st.one_of(st.integers(-3, 3), st.booleans(), st.sampled_from(["a", "b", "1", 1.0, 0.5, None, [1, 2]]))


@st.composite
def values(draw: Any, endless: bool) -> Any:
    kind = draw(st.sampled_from(["choice", "whole", *(["dense", "log", "whole log"] if endless else [])]))
    low = draw(st.integers(-5, 5))
    width = draw(st.integers(0, 4))
    if kind == "choice":
        return Choice(tuple(draw(st.lists(PLAIN, min_size=1, max_size=4))), ordered=draw(st.booleans()))
    if kind == "whole":
        return Interval(low, low + width, integer=True)
    if kind == "whole log":
        return Interval(1 + abs(low), 1 + abs(low) + width, log=True, integer=True)
    return Interval(10.0**low, 10.0 ** (low + width), log=kind == "log")


@st.composite
def spaces(draw: Any, endless: bool = False) -> Space:
    axes: list[Axis] = []
    for index in range(draw(st.integers(0, 5))):
        when = None
        parents = [axis for axis in axes if listed(axis.values) is not None]
        if parents and draw(st.booleans()):
            parent = draw(st.sampled_from(parents))
            when = (parent.key, draw(st.sampled_from(list(listed(parent.values) or ()))))
        axes.append(Axis(f"axis{index}", draw(values(endless)), when))
    return tuple(axes)


@given(spaces())
def test_a_grid_has_every_combination_once(space: Space) -> None:
    points = list(grid(space))
    assert len({identity(point) for point in points}) == len(points) == size(space)


@given(spaces())
def test_a_grid_is_the_product_with_the_last_axis_fastest(space: Space) -> None:
    expected: dict[str, dict[str, Any]] = {}
    for combination in itertools.product(*(listed(axis.values) or () for axis in space)):
        point: dict[str, Any] = {}
        for axis, value in zip(space, combination, strict=True):
            if active(axis, point):
                point[axis.key] = value
        expected.setdefault(identity(list(point.items())), point)
    assert [list(point.items()) for point in grid(space)] == [list(point.items()) for point in expected.values()]


@given(spaces(endless=True))
def test_spaces_that_can_be_searched_have_no_problems(space: Space) -> None:
    assert check(space) == []


@given(spaces(endless=True), st.integers(0, 2**32 - 1), st.integers(0, 10_000))
def test_a_drawn_point_lies_in_the_space_and_depends_on_seed_and_number(space: Space, seed: int, number: int) -> None:
    point = sample(space, seed, number)
    assert identity(point) == identity(sample(space, seed, number))
    assert list(point) == [axis.key for axis in space if axis.key in point]
    for axis in space:
        assert active(axis, point) == (axis.key in point)
        if axis.key not in point:
            continue
        value = point[axis.key]
        if (one_by_one := listed(axis.values)) is not None:
            assert identity(value) in map(identity, one_by_one)
        else:
            assert isinstance(axis.values, Interval)
            assert axis.values.low <= value <= axis.values.high


def test_drawn_points_differ_by_number_and_by_seed() -> None:
    space = (Axis("x", Interval(0, 1)),)
    drawn = {sample(space, seed, number)["x"] for seed in range(3) for number in range(100)}
    assert len(drawn) == 300


def test_drawn_points_fill_an_axis_evenly() -> None:
    space = (
        Axis("rate", Interval(1e-4, 1e0, log=True)),
        Axis("layers", Interval(1, 4, integer=True)),
        Axis("width", Interval(1, 1000, log=True, integer=True)),
        Axis("kind", Choice(("a", "b"))),
    )
    drawn = [sample(space, 0, number) for number in range(4000)]
    for decade in range(-4, 0):
        assert sum(decade <= math.log10(point["rate"]) < decade + 1 for point in drawn) == pytest.approx(1000, abs=120)
    for layers in range(1, 5):
        assert sum(point["layers"] == layers for point in drawn) == pytest.approx(1000, abs=120)
    assert sum(point["width"] <= 31 for point in drawn) == pytest.approx(2200, abs=300)
    assert sum(point["kind"] == "a" for point in drawn) == pytest.approx(2000, abs=160)


def test_a_drawn_point_is_the_same_on_every_machine() -> None:
    space = (Axis("rate", Interval(1e-4, 1e-1, log=True)), Axis("kind", Choice(("a", "b", "c"))))
    assert [sample(space, 7, number)["kind"] for number in range(8)] == list("accaabcc")
    assert sample(space, 7, 0)["rate"] == pytest.approx(0.012711735775157485)


def test_the_size_of_a_big_space_is_not_counted_one_by_one() -> None:
    big = tuple(Axis(f"axis{index}", Choice(tuple(range(1000)))) for index in range(10))
    assert size(big) == 1000**10
    assert size((*big, Axis("rate", Interval(0, 1)))) is None


def test_axes_that_are_not_there_make_no_combinations() -> None:
    space = (
        Axis("optimizer", Choice(("adam", "sgd"))),
        Axis("momentum", Choice((0.0, 0.9)), when=("optimizer", "sgd")),
        Axis("nesterov", Choice((True, False)), when=("momentum", 0.9)),
    )
    assert list(grid(space)) == [
        {"optimizer": "adam"},
        {"optimizer": "sgd", "momentum": 0.0},
        {"optimizer": "sgd", "momentum": 0.9, "nesterov": True},
        {"optimizer": "sgd", "momentum": 0.9, "nesterov": False},
    ]
    assert size(space) == 4


def test_values_that_look_alike_are_told_apart() -> None:
    assert [point["x"] for point in grid((Axis("x", Choice((1, True, 1.0, "1", 1))),))] == [1, True, 1.0, "1"]


def test_a_grid_over_an_interval_says_what_to_do() -> None:
    with pytest.raises(ConfigError) as raised:
        list(grid((Axis("batch", Choice((1, 2))), Axis("rate", Interval(0, 1)))))
    (problem,) = raised.value.problems
    assert problem.key == "sweep.axes.rate"
    assert "rate" in problem.message
    assert "sweep=random" in (problem.fix or "")


KIND = Axis("kind", Choice(("a", "b")))


@pytest.mark.parametrize(
    ("space", "message", "fix"),
    [
        ((KIND, Axis("x", Choice((1,)), ("kint", "a"))), "kint, which is no axis", "when: kind=a"),
        ((KIND, Axis("x", Choice((1,)), ("kind", "c"))), "kind=c, which kind never is", "one of a, b"),
        ((Axis("x", Choice((1,)), ("kind", "a")), KIND), "which comes after it", "put kind before x"),
        ((Axis("x", Choice((1,)), ("x", 1)),), "depends on itself", "leave out when"),
        ((Axis("x", Interval(0, 1)), Axis("y", Choice((1,)), ("x", 0.5))), "which is an interval", "list the values"),
        ((KIND, KIND), "varied twice", "leave one"),
        ((Axis("x", Choice(())),), "no values", "x: 1,2,3"),
        ((Axis("x", Interval(1, 0)),), "starts above its end", "interval(0, 1)"),
        ((Axis("x", Interval(0, math.inf)),), "not finite", "interval(0, 1)"),
        ((Axis("x", Interval(0, 1, log=True)),), "must start above 0", "interval(1e-5, 1)"),
        ((Axis("x", Interval(0, 1.5, integer=True)),), "its bounds are not", "interval(1, 10)"),
    ],
)
def test_axes_that_cannot_be_searched_are_reported(space: Space, message: str, fix: str) -> None:
    (problem,) = check(space)
    assert message in problem.message
    assert fix in (problem.fix or "")
    assert problem.key.startswith("sweep.axes.")
