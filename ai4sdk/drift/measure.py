"""What a run's reference is measured on, while the run has its data."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ai4sdk.data.columns import Column
from ai4sdk.data.csvfile import EMPTY
from ai4sdk.data.formats import NOUNS
from ai4sdk.data.loaders import Data, SplitData
from ai4sdk.data.notation import Notation
from ai4sdk.data.readers import Files, Samples, UnreadableSample, chosen
from ai4sdk.drift.features import MOST_PLACES, Features, Form, features_of_inputs, features_of_outputs, joined
from ai4sdk.drift.reference import Reference, make_reference
from ai4sdk.errors import DataError
from ai4sdk.worker.calling import Undecided, split_batch

if TYPE_CHECKING:
    from ai4sdk.worker.prediction import Prediction

__all__ = ["MOST_FILES", "MOST_SAMPLES", "Measured", "measure"]

log = logging.getLogger(__name__)

MOST_SAMPLES = 10_000
"""A reference is of at most so many samples, chosen by a fixed seed."""
MOST_FILES = 1_000
"""Pictures and recordings have to be read once more."""
_AT_ONCE = 64
_NUMBERS_AT_ONCE = 2**24


@dataclass(frozen=True)
class Measured:
    """What a reference is made of.

    Parameters
    ----------
    form
        How features are read from samples; nothing where they are not to be compared.
    inputs
        Features of samples.
    outputs
        What the module answered to samples that it did not learn from.
    notes
        Which samples these are.
    """

    form: Form | None = None
    inputs: Features = field(default_factory=dict)
    outputs: NDArray[Any] | None = None
    notes: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to compare."""
        return not self.inputs and (self.outputs is None or not len(self.outputs))

    def reference(self, read: Callable[[NDArray[Any]], Prediction]) -> Reference:
        """Summarise it.

        Parameters
        ----------
        read
            Makes a prediction of what the module answered.
        """
        outputs = {} if self.outputs is None or not len(self.outputs) else features_of_outputs(read(self.outputs))
        return make_reference(self.form, self.inputs, outputs, self.notes)


def measure(
    data: Data, *, split: str, batches: Callable[[str], Any], outputs: NDArray[Any] | None, with_inputs: bool = True
) -> Measured:
    """Measure a run's data.

    Parameters
    ----------
    data
        What was trained on.
    split
        The split the model was judged by.
    batches
        Gives the batches of a split.
    outputs
        What the module answered for that split.
    with_inputs
        Whether features of the samples are measured, and not answers alone.
    """
    notes, form, inputs = [], None, Features()
    if with_inputs:
        try:
            form, inputs, note = _inputs(data, split, batches)
        except (Undecided, DataError) as error:
            note = f"The samples are not compared: {error}."
            log.warning("the drift reference is of answers only: %s", error)
        notes.append(note)
    else:
        notes.append("The samples are not compared: this reference is of answers only.")
    if outputs is not None and len(outputs):
        few = outputs[chosen(len(outputs), MOST_SAMPLES)]
        notes.append(f"The answers are those to {_some(len(few), len(outputs))} of the {_name(split)} split.")
        if split == "train":
            notes.append("These were learnt from, and answers to other samples are less sure.")
        outputs = few
    return Measured(form, inputs, outputs, tuple(notes))


def _inputs(data: Data, split: str, batches: Callable[[str], Any]) -> tuple[Form | None, Features, str]:
    rules, training = data.preprocessing, _training_part(data)
    if isinstance(data.raw, Mapping):
        return _of_columns(data.raw, training, rules.notation if rules is not None else Notation())
    if rules is not None and rules.kind in NOUNS and isinstance(training, Files):
        form = Form(rules.kind, images=rules.images, audio=rules.audio)
        places = chosen(len(training), MOST_FILES)
        parts = []
        at_once = max(1, min(_AT_ONCE, _NUMBERS_AT_ONCE // math.prod(rules.shape)))
        for start in range(0, len(places), at_once):
            read = [_of_file(training, int(place)) for place in places[start : start + at_once]]
            parts.append(features_of_inputs(np.stack(read), form))
        return (
            form,
            joined(parts),
            f"The {NOUNS[rules.kind]}s are {_some(len(places), len(training))} of the training split.",
        )
    if isinstance(data.raw, np.ndarray):
        total = len(training) if training is not None else len(data.raw)
        form = Form("array", shape=tuple(data.raw.shape[1:]))
        return form, features_of_inputs(data.raw, form), f"{_samples(len(data.raw), total)} of the training split."
    if rules is not None and isinstance(training, Samples):
        places = chosen(len(training), MOST_SAMPLES)
        form = Form("array", shape=tuple(training.inputs.shape[1:]))
        cuts = [places[start : start + _AT_ONCE] for start in range(0, len(places), _AT_ONCE)]
        inputs = joined([features_of_inputs(training.inputs[cut].numpy(), form) for cut in cuts])
        return form, inputs, f"{_samples(len(places), len(training))} of the training split."
    return _of_batches(data, split, batches)


def _of_columns(columns: Mapping[str, Column], training: Any, notation: Notation) -> tuple[Form, Features, str]:
    words = sorted(
        {text for column in columns.values() if column.kind == "text" for text in EMPTY.intersection(column.texts)}
    )
    kinds = tuple((column.name, _kind(column)) for column in columns.values())
    form = Form("table", kinds, tuple(words), notation=notation)
    inputs: Features = {}
    for column in columns.values():
        if column.kind == "text":
            inputs[column.name] = [column.texts[code] if code >= 0 else None for code in column.codes]
        else:
            inputs[column.name] = np.array(column.numbers, np.float64)
    count = len(next(iter(columns.values()))) if columns else 0
    total = len(training) if training is not None else count
    return form, inputs, f"{_samples(count, total)} of the training split."


def _of_batches(data: Data, split: str, batches: Callable[[str], Any]) -> tuple[Form, Features, str]:
    """Measure what code of the user's makes; for training it may be made otherwise, so not that split."""
    form: Form | None = None
    gathered: list[Features] = []
    count = 0
    for batch in batches(split):
        inputs, _ = split_batch(batch)
        if not isinstance(inputs, Tensor) or inputs.ndim < 2 or inputs.is_complex():
            raise DataError("the module takes no single array of numbers")
        values, shape = inputs.detach().cpu().float().numpy(), tuple(inputs.shape[1:])
        names = tuple(data.column_names or ())
        form = form or Form("array", shape=shape, names=names if shape == (len(names),) else ())
        # Only features are kept: samples may be large.
        gathered.append(features_of_inputs(values[: MOST_SAMPLES - count], form))
        count = min(count + len(values), MOST_SAMPLES)
        if count >= (MOST_SAMPLES if inputs.shape[1:].numel() <= MOST_PLACES else MOST_FILES):
            break
    if form is None:
        raise DataError(f"there is no sample in the {_name(split)} split")
    what = f"The samples are the first {count:,} of the {_name(split)} split"
    return form, joined(gathered), f"{what}, as code of the project makes them."


def _training_part(data: Data) -> Any:
    return data.datamodule.parts.get("train") if isinstance(data.datamodule, SplitData) else None


def _of_file(training: Files, place: int) -> NDArray[np.float32]:
    try:
        sample = training[place]
    except UnreadableSample as error:
        raise DataError(error.message, hint=error.hint) from error
    read: NDArray[np.float32] = (sample[0] if isinstance(sample, tuple) else sample).numpy()
    return read


def _kind(column: Column) -> str:
    return "text" if column.kind == "text" else "bool" if column.kind == "bool" else "number"


def _samples(count: int, total: int) -> str:
    return f"The samples are {_some(count, total)}"


def _some(count: int, total: int) -> str:
    return f"all {count:,}" if count == total else f"{count:,} of the {total:,}"


def _name(split: str) -> str:
    return {"train": "training", "val": "validation"}.get(split, split)
