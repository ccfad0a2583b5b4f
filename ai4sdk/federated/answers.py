"""Which answers of sites are taken: a broken or hostile site must not break the others' work."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import Message, MetricRecord

from ai4sdk.federated.scaffold import CONTROL
from ai4sdk.federated.strategies import WEIGHT_KEY
from ai4sdk.federated.weights import Arrays, State, from_records

__all__ = ["ARRAYS", "BUFFERS", "COST", "METRICS", "Answer", "judge", "mean_metrics", "taken_cost"]

ARRAYS, BUFFERS, METRICS, COST = "arrays", "buffers", "metrics", "cost"
"""Names of records in a message."""

_MOST_SAMPLES = 2**53


@dataclass(frozen=True)
class Answer:
    """An answer that is taken.

    Parameters
    ----------
    message
        As it came.
    samples
        Training samples behind it.
    buffers
        The site's buffers.
    metrics
        What the site measured.
    factor
        What its samples count, 0 to 1: less than 1 if it is late.
    """

    message: Message
    samples: int
    buffers: Arrays
    metrics: dict[str, float]
    factor: float = 1.0

    @property
    def weight(self) -> float:
        """How much it counts beside others."""
        return self.samples * self.factor


def judge(
    message: Message, sent: State | None, *, control: Arrays | None = None, max_update_norm: float | None = None
) -> Answer | str:
    """Look at an answer.

    Parameters
    ----------
    message
        The answer.
    sent
        The state that the site was sent, for an answer with weights; ``None`` for one of metrics alone.
    control
        The control variate that it was sent, if any; its change must be in the answer.
    max_update_norm
        Largest change of the weights that is taken.

    Returns
    -------
    Answer or str
        The answer, or why it is not taken.
    """
    if message.has_error():
        return _first_line(message.error.reason) or "the site failed and did not say why"
    try:
        metrics, samples = _metrics(message.content.metric_records[METRICS])
        if sent is None:
            return Answer(message, samples, {}, metrics)
        parameters = from_records(message.content.array_records[ARRAYS])
        buffers = from_records(message.content.array_records[BUFFERS])
        change = from_records(message.content.array_records[CONTROL]) if control is not None else {}
    except (KeyError, TypeError, ValueError, AttributeError, EOFError) as error:
        return f"not an answer of this federation: {type(error).__name__}: {_first_line(str(error))}"
    if not samples:
        return "it trained on no sample"
    problem = (
        _differs(parameters, sent.parameters) or _differs(buffers, sent.buffers) or _differs(change, control or {})
    )
    if problem is None and max_update_norm is not None:
        norm = math.sqrt(
            sum(float(np.square(parameters[k] - v, dtype=np.float64).sum()) for k, v in sent.parameters.items())
        )
        if norm > max_update_norm:
            problem = f"it changed the weights by {norm:.3g}; at most {max_update_norm:g} is accepted"
    return problem or Answer(message, samples, buffers, metrics)


def _metrics(record: MetricRecord) -> tuple[dict[str, float], int]:
    values: dict[str, float] = {}
    for name, value in record.items():
        if isinstance(value, list):
            raise ValueError(f"the metric {name} is a list")
        values[name] = float(value)
    samples = values.pop(WEIGHT_KEY)
    if not (0 <= samples < _MOST_SAMPLES and samples == int(samples)):
        raise ValueError(f"{samples} is no number of samples")
    return values, int(samples)


def _differs(got: Arrays, sent: Arrays) -> str | None:
    if got.keys() != sent.keys():
        name = min(got.keys() ^ sent.keys())
        return f"it sent other arrays than it was given: {name!r} is {'missing' if name in sent else 'unknown'}"
    for name, array in got.items():
        if array.shape != sent[name].shape:
            return f"{name} has the shape {array.shape} instead of {sent[name].shape}"
        if array.dtype != sent[name].dtype:
            return f"{name} is {array.dtype} instead of {sent[name].dtype}"
        if not np.isfinite(array).all():
            return f"{name} holds values that are no finite numbers"
    return None


def taken_cost(message: Message) -> dict[str, float]:
    """Take out of an answer what it says it cost the site; what are no such numbers is left out."""
    record = message.content.config_records.get(COST)
    if record is None:
        return {}
    del message.content[COST]
    said = {name: record.get(name) for name in ("seconds", "cpu_seconds", "joules")}
    return {
        name: round(float(value), 3)
        for name, value in said.items()
        if isinstance(value, int | float) and math.isfinite(value) and value >= 0
    }


def mean_metrics(answers: Iterable[Answer]) -> dict[str, float]:
    """Return the mean of what sites measured, weighted by samples; each metric over the sites that have it."""
    sums: dict[str, list[float]] = {}
    for answer in answers:
        for name, value in answer.metrics.items():
            total = sums.setdefault(name, [0.0, 0.0])
            total[0] += value * answer.weight
            total[1] += answer.weight
    return {name: value / weight for name, (value, weight) in sorted(sums.items()) if weight}


def _first_line(text: str | Any) -> str:
    lines = str(text).strip().splitlines()
    return lines[0][:500] if lines else ""
