"""Outputs become labels, probabilities and records that JSON can hold."""

import json

import numpy as np
import pytest

from ai4sdk.worker.prediction import predict_classes, predict_values


def test_one_output_makes_two_classes():
    found = predict_classes(np.array([[2.0], [-2.0]]), "logits", ["no", "yes"])
    assert found.labels.tolist() == ["yes", "no"]
    assert found.probabilities[0] == pytest.approx([0.1192, 0.8808], abs=1e-4)
    sure = predict_classes(np.array([0.9, 0.4]), "probabilities", ["no", "yes"])
    assert sure.labels.tolist() == ["yes", "no"]
    assert sure.probabilities[0] == pytest.approx([0.1, 0.9])


def test_class_numbers_give_labels_alone():
    found = predict_classes(np.array([1, 0, 7, -1]), "labels", ["a", "b"])
    assert found.labels.tolist() == ["b", "a", "7", ""]
    assert found.to_records() == [{"prediction": "b"}, {"prediction": "a"}, {"prediction": "7"}, {"prediction": None}]


def test_numbers_are_written_as_they_are_meant():
    found = predict_values("regression", np.array([[0.1], [np.nan], [np.inf]], np.float32), None)
    assert found.to_records() == [{"prediction": 0.1}, {"prediction": None}, {"prediction": None}]
    assert found.values.shape == (3,)


def test_several_outputs_carry_their_names_where_they_fit():
    rows = np.array([[1.0, 2.0]])
    assert predict_values("regression", rows, ["salt", "heat"]).to_records() == [
        {"prediction": {"salt": 1.0, "heat": 2.0}}
    ]
    assert predict_values("regression", rows, ["salt"]).to_records() == [{"prediction": [1.0, 2.0]}]


def test_arrays_become_lists():
    found = predict_values("other", np.array([[[1.5, np.nan]], [[2, 3]]], np.float32), None)
    assert found.to_records() == [{"prediction": [[1.5, None]]}, {"prediction": [[2.0, 3.0]]}]
    json.dumps(found.to_records(), allow_nan=False)
    assert predict_values("other", np.array([3, 4]), None).to_records() == [{"prediction": 3}, {"prediction": 4}]


def test_a_prediction_shows_its_first_values():
    assert repr(predict_values("regression", np.arange(9.0), None)) == (
        "<Prediction of 9 samples: 0., 1., 2., 3., 4., …>"
    )
