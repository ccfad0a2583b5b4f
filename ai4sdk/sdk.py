"""The SDK's face: the steps of the command line as functions, the same errors as exceptions.

Nothing here keeps state: each call looks at the files, and two notebooks can use one project.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ai4sdk.backends.launch import cancel_run, fetch_results, resume_run, start_run
from ai4sdk.backends.standing import Watch
from ai4sdk.config.load import Loaded, load_job
from ai4sdk.config.project import Project, find_project
from ai4sdk.errors import NotFound, UsageError
from ai4sdk.planning.build import make_plan
from ai4sdk.planning.plan import Plan, read_plan_file
from ai4sdk.runs.display import html_table
from ai4sdk.runs.files import read_json, read_json_lines
from ai4sdk.runs.handle import Handle
from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.state import RunState, State, is_run
from ai4sdk.runs.store import find_run

if TYPE_CHECKING:
    from ai4sdk.worker.model import Model

__all__ = ["Run", "compose", "load_model", "open_run", "plan", "run"]


def compose(config: str | Path, *overrides: str, project: str | Path | None = None) -> Loaded:
    """Compose a config and validate it.

    Parameters
    ----------
    config
        Name of a config, or path of a YAML file.
    *overrides
        Overrides in Hydra's grammar, such as ``"optimizer.lr=1e-3"``.
    project
        Folder to work in; by default the project around the current folder.

    Returns
    -------
    Loaded
        ``.job`` is the typed job; ``.composition`` knows where each value came from.

    Raises
    ------
    ConfigError
        With every mistake found, each with its place and fix.
    """
    return load_job(str(config), list(overrides), project_of(project))


def plan(config: str | Path | Loaded, *overrides: str, project: str | Path | None = None) -> Plan:
    """Freeze a config into a plan; see `compose` for the parameters and errors."""
    loaded = config if isinstance(config, Loaded) else compose(config, *overrides, project=project)
    if loaded.job.sweep.axes:
        raise UsageError(f"{config} has axes: it is a study of many plans", hint=f"ai4sdk.study({str(config)!r})")
    return make_plan(loaded)


def run(
    what: str | Path | Loaded | Plan,
    *overrides: str,
    project: str | Path | None = None,
    wait: bool = True,
    after: Sequence[Run] = (),
) -> Run:
    """Run a config or a plan.

    Parameters
    ----------
    what
        A config's name or path, what `compose` or `plan` returned, or the path of a plan file (``.json``).
    *overrides
        Overrides in Hydra's grammar; not for plans.
    project
        Folder to work in; by default the project around the current folder.
    wait
        Whether to return only when the run has ended. Without it, see `Run.wait`.
    after
        Runs that must have succeeded before it begins, on a backend that can see to that (Slurm).

    Raises
    ------
    UsageError
        If the backend cannot have a run wait for others, or one of them has ended otherwise.
    ConfigError
        With every mistake found in the config.
    RunFailed, RunInterrupted, RunCancelled
        If ``wait`` and the run did not succeed.
    """
    found = project_of(project)
    if isinstance(what, Plan):
        frozen = what
    elif isinstance(what, str | Path) and str(what).endswith(".json"):
        frozen = read_plan_file(Path(what))
    else:
        frozen = plan(what, *overrides, project=found.root)
    started = Run(start_run(frozen, found.root, [other.paths for other in after]))
    return started.wait() if wait else started


def open_run(reference: str | Path = "latest", *, project: str | Path | None = None) -> Run:
    """Open a run by id, unique prefix, job name, folder, or ``latest``; raises `NotFound`."""
    return Run(find_run(str(reference), project_of(project).root / "runs"))


def load_model(source: str | Path | Run, *, project: str | Path | None = None, **options: Any) -> Model:
    """Load the model of a run or of a package folder.

    Parameters
    ----------
    source
        A run, what `open_run` takes, or a package's folder.
    project
        Folder to look for runs in.
    **options
        Those of `ai4sdk.worker.model.load_model`.

    Returns
    -------
    Model
        A callable: give it records, arrays, pictures or recordings, get a prediction.
    """
    from ai4sdk.worker.model import load_model as load

    if isinstance(source, Run):
        return load(source.folder, **options)
    folder = Path(source)
    if is_run(folder) or (folder / "model.json").is_file():
        return load(folder, **options)
    return load(open_run(source, project=project).folder, **options)


class Run(Handle):
    """A run: its state, metrics, scores, report and model, read from its folder each time they are asked for.

    Parameters
    ----------
    paths
        Files of the run.
    """

    def __init__(self, paths: RunPaths) -> None:
        super().__init__(paths)
        self._watch = Watch(paths)

    @property
    def status(self) -> RunState:
        """How it stands; on a cluster the scheduler has its say. Raises `NotFound` if the folder is gone."""
        try:
            return self._watch.look().state
        except (OSError, ValueError, KeyError) as error:
            raise NotFound(f"the run {self.id} is gone: {self.folder} cannot be read") from error

    @property
    def plan(self) -> Plan:
        """The plan it executes."""
        return read_plan_file(self.folder)

    def metrics(self) -> list[dict[str, Any]]:
        """Return what was logged: ``{"time", "step", "epoch", "metrics"}`` each, the last word on each step."""
        latest: dict[tuple[Any, frozenset[str]], dict[str, Any]] = {}
        for record in read_json_lines(self.paths.metrics):
            latest[record.get("step"), frozenset(record.get("metrics", {}))] = record
        return list(latest.values())

    @property
    def scores(self) -> dict[str, Any]:
        """Figures of the evaluation; empty before it."""
        try:
            scores = read_json(self.paths.scores)
        except (OSError, ValueError):
            return {}
        return scores if isinstance(scores, dict) else {}

    def cancel(self, *, now: bool = False) -> State:
        """Stop it with a checkpoint, or with ``now`` without one; returns its state after at most a minute."""
        return cancel_run(self.paths, now=now, wait=60)

    def resume(self, *, wait: bool = True) -> Run:
        """Go on after an interruption, a cancel or a failure."""
        resume_run(self.paths, find_project().root)
        return self.wait() if wait else self

    def fetch(self) -> Run:
        """Bring what it left elsewhere, such as on the claim of a cluster, to its folder here."""
        fetch_results(self.paths)
        return self

    def model(self, **options: Any) -> Model:
        """Load its model; see `load_model`."""
        return load_model(self, **options)

    def __repr__(self) -> str:
        try:
            status = self.status
        except NotFound:
            return f"<Run {self.id}: gone>"
        cause = f" ({status.cause})" if status.cause else ""
        return f"<Run {self.id}: {status.state}{cause}>"

    def _repr_html_(self) -> str:
        try:
            status = self.status
        except NotFound:
            return html_table(self.id, {"state": "gone"})
        figures = {name: value for name, value in self.scores.items() if isinstance(value, float)}
        facts = {"state": status.state, "cause": status.cause, "folder": self.folder, "report": self.report}
        return html_table(self.id, {**facts, **figures})


def project_of(folder: str | Path | None) -> Project:
    """Return the project around a folder, by default around the current one."""
    return find_project(Path(folder)) if folder is not None else find_project()
