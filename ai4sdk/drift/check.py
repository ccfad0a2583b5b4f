"""Hold files against a model's reference: ``python -m ai4sdk.drift.check``, which `ai4sdk drift check` starts."""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ai4sdk.drift.features import Features, Form, features_of_inputs, features_of_outputs, joined
from ai4sdk.drift.reference import Reference, read_reference
from ai4sdk.drift.verdict import Verdict, counted, judge, p_value
from ai4sdk.errors import Ai4Error, DataError, EnvironmentFault
from ai4sdk.runs.files import write_text
from ai4sdk.worker.allocation import keep_memory
from ai4sdk.worker.inputs import Batch, as_arrays, read_inputs
from ai4sdk.worker.startup import load_to_predict

if TYPE_CHECKING:
    from ai4sdk.worker.model import Model

__all__ = ["DRIFT_FOUND", "check", "main"]

DRIFT_FOUND = 8
"""Exit code where features differ."""

MOST_SAMPLES = 100_000
"""Of more samples a random part is looked at: a reference is of 10,000 at most, so that more would show hardly more."""

_BATCH = 256
_SHOWN = 12


def check(
    source: str | Path,
    data: Sequence[str],
    *,
    alpha: float = 0.05,
    trust_code: bool | None = None,
    stdin: IO[bytes] | None = None,
) -> tuple[Verdict, Reference, Features, Features]:
    """Hold samples against the reference of a model.

    Parameters
    ----------
    source
        A run directory or a package folder.
    data
        Files, folders of pictures or recordings, or ``-``; see `ai4sdk.worker.inputs.read_inputs`.
    alpha
        Largest chance of any false alarm.
    trust_code
        See `ai4sdk.worker.model.load_model`.
    stdin
        What ``-`` reads.

    Returns
    -------
    tuple
        Verdict, reference, and the features of samples and answers.

    Raises
    ------
    NotFound
        If there is no such model or file, or the model has no reference.
    DataError
        If samples are not what the model takes; empty and unreadable cells are, they count as missing.
    """
    folder = Path(source)
    reference = read_reference(folder if (folder / "model.json").is_file() else folder / "package")
    batches = read_inputs(data, stdin=stdin or sys.stdin.buffer, batch_size=_BATCH)
    first = next(batches, None)
    if first is None:
        raise DataError("there is no sample to check", hint="check the data")
    each = itertools.chain([first], batches)
    model = load_to_predict(source, trust_code) if reference.outputs else None
    found = _Measured()
    shape = _shape_of_rows(reference.form, model)
    for batch in each:
        found.add(batch if shape is None else as_arrays(batch, shape), reference.form, model)
    notes = list(reference.notes)
    if found.kept < found.total:
        notes.append(f"{found.kept:,} of the {found.total:,} samples were looked at, chosen at random.")
    if found.unanswered:
        notes.append(f"{found.unanswered:,} samples with missing values were not given to the model, which takes none.")
    inputs, outputs = joined(found.inputs.features), joined(found.outputs.features)
    return judge(reference, inputs, outputs, alpha=alpha, notes=tuple(notes)), reference, inputs, outputs


class _Kept:
    """Features of batches, each sample with a number at random that says how long it is kept."""

    def __init__(self) -> None:
        self.lots: list[NDArray[np.float64]] = []
        self.features: list[Features] = []

    def add(self, lots: NDArray[np.float64], features: Features) -> None:
        self.lots.append(lots)
        self.features.append(features)

    def below(self, limit: float) -> None:
        """Let go of the samples with larger numbers."""
        places = [np.flatnonzero(lots < limit) for lots in self.lots]
        self.lots = [lots[stay] for lots, stay in zip(self.lots, places, strict=True)]
        self.features = [
            {name: _at(values, stay) for name, values in features.items()}
            for features, stay in zip(self.features, places, strict=True)
        ]


class _Measured:
    """Features of all samples, or of a random part where they are many, so that memory is bounded."""

    def __init__(self) -> None:
        self.inputs, self.outputs = _Kept(), _Kept()
        self.total = self.kept = self.unanswered = 0
        self._limit = 1.0
        self._generator = np.random.default_rng(0)

    def add(self, batch: Batch, form: Form | None, model: Model | None) -> None:
        """Read the features of a batch and of what the model answers; samples that it would refuse are counted."""
        self.total += len(batch.samples)
        lots = self._generator.uniform(size=len(batch.samples))
        places = np.flatnonzero(lots < self._limit)
        if not len(places):
            return
        try:
            features = {} if form is None else features_of_inputs(_at(batch.samples, places), form)
        except DataError as error:
            if batch.names is not None and any(name in error.message for name in batch.names):
                raise  # it is named
            raise DataError(f"{batch.source}: {error.message}", hint=error.hint) from error
        self.inputs.add(lots[places], features)
        self.kept += len(places)
        if model is not None:
            fit = _complete(features, model, len(places))
            self.unanswered += int((~fit).sum())
            if fit.any():
                answers = features_of_outputs(_answers(model, batch, places[fit]))
                self.outputs.add(lots[places[fit]], answers)
        if self.kept > MOST_SAMPLES:
            self._limit /= 2
            self.inputs.below(self._limit)
            self.outputs.below(self._limit)
            self.kept = sum(map(len, self.inputs.lots))


def _shape_of_rows(form: Form | None, model: Model | None) -> Sequence[int] | None:
    """Return the shape that rows of a CSV have as samples, where they are arrays and no records."""
    if form is not None:
        return form.shape if form.kind == "array" and not form.names else None
    return model.description.input_shape if model is not None and model.description.takes_arrays else None


def _at(values: Any, places: NDArray[np.intp]) -> Any:
    """Return some of the samples or values, as what they were in."""
    if len(places) == len(values):
        return values
    return values[places] if isinstance(values, np.ndarray) else [values[place] for place in places]


def _complete(features: Features, model: Model, count: int) -> NDArray[np.bool_]:
    """Tell which samples have all values that the model needs."""
    rules, fit = model.preprocessing, np.ones(count, bool)
    if rules is None or rules.media is not None or (rules.kind == "array" and rules.fill is not None):
        return fit
    needed = {rule.name for rule in rules.columns if rule.fill is None} if rules.kind == "table" else set(features)
    for name in needed.intersection(features):
        values = features[name]
        if isinstance(values, np.ndarray):
            fit &= np.isfinite(values)
        else:
            fit &= np.array([value is not None for value in values], bool)
    return fit


def _answers(model: Model, batch: Batch, places: NDArray[np.intp]) -> Any:
    from ai4sdk.worker.predict import located

    try:
        return model(_at(batch.samples, places))
    except DataError as error:
        if batch.names is None:
            for place in map(int, places):  # others may be wrong, too, and were not given to it
                single = Batch(batch.samples[place : place + 1], batch.source, batch.start + place)
                if (found := located(model, single, error)) is not error:
                    raise found from error
        raise located(model, batch, error) from error


def main(argv: Sequence[str] | None = None) -> int:
    """Run `check` for a command line; errors end it with their message and exit code."""
    parser = argparse.ArgumentParser(prog="ai4sdk drift check")
    parser.add_argument("run", help="run directory or package folder")
    parser.add_argument("--data", action="append", required=True)
    parser.add_argument("--alpha", type=float, default=0.05)
    parser.add_argument("--report")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--trust-code", action="store_true")
    given = parser.parse_args(argv)
    keep_memory()
    try:
        trust = True if given.trust_code else None
        verdict, reference, inputs, outputs = check(given.run, given.data, alpha=given.alpha, trust_code=trust)
        if given.report:
            from ai4sdk.drift.page import page

            _write(Path(given.report), page(verdict, reference, inputs, outputs, data=given.data))
        if given.json:
            sys.stdout.write(json.dumps(verdict.to_json(), indent=2, ensure_ascii=False, allow_nan=False) + "\n")
        else:
            sys.stdout.write(told(verdict) + (f"report  {given.report}\n" if given.report else ""))
        sys.stdout.flush()
    except Ai4Error as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        return 130
    return DRIFT_FOUND if verdict.drifted else 0


def told(verdict: Verdict) -> str:
    """Write a verdict as lines for a terminal."""
    count = sum(finding.drifted for finding in verdict.findings)
    what = f"{len(verdict.findings)} tests of {counted(verdict.samples)}, alpha {verdict.alpha:g} over all of them"
    lines = [f"drift in {count} of {what}" if count else f"no drift in {what}"]
    shown = [finding for finding in verdict.findings if finding.drifted][:_SHOWN] or verdict.findings[:3]
    names = [f"{finding.name} missing" if finding.of == "missing" else finding.name for finding in shown]
    width = max((min(len(name), 40) for name in names), default=0)
    for finding, name in zip(shown, names, strict=True):
        known = finding.comparison
        lines.append(
            f"  {finding.part:6}  {name:{width}}  adjusted p {p_value(finding.adjusted):<8}  "
            f"distance {known.distance:.3f}  PSI {known.psi:.3f}  {known.test}"
        )
    if count > len(shown):
        lines.append(f"  and {count - len(shown)} more")
    return "\n".join([*lines, *verdict.notes]) + "\n"


def _write(path: Path, text: str) -> None:
    try:
        write_text(path, text, durable=False)
    except OSError as error:
        raise EnvironmentFault(f"{path} cannot be written: {error.strerror or error}") from error


if __name__ == "__main__":
    status = main()
    gc.freeze()  # or the end of the process takes most of a second, see `ai4sdk.worker.__main__`
    sys.exit(status)
