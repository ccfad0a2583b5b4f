"""What a model predicts, as arrays and as records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ai4sdk.worker.description import PackageTask
from ai4sdk.worker.scores import OutputKind, class_names_for, finite_or_none, probabilities_of

__all__ = ["Prediction", "predict_classes", "predict_values"]

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Prediction:
    """Predictions for ``N`` samples.

    Parameters
    ----------
    task
        ``classification``, ``regression`` or ``other``.
    outputs
        What the module answered, shape ``(N, ...)``.
    labels
        Names of the predicted classes, shape ``(N,)``; ``None`` unless a classifier's. A class whose scores are not
        finite is the empty string.
    probabilities
        Shape ``(N, C)``; ``None`` unless a classifier's that gives more than class numbers.
    class_names
        Names by column of ``probabilities``.
    output_names
        Names of a regressor's outputs.
    """

    task: PackageTask
    outputs: Array
    labels: Array | None = None
    probabilities: NDArray[np.float64] | None = None
    class_names: tuple[str, ...] = ()
    output_names: tuple[str, ...] = ()

    @property
    def values(self) -> Array:
        """The predicted numbers of a regressor, shape ``(N,)`` or ``(N, ...)``; else what the module answered."""
        if self.task == "regression" and self.outputs.ndim == 2 and self.outputs.shape[1] == 1:
            column: Array = self.outputs[:, 0]
            return column
        return self.outputs

    def __len__(self) -> int:
        return len(self.outputs)

    def __getitem__(self, rows: slice) -> Prediction:
        """Return the predictions of some of the samples."""
        return Prediction(
            self.task,
            self.outputs[rows],
            None if self.labels is None else self.labels[rows],
            None if self.probabilities is None else self.probabilities[rows],
            self.class_names,
            self.output_names,
        )

    def to_records(self) -> list[dict[str, Any]]:
        """Return one mapping a sample, ready for JSON.

        Each has ``prediction``: a classifier's the name of a class, a regressor's a number (several outputs: by
        name, or a list), any other's nested lists. A classifier's has ``probability``, that of the predicted class,
        and ``probabilities`` by class name too. A number that is not finite is ``None``.
        """
        if self.labels is not None:
            return [self._class_record(row) for row in range(len(self))]
        if self.task == "regression" and self.values.ndim == 1:
            return [{"prediction": _number(value)} for value in self.values]
        if self.output_names:
            named = [zip(self.output_names, map(_number, row), strict=True) for row in self.values]
            return [{"prediction": dict(row)} for row in named]
        return [{"prediction": _plain(row)} for row in self.outputs]

    def _class_record(self, row: int) -> dict[str, Any]:
        assert self.labels is not None
        label = str(self.labels[row]) or None
        if self.probabilities is None:
            return {"prediction": label}
        chances = [finite_or_none(chance) for chance in self.probabilities[row]]
        best = max((chance for chance in chances if chance is not None), default=None)
        return {
            "prediction": label,
            "probability": best,
            "probabilities": dict(zip(self.class_names, chances, strict=True)),
        }

    def __repr__(self) -> str:
        if self.labels is not None:
            shown = ", ".join(map(str, self.labels[:5]))
        else:
            shown = np.array2string(self.values[:5], precision=4, separator=", ", threshold=12).strip("[]")
        return f"<Prediction of {len(self)} samples: {shown}{', …' if len(self) > 5 else ''}>"


def predict_classes(outputs: Array, kind: OutputKind, names: Sequence[str] | None) -> Prediction:
    """Read a classifier's outputs.

    Parameters
    ----------
    outputs
        Logits, probabilities (shape ``(N, C)``, ``(N, 1)`` or ``(N,)``) or class numbers (``(N,)``).
    kind
        What they are.
    names
        Names by class number; further classes are named by their number.
    """
    if kind == "labels":
        numbers = outputs.reshape(-1).astype(np.int64)
        every = class_names_for(int(numbers.max(initial=-1)) + 1, names)
        labels = np.array([every[number] if number >= 0 else "" for number in numbers], dtype=np.str_)
        return Prediction("classification", outputs, labels, None, tuple(names or every))
    chances = probabilities_of(outputs, kind)
    every = class_names_for(chances.shape[1], names)
    finite = np.isfinite(chances).all(axis=1)
    best = np.where(finite, chances.argmax(axis=1), -1).tolist()  # of a row with NaN argmax is of no account
    labels = np.array([every[number] if number >= 0 else "" for number in best], dtype=np.str_)
    return Prediction("classification", outputs, labels, chances, tuple(every))


def predict_values(task: PackageTask, outputs: Array, names: Sequence[str] | None) -> Prediction:
    """Read the outputs of anything that is no classifier."""
    width = outputs.shape[1] if outputs.ndim == 2 else 1
    fitting = tuple(names) if names is not None and len(names) == width else ()
    return Prediction(task, outputs, output_names=fitting)


def _number(value: Any) -> float | None:
    # the shortest text of a float32 is what it means: 0.1, not 0.10000000149011612
    return finite_or_none(float(str(value)) if isinstance(value, np.float32) else value)


def _plain(row: Any) -> Any:
    array = np.asarray(row)
    if array.dtype.kind != "f":
        return array.tolist()
    if array.ndim == 0:
        return _number(array[()])
    return [_plain(part) for part in array]
