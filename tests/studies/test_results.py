"""What the points of a study say together is right for any values, and does not depend on their order."""

import json
import math
import statistics
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai4sdk.studies.point import PointState
from ai4sdk.studies.results import best, by_seed, counts, estimate, history, in_order, pareto_front, ranked, records

from .views import ACCURACY, LOSS, fish, losses, result, view

values = st.floats(allow_nan=True) | st.integers(-3, 3).map(float)


def numbers(results):
    return [each.point.number for each in results]


def test_the_lowest_loss_and_the_highest_accuracy_come_first():
    assert numbers(ranked(losses(3.0, 1.0, 2.0))) == [1, 2, 0]
    assert numbers(ranked(losses(3.0, 1.0, 2.0, objectives=(ACCURACY,)))) == [0, 2, 1]


def test_nan_comes_last_and_ties_go_by_number():
    assert numbers(ranked(losses(math.nan, 1.0, math.inf, 1.0))) == [1, 3, 2, 0]
    assert numbers(ranked(losses(math.nan, 1.0, -math.inf, objectives=(ACCURACY,)))) == [1, 2, 0]


def test_only_points_that_succeeded_are_ranked():
    study = view(
        result(0, values=(0.1,), state=PointState.PRUNED), result(1), result(2, values=(5.0,)), result(3, values=())
    )
    assert numbers(ranked(study)) == [2, 3]
    assert best(study) is study.results[2]


@pytest.mark.parametrize("study", [view(), losses(math.nan), view(result(0)), losses(1.0, objectives=())])
def test_there_is_no_best_point_without_a_number(study):
    assert best(study) is None


@given(st.lists(values, max_size=30), st.sampled_from([LOSS, ACCURACY]))
def test_nobody_is_ranked_above_a_better_one(found, objective):
    ordered = [each.values[0] for each in ranked(losses(*found, objectives=(objective,)))]
    assert len(ordered) == len(found)
    for first, second in pairwise(ordered):
        assert not math.isnan(first) or math.isnan(second)
        assert not objective.better(second, first)


@given(st.integers(2, 4).flatmap(lambda count: st.lists(st.tuples(*[values] * count), max_size=25)))
def test_nobody_is_ranked_above_one_that_dominates_it(found):
    several = (LOSS, ACCURACY, LOSS, ACCURACY)[: len(found[0]) if found else 2]
    study = view(*(result(number, values=each) for number, each in enumerate(found)), objectives=several)

    def dominates(one, other):
        pairs = list(zip(several, one, other, strict=True))
        not_worse = all(a == b or goal.better(a, b) for goal, a, b in pairs)
        return not_worse and any(goal.better(a, b) for goal, a, b in pairs)

    ordered = [each.values for each in ranked(study)]
    assert sorted(numbers(ranked(study))) == list(range(len(found)))
    for place, one in enumerate(ordered):
        assert not any(dominates(later, one) for later in ordered[place + 1 :])
    complete = [number for number, each in enumerate(found) if not any(map(math.isnan, each))]
    undominated = {n for n in complete if not any(dominates(found[other], found[n]) for other in complete)}
    front = pareto_front(study)
    assert {each.point.number for each in front} == undominated
    assert ranked(study)[: len(front)] == front


def test_the_front_of_one_objective_is_the_best_and_its_equals():
    assert numbers(pareto_front(losses(2.0, 1.0, 1.0, math.nan))) == [1, 2]


def test_ten_thousand_points_with_two_objectives_are_ranked_quickly():
    study = view(*(result(n, {}, (float(n), float(n))) for n in range(10_000)), objectives=(LOSS, ACCURACY))
    start = time.monotonic()
    assert len(pareto_front(study)) == 10_000
    assert time.monotonic() - start < 5


def test_in_order_has_every_point_once_with_the_finished_first():
    study = fish()
    ordered = in_order(study)
    assert sorted(numbers(ordered)) == list(range(60))
    assert ordered[: len(ranked(study))] == ranked(study)
    states = [each.state for each in ordered[len(ranked(study)) :]]
    assert list(dict.fromkeys(states)) == [PointState.RUNNING, PointState.PRUNED, PointState.FAILED]
    pruned = [each.values[0] for each in ordered if each.state is PointState.PRUNED]
    assert pruned == sorted(pruned)


def test_points_that_differ_in_their_seed_are_one_summary():
    rates, spread = [0.1, 0.01], [0.0, 0.3, 0.6]
    points = [({"lr": rate, "data.seed": seed}, (rate + spread[seed], 1.0)) for seed in range(3) for rate in rates]
    study = view(*(result(n, params, found) for n, (params, found) in enumerate(points)), objectives=(LOSS, ACCURACY))
    first, second = by_seed(study)
    assert (first.params, first.count) == ({"lr": 0.01}, 3)
    assert second.params == {"lr": 0.1}
    loss, accuracy = first.spreads
    assert loss.mean == pytest.approx(0.31)
    assert loss.deviation == pytest.approx(statistics.stdev([0.01, 0.31, 0.61]))
    assert (loss.least, loss.most) == (0.01, 0.61)
    assert accuracy.deviation == 0.0


def test_a_single_point_has_no_deviation():
    study = view(
        *(result(n, {"lr": lr, "seed": seed}, (1.0,)) for n, (lr, seed) in enumerate([(1, 0), (1, 1), (2, 0)]))
    )
    assert {each.params["lr"]: each.spreads[0].deviation for each in by_seed(study)} == {1: 0.0, 2: None}


def test_without_repeated_seeds_there_are_no_summaries():
    assert by_seed(losses(1.0, 2.0)) == []
    assert by_seed(view(result(0, {"lr": 1, "seed": 0}, (1.0,)), result(1, {"lr": 2, "seed": 0}, (1.0,)))) == []
    assert by_seed(view(result(0, {"seed": 0}, (1.0,)), result(1, {"seed": 1}))) == []


@given(st.lists(values, min_size=2, max_size=5))
def test_any_values_can_be_summarised(found):
    study = view(*(result(n, {"seed": n}, (value,)) for n, value in enumerate(found)))
    assert [each.count for each in by_seed(study)] == [len(found)]


def test_counts_add_up_to_the_total_and_tell_what_was_reused():
    study = fish()
    numbers = counts(study)
    assert numbers == {"waiting": 4, "running": 1, "succeeded": 48, "failed": 4, "pruned": 7, "reused": 5}
    assert sum(numbers.values()) - numbers["reused"] == study.total
    assert counts(view()) == {}


def test_history_is_the_best_so_far():
    study = view(
        result(3, values=(1.0,)),
        result(0, values=(3.0,)),
        result(1, values=(0.5,), state=PointState.PRUNED),
        result(2, values=(4.0,)),
        result(4, values=(math.nan,)),
        result(5, values=(2.0,)),
    )
    assert history(study) == [(0, 3.0), (2, 3.0), (3, 1.0), (5, 1.0)]


def test_the_time_left_is_the_rounds_left_times_the_median():
    done = [result(n, values=(1.0,), took=took) for n, took in enumerate([10.0, 30.0, 20.0])]
    reused = result(3, values=(1.0,), took=9999.0, reused=True)
    running = result(4, state=PointState.RUNNING)
    stopped = result(5, state=PointState.INTERRUPTED, took=1.0)
    assert estimate(view(*done, reused, running, stopped, total=9), 2) == 3 * 20.0
    assert estimate(view(*done, reused, total=4), 2) == 0.0
    assert estimate(view(reused, running, total=9), 2) is None


def test_records_are_flat_and_alike():
    study = fish(objectives=(LOSS, ACCURACY))
    found = records(study)
    assert len({tuple(record) for record in found}) == 1
    assert list(found[0])[:3] == ["number", "state", "training.optimizer.lr"]
    adam = next(record for record in found if record["optimizer"] == "adam" and record["state"] == "succeeded")
    assert adam["training.optimizer.momentum"] is None
    assert adam["val_loss"] == study.results[adam["number"]].values[0]
    assert json.loads(json.dumps(found)) == found


def test_a_record_loses_nothing_when_names_are_taken():
    study = view(result(0, {"state": "Ohio", "val_loss": 3}, (0.5,)))
    [record] = records(study)
    assert (record["state"], record["axis.state"]) == ("succeeded", "Ohio")
    assert (record["val_loss"], record["objective.val_loss"]) == (3, 0.5)
