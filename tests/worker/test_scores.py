"""The figures agree with scikit-learn wherever scikit-learn defines them, and are None where nobody does."""

import json
import warnings

import numpy as np
import pytest
import sklearn.metrics as sk
from hypothesis import given, settings
from hypothesis import strategies as st

from ai4sdk.worker.scores import (
    calibration_bins,
    class_names_for,
    classification_scores,
    kind_of_outputs,
    probabilities_of,
    regression_scores,
)

few = settings(max_examples=60, deadline=None)


@st.composite
def classified(draw):
    """Labels and logits with ties, missing classes and single samples."""
    classes = draw(st.integers(2, 8))
    count = draw(st.integers(1, 30))
    labels = draw(st.lists(st.integers(0, classes - 1), min_size=count, max_size=count))
    cell = st.sampled_from([-2.0, -0.5, 0.0, 0.5, 1.0, 3.0])
    row = st.lists(cell, min_size=classes, max_size=classes)
    logits = draw(st.lists(row, min_size=count, max_size=count))
    return np.array(labels), np.array(logits)


@few
@given(classified())
def test_classification_agrees_with_scikit_learn(sample):
    labels, logits = sample
    classes = logits.shape[1]
    scores = classification_scores(labels, logits, kind="logits")
    chances = probabilities_of(logits, "logits")
    predicted = chances.argmax(axis=1)
    assert scores["accuracy"] == pytest.approx(sk.accuracy_score(labels, predicted))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert scores["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(labels, predicted))
    assert scores["confusion_matrix"] == sk.confusion_matrix(labels, predicted, labels=range(classes)).tolist()
    for average in ("macro", "weighted"):
        expected = sk.precision_recall_fscore_support(labels, predicted, average=average, zero_division=0)
        for key, value in zip(("precision", "recall", "f1"), expected, strict=False):
            assert scores[f"{average}_average"][key] == pytest.approx(value)
    each = sk.precision_recall_fscore_support(labels, predicted, labels=range(classes), zero_division=0)
    for number, entry in enumerate(scores["classes"]):
        assert entry["support"] == each[3][number]
        assert [entry[key] or 0 for key in ("precision", "recall", "f1")] == pytest.approx(
            [each[0][number], each[1][number], each[2][number]]
        )
    assert scores["log_loss"] == pytest.approx(sk.log_loss(labels, chances, labels=range(classes)))
    assert scores["brier_score"] == pytest.approx(sk.brier_score_loss(labels, chances, labels=range(classes)))
    for number, entry in enumerate(scores["classes"]):
        truth = labels == number
        if truth.all() or not truth.any():
            assert entry["roc_auc"] is None
        else:
            assert entry["roc_auc"] == pytest.approx(sk.roc_auc_score(truth, chances[:, number]))
    if len(set(labels)) == classes and classes > 2:
        assert scores["roc_auc"] == pytest.approx(sk.roc_auc_score(labels, chances, multi_class="ovr"))
    json.dumps(scores, allow_nan=False)


@few
@given(st.integers(0, 2**31), st.integers(6, 12))
def test_top_5_accuracy_agrees_with_scikit_learn(seed, classes):
    random = np.random.default_rng(seed)
    labels, logits = random.integers(0, classes, 40), random.normal(size=(40, classes))
    scores = classification_scores(labels, logits)
    assert scores["top_5_accuracy"] == pytest.approx(
        sk.top_k_accuracy_score(labels, logits, k=5, labels=range(classes))
    )


def test_top_5_breaks_ties_as_argmax_does():
    logits = np.zeros((2, 7))
    assert classification_scores([4, 5], logits, kind="logits")["top_5_accuracy"] == 0.5
    assert "top_5_accuracy" not in classification_scores([0, 1], logits[:, :5], kind="logits")


@few
@given(st.integers(0, 2**31), st.integers(1, 40), st.integers(1, 3))
def test_regression_agrees_with_scikit_learn(seed, count, outputs):
    random = np.random.default_rng(seed)
    targets = random.integers(-3, 4, (count, outputs)).astype(float)  # small whole numbers, so that some are equal
    guesses = targets + random.integers(-2, 3, (count, outputs))
    scores = regression_scores(targets, guesses)
    assert scores["mae"] == pytest.approx(sk.mean_absolute_error(targets, guesses))
    assert scores["rmse"] == pytest.approx(sk.root_mean_squared_error(targets, guesses))
    assert scores["median_absolute_error"] == pytest.approx(sk.median_absolute_error(targets, guesses))
    assert scores["max_error"] == pytest.approx(np.abs(targets - guesses).max())
    assert scores["bias"] == pytest.approx((guesses - targets).mean())
    each = scores.get("outputs", [scores])
    assert len(each) == outputs
    for index, entry in enumerate(each):
        if np.ptp(targets[:, index]) == 0:
            assert entry["r2"] is None
            assert entry["explained_variance"] is None
        else:
            assert entry["r2"] == pytest.approx(sk.r2_score(targets[:, index], guesses[:, index]))
            assert entry["explained_variance"] == pytest.approx(
                sk.explained_variance_score(targets[:, index], guesses[:, index])
            )
    json.dumps(scores, allow_nan=False)


def test_a_binary_classifier_may_have_one_output():
    labels, logits = np.array([0, 1, 1, 0]), np.array([-2.0, 3.0, -0.5, -1.0])
    flat = classification_scores(labels, logits)
    column = classification_scores(labels, logits[:, None])
    two = classification_scores(labels, np.stack([np.zeros(4), logits], axis=1))
    assert flat == column
    assert flat["accuracy"] == two["accuracy"] == 0.75
    assert flat["log_loss"] == pytest.approx(two["log_loss"])
    assert flat["roc_auc"] == sk.roc_auc_score(labels, logits)
    assert flat["brier_score"] == pytest.approx(sk.brier_score_loss(labels, 1 / (1 + np.exp(-logits))))


def test_outputs_are_told_apart():
    assert kind_of_outputs(np.array([[0.2, 0.8], [1.0, 0.0]])) == "probabilities"
    assert kind_of_outputs(np.array([[0.2, 0.9]])) == "logits"
    assert kind_of_outputs(np.array([[-1.0, 2.0]])) == "logits"
    assert kind_of_outputs(np.array([0.2, 0.9])) == "probabilities"
    assert kind_of_outputs(np.array([[0.2], [1.9]])) == "logits"
    assert kind_of_outputs(np.array([3, 1, 2])) == "labels"
    assert kind_of_outputs(np.array([[np.nan, 0.3], [0.5, 0.5]])) == "probabilities"
    assert kind_of_outputs(np.empty((0, 3))) == "logits"


def test_class_numbers_are_judged_without_probabilities():
    scores = classification_scores([0, 1, 2, 2], np.array([0, 2, 2, 2]), class_names=["a", "b", "c"])
    assert scores["accuracy"] == 0.75
    assert scores["outputs"] == "labels"
    assert scores["log_loss"] is scores["roc_auc"] is scores["brier_score"] is None
    assert [entry["name"] for entry in scores["classes"]] == ["a", "b", "c"]
    with pytest.raises(ValueError, match="no probability"):
        probabilities_of(np.array([1, 2]))


def test_predictions_that_are_no_numbers_are_counted_and_left_out():
    logits = np.array([[2.0, 0.0], [np.nan, 1.0], [0.0, np.inf], [-np.inf, 3.0]])
    scores = classification_scores([0, 0, 1, 1], logits)
    assert (scores["samples"], scores["scored"], scores["non_finite"]) == (4, 2, 2)
    assert scores["accuracy"] == 1.0
    values = regression_scores([1.0, 2.0, np.nan], [np.nan, 2.5, 3.0])
    assert (values["scored"], values["non_finite"], values["missing_targets"]) == (1, 1, 1)
    assert values["mae"] == 0.5


def test_labels_that_are_no_class_are_counted_and_left_out():
    scores = classification_scores([0, -100, 7], np.eye(3))
    assert (scores["scored"], scores["unknown_labels"]) == (1, 2)
    assert classification_scores(np.array([np.nan, 1.0]), np.eye(2))["unknown_labels"] == 1


@pytest.mark.parametrize("logits", [np.empty((0, 3)), np.full((4, 3), np.nan)])
def test_nothing_to_judge_gives_no_figures(logits):
    scores = classification_scores(np.zeros(len(logits), int), logits)
    assert scores["scored"] == 0
    assert scores["accuracy"] is None
    assert scores["roc_auc"] is None
    json.dumps(scores, allow_nan=False)


def test_a_regressor_without_samples_has_no_figures():
    assert regression_scores([], [])["mae"] is None
    assert regression_scores(np.empty((0, 2)), np.empty((0, 2)))["rmse"] is None


def test_huge_errors_become_null_and_not_infinity():
    scores = regression_scores([0.0, 1.0], [1e300, -1e300])
    assert scores["rmse"] is None
    assert scores["mae"] == 1e300
    json.dumps(scores, allow_nan=False)


def test_a_target_that_is_nearly_constant_is_no_constant():
    assert regression_scores([1.0, 1.0, 1.0], [1.0, 1.0, 1.0])["r2"] is None
    assert regression_scores([0.1, 0.1, 0.1 + 1e-9], [0.1, 0.1, 0.1 + 1e-9])["r2"] == pytest.approx(1)


def test_many_outputs_are_judged_as_a_whole():
    targets = np.zeros((2, 3, 40))
    scores = regression_scores(targets, targets + 1)
    assert scores["mae"] == 1
    assert "outputs" not in scores


def test_outputs_carry_their_names():
    scores = regression_scores(np.eye(2), np.eye(2), names=["temperature", "salinity"])
    assert [entry["name"] for entry in scores["outputs"]] == ["temperature", "salinity"]


def test_shapes_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match="2 labels for 3 outputs"):
        classification_scores([0, 1], np.eye(3))
    with pytest.raises(ValueError, match="shape"):
        regression_scores(np.zeros((3, 2)), np.zeros((3, 1)))


def test_calibration_of_a_sure_and_wrong_classifier():
    chances = np.array([[1.0, 0.0]] * 4)
    assert calibration_bins(np.array([1, 1, 1, 0]), chances) == [{"confidence": 1.0, "accuracy": 0.25, "count": 4}]
    scores = classification_scores([1, 1, 1, 0], chances)
    assert scores["expected_calibration_error"] == 0.75
    even = calibration_bins(np.array([0]), np.array([[0.5, 0.5]]), bins=2)
    assert even == [{"confidence": 0.5, "accuracy": 1.0, "count": 1}]


def test_classes_without_a_name_get_their_number():
    assert class_names_for(3, ["cat"]) == ["cat", "1", "2"]
    assert class_names_for(1, ["cat", "dog"]) == ["cat"]
