"""A model is tried with the golden requests of its package before it answers anybody."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from ai4sdk.errors import DataError
from ai4sdk.serving.answering import Answering
from ai4sdk.serving.messages import JSON, Request
from ai4sdk.worker.inputs import samples_of_json
from ai4sdk.worker.package import GOLDEN_REQUESTS, GOLDEN_RESPONSES

__all__ = ["Tried", "golden_samples", "warm_up"]

log = logging.getLogger(__name__)

TOLERANCE = 1e-3
"""Greatest difference of two numbers, in relation to the larger one or to 1: other CPUs and devices round otherwise."""


@dataclass(frozen=True)
class Tried:
    """What came of it.

    Parameters
    ----------
    requests
        Golden requests that were answered as when the package was made.
    alike_together
        Whether the model answers the same to a request alone and in a batch.
    """

    requests: int
    alike_together: bool


def warm_up(answering: Answering, package: Path) -> Tried:
    """Ask golden requests alone and together, and compare.

    Raises
    ------
    DataError
        If an answer differs from what the package says.
    """
    try:
        asked = json.loads((package / GOLDEN_REQUESTS).read_bytes())
        expected = json.loads((package / GOLDEN_RESPONSES).read_bytes())
    except FileNotFoundError:
        log.warning("%s has no golden requests; the model is served untried", package)
        return Tried(0, True)
    except (OSError, ValueError) as error:
        raise DataError(f"the golden requests of {package} cannot be read: {error}", hint="copy it again") from error
    requests = [Request("natural", "predict", JSON, orjson.dumps(body)) for body in asked]
    alone = [_answers(answering, [request])[0] for request in requests]
    for number, (found, wanted) in enumerate(zip(alone, expected, strict=True), start=1):
        if (place := _difference(found["predictions"], wanted["predictions"])) is not None:
            raise DataError(
                f"the model of {package} answers golden request {number} otherwise than when it was packed: {place}",
                hint="its code or a package it needs has changed; see requirements.txt beside it",
            )
    together = _answers(answering, requests)
    alike = all(_difference(one, other) is None for one, other in zip(alone, together, strict=True))
    if not alike:
        log.warning("the model answers otherwise in a batch than alone; it is served without batches")
    return Tried(len(requests), alike)


def golden_samples(package: Path) -> Any:
    """Return the samples of the golden requests; nothing where there are none."""
    try:
        asked = json.loads((package / GOLDEN_REQUESTS).read_bytes())
    except FileNotFoundError:
        return None
    samples = [one for body in asked for one in samples_of_json(body, "a golden request")]
    return samples if samples and isinstance(samples[0], dict) else [np.asarray(one) for one in samples]


def _answers(answering: Answering, requests: Sequence[Request]) -> list[Any]:
    answers = []
    for response in answering.answer(requests)[0]:
        body = orjson.loads(response.body)
        if response.status != 200:
            raise DataError(
                f"the model does not answer the golden requests of its package: {body['error']}",
                hint="its code or a package it needs has changed; see requirements.txt beside it",
            )
        answers.append(body)
    return answers


def _difference(found: Any, wanted: Any, place: str = "predictions") -> str | None:
    """Say where two answers differ; nothing if they agree within `TOLERANCE`."""
    if isinstance(wanted, Mapping) and isinstance(found, Mapping) and set(found) == set(wanted):
        pairs = [(f"{place}.{key}", found[key], wanted[key]) for key in wanted]
    elif isinstance(wanted, list) and isinstance(found, list) and len(found) == len(wanted):
        pairs = [(f"{place}[{index}]", *pair) for index, pair in enumerate(zip(found, wanted, strict=True))]
    elif isinstance(wanted, int | float) and isinstance(found, int | float):
        alike = math.isclose(found, wanted, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
        return None if alike else f"{place}: {found:.6g}, not {wanted:.6g}"
    else:
        return None if found == wanted else f"{place}: {found!r:.40}, not {wanted!r:.40}"
    return next((text for name, one, other in pairs if (text := _difference(one, other, name))), None)
