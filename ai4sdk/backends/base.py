"""What every backend does with a plan."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ai4sdk.planning.plan import Plan
from ai4sdk.runs.layout import RunPaths

__all__ = ["Backend", "Command", "Submission"]


@dataclass(frozen=True)
class Command:
    """A process to start.

    Parameters
    ----------
    name
        The task it executes, or the sidecar's name.
    argv
        Program and arguments.
    env
        Variables added to the environment.
    log
        File that takes its output, in the run directory.
    """

    name: str
    argv: list[str]
    env: dict[str, str] = field(default_factory=dict)
    log: str = ""


@dataclass(frozen=True)
class Submission:
    """What a backend makes of a plan: everything it will start, to be read before it is started.

    Parameters
    ----------
    backend
        Name of the backend.
    project
        Folder the processes start in.
    tasks
        Commands in the order of the plan's tasks.
    sidecars
        Commands that run beside the tasks and decide nothing.
    grace
        Seconds from telling a task to stop to killing it.
    """

    backend: str
    project: str
    tasks: list[Command]
    sidecars: list[Command]
    grace: float

    def to_json(self) -> dict[str, Any]:
        """Return plain values for a JSON file."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Submission:
        """Make a submission of plain values."""
        commands = {key: [Command(**command) for command in values[key]] for key in ("tasks", "sidecars")}
        return cls(**{**values, **commands})


class Backend(Protocol):
    """A place plans run at."""

    def render(self, plan: Plan, run: RunPaths, project: Path) -> Submission:
        """Say what would be started. Pure: touches nothing, and gives the same for the same arguments."""
        ...

    def submit(self, submission: Submission, run: RunPaths, lock: int) -> None:
        """Start it. Returns once it is sure to run without this process; ``lock`` holds the run's lock."""
        ...

    def cancel(self, run: RunPaths, *, now: bool = False) -> None:
        """Ask a run to stop with a checkpoint, or with ``now`` without one."""
        ...
