"""Requests are computed together, answered each, and only the guilty one fails."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from ai4sdk.errors import DataError
from ai4sdk.serving.answering import Answering
from ai4sdk.serving.contract import Contract, TensorSpec
from ai4sdk.serving.messages import JSON, Request
from ai4sdk.serving.question import Served
from ai4sdk.worker.prediction import predict_values

CONTRACT = Contract(
    "t", "regression", "array", (TensorSpec("input", "FP32", (-1, 2)),), (TensorSpec("output", "FP32", (-1,)),), (2,)
)


def request(*rows, protocol="natural"):
    if protocol == "v2":
        tensor = {"name": "input", "datatype": "FP64", "shape": [len(rows), 2], "data": np.ravel(rows).tolist()}
        return Request("v2", "infer", JSON, json.dumps({"inputs": [tensor]}).encode())
    return Request(protocol, "infer", JSON, json.dumps({"inputs": rows}).encode())


@pytest.fixture
def model():
    """Adds the numbers of a row; notes what it was asked."""
    calls = []

    def predict(samples):
        array = np.asarray(samples, float)
        calls.append(len(array))
        if (array == 13).any():
            raise RuntimeError("the pond is empty")
        if (array == 14).any():
            raise DataError("sample 1 is too deep", hint="dive less")
        answer = array.sum(axis=1, keepdims=True)
        answer[array[:, 0] == 15] = np.nan
        return predict_values("regression", answer[:-1] if (array == 16).any() else answer, None)

    return SimpleNamespace(answering=Answering(predict, CONTRACT, Served("t", "1")), calls=calls)


def values(response):
    return [record["prediction"] for record in json.loads(response.body)["predictions"]]


def test_requests_of_any_protocol_are_computed_together(model):
    asked = [
        request([1.0, 2.0]),
        request([3.0, 4.0], [5.0, 6.0], protocol="mlflow"),
        request([7.0, 8.0], protocol="v2"),
    ]
    responses, facts = model.answering.answer(asked)
    assert model.calls == [4]
    assert (facts.samples, facts.calls) == (4, 1)
    assert values(responses[0]) == [3]
    assert values(responses[1]) == [7, 11]
    assert json.loads(responses[2].body)["outputs"][0]["data"] == [15]


def test_requests_are_joined_up_to_as_many_samples_as_are_best_computed_at_once(model):
    model.answering.rows = 3
    sizes = [1, 2, 1, 5, 1, 1, 1, 1]
    asked = [request(*[[float(number), 1.0]] * size) for number, size in enumerate(sizes)]
    responses, facts = model.answering.answer(asked)
    assert model.calls == [3, 1, 5, 3, 1]
    assert (facts.samples, facts.calls) == (13, 5)
    assert [values(response) for response in responses] == [[number + 1] * size for number, size in enumerate(sizes)]


def test_only_the_guilty_one_fails(model):
    asked = [
        request([1.0, 2.0]),
        request([13.0, 0.0]),
        request([14.0, 0.0]),
        Request("natural", "infer", JSON, b"{"),
        request([3.0, 4.0]),
    ]
    responses, _ = model.answering.answer(asked)
    assert [response.status for response in responses] == [200, 500, 400, 400, 200]
    assert values(responses[4]) == [7]
    assert "RuntimeError: the pond is empty" in json.loads(responses[1].body)["error"]
    assert json.loads(responses[2].body)["error"] == "sample 1 is too deep; dive less"


def test_too_few_predictions_are_the_models_fault(model):
    (response,), _ = model.answering.answer([request([16.0, 0.0], [1.0, 1.0])])
    assert response.status == 500
    assert "1 predictions for 2 samples" in json.loads(response.body)["error"]


def test_what_is_not_finite_is_counted_and_null(model):
    (response,), facts = model.answering.answer([request([15.0, 0.0], [1.0, 1.0])])
    assert values(response) == [None, 2]
    assert facts.broken == 1


def test_samples_that_cannot_be_joined_are_computed_apart(model):
    responses, facts = model.answering.answer([request([1.0, 2.0]), request([1, 2])])
    assert [values(response) for response in responses] == [[3], [3]]
    assert facts.calls == 2


@pytest.mark.parametrize("body", [{"inputs": []}, []])
def test_nothing_to_predict_for_is_told(model, body):
    (response,), _ = model.answering.answer([Request("natural", "infer", JSON, json.dumps(body).encode())])
    assert (response.status, model.calls) == (400, [])


def test_a_defect_of_a_protocol_fails_its_request_only(model, monkeypatch):
    def broken(*_):
        raise KeyError("x")

    monkeypatch.setattr("ai4sdk.serving.protocols.v2.decode", broken)
    responses, _ = model.answering.answer([request([1.0, 2.0], protocol="v2"), request([1.0, 2.0])])
    assert [response.status for response in responses] == [500, 200]
