"""What all runs spent on a dataset: one file a dataset, to which runs append before they begin and when they end.

A run reserves what it may spend before it touches the data, and writes down what it did spend when it ends; of a run
that was killed the reservation stands. What runs spent is added up, which is a bound whatever runs chose after seeing
the outcome of others (R. Rogers, A. Roth, J. Ullman, S. Vadhan: Privacy Odometers and Filters,
https://arxiv.org/abs/1605.08294).
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ai4sdk.errors import DataError, EnvironmentFault
from ai4sdk.privacy.accountant import Unit
from ai4sdk.runs.files import sync

__all__ = ["Entry", "PrivacyLedger", "Spent"]


@dataclass(frozen=True)
class Entry:
    """What a run spends on a dataset; a later entry of the same run and unit takes the place of an earlier one.

    Parameters
    ----------
    run
        Id of the run.
    unit
        What is protected: ``site`` or ``record``.
    mechanism
        Its plain values.
    rounds
        How many rounds it is, or was, applied for.
    epsilon, delta
        What that spends.
    done
        Whether the run has ended; else this is what it may spend.
    time
        Unix time.
    """

    run: str
    unit: Unit
    mechanism: Mapping[str, Any]
    rounds: int
    epsilon: float
    delta: float
    done: bool = False
    time: float = field(default_factory=lambda: round(time.time(), 3))

    def __post_init__(self) -> None:
        for name in ("epsilon", "delta"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise ValueError(f"{name} must be a number from 0, not {value!r}")
        if self.unit not in ("site", "record"):
            raise ValueError(f"{self.unit!r} is no unit")
        if not isinstance(self.run, str) or not isinstance(self.rounds, int):
            raise ValueError("run must be a name and rounds a number")


@dataclass(frozen=True)
class Spent:
    """What runs spent together.

    Parameters
    ----------
    epsilon, delta
        Sums over the runs.
    runs
        Their ids, in the order they began.
    """

    epsilon: float
    delta: float
    runs: tuple[str, ...]


class PrivacyLedger:
    """What was spent on the datasets of a project.

    Parameters
    ----------
    folder
        Where the files are; made when something is written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, fingerprint: str) -> Path:
        """Return the file of a dataset."""
        return self._folder / f"{re.sub(r'[^A-Za-z0-9._-]', '-', fingerprint)}.jsonl"

    def entries(self, fingerprint: str) -> list[Entry]:
        """Return the entries that count, in the order their runs began.

        Raises
        ------
        DataError
            If the file is damaged: nobody knows then what was spent.
        EnvironmentFault
            If it cannot be read.
        """
        try:
            content = self.path(fingerprint).read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._fault(fingerprint, error) from error
        return _counting(content, self.path(fingerprint))

    def spent(self, fingerprint: str, unit: Unit = "site", *, without: str | None = None) -> Spent:
        """Return what was spent on a dataset.

        Parameters
        ----------
        fingerprint
            Of the dataset.
        unit
            What is protected. What protects a site protects its records, so that ``record`` counts both kinds of runs;
            ``site`` counts only those that protect sites, as the others promise nothing about them.
        without
            A run that is left out.
        """
        return _sum(self.entries(fingerprint), unit, without)

    def refuse_over(self, budget: float, fingerprint: str, entry: Entry) -> None:
        """Refuse a run that would spend more than is left; nothing is written.

        Raises
        ------
        DataError
            If the budget does not suffice.
        """
        self._refuse(self.entries(fingerprint), budget, entry)

    def write(self, fingerprint: str, entry: Entry, *, budget: float | None = None) -> None:
        """Add an entry, and return once it is on the disk.

        Parameters
        ----------
        fingerprint
            Of the dataset.
        entry
            What the run may spend or, when it has ended, did spend.
        budget
            Most that all runs may spend. It is compared while nobody else can write, so that runs which begin together
            do not exceed it together. Not for what was spent already: that is written down whatever the budget.

        Raises
        ------
        DataError
            If the budget does not suffice, or the file is damaged; nothing is written.
        EnvironmentFault
            If it cannot be written.
        """
        line = (json.dumps(asdict(entry), ensure_ascii=False) + "\n").encode()
        try:
            with self._locked(fingerprint) as file:
                content = os.pread(file, os.fstat(file).st_size, 0)
                counting = _counting(content, self.path(fingerprint))
                if budget is not None:
                    self._refuse(counting, budget, entry)
                # What a kill cut short never counted.
                end = content.rfind(b"\n") + 1
                os.ftruncate(file, end)
                if os.pwrite(file, line, end) < len(line):
                    os.ftruncate(file, end)
                    raise OSError(28, "No space left on device")
                os.fsync(file)
        except OSError as error:
            raise self._fault(fingerprint, error) from error

    @contextmanager
    def _locked(self, fingerprint: str) -> Iterator[int]:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self.path(fingerprint)
        new = not path.exists()
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file
            if new:
                sync(self._folder)  # else a power cut could take the file with all that is in it
        finally:
            os.close(file)

    def _refuse(self, entries: list[Entry], budget: float, entry: Entry) -> None:
        before = _sum(entries, entry.unit, entry.run)
        if before.epsilon + entry.epsilon <= budget * (1 + 1e-9):
            return
        left = max(0.0, budget - before.epsilon)
        runs = f" by {len(before.runs)} runs, the last of them {before.runs[-1]}" if before.runs else ""
        who = f"run {entry.run}" if entry.run else "the run"
        raise DataError(
            f"{who} would spend epsilon {entry.epsilon:.4g} on this dataset, but of the budget of {budget:g} "
            f"only {left:.4g} is left: {before.epsilon:.4g} was spent{runs}",
            hint="raise federation.privacy.noise_multiplier or do fewer rounds"
            + (f", so that epsilon is at most {left:.4g}" if left > 0 else "")
            + "; whoever answers for the data may raise federation.privacy.budget",
        )

    def _fault(self, fingerprint: str, error: OSError) -> EnvironmentFault:
        return EnvironmentFault(
            f"what was spent on the dataset cannot be read or written: {self.path(fingerprint)}: "
            f"{error.strerror or error}",
            hint="free space, or move the project to a file system with locks that you may write to",
        )


def _counting(content: bytes, path: Path) -> list[Entry]:
    """Read entries; a last line without an end was cut short by a kill."""
    found: dict[tuple[str, Unit], Entry] = {}
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        if not line.strip():
            continue
        try:
            entry = Entry(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise DataError(
                f"{path}:{number} is no entry, so nobody knows what was spent on the dataset: {error}",
                hint="bring the file back from a backup; it is left as it is",
            ) from None
        found[entry.run, entry.unit] = entry
    return list(found.values())


def _sum(entries: list[Entry], unit: Unit, without: str | None) -> Spent:
    counted = [entry for entry in entries if entry.run != without and (unit == "record" or entry.unit == "site")]
    return Spent(
        math.fsum(entry.epsilon for entry in counted),
        math.fsum(entry.delta for entry in counted),
        tuple(entry.run for entry in counted),
    )
