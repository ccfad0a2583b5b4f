"""A search finds better points than chance, gives up hopeless ones, and goes on after any kill without losing one."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from ai4sdk.config.axes import Axis, Choice, Interval, Space
from ai4sdk.spec.sweep import Pruner, Sweep
from ai4sdk.studies.point import Objective, Point, PointState, Result
from ai4sdk.studies.search import OptunaSearch, check_search
from ai4sdk.studies.space import active, identity, sample

SQUARE: Space = (Axis("x", Interval(0, 1)), Axis("y", Interval(0, 1)))
CONDITIONAL: Space = (
    Axis("optimizer", Choice(("adam", "sgd"))),
    Axis("lr", Interval(1e-4, 1e-1, log=True)),
    Axis("momentum", Choice((0.0, 0.3, 0.6, 0.9), ordered=True), when=("optimizer", "sgd")),
    Axis("layers", Interval(1, 4, integer=True)),
    Axis("flag", Choice((1, True, "1")), when=("layers", 2)),
)
SEARCHES = ("tpe", "cmaes", "gp", "nsga2")
ALL = ("grid", "random", *SEARCHES)

Params = dict[str, Any]


def quadratic(params: Params) -> tuple[float, ...]:
    return ((params["x"] - 0.3) ** 2 + (params["y"] - 0.7) ** 2,)


def slope(params: Params) -> tuple[float, ...]:
    return (abs(math.log10(params["lr"]) + 2) + params["layers"] + params.get("momentum", 0.5),)


def make(space: Space, search: str, points: int | None = 30, seed: int = 0, **more: Any) -> OptunaSearch:
    return OptunaSearch(space, search, seed=seed, points=points, directions=more.pop("directions", ["min"]), **more)


def run(search: OptunaSearch, objective: Callable[[Params], tuple[float, ...]]) -> list[tuple[int, Params]]:
    """Run one point after the other to the end."""
    asked = []
    while (point := search.ask()) is not None:
        asked.append(point)
        search.tell(point[0], objective(point[1]), PointState.SUCCEEDED)
    return asked


def result(number: int, params: Params, values: tuple[float, ...] | None, state: PointState, **more: Any) -> Result:
    return Result(Point(number, params, (), ""), state, values, **more)


# Choosing


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_comes_nearer_to_the_best_than_chance(name: str) -> None:
    points, seeds = (24, 2) if name == "gp" else (60, 6)
    late = points // 3
    found, chance = 0.0, 0.0
    for seed in range(seeds):
        asked = run(make(SQUARE, name, points, seed), quadratic)
        assert [number for number, _ in asked] == list(range(points))
        found += sum(quadratic(params)[0] for _, params in asked[-late:])
        chance += sum(quadratic(sample(SQUARE, seed, number))[0] for number in range(late))
    assert found < chance * (0.7 if name == "nsga2" else 0.5)


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_for_the_highest_value_climbs(name: str) -> None:
    asked = run(make(SQUARE, name, 30, directions=["max"]), lambda params: (params["x"] + params["y"],))
    assert sum(params["x"] + params["y"] for _, params in asked[-10:]) / 10 > 1.3


@pytest.mark.parametrize("name", ALL)
def test_the_same_seed_asks_for_the_same_points(name: str) -> None:
    space = (Axis("x", Choice(tuple(range(20)), ordered=True)), Axis("y", Choice((0.1, 0.5, 0.9))))
    first, again = (run(make(space, name, 15), quadratic) for _ in range(2))
    assert first == again
    other = run(make(space, name, 15, seed=1), quadratic)
    assert (first == other) == (name == "grid")


@pytest.mark.parametrize("name", ["random", *SEARCHES])
def test_axes_are_there_only_under_their_condition(name: str) -> None:
    asked = run(make(CONDITIONAL, name, 30 if name != "gp" else 14), slope)
    kinds = set()
    for _, params in asked:
        for axis in CONDITIONAL:
            assert active(axis, params) == (axis.key in params)
        assert params["optimizer"] in ("adam", "sgd")
        assert 1e-4 <= params["lr"] <= 1e-1
        assert type(params["layers"]) is int
        assert params.get("momentum", 0.1) in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
        kinds.add(frozenset(params))
        assert json.loads(json.dumps(params)) == params, "the ledger is JSON"
    assert len(kinds) > 1


def test_values_that_look_alike_stay_apart() -> None:
    asked = run(make((Axis("flag", Choice((1, True, "1", 1.0))),), "tpe", 30), lambda params: (0.0,))
    assert {identity(params["flag"]) for _, params in asked} == {"1", "true", '"1"', "1.0"}


@pytest.mark.parametrize("name", ["tpe", "gp", "nsga2"])
def test_several_objectives_spread_along_the_front(name: str) -> None:
    points = 24 if name == "gp" else 60
    search = make(SQUARE, name, points, directions=["min", "max"])
    asked = run(search, lambda params: (params["x"], params["x"] - params["y"] ** 2))
    assert len(asked) == points
    late = [params for _, params in asked[-points // 3 :]]
    assert sum(params["y"] for params in late) / len(late) < 0.4, "y only does harm"
    assert max(params["x"] for params in late) - min(params["x"] for params in late) > 0.3


def test_a_grid_and_drawn_points_are_what_was_planned() -> None:
    space = (Axis("x", Choice((1, 2))), Axis("y", Choice(("a", "b"))))
    grid = run(make(space, "grid", None), lambda params: (0.0,))
    assert [tuple(params.values()) for _, params in grid] == [(1, "a"), (1, "b"), (2, "a"), (2, "b")]
    assert len(run(make(space, "grid", 3), lambda params: (0.0,))) == 3
    drawn = run(make(SQUARE, "random", 10, seed=4), quadratic)
    assert drawn == [(number, sample(SQUARE, 4, number)) for number in range(10)]


@pytest.mark.parametrize("name", ALL)
def test_an_exhausted_space_ends(name: str) -> None:
    space = (Axis("x", Choice((0.0, 0.3), ordered=True)), Axis("y", Choice((0.7,))))
    asked = run(make(space, name, 500), quadratic)
    assert {params["x"] for _, params in asked} == {0.0, 0.3}
    assert len(asked) < 500


# Failures and points side by side


@pytest.mark.parametrize("name", ALL)
def test_failed_points_count_as_tried_and_do_not_stop_a_search(name: str) -> None:
    space = (Axis("x", Choice(tuple(range(30)), ordered=True)), Axis("y", Choice((0.0, 0.5, 1.0), ordered=True)))
    search = make(space, name, 15)
    ends: list[tuple[tuple[float, ...] | None, PointState]] = [
        (None, PointState.FAILED),
        ((math.nan,), PointState.SUCCEEDED),
        ((1.0, 2.0), PointState.SUCCEEDED),
        (None, PointState.SUCCEEDED),
        ((math.inf,), PointState.SUCCEEDED),
        ((1.0,), PointState.SUCCEEDED),
    ]
    numbers = []
    while (point := search.ask()) is not None:
        numbers.append(point[0])
        search.tell(point[0], *ends[point[0] % len(ends)])
    assert numbers == list(range(15))


@pytest.mark.parametrize("name", SEARCHES)
def test_points_side_by_side_differ_and_may_end_in_any_order(name: str) -> None:
    search = make(SQUARE, name, 24)
    running: list[tuple[int, Params]] = []
    ended = []
    while True:
        while len(running) < 4 and (point := search.ask()) is not None:
            running.append(point)
        if not running:
            break
        number, params = running.pop(len(ended) % len(running))
        ended.append((number, params))
        search.tell(number, quadratic(params), PointState.SUCCEEDED)
    assert sorted(number for number, _ in ended) == list(range(24))
    # A child of NSGA-II may be just like its parent.
    assert len({identity(params) for _, params in ended}) >= (20 if name == "nsga2" else 24)


# Pruning

PRUNERS = [
    Pruner(kind="median", options={"n_startup_trials": 3}),
    Pruner(kind="percentile", options={"percentile": 50, "n_startup_trials": 3}),
    Pruner(kind="threshold", options={"upper": 5.0}),
    Pruner(kind="successive_halving", options={"min_resource": 1, "reduction_factor": 2}),
    Pruner(kind="hyperband", options={"min_resource": 1, "max_resource": 8, "reduction_factor": 2}),
]


def train(search: OptunaSearch, number: int, level: float, steps: int = 8) -> bool:
    """Report a falling loss at each step; False if the point was given up."""
    for step in range(1, steps + 1):
        if not search.report(number, step, level + 1 / step):
            search.tell(number, None, PointState.PRUNED)
            return False
    search.tell(number, (level,), PointState.SUCCEEDED)
    return True


@pytest.mark.parametrize("pruner", PRUNERS, ids=lambda pruner: pruner.kind)
@pytest.mark.parametrize("name", ["grid", "tpe"])
def test_a_hopeless_point_is_given_up_and_the_best_never(pruner: Pruner, name: str) -> None:
    space = (Axis("x", Choice(tuple(range(40)))),)
    search = make(space, name, 40, pruner=pruner)
    survived = []
    for turn in range(20):
        point = search.ask()
        assert point is not None
        hopeless = turn % 4 == 3
        survived.append((hopeless, train(search, point[0], level=10.0 if hopeless else 1.0 - turn / 100)))
    assert all(went_on for hopeless, went_on in survived if not hopeless)
    assert sum(went_on for hopeless, went_on in survived if hopeless) <= (2 if pruner.kind == "hyperband" else 1)


def test_without_a_pruner_every_point_goes_on() -> None:
    search = make(SQUARE, "tpe", 10)
    assert all(train(search, search.ask()[0], level) for level in (0.0, 100.0, math.nan, 1.0))  # type: ignore[index]


def test_reports_before_a_kill_count_for_points_after_it() -> None:
    pruner = Pruner(kind="median", options={"n_startup_trials": 2})
    reports = {step: 1 / step for step in range(1, 9)}
    before = [result(number, {"x": number}, (0.1,), PointState.SUCCEEDED, reports=reports) for number in range(3)]
    search = make((Axis("x", Choice(tuple(range(9)))),), "grid", None, pruner=pruner)
    search.restore(before)
    point = search.ask()
    assert point is not None
    assert not search.report(point[0], 4, 10.0)


# Going on after a kill


def interrupted_at(name: str, kill: int, space: Space, points: int, slots: int) -> None:
    """Kill a search after some events, restore it from what was written down, and run it to its end."""
    # One generation, which NSGA-II draws at random as the others draw their first points.
    options = {"population_size": points} if name == "nsga2" else {}
    written: dict[int, Result] = {}
    search = make(space, name, points, options=options)
    running: list[tuple[int, Params]] = []

    def loop(events: int) -> None:
        for _ in range(events):
            if len(running) < slots and (point := search.ask()) is not None:
                number, params = point
                if number in written:
                    assert not written[number].state.final, "a point that ended is not run again"
                    assert written[number].point.params == params
                assert number not in dict(running)
                running.append(point)
                written[number] = result(number, params, None, PointState.RUNNING)
            elif running:
                number, params = running.pop(0)
                state = (PointState.SUCCEEDED, PointState.PRUNED, PointState.FAILED)[min(number % 7, 2)]
                state = PointState.SUCCEEDED if number % 3 else state
                values = slope(params) if state is PointState.SUCCEEDED else None
                search.tell(number, values, state)
                written[number] = result(number, params, values, state)
            else:
                return

    loop(kill)
    before = {number: known.point.params for number, known in written.items()}
    search = make(space, name, points, options=options)
    # As read from the ledger.
    search.restore(
        [
            result(number, json.loads(json.dumps(dict(known.point.params))), known.values, known.state)
            for number, known in reversed(written.items())
        ]
    )
    running.clear()
    loop(10 * points)
    assert sorted(written) == list(range(points))
    assert all(known.state.final for known in written.values())
    assert {number: written[number].point.params for number in before} == before
    distinct = {identity(dict(known.point.params)) for known in written.values()}
    assert len(distinct) == points, "a resumed search draws no number twice"


@pytest.mark.parametrize("name", ["random", *SEARCHES])
def test_a_search_killed_anywhere_loses_no_point_and_doubles_none(name: str) -> None:
    points = 12
    kills: Sequence[int] = range(0, 2 * points + 1) if name != "gp" else (0, 5, 14, 23)
    for kill in kills:
        interrupted_at(name, kill, CONDITIONAL, points, slots=1 + kill % 3)


@pytest.mark.parametrize("name", SEARCHES)
def test_a_restored_search_knows_what_it_learned(name: str) -> None:
    points = 24 if name == "gp" else 60
    asked = run(make(SQUARE, name, points), quadratic)
    search = make(SQUARE, name, points + 10)
    search.restore(result(number, params, quadratic(params), PointState.SUCCEEDED) for number, params in asked)
    more = run(search, quadratic)
    assert [number for number, _ in more] == list(range(points, points + 10))
    assert sum(quadratic(params)[0] for _, params in more) / 10 < (0.14 if name == "nsga2" else 0.035)


def test_a_finished_search_has_nothing_more_to_ask() -> None:
    asked = run(make(SQUARE, "tpe", 5), quadratic)
    search = make(SQUARE, "tpe", 5)
    search.restore(result(number, params, quadratic(params), PointState.SUCCEEDED) for number, params in asked)
    assert search.ask() is None


def test_restoring_many_points_is_quick() -> None:

    before = [
        result(n, sample(SQUARE, 0, n), quadratic(sample(SQUARE, 0, n)), PointState.SUCCEEDED) for n in range(500)
    ]
    started = time.perf_counter()
    make(SQUARE, "tpe", 1000).restore(before)
    assert time.perf_counter() - started < 20


# Mistakes

LOSS = (Objective("val_loss", "min"),)
BOTH = (*LOSS, Objective("val_accuracy", "max"))
NAMES: Space = (Axis("kind", Choice(("a", "b"))),)


@pytest.mark.parametrize(
    ("sweep", "space", "objectives", "key", "message", "fix"),
    [
        ({"search": "tpe"}, SQUARE, LOSS, "sweep.points", "how many points", "sweep.points=30"),
        ({"search": "random"}, SQUARE, LOSS, "sweep.points", "how many points", "sweep.points=30"),
        ({}, SQUARE[:1], LOSS, "sweep.axes.x", "is an interval", "sweep=random"),
        ({"search": "cmaes", "points": 9}, NAMES, LOSS, "sweep.search", "cmaes searches numbers", "sweep.search=tpe"),
        ({"search": "cmaes", "points": 9}, SQUARE, BOTH, "sweep.search", "one objective", "sweep.search=nsga2"),
        ({"pruner": {}}, NAMES, BOTH, "sweep.pruner", "one objective", "sweep.objective=val_loss"),
        ({"search": "hydra:x", "pruner": {}}, NAMES, LOSS, "sweep.pruner", "none can be pruned", "sweep.pruner=null"),
        ({"options": {"a": 1}}, NAMES, LOSS, "sweep.options.a", "grid has no option 'a'", "sweep.options={}"),
        (
            {"search": "tpe", "points": 9, "options": {"n_startup_trails": 5}},
            SQUARE,
            LOSS,
            "sweep.options.n_startup_trails",
            "tpe has no option 'n_startup_trails'",
            "sweep.options.n_startup_trials",
        ),
        (
            {"search": "gp", "points": 9, "options": {"seed": 5}},
            SQUARE,
            LOSS,
            "sweep.options.seed",
            "no option 'seed'",
            "sweep.seed",
        ),
        (
            {"search": "gp", "points": 9, "options": {"zzz": 5}},
            SQUARE,
            LOSS,
            "sweep.options.zzz",
            "no option",
            "one of n_startup_trials, deterministic_objective",
        ),
        (
            {"search": "cmaes", "points": 9, "options": {"sigma0": "big"}},
            SQUARE,
            LOSS,
            "sweep.options.sigma0",
            "must be a number or null, not 'big'",
            "leave it out",
        ),
        (
            {"search": "nsga2", "points": 9, "options": {"population_size": 1}},
            SQUARE,
            LOSS,
            "sweep.options",
            "nsga2 refuses its options",
            "",
        ),
        (
            {"pruner": {"kind": "percentile"}},
            NAMES,
            LOSS,
            "sweep.pruner.options",
            "needs the option 'percentile'",
            "sweep.pruner.options.percentile=VALUE",
        ),
        (
            {"pruner": {"kind": "percentile", "options": {"percentile": 101}}},
            NAMES,
            LOSS,
            "sweep.pruner.options",
            "percentile refuses its options",
            "",
        ),
        ({"pruner": {"kind": "threshold"}}, NAMES, LOSS, "sweep.pruner.options", "lower or upper", ""),
        (
            {"pruner": {"options": {"warmup_steps": 1}}},
            NAMES,
            LOSS,
            "sweep.pruner.options.warmup_steps",
            "median has no option",
            "n_warmup_steps",
        ),
    ],
)
def test_mistakes_are_found_before_anything_runs(
    sweep: Params, space: Space, objectives: tuple[Objective, ...], key: str, message: str, fix: str
) -> None:
    (problem,) = check_search(Sweep.model_validate(sweep), space, objectives)
    assert problem.key == key
    assert message in problem.message
    assert fix in (problem.fix or "")


@pytest.mark.parametrize(
    ("sweep", "space", "objectives"),
    [
        ({}, NAMES, LOSS),
        ({"search": "tpe", "points": 9, "options": {"n_startup_trials": 3}, "pruner": {}}, CONDITIONAL, LOSS),
        ({"search": "nsga2", "points": 9, "options": {"population_size": 4}}, SQUARE, BOTH),
        ({"search": "tpe", "points": 9}, SQUARE, BOTH),
        ({"search": "gp", "points": 9}, SQUARE, BOTH),
        ({"search": "cmaes", "points": 9, "options": {"sigma0": 1, "popsize": None}}, SQUARE, LOSS),
        ({"search": "hydra:optuna", "options": {"n_trials": 3}}, SQUARE, LOSS),
    ],
)
def test_what_can_be_searched_has_no_problems(sweep: Params, space: Space, objectives: tuple[Objective, ...]) -> None:
    assert check_search(Sweep.model_validate(sweep), space, objectives) == []


def test_optuna_keeps_quiet(capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder) -> None:
    for name in ("tpe", "cmaes", "nsga2"):
        asked = run(make(CONDITIONAL, name, 15), slope)
        search = make(CONDITIONAL, name, 18)
        search.restore(result(number, params, slope(params), PointState.SUCCEEDED) for number, params in asked)
        run(search, lambda params: (math.nan,))
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list
