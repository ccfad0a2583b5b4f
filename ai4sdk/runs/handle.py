"""What one can hold of a run or a study: its id, how it stands, and the wait for its end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Self

from ai4sdk.errors import NotFound
from ai4sdk.runs.ending import failure_of
from ai4sdk.runs.files import read_json_lines
from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.state import RunState, State, read_state
from ai4sdk.runs.store import name_of

__all__ = ["Handle"]


class Handle:
    """A folder with a state, read each time it is asked for.

    Parameters
    ----------
    paths
        Its files.
    """

    what: ClassVar[str] = "run"
    first_log: ClassVar[str] = "train"

    def __init__(self, paths: RunPaths) -> None:
        self.paths = paths

    @property
    def id(self) -> str:
        """The id, which is the folder's name."""
        return self.paths.id

    @property
    def name(self) -> str:
        """Name of the job."""
        return name_of(self.id)

    @property
    def folder(self) -> Path:
        """The directory."""
        return self.paths.root

    @property
    def status(self) -> RunState:
        """How it stands; raises `NotFound` if the folder is gone."""
        try:
            return read_state(self.paths)
        except (OSError, ValueError, KeyError) as error:
            raise NotFound(f"the {self.what} {self.id} is gone: {self.folder} cannot be read") from error

    @property
    def state(self) -> State:
        """Its state."""
        return self.status.state

    @property
    def report(self) -> Path:
        """The report, an HTML page; written when it ends."""
        return self.paths.report

    def log(self, process: str | None = None) -> str:
        """Return what one of its processes printed; nothing if there was no such process."""
        try:
            return self.paths.log(process or self.first_log).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield what happened."""
        return read_json_lines(self.paths.events)

    def wait(self, *, timeout: float | None = None, check: bool = True) -> Self:
        """Wait until it has ended.

        Parameters
        ----------
        timeout
            Seconds; without it, as long as it takes.
        check
            Whether to raise if it did not succeed.

        Raises
        ------
        TimeoutError
            If it has not ended in time.
        RunFailed, RunInterrupted, RunCancelled
            If ``check`` and it did not succeed.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not (status := self.status).state.ended:
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"{self.id} is still {status.state}")
            time.sleep(0.1)
        if check:
            self.check()
        return self

    def check(self) -> None:
        """Raise the error that fits how it ended; return if it succeeded or has not ended."""
        if error := failure_of(self.paths, self.status):
            raise error
