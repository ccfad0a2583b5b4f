"""What every backend does with a plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from ai4sdk.planning.plan import Plan
from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.state import RunState

__all__ = ["Backend", "Command", "Ended", "Pool", "PoolBackend", "QueuedBackend", "Standing", "Submission"]


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
    script
        What is handed to a scheduler, which starts everything else; empty where there is none. A file of its own.
    """

    backend: str
    project: str
    tasks: list[Command]
    sidecars: list[Command]
    grace: float
    script: str = ""

    def with_python(self, python: str) -> Submission:
        """Return the same for another machine, where Python is called so."""

        def moved(command: Command) -> Command:
            return replace(command, argv=[python, *command.argv[1:]])

        return replace(self, tasks=[*map(moved, self.tasks)], sidecars=[*map(moved, self.sidecars)])

    def to_json(self) -> dict[str, Any]:
        """Return plain values for a JSON file; the script is left out."""
        return {name: value for name, value in asdict(self).items() if name != "script"}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Submission:
        """Make a submission of plain values."""
        commands = {key: [Command(**command) for command in values[key]] for key in ("tasks", "sidecars")}
        return cls(**{**values, **commands})


class Backend(Protocol):
    """A place plans run at.

    One that can ask its place what it has, in a few seconds, has ``compare(plan)``, too, for `ai4sdk plan`: it returns
    the problems of the plan there, and a few words on what was compared, or why nothing was.
    """

    def render(self, plan: Plan, run: RunPaths, project: Path) -> Submission:
        """Say what would be started. Pure: touches nothing, and gives the same for the same arguments."""
        ...

    def submit(self, submission: Submission, run: RunPaths, lock: int) -> None:
        """Start it. Returns once it is sure to run without this process; ``lock`` holds the run's lock."""
        ...

    def cancel(self, run: RunPaths, *, now: bool = False) -> None:
        """Ask a run to stop with a checkpoint, or with ``now`` without one."""
        ...


@dataclass(frozen=True)
class Standing:
    """How a run stands, and what a scheduler has to say of it.

    Parameters
    ----------
    state
        The state; that of its folder, unless the scheduler knows better.
    note
        Such as ``job 17 is pending (Resources)``; empty if there is nothing to say.
    """

    state: RunState
    note: str = ""


class QueuedBackend(Backend, Protocol):
    """A backend that hands runs to a scheduler: they may wait, run elsewhere, and die without a last word."""

    def stand(self, runs: Sequence[tuple[RunPaths, RunState]]) -> list[Standing]:
        """Ask the scheduler how runs stand that have not ended, all in one call.

        The end of a run that died without saying so is written down, as schedulers forget. A scheduler that does not
        answer is told of in the notes.

        A backend whose runs write their logs where they are not seen from here has ``bring_log(run, state)``, too,
        which brings what there is by now; and ``bring_results(run, state)``, which brings what an ended run left and
        returns how many files were not here yet.
        """
        ...


@dataclass(frozen=True)
class Ended:
    """A run of a pool that has ended; its state is in its run directory, too."""

    run: RunPaths
    state: RunState


class Pool(Protocol):
    """Where the points of a study run, many at once: warm processes of this machine, or an array job of a cluster.

    The pool writes each run's states and events as the backend does for a single run. On this machine it holds the
    run's lock as long as any of its processes lives; what a scheduler keeps says so in its state.
    """

    @property
    def slots(self) -> int:
        """How many runs work at once; any more that are started wait for their turn."""
        ...

    def start(self, run: RunPaths, submission: Submission, lock: int) -> None:
        """Start a run, or go on with it. The pool owns the descriptor ``lock`` from here on.

        Raises
        ------
        EnvironmentFault
            If no process can be started.
        """
        ...

    def adopt(self, run: RunPaths) -> bool:
        """Go on with a run that a pool of a process that is gone had started.

        Returns whether it does: `wait` tells how it ends, or has ended. A pool whose runs die with it never does.
        """
        ...

    def wait(self, timeout: float) -> list[Ended]:
        """Wait until runs end, at most ``timeout`` seconds; return those that did."""
        ...

    def stop(self, run: RunPaths, *, now: bool = False) -> None:
        """Ask a run to stop with a checkpoint, or with ``now`` without one. It ends later, as `wait` tells."""
        ...

    def close(self) -> None:
        """Give everything back. What runs on this machine is killed; what a scheduler has goes on."""
        ...


class PoolBackend(Backend, Protocol):
    """A backend that can run the points of a study.

    One that takes all points at once, and starts one after the other by itself, says so by ``unattended = True``: the
    study then needs no process of ours while they run, unless its points depend on how others ended. One that cannot
    run a certain study has ``check_study(plan, runs)``, which raises the reason; ``runs`` is the folder of runs.
    """

    def pool(self, plan: Plan, folder: Path, project: Path, *, parallel: int | None = None) -> Pool:
        """Open a pool.

        Parameters
        ----------
        plan
            Plan of the first point; the others have the same hardware, backend and imports.
        folder
            Folder for the pool's own logs.
        project
            Folder the processes start in.
        parallel
            Runs at once; by default as many as the plan's hardware fits into the backend.
        """
        ...
