"""Several requests, one call of the model, and an answer to each."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ai4sdk.errors import Ai4Error, DataError
from ai4sdk.serving.contract import Contract
from ai4sdk.serving.messages import Request, Response
from ai4sdk.serving.protocols import protocol
from ai4sdk.serving.question import Question, Refused, Served, refused_data
from ai4sdk.serving.refusals import refusal
from ai4sdk.worker.failures import one_line
from ai4sdk.worker.prediction import Prediction

__all__ = ["Answering", "Facts"]

log = logging.getLogger(__name__)

Predict = Callable[[Any], Prediction]


@dataclass
class Facts:
    """What is measured of a batch of requests.

    Parameters
    ----------
    samples
        Samples that were computed.
    calls
        Calls of the model.
    broken
        Samples whose prediction holds a number that is not finite.
    """

    samples: int = 0
    calls: int = 0
    broken: int = 0


class Answering:
    """Answers requests in any protocol with one model.

    Parameters
    ----------
    predict
        The model.
    contract
        What it takes and gives.
    served
        Name and version it is served as.
    """

    def __init__(self, predict: Predict, contract: Contract, served: Served) -> None:
        self._predict = predict
        self._contract = contract
        self._served = served
        self.observe: Callable[[Any, Prediction], object] | None = None
        """Told of the samples and the prediction of each batch that was computed; must not wait."""
        self.rows: int | None = None
        """Samples up to which requests are joined, as large ones leave the processor's caches; none for any number."""

    def answer(self, requests: Sequence[Request]) -> tuple[list[Response], Facts]:
        """Answer requests, in their order. What is wrong with one of them is told to that one."""
        facts = Facts()
        answers: dict[int, Response] = {}
        groups: dict[Hashable, list[tuple[int, Question]]] = {}
        for place, request in enumerate(requests):
            try:
                question: Question = protocol(request.protocol).decode(request, self._contract)
                if len(question.samples) == 0:
                    raise Refused(400, "there is no sample to predict for")
            except Refused as refused:
                answers[place] = refusal(request.protocol, refused.status, refused.message)
            except Exception as error:  # noqa: BLE001 - a defect of ours must not take others along
                answers[place] = _defect(request, error)
            else:
                groups.setdefault(_likeness(question.samples), []).append((place, question))
        for group in groups.values():
            for members in _portions(group, self.rows):
                self._answer_alike([(place, requests[place], question) for place, question in members], answers, facts)
        return [answers[place] for place in range(len(requests))], facts

    def _answer_alike(
        self, members: list[tuple[int, Request, Question]], answers: dict[int, Response], facts: Facts
    ) -> None:
        """Answer requests whose samples can be joined; each alone if they cannot be answered together."""
        if len(members) > 1:
            try:
                predictions = self._together([question.samples for _, _, question in members], facts)
            except Exception as error:  # noqa: BLE001 - whatever it was, each of them is tried alone below
                log.debug("a batch of %d is divided: %s: %s", len(members), type(error).__name__, error)
            else:
                for (place, request, question), prediction in zip(members, predictions, strict=True):
                    answers[place] = self._encoded(request, question, prediction)
                return
        for place, request, question in members:
            answers[place] = self._alone(request, question, facts)

    def _alone(self, request: Request, question: Question, facts: Facts) -> Response:
        try:
            (prediction,) = self._together([question.samples], facts)
        except DataError as error:
            refused = refused_data(error)
            return refusal(request.protocol, refused.status, refused.message)
        except Ai4Error as error:
            return refusal(request.protocol, 500, str(error.message))
        except Exception as error:
            log.exception("the model failed")
            return refusal(request.protocol, 500, f"the model failed: {one_line(error)}")
        return self._encoded(request, question, prediction)

    def _together(self, samples: Sequence[Any], facts: Facts) -> list[Prediction]:
        """Compute samples of several requests at once."""
        joined = samples[0] if len(samples) == 1 else _joined(samples)
        prediction = self._predict(joined)
        facts.calls += 1
        if len(prediction) != len(joined):
            raise ValueError(f"it answered with {len(prediction)} predictions for {len(joined)} samples")
        facts.samples += len(joined)
        if prediction.outputs.dtype.kind == "f" and not np.isfinite(prediction.outputs).all():
            rows = prediction.outputs.reshape(len(prediction), -1)
            facts.broken += int((~np.isfinite(rows).all(axis=1)).sum())
        if self.observe is not None:
            self.observe(joined, prediction)
        if len(samples) == 1:
            return [prediction]
        parts, start = [], 0
        for each in samples:
            parts.append(prediction[start : start + len(each)])
            start += len(each)
        return parts

    def _encoded(self, request: Request, question: Question, prediction: Prediction) -> Response:
        try:
            response: Response = protocol(request.protocol).encode(question, prediction, self._contract, self._served)
        except Exception as error:  # noqa: BLE001 - as above
            return _defect(request, error)
        return response


def _defect(request: Request, error: Exception) -> Response:
    """Answer where ai4sdk itself is at fault, so that others are answered nevertheless."""
    log.exception("a defect of ai4sdk in %s", request.protocol)
    return refusal(request.protocol, 500, f"a defect of the server: {type(error).__name__}")


def _likeness(samples: Any) -> Hashable:
    """Return what samples must have alike to be joined."""
    if isinstance(samples, np.ndarray):
        return "array", samples.shape[1:], samples.dtype.str
    return "list", type(samples[0]).__name__


def _portions(group: list[tuple[int, Question]], rows: int | None) -> Iterator[list[tuple[int, Question]]]:
    """Divide requests into portions of at most so many samples, unless one request alone has more."""
    portion: list[tuple[int, Question]] = []
    size = 0
    for place, question in group:
        count = len(question.samples)
        if portion and rows is not None and size + count > rows:
            yield portion
            portion, size = [], 0
        portion.append((place, question))
        size += count
    if portion:
        yield portion


def _joined(samples: Sequence[Any]) -> Any:
    if isinstance(samples[0], np.ndarray):
        return np.concatenate(samples)
    return [one for each in samples for one in each]
