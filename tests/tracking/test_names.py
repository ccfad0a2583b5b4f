"""Names and values are brought into MLflow's form, and no two become one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ai4sdk.tracking.names import ValidNames, cut, flatten, slug, valid_name


@pytest.mark.parametrize(
    ("name", "valid"),
    [
        ("val/loss", "val/loss"),
        ("train_loss.step-1: a", "train_loss.step-1: a"),
        ("größe", "größe"),
        ("f1(macro)", "f1_macro_"),
        ("/loss", "loss"),
        ("a//b/./c/", "a/b/c"),
        ("../../etc", "__/__/etc"),
        ("", "_"),
        ("..", "__"),
        ("a\nb", "a_b"),
    ],
)
def test_names_stay_as_near_as_mlflow_allows(name: str, valid: str) -> None:
    assert valid_name(name) == valid


@pytest.mark.slow
@settings(deadline=None)  # the first call imports MLflow
@given(st.text(max_size=400))
def test_mlflow_takes_every_name(name: str) -> None:
    from mlflow.utils.validation import _validate_metric, _validate_param_name

    _validate_metric(valid_name(name), 1.0, 0, 0)
    _validate_param_name(valid_name(name))


@given(st.lists(st.text(alphabet="ab()/. ", max_size=5)))
def test_two_names_never_become_one(names: list[str]) -> None:
    valid = ValidNames()
    assert len({valid(name) for name in names}) == len(set(names))
    assert [valid(name) for name in names] == [valid(name) for name in names]


def test_long_names_that_begin_alike_stay_apart() -> None:
    first, second = valid_name("x" * 300 + "a"), valid_name("x" * 300 + "b")
    assert first != second
    assert len(first) == len(second) == 250


def test_a_text_that_is_cut_says_so() -> None:
    assert cut("abcdef", 6) == "abcdef"
    assert cut("abcdefg", 6) == "abcde…"


@pytest.mark.parametrize(("text", "name"), [("digits", "digits"), ("a/b:c.d", "a_b_c_d"), ("..", "unnamed")])
def test_a_slug_can_name_a_folder_everywhere(text: str, name: str) -> None:
    assert slug(text) == name


def test_a_job_becomes_dotted_keys() -> None:
    job = {
        "seed": 1,
        "module": {"_target_": "a.B", "layers": [1, 2], "none": None, "empty": {}},
        "training": {"callbacks": [{"_target_": "c.D", "patience": 3}, {"_target_": "e.F"}]},
        "flag": True,
    }
    assert dict(flatten(job)) == {
        "seed": "1",
        "module._target_": "a.B",
        "module.layers": "[1, 2]",
        "training.callbacks.0._target_": "c.D",
        "training.callbacks.0.patience": "3",
        "training.callbacks.1._target_": "e.F",
        "flag": "True",
    }
