"""From what a config calls a model to its folder on this machine: runs, packages, and models in MLflow."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ai4sdk.errors import DataError, EnvironmentFault, NotFound
from ai4sdk.runs.files import read_json
from ai4sdk.runs.store import find_run

__all__ = ["Located", "Sources", "is_address"]

_ADDRESS = re.compile(r"(models|runs):/")
_DOWNLOAD_TAKES = 1800.0


@dataclass(frozen=True)
class Located:
    """A model on this machine.

    Parameters
    ----------
    folder
        A run or a package.
    name
        Name of the job that made it.
    identity
        What tells it from any other model: a digest of its weights and of how it is asked.
    """

    folder: Path
    name: str
    identity: str


def is_address(source: str) -> bool:
    """Tell whether a source lies in MLflow."""
    return _ADDRESS.match(source) is not None


class Sources:
    """Finds models.

    Parameters
    ----------
    runs
        Folder of the runs.
    tracking
        The job's section ``tracking``: where MLflow is.
    project
        Folder that relative addresses in it start at.
    """

    def __init__(self, runs: Path, tracking: Mapping[str, Any], project: Path) -> None:
        self._runs = runs
        self._tracking = tracking
        self._project = project

    def find(self, source: str) -> Located:
        """Return where a source's model is now; one in MLflow is brought here first, once for each version.

        Raises
        ------
        NotFound
            If there is no such run, package or model, or the run has none.
        DataError
            If the package is damaged.
        EnvironmentFault
            If MLflow does not answer.
        """
        folder = self._download(source) if is_address(source) else self._here(source)
        package = folder if (folder / "model.json").is_file() else folder / "package"
        try:
            known = read_json(package / "model.json")
            identity = f"{known['weights_sha256']} {known['plan']} {known['run']}"
            return Located(folder, str(known["name"]), identity)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{package} is no model package: {error!r}", hint="copy it again, or train again") from None

    def _here(self, source: str) -> Path:
        folder = Path(source)
        if (folder / "model.json").is_file():
            return folder.absolute()
        try:
            run = find_run(source, self._runs)
        except NotFound as error:
            raise NotFound(f"{source} is no model package, and no run: {error.message}", hint=error.hint) from None
        if not run.package.is_dir():
            raise NotFound(f"{run.id} has no model package", hint=f"ai4sdk status {run.id}")
        return run.root.absolute()

    def _download(self, address: str) -> Path:
        """Ask a process of its own, as this one is to stay small, and importing MLflow takes seconds."""
        asked = {"address": address, "runs": str(self._runs), "project": str(self._project), "tracking": self._tracking}
        try:
            done = subprocess.run(
                [sys.executable, "-m", "ai4sdk.serving.download"],
                input=json.dumps(asked),
                capture_output=True,
                text=True,
                timeout=_DOWNLOAD_TAKES,
                check=False,
            )
            answer = json.loads(done.stdout.splitlines()[-1])
        except subprocess.TimeoutExpired:
            raise EnvironmentFault(f"{address} was not downloaded within {_DOWNLOAD_TAKES:g} s") from None
        except (ValueError, IndexError):
            last = (done.stderr.strip().splitlines() or ["nothing"])[-1]
            raise EnvironmentFault(f"{address} could not be downloaded: {last}") from None
        if "error" in answer:
            kind = {3: DataError, 6: NotFound}.get(answer["exit_code"], EnvironmentFault)
            raise kind(answer["error"], hint=answer["hint"])
        return Path(answer["folder"])
