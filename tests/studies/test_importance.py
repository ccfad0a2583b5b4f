"""Importance names what mattered, says why it cannot, and takes any study without raising."""

import math
import random
import subprocess
import sys
import time

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ai4sdk.studies.importance import find_importances

from .views import ACCURACY, LOSS, fish, losses, result, view


def study_of(function, points=60, **facts):
    chance = random.Random(0)
    results = []
    for number in range(points):
        params = {
            "lr": 10 ** chance.uniform(-5, -1),
            "depth": chance.randrange(1, 6),
            "optimizer": chance.choice(["adam", "sgd", None, True, [1, 2]]),
            "constant": 3,
        }
        results.append(result(number, params, (function(**params),)))
    return view(*results, **facts)


@pytest.mark.parametrize(
    ("function", "winner"),
    [
        (lambda lr, **_: math.log10(lr) ** 2, "lr"),
        (lambda depth, **_: depth / 7, "depth"),
        (lambda optimizer, **_: float(optimizer == "sgd"), "optimizer"),
        (lambda lr, depth, **_: 1e300 * depth + lr, "depth"),
    ],
)
def test_the_axis_that_decides_is_the_important_one(function, winner):
    found = find_importances(study_of(function))
    assert found.note is None
    assert next(iter(found.values)) == winner
    assert found.values[winner] > 0.8
    assert sum(found.values.values()) == pytest.approx(1)
    assert found.values["constant"] == 0


def test_small_rates_count_as_much_as_large_ones():
    # All that matters happens below 0.001, which is a hundredth of the range of the rates.
    found = find_importances(study_of(lambda lr, depth, **_: float(lr < 1e-3) + 0.1 * depth))
    assert found.values["lr"] > 0.7


def test_the_same_points_give_the_same_importances():
    study = study_of(lambda lr, depth, **_: lr + depth)
    assert find_importances(study) == find_importances(study)


def test_each_objective_has_its_own():
    chance = random.Random(0)
    study = view(
        *(result(n, p := {"a": chance.random(), "b": chance.random()}, (p["a"], p["b"])) for n in range(40)),
        objectives=(LOSS, ACCURACY),
    )
    assert next(iter(find_importances(study, 0).values)) == "a"
    assert next(iter(find_importances(study, 1).values)) == "b"


def test_axes_that_some_points_lack_are_left_out_and_named():
    found = find_importances(fish())
    assert next(iter(found.values)) == "training.optimizer.lr"
    assert "training.optimizer.momentum" not in found.values
    assert "training.optimizer.momentum" in found.note


@pytest.mark.parametrize(
    ("study", "word"),
    [
        (view(), "there are 0"),
        (losses(1.0, 2.0, 3.0), "there are 3"),
        (losses(1.0, 2.0, 3.0, math.nan, math.inf, 4.0), "there are 4"),
        (losses(*[1.0] * 9), "same val_loss"),
        (losses(1.0, 2.0, objectives=()), "no objective"),
        (view(*(result(n, {"x": 1}, (float(n),)) for n in range(9))), "more than one value"),
        (view(*(result(n, {str(n): 1}, (float(n),)) for n in range(9))), "lack them"),
    ],
)
def test_it_says_why_nothing_can_be_said(study, word):
    found = find_importances(study)
    assert found.values == {}
    assert word in found.note


def test_many_points_and_many_words_take_seconds():
    chance = random.Random(0)
    study = view(
        *(
            result(
                n,
                {**{f"x{i}": chance.random() for i in range(4)}, "word": f"w{chance.randrange(400)}"},
                (chance.random(),),
            )
            for n in range(10_000)
        )
    )
    start = time.monotonic()
    assert set(find_importances(study).values) == {"x0", "x1", "x2", "x3", "word"}
    assert time.monotonic() - start < 20


def test_optuna_speaks_as_before_and_says_nothing(capfd):
    before = optuna.logging.get_verbosity()
    find_importances(study_of(lambda lr, **_: lr))
    assert optuna.logging.get_verbosity() == before
    assert capfd.readouterr().err == ""


odd = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.just(10**400)
    | st.floats()
    | st.text(max_size=3)
    | st.lists(st.integers(), max_size=2)
)


@settings(deadline=None, max_examples=25)
@given(
    st.lists(
        st.tuples(st.dictionaries(st.sampled_from("abc"), odd), st.floats() | st.sampled_from([0.0, 1.0])), max_size=12
    )
)
def test_odd_points_never_raise(points):
    found = find_importances(view(*(result(n, params, (value,)) for n, (params, value) in enumerate(points))))
    assert found.note or found.values
    assert not found.values or sum(found.values.values()) == pytest.approx(1)
    assert all(0 <= share <= 1 for share in found.values.values())


def test_importing_what_shows_a_study_is_light():
    code = (
        "import sys, ai4sdk.studies.report, ai4sdk.cli.study_table\n"
        "print(*{'torch', 'pandas', 'numpy', 'matplotlib', 'optuna', 'sklearn', 'mlflow'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""
