"""Figures that tell how good predictions are. Pure functions over numpy arrays; what they return is ready for JSON.

A figure that is not defined (an area under a curve with one class, R² of a constant target) is ``None``, never NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "OutputKind",
    "calibration_bins",
    "class_names_for",
    "classification_scores",
    "finite_or_none",
    "kind_of_outputs",
    "probabilities_of",
    "regression_scores",
    "scorable_rows",
]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

OutputKind = Literal["logits", "probabilities", "labels"]
"""What a classifier puts out: scores of any size, probabilities, or the numbers of the classes."""

TOP_K = 5
CALIBRATION_BINS = 15
OUTPUTS_IN_DETAIL = 64
"""Regressors with more outputs than this (forecast maps, say) are reported as a whole."""


def finite_or_none(value: float) -> float | None:
    """Return the number, or ``None`` where JSON has no word for it."""
    number = float(value)
    return number if math.isfinite(number) else None


def class_names_for(count: int, names: Sequence[str] | None = None) -> list[str]:
    """Return one name for each of ``count`` classes: the given ones, and numbers where there are none."""
    given = [str(name) for name in names or ()][:count]
    return given + [str(number) for number in range(len(given), count)]


def kind_of_outputs(outputs: ArrayLike) -> OutputKind:
    """Tell whether a classifier's outputs are logits, probabilities or class numbers.

    Parameters
    ----------
    outputs
        Shape ``(N, C)``, ``(N, 1)`` or ``(N,)``. Whole numbers of shape ``(N,)`` are class numbers. Floats are
        probabilities where every finite row lies in 0..1 and, with C > 1, adds up to 1; else logits. So give
        all outputs at once: a single logit between 0 and 1 looks like a probability.
    """
    array = np.asarray(outputs)
    if array.ndim == 1 and array.dtype.kind in "iub":
        return "labels"
    rows = _two_dimensional(array.astype(np.float64))
    rows = rows[np.isfinite(rows).all(axis=1)]
    if not len(rows) or rows.min() < 0 or rows.max() > 1:
        return "logits"
    if rows.shape[1] > 1 and np.abs(rows.sum(axis=1) - 1).max() > 1e-3:
        return "logits"
    return "probabilities"


def probabilities_of(outputs: ArrayLike, kind: OutputKind | None = None) -> Floats:
    """Turn a classifier's outputs into probabilities of shape ``(N, C)``; one output a sample makes two classes.

    Parameters
    ----------
    outputs
        Logits or probabilities, shape ``(N, C)``, ``(N, 1)`` or ``(N,)``.
    kind
        What they are; by default told from the values with `kind_of_outputs`.

    Raises
    ------
    ValueError
        If ``kind`` is ``labels``: class numbers carry no probability.
    """
    array = np.asarray(outputs)
    kind = kind or kind_of_outputs(array)
    if kind == "labels":
        raise ValueError("class numbers carry no probability")
    rows = _two_dimensional(array.astype(np.float64))
    if rows.shape[1] == 1:
        positive = rows if kind == "probabilities" else _sigmoid(rows)
        return np.concatenate([1 - positive, positive], axis=1)
    if kind == "probabilities":
        return rows
    with np.errstate(invalid="ignore", over="ignore"):  # rows without a finite maximum become NaN, as they should
        weights = np.exp(rows - rows.max(axis=1, keepdims=True))
        softmax: Floats = weights / weights.sum(axis=1, keepdims=True)
    return softmax


def scorable_rows(labels: Integers, probabilities: Floats) -> NDArray[np.bool_]:
    """Mark the samples with a finite prediction and a label among the classes."""
    known = (labels >= 0) & (labels < probabilities.shape[1])
    marked: NDArray[np.bool_] = np.isfinite(probabilities).all(axis=1) & known
    return marked


def classification_scores(
    labels: ArrayLike,
    outputs: ArrayLike,
    *,
    class_names: Sequence[str] | None = None,
    kind: OutputKind | None = None,
) -> dict[str, Any]:
    """Judge a classifier.

    Parameters
    ----------
    labels
        Class numbers from 0, shape ``(N,)`` or ``(N, 1)``.
    outputs
        Logits, probabilities (shape ``(N, C)``, ``(N, 1)`` or ``(N,)``) or class numbers (``(N,)``).
    class_names
        Names by class number.
    kind
        What the outputs are; by default told from their values.

    Returns
    -------
    dict
        ``accuracy``, ``balanced_accuracy`` (mean recall of the classes that occur), ``majority_accuracy`` (of
        always saying the most frequent class), ``top_5_accuracy`` (with more than 5 classes), ``log_loss``,
        ``roc_auc`` (of class 1 with two classes, else the mean of one class against the rest), ``brier_score``,
        ``expected_calibration_error``, ``macro_average``, ``weighted_average``, ``classes`` and
        ``confusion_matrix`` (rows: true, columns: predicted). Samples whose prediction is not finite
        (``non_finite``) or whose label is no class (``unknown_labels``) are counted and left out of the rest.
        A ratio 0/0 is 0 for a class that occurs or was predicted, and ``None`` for any other, which no average
        counts.
    """
    truth = np.asarray(labels).reshape(-1)
    truth = np.where(np.isfinite(truth), truth, -1) if truth.dtype.kind == "f" else truth
    truth = truth.astype(np.int64)
    array = np.asarray(outputs)
    kind = kind or kind_of_outputs(array)
    if len(array) != len(truth):
        raise ValueError(f"{len(truth)} labels for {len(array)} outputs")
    probabilities = _one_hot(array, truth, class_names) if kind == "labels" else probabilities_of(array, kind)

    finite = np.isfinite(probabilities).all(axis=1)
    keep = scorable_rows(truth, probabilities)
    scored, chances = truth[keep], probabilities[keep]
    predicted = chances.argmax(axis=1) if len(chances) else np.empty(0, np.int64)
    count = probabilities.shape[1]
    names = class_names_for(count, class_names)

    matrix = np.bincount(scored * count + predicted, minlength=count * count).reshape(count, count)
    scores: dict[str, Any] = {
        "task": "classification",
        "outputs": kind,
        "samples": len(truth),
        "scored": len(scored),
        "non_finite": int((~finite).sum()),
        "unknown_labels": int((finite & ~keep).sum()),
        **_scores_of_matrix(matrix, names),
        "log_loss": None,
        "roc_auc": None,
        "brier_score": None,
        "expected_calibration_error": None,
    }
    if kind != "labels" and len(scored):
        scores.update(_scores_of_chances(scored, chances))
        areas = [_roc_auc(scored == number, chances[:, number]) for number in range(count)]
        for entry, area in zip(scores["classes"], areas, strict=True):
            entry["roc_auc"] = area
        defined = [area for area in areas if area is not None]
        scores["roc_auc"] = areas[1] if count == 2 else (float(np.mean(defined)) if defined else None)
    return scores


def regression_scores(
    targets: ArrayLike, predictions: ArrayLike, *, names: Sequence[str] | None = None
) -> dict[str, Any]:
    """Judge a regressor.

    Parameters
    ----------
    targets, predictions
        The same number of values a sample, shape ``(N,)`` or ``(N, ...)``.
    names
        Names of the outputs.

    Returns
    -------
    dict
        ``mae``, ``rmse``, ``median_absolute_error``, ``max_error`` and ``bias`` (mean of prediction minus
        target) in the target's unit, ``r2`` and ``explained_variance`` without unit (``None`` for a constant
        target), and ``target_deviation``, the RMSE of always saying the mean. With several outputs these are
        means over the outputs (``max_error``: the largest) and ``outputs`` holds them one by one. Samples
        with a prediction (``non_finite``) or target (``missing_targets``) that is not finite are counted and
        left out of the rest.
    """
    truth, guess = _rows(targets), _rows(predictions)
    if truth.shape != guess.shape:
        raise ValueError(f"targets of shape {truth.shape} for predictions of shape {guess.shape}")
    finite, present = np.isfinite(guess).all(axis=1), np.isfinite(truth).all(axis=1)
    keep = finite & present
    with np.errstate(over="ignore", invalid="ignore"):  # squares beyond the largest float become None
        columns = [_scores_of_output(truth[keep, index], guess[keep, index]) for index in range(truth.shape[1])]
    scores: dict[str, Any] = {
        "task": "regression",
        "samples": len(truth),
        "scored": int(keep.sum()),
        "non_finite": int((~finite).sum()),
        "missing_targets": int((finite & ~present).sum()),
    }
    for figure in columns[0] if columns else ():
        values = [value for column in columns if (value := column[figure]) is not None]
        if values:
            scores[figure] = float(max(values) if figure == "max_error" else np.mean(values))
        else:
            scores[figure] = None
    if 1 < len(columns) <= OUTPUTS_IN_DETAIL:
        labels = class_names_for(len(columns), names)
        scores["outputs"] = [{"name": label, **column} for label, column in zip(labels, columns, strict=True)]
    return scores


def calibration_bins(labels: Integers, probabilities: Floats, bins: int = CALIBRATION_BINS) -> list[dict[str, float]]:
    """Compare how sure a classifier is with how often it is right.

    Parameters
    ----------
    labels, probabilities
        Shapes ``(N,)`` and ``(N, C)``; every row scorable.
    bins
        Number of equal steps of confidence between 0 and 1.

    Returns
    -------
    list
        For each step with samples: ``confidence`` and ``accuracy`` (means, 0..1) and ``count``.
    """
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    # intervals are open on the left, as in Guo et al. 2017
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    return [
        {
            "confidence": float(confidence[inside].mean()),
            "accuracy": float(right[inside].mean()),
            "count": int(inside.sum()),
        }
        for number in range(bins)
        if (inside := place == number).any()
    ]


def _two_dimensional(array: NDArray[Any]) -> NDArray[Any]:
    if array.ndim == 1:
        return array[:, None]
    if array.ndim != 2:
        raise ValueError(f"class scores have shape (N, C), not {array.shape}")
    return array


def _rows(values: ArrayLike) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    return array.reshape(len(array), math.prod(array.shape[1:]))


def _sigmoid(values: Floats) -> Floats:
    with np.errstate(over="ignore"):
        result: Floats = 1 / (1 + np.exp(-values))
    return result


def _one_hot(predicted: NDArray[Any], truth: Integers, names: Sequence[str] | None) -> Floats:
    highest = max([0, *(array.max() for array in (predicted, truth) if len(array))])
    count = max(int(highest) + 1, len(names or ()), 2)
    chosen = predicted.astype(np.int64)
    chances: Floats = (chosen[:, None] == np.arange(count)).astype(np.float64)
    chances[(chosen < 0) | (chosen >= count)] = np.nan
    return chances


def _scores_of_matrix(matrix: Integers, names: Sequence[str]) -> dict[str, Any]:
    """Figures that the counts of true and predicted classes determine."""
    right = matrix.diagonal().astype(np.float64)
    support, predicted = matrix.sum(axis=1), matrix.sum(axis=0)
    total = int(matrix.sum())
    seen = (support + predicted) > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(predicted > 0, right / predicted, 0.0)
        recall = np.where(support > 0, right / support, 0.0)
        f1 = np.where(seen, 2 * right / (support + predicted), 0.0)
    figures = {"precision": precision, "recall": recall, "f1": f1}
    classes = [
        {
            "name": name,
            **{key: float(values[number]) if seen[number] else None for key, values in figures.items()},
            "support": int(support[number]),
            "predicted": int(predicted[number]),
            "roc_auc": None,
        }
        for number, name in enumerate(names)
    ]
    return {
        "accuracy": float(right.sum() / total) if total else None,
        "balanced_accuracy": float(recall[support > 0].mean()) if total else None,
        "majority_accuracy": float(support.max() / total) if total else None,
        "macro_average": {key: float(values[seen].mean()) if total else None for key, values in figures.items()},
        "weighted_average": {
            key: float((values * support).sum() / total) if total else None for key, values in figures.items()
        },
        "classes": classes,
        "confusion_matrix": matrix.tolist(),
    }


def _scores_of_chances(labels: Integers, chances: Floats) -> dict[str, Any]:
    """Figures that need more than the class that was chosen."""
    rows = np.arange(len(labels))
    own = chances[rows, labels]
    epsilon = np.finfo(np.float64).eps
    truth = np.zeros_like(chances)
    truth[rows, labels] = 1
    squares = ((chances - truth) ** 2).sum(axis=1)
    bins = calibration_bins(labels, chances)
    scores: dict[str, Any] = {
        "log_loss": float(-np.log(np.clip(own, epsilon, 1 - epsilon)).mean()),
        "brier_score": float(squares.mean() / (2 if chances.shape[1] == 2 else 1)),
        "expected_calibration_error": float(
            sum(step["count"] * abs(step["accuracy"] - step["confidence"]) for step in bins) / len(labels)
        ),
    }
    if chances.shape[1] > TOP_K:
        # equal chances go to the lower class number, as in argmax
        earlier = (chances == own[:, None]) & (np.arange(chances.shape[1]) < labels[:, None])
        rank = (chances > own[:, None]).sum(axis=1) + earlier.sum(axis=1)
        scores[f"top_{TOP_K}_accuracy"] = float((rank < TOP_K).mean())
    return scores


def _roc_auc(positive: NDArray[np.bool_], chance: Floats) -> float | None:
    """Probability that a positive sample gets a higher score than a negative one; equal scores count half."""
    count = int(positive.sum())
    others = len(positive) - count
    if not count or not others:
        return None
    _, place, repeats = np.unique(chance, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(repeats) - (repeats - 1) / 2)[place]
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * others))


def _scores_of_output(truth: Floats, guess: Floats) -> dict[str, float | None]:
    if not len(truth):
        keys = ("mae", "rmse", "r2", "explained_variance", "median_absolute_error", "max_error", "bias")
        return dict.fromkeys((*keys, "target_deviation"))
    error = guess - truth
    size = np.abs(error)
    spread = float(truth.var()) if np.ptp(truth) > 0 else 0.0
    return {
        "mae": finite_or_none(size.mean()),
        "rmse": finite_or_none(np.sqrt((error**2).mean())),
        "r2": finite_or_none(1 - (error**2).mean() / spread) if spread else None,
        "explained_variance": finite_or_none(1 - error.var() / spread) if spread else None,
        "median_absolute_error": finite_or_none(np.median(size)),
        "max_error": finite_or_none(size.max()),
        "bias": finite_or_none(error.mean()),
        "target_deviation": finite_or_none(math.sqrt(spread)),
    }
