"""What has been shipped of a run: tracking.json."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ai4sdk.runs.files import read_json, write_json
from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.state import RunState
from ai4sdk.studies.layout import StudyPaths

__all__ = ["Ledger", "ending_of", "read_ledger", "unsent_records", "write_ledger"]


@dataclass
class Ledger:
    """How far a run has been shipped.

    Everything in it can be lost without harm: shipping from the beginning changes nothing that already arrived.

    Parameters
    ----------
    uri
        Where to, as it may be shown.
    experiment, experiment_id, run_id
        The experiment's name, and MLflow's ids.
    parent
        MLflow's id of the study's run that this one was put under, as a point of it.
    offset
        Bytes of metrics.jsonl, of a study points.jsonl, that have arrived.
    described
        Whether parameters, tags, datasets and environment have arrived.
    files
        Path inside the run directory → size and modification time (ns) of the file that was uploaded.
    sites
        Site of a federation → MLflow's id of its run.
    rounds
        Rounds of a federation that have arrived, the initial one among them.
    scores
        Digest of the evaluation's figures that have arrived.
    model
        The package's digest, MLflow's id of the model, and whether all of it has arrived.
    registered
        Name and version in the model registry.
    ending
        The end of the run that has arrived; see `ending_of`.
    pending
        Records and files that have not arrived.
    finished
        Whether the run has ended and all of it has arrived.
    last_error
        What stood in the way last; nothing once all is well.
    updated
        Unix time in seconds.
    """

    uri: str = ""
    experiment: str = ""
    experiment_id: str | None = None
    run_id: str | None = None
    parent: str | None = None
    offset: int = 0
    described: bool = False
    files: dict[str, list[int]] = field(default_factory=dict)
    sites: dict[str, str] = field(default_factory=dict)
    rounds: int = 0
    scores: str | None = None
    model: dict[str, Any] | None = None
    registered: dict[str, str] | None = None
    ending: str | None = None
    pending: int = 0
    finished: bool = False
    last_error: str | None = None
    updated: float = 0.0

    def forget(self) -> None:
        """Forget what was shipped, but not where to."""
        fresh = Ledger(uri=self.uri, experiment=self.experiment)
        for item in fields(self):
            setattr(self, item.name, getattr(fresh, item.name))


def read_ledger(path: Path) -> Ledger:
    """Read tracking.json; a file that is missing or makes no sense is an empty ledger."""
    try:
        values = read_json(path)
        known = {item.name: values[item.name] for item in fields(Ledger) if item.name in values}
        ledger = Ledger(**known)
        if not (isinstance(ledger.offset, int) and ledger.offset >= 0 and isinstance(ledger.files, dict)):
            return Ledger()
    except (OSError, ValueError, TypeError):
        return Ledger()
    return ledger


def write_ledger(path: Path, ledger: Ledger) -> None:
    """Write tracking.json. A power cut may bring an older one back, which only makes records travel twice."""
    ledger.updated = round(time.time(), 3)
    write_json(path, asdict(ledger), durable=False)


def ending_of(state: RunState) -> str | None:
    """Return what tells one end of a run from another (a run that is resumed ends again)."""
    return f"{state.state}/{state.attempt}/{state.ended or ''}" if state.state.ended else None


def unsent_records(paths: RunPaths, offset: int) -> int:
    """Count the complete lines of metrics.jsonl, of a study points.jsonl, beyond an offset in bytes."""
    count = 0
    try:
        with open(paths.ledger if isinstance(paths, StudyPaths) else paths.metrics, "rb") as file:
            if file.seek(0, 2) < offset:
                offset = 0  # another file than the one that was shipped
            file.seek(offset)
            while block := file.read(1 << 20):
                count += block.count(b"\n")
    except OSError:
        return count
    return count
