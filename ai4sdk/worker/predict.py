"""Predict for files: ``python -m ai4sdk.worker.predict RUN --input FILE``, which `ai4sdk predict` starts."""

from __future__ import annotations

import argparse
import csv
import gc
import itertools
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from ai4sdk.data.formats import NOUNS, told_by_name
from ai4sdk.errors import Ai4Error, DataError, EnvironmentFault
from ai4sdk.worker.allocation import keep_memory
from ai4sdk.worker.inputs import BATCH_SIZE, Batch, as_arrays, read_inputs
from ai4sdk.worker.startup import load_to_predict

if TYPE_CHECKING:
    from ai4sdk.worker.model import Model

__all__ = ["located", "main", "predict"]

Format = Literal["json", "csv"]


def predict(
    source: str | Path,
    inputs: Sequence[str],
    *,
    output: str | None = None,
    format: Format | None = None,
    stdin: IO[bytes] | None = None,
    stdout: IO[str] | None = None,
    trust_code: bool | None = None,
    batch_size: int = BATCH_SIZE,
) -> int:
    """Predict for files and write the answers, a batch at a time.

    Parameters
    ----------
    source
        A run directory or a package folder.
    inputs
        Files, folders of pictures or recordings, or ``-``; see `ai4sdk.worker.inputs.read_inputs`.
    output
        File to write, which appears once it is whole; standard output without it.
    format
        ``json``: a list of records. ``csv``: a header and a row a sample. By default told from the output's name,
        else ``json``.
    stdin, stdout
        What ``-`` reads, and where answers without ``output`` go.
    trust_code
        See `ai4sdk.worker.model.load_model`.
    batch_size
        Samples that are read and computed at once.

    Returns
    -------
    int
        Number of samples.

    Raises
    ------
    DataError
        If an input is not what the model takes; file and record are named.
    NotFound
        If there is no such model or file.
    EnvironmentFault
        If the output cannot be written.
    """
    chosen: Format = format or ("csv" if output is not None and Path(output).suffix.lower() == ".csv" else "json")
    batches = read_inputs(inputs, stdin=stdin or sys.stdin.buffer, batch_size=batch_size)
    first = next(batches, None)  # wrong names are told before the model, and with it torch's start, is waited for
    if first is None:
        raise DataError("there is no sample to predict for", hint="check the input")
    model = load_to_predict(source, trust_code)
    known = model.description
    count = 0
    with _opened(output, stdout or sys.stdout) as file:
        writer = _JsonWriter(file) if chosen == "json" else _CsvWriter(file)
        for batch in itertools.chain([first], batches):
            records = _answers(model, as_arrays(batch, known.input_shape) if known.takes_arrays else batch)
            writer.write(records)
            count += len(records)
        writer.close()
    return count


def main(argv: Sequence[str] | None = None) -> int:
    """Run `predict` for a command line; errors end it with their message and exit code."""
    parser = argparse.ArgumentParser(prog="ai4sdk predict", description="Let a trained model predict.")
    parser.add_argument("run", help="run directory or package folder")
    parser.add_argument("--input", action="append", required=True, metavar="FILE|-")
    parser.add_argument("--output", metavar="FILE")
    parser.add_argument("--format", choices=["json", "csv"])
    parser.add_argument("--trust-code", action="store_true")
    given = parser.parse_args(argv)
    keep_memory()
    try:
        predict(
            given.run,
            given.input,
            output=given.output,
            format=given.format,
            trust_code=True if given.trust_code else None,
        )
        sys.stdout.flush()
    except Ai4Error as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    return 0


def _answers(model: Model, batch: Batch) -> list[dict[str, Any]]:
    try:
        prediction = model(batch.samples, batch_size=max(len(batch.samples), 1))
    except DataError as error:
        raise located(model, batch, error) from error
    records = prediction.to_records()
    if batch.names is None:
        return records
    return [{"input": name, **record} for name, record in zip(batch.names, records, strict=True)]


def located(model: Model, batch: Batch, error: DataError) -> DataError:
    """Find the first sample of a batch that is wrong, and name it by its number in the file."""
    if batch.names is not None:  # the samples are paths; most errors name theirs
        named = any(name in error.message for name in batch.names)
        noun = NOUNS.get(told_by_name(batch.names[0]) or "", "file")
        return error if named else DataError(f"{batch.names[0]} is a {noun}: {error.message}", hint=error.hint)
    for index in range(len(batch.samples)):
        try:
            model(batch.samples[index : index + 1])
        except DataError as single:
            message = single.message
            for one in ("sample 1", *(f"{noun} 1" for noun in NOUNS.values()), ","):
                message = message.removeprefix(one)
            message = message.strip()
            return DataError(f"{batch.source}, record {batch.start + index + 1}: {message}", hint=single.hint)
    return error


class _JsonWriter:
    """A list of records, one a line, so that it can be read while it is written."""

    def __init__(self, file: IO[str]) -> None:
        self.file = file
        self.count = 0

    def write(self, records: Sequence[Mapping[str, Any]]) -> None:
        for record in records:
            self.file.write(",\n" if self.count else "[\n")
            self.file.write(json.dumps(record, ensure_ascii=False, allow_nan=False))
            self.count += 1

    def close(self) -> None:
        self.file.write("\n]\n" if self.count else "[]\n")


class _CsvWriter:
    """A row a record; what is nested is spread over columns such as ``probabilities.cat``."""

    def __init__(self, file: IO[str]) -> None:
        self.writer = csv.writer(file, lineterminator="\n")
        self.columns: list[str] | None = None

    def write(self, records: Sequence[Mapping[str, Any]]) -> None:
        for record in records:
            row = dict(_flat(record))
            if self.columns is None:
                self.columns = list(row)
                self.writer.writerow(self.columns)
            self.writer.writerow([row.get(column) for column in self.columns])

    def close(self) -> None:
        """Rows are complete as they are."""


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _flat(part, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from _flat(part, f"{name}.{index}")
    else:
        yield name, value


@contextmanager
def _opened(output: str | None, stdout: IO[str]) -> Iterator[IO[str]]:
    """Open the output; a file replaces the one of that name only once everything is written."""
    if output is None or output == "-":
        yield stdout
        return
    path = Path(output)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        file = open(scratch, "w", encoding="utf-8", newline="")  # noqa: SIM115 - closed below
    except OSError as error:
        raise EnvironmentFault(f"{output} cannot be written: {error.strerror or error}") from error
    try:
        with file:
            yield file
        scratch.replace(path)
    except OSError as error:
        raise EnvironmentFault(f"{output} cannot be written: {error.strerror or error}") from error
    finally:
        scratch.unlink(missing_ok=True)


if __name__ == "__main__":
    status = main()
    gc.freeze()  # or the end of the process takes most of a second, see `ai4sdk.worker.__main__`
    sys.exit(status)
