"""What a federation must not lose: after each round its weights, the strategy's state, who took part, and metrics.

A round is a folder that is renamed into place when all of it is on the disk, so that there is either the whole round
or none of it. Records of all rounds stay; weights of the last two, or of as many as late answers need.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ai4sdk.errors import EnvironmentFault, RunFailed
from ai4sdk.federated.weights import Arrays, State
from ai4sdk.runs.files import read_json, sync

__all__ = ["Ledger", "Round"]


@dataclass(frozen=True)
class Round:
    """The record of a round.

    Parameters
    ----------
    number
        From 1; 0 is the state that the federation began with.
    up
        Who could be reached.
    sites
        Who was asked to train.
    answered
        Samples of each site whose answer was taken.
    refused
        Why the answers of others were not.
    metrics
        Of the federation, by name.
    site_metrics
        Of each site that answered.
    tries
        How often the round was begun until there were enough answers.
    strategy
        The strategy's plain values.
    late
        In which round each of those was asked that answered late.
    pending
        Of each site that is still training, in which round and at which time it was asked.
    traffic
        Bytes that went down to each site that was asked, and up from it, of all tries: its own validation, too.
    costs
        What each site says its training took, of all tries: ``seconds``, ``cpu_seconds`` and, where it knows what its
        cores draw, ``joules``. No two runs have the same.
    """

    number: int
    up: list[str] = field(default_factory=list)
    sites: list[str] = field(default_factory=list)
    answered: dict[str, int] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    site_metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    tries: int = 1
    strategy: dict[str, Any] = field(default_factory=dict)
    traffic: dict[str, list[int]] = field(default_factory=dict)
    late: dict[str, int] = field(default_factory=dict)
    pending: dict[str, list[int]] = field(default_factory=dict)
    costs: dict[str, dict[str, float]] = field(default_factory=dict, compare=False)


class Ledger:
    """The rounds of one federation.

    Parameters
    ----------
    folder
        Where they are kept.
    kept
        Of how many rounds the weights stay.
    """

    def __init__(self, folder: Path, kept: int = 2) -> None:
        self._folder, self.kept = folder, kept

    def rounds(self) -> list[Round]:
        """Return the records of all rounds that were finished, in order.

        Raises
        ------
        RunFailed
            If one is missing between others, or unreadable.
        """
        found = []
        for expected, path in enumerate(self._paths()):
            try:
                values = read_json(path / "round.json")
                record = Round(**values)
            except (OSError, ValueError, TypeError) as error:
                raise RunFailed(f"the record of a round cannot be read: {path}: {error}", hint=_LOST) from error
            if record.number != expected:
                raise RunFailed(f"round {expected} is missing in {self._folder}", hint=_LOST)
            found.append(record)
        return found

    def state(self, number: int) -> tuple[State, Arrays]:
        """Return the weights after a round, and the arrays of the strategy.

        Raises
        ------
        RunFailed
            If they cannot be read.
        """
        folder = self._path(number)
        try:
            parts = load_file(folder / "state.safetensors")
        except (OSError, SafetensorError) as error:
            raise RunFailed(f"the weights after round {number} cannot be read: {error}", hint=_LOST) from error
        split: dict[str, Arrays] = {"parameters": {}, "buffers": {}, "strategy": {}}
        for name, array in parts.items():
            kind, _, rest = name.partition("/")
            split[kind][rest] = array
        return State(split["parameters"], split["buffers"]), split["strategy"]

    def write(self, record: Round, state: State, strategy: Mapping[str, Any]) -> None:
        """Add a round; what was there of it before is replaced.

        Raises
        ------
        EnvironmentFault
            If it cannot be written; the rounds before are untouched.
        """
        final = self._path(record.number)
        scratch = final.with_name(f".{final.name}.part")
        arrays = {f"parameters/{name}": value for name, value in state.parameters.items()}
        arrays |= {f"buffers/{name}": value for name, value in state.buffers.items()}
        arrays |= {f"strategy/{name}": value for name, value in strategy.items()}
        try:
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir(parents=True)
            save_file(
                {name: np.asarray(value, order="C") for name, value in arrays.items()}, scratch / "state.safetensors"
            )
            text = json.dumps(asdict(record), indent=2, ensure_ascii=False) + "\n"
            (scratch / "round.json").write_text(text, encoding="utf-8")
            for path in (*scratch.iterdir(), scratch):
                sync(path)
            shutil.rmtree(final, ignore_errors=True)
            scratch.rename(final)
            sync(self._folder)
        except (OSError, SafetensorError) as error:
            with contextlib.suppress(OSError):
                shutil.rmtree(scratch)
            raise EnvironmentFault(
                f"round {record.number} could not be written to {self._folder}: {error}",
                hint="free some space, then `ai4sdk resume` goes on from the round before",
            ) from error
        number = record.number - self.kept
        while (old := self._path(number) / "state.safetensors").exists():
            old.unlink()
            number -= 1

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:05d}"

    def _paths(self) -> list[Path]:
        if not self._folder.is_dir():
            return []
        return sorted(path for path in self._folder.iterdir() if path.name.isdecimal())


_LOST = "the folder was changed or the disk is damaged; start the federation anew with `ai4sdk rerun`"
