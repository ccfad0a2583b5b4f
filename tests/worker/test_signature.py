"""What MLflow reads says what the model takes, in MLflow's own words."""

import numpy as np
import pytest

from ai4sdk.worker.signature import column_schema, input_example, request_body, requirements, tensor_schema


def kinds(records, texts=frozenset()):
    return {column["name"]: (column["type"], column["required"]) for column in column_schema(records, texts)}


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1.5, 2.0], "double"),
        ([1, 2], "any"),
        ([1.0, 2.0], "any"),
        ([True, False], "boolean"),
        ([np.True_, np.False_], "boolean"),
        ([np.float32(0.5), np.int64(2)], "double"),
        (["x", "1"], "string"),
        (["x", 1], "string"),
        ([True, 1], "any"),
        ([None, None], "any"),
    ],
)
def test_columns_are_typed_by_their_examples(values, kind):
    assert kinds([{"a": value} for value in values])["a"][0] == kind


def test_columns_that_may_be_empty_are_optional():
    assert kinds([{"a": 1.5, "b": "x"}, {"a": None}]) == {"a": ("double", False), "b": ("string", False)}


def test_text_columns_stay_text_whatever_their_examples_are():
    assert kinds([{"a": 1}], {"a"}) == {"a": ("string", True)}


def test_arrays_have_any_number_of_samples():
    assert tensor_schema([3, 8], "float32")[0]["tensor-spec"] == {"dtype": "float32", "shape": [-1, 3, 8]}


def test_examples_are_what_endpoints_take():
    records = [{"a": 1}, {"a": 2, "b": "x"}]
    assert input_example(records) == {"columns": ["a", "b"], "data": [[1, None], [2, "x"]]}
    assert request_body(records) == {"dataframe_split": input_example(records)}
    assert request_body(np.eye(2)) == {"inputs": [[1.0, 0.0], [0.0, 1.0]]}


def test_requirements_can_be_installed_from_an_index():
    assert requirements({"torch": "2.13.0+cpu", "numpy": "2.4.6"}) == ["numpy==2.4.6", "torch==2.13.0"]
