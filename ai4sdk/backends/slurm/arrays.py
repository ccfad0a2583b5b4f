"""Points of a study as array jobs: what was started since the last time is submitted together.

Each array has three files in the study's folder ``slurm``: ``NAME.txt`` with the submission and the run directory of
each element, the script ``NAME.sh``, and ``NAME.json`` with the number that Slurm gave. The name is the job's, too, and
made by one process only; the claim of each run (`ai4sdk.backends.slurm.submissions`) says which element it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ai4sdk.backends.base import Standing, Submission
from ai4sdk.backends.scheduled import handing_over, write_end
from ai4sdk.backends.slurm import client, cluster, submissions
from ai4sdk.backends.slurm.script import STOP, array_script
from ai4sdk.errors import Ai4Error, ConfigError, EnvironmentFault
from ai4sdk.planning.plan import Plan, read_plan_file
from ai4sdk.runs.files import write_json, write_text
from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.state import RunState, State, read_state

if TYPE_CHECKING:
    from ai4sdk.backends.slurm.backend import SlurmBackend

__all__ = ["ArrayQueue"]


@dataclass
class _Array:
    """An array job that is being filled."""

    file: Path
    alike: str
    """What its elements have in common: the script but for its names."""
    plan: Plan
    """Of its first element; the others need the same of a node."""
    elements: list[tuple[int, RunPaths]] = field(default_factory=list)
    """Number of the submission, and the run."""


class ArrayQueue:
    """Hands points over; `ai4sdk.backends.scheduled_pool.Queue` says what is promised.

    Parameters
    ----------
    backend
        Knows how runs stand.
    logs
        Folder for what Slurm says of the arrays, in the study's own.
    project
        Folder the jobs start in.
    parallel
        Elements of an array at once; without it as many as Slurm lets.
    """

    def __init__(self, backend: SlurmBackend, logs: Path, project: Path, parallel: int | None) -> None:
        self._backend, self._project, self._parallel = backend, project, parallel
        self._log = logs / "slurm.log"
        self._study = RunPaths(logs.parent)
        self._open: dict[str, _Array] = {}
        self._full: list[_Array] = []
        self._room = 0
        self._possible: set[str] = set()

    def put(self, run: RunPaths, submission: Submission, lock: int) -> None:
        """Make a run an element of an array, which `flush` submits."""
        with handing_over(run, lock):
            if not self._room:
                self._room = max(1, client.most_elements())
            array = self._array_for(read_plan_file(run.root))
            before = submissions.latest(run)
            claimed = submissions.claim_or_refuse(run, before, (array.file, len(array.elements)))
            write_json(run.submission, submission.to_json(), durable=False)
            write_json(run.state, asdict(replace(read_state(run), scheduler="slurm", job=None)))
            array.elements.append((claimed.number, run))

    def _array_for(self, plan: Plan) -> _Array:
        alike = self._script("", plan, Path(), 1, None)
        array = self._open.get(alike)
        if array is not None and len(array.elements) == self._room:
            self._full.append(array)
            array = None
        if array is None:
            array = self._open[alike] = _Array(_new_file(self._study), alike, plan)
        return array

    def flush(self) -> None:
        """Submit the arrays, one job each.

        Raises
        ------
        ConfigError
            With everything that elements ask for and the cluster does not have; nothing is submitted then.
        UsageError
            If Slurm refuses one.
        EnvironmentFault
            If Slurm does not answer, or the study's folder cannot be written.
        """
        arrays, self._full, self._open = [*self._full, *self._open.values()], [], {}
        before: str | None = None
        try:
            self._refuse_impossible(arrays)
        except Ai4Error as error:
            self._take_back(arrays, error)
            raise
        while arrays:
            try:
                before = self._submit(arrays[0], before if self._parallel else None)
            except OSError as error:
                fault = EnvironmentFault(f"{self._study.slurm} cannot be written: {error.strerror or error}")
                self._take_back(arrays, fault)
                raise fault from error
            except Ai4Error as error:
                self._take_back(arrays, error)
                raise
            del arrays[0]

    def _refuse_impossible(self, arrays: Sequence[_Array]) -> None:
        """Compare arrays with what the cluster offers, those of a kind once; raises as `flush` does."""
        new = {array.alike: array.plan for array in arrays if array.alike not in self._possible}
        if not new:
            return
        there = cluster.ask(*new.values())
        if found := list(dict.fromkeys(one for plan in new.values() for one in there.problems(plan))):
            raise ConfigError(found)
        self._possible.update(new)

    def _submit(self, array: _Array, after: str | None) -> str:
        name, listing = array.file.stem, array.file.with_suffix(".txt")
        script = self._script(name, array.plan, listing, len(array.elements), after)
        write_text(listing, "".join(f"{number} {run.root}\n" for number, run in array.elements))
        file = array.file.with_suffix(".sh")
        write_text(file, script)
        return client.submit_and_note(file, name=name, note=partial(submissions.name_array_job, array.file))

    def _script(self, name: str, plan: Plan, listing: Path, count: int, after: str | None) -> str:
        return array_script(
            plan, listing, self._log, self._project, name=name, count=count, parallel=self._parallel, after=after
        )

    def _take_back(self, arrays: Sequence[_Array], error: Ai4Error) -> None:
        """Leave the elements of arrays that were not submitted interrupted."""
        cause = "; ".join(one.message for one in error.problems) if isinstance(error, ConfigError) else error.message
        for array in arrays:
            for _, run in array.elements:
                state = read_state(run)
                write_end(run, state, replace(state, state=State.INTERRUPTED, cause=cause, exit_code=5))

    def stand(self, runs: Sequence[tuple[RunPaths, RunState]]) -> list[Standing]:
        """Ask Slurm; whoever submitted earlier is gone, and what was not submitted by then never will be."""
        return self._backend.stand_of(runs, submitting=0.0)

    def stop(self, runs: Mapping[RunPaths, bool]) -> None:
        """Take elements from the queue, or tell them to stop."""
        jobs: dict[bool, list[str]] = {False: [], True: []}
        for run, now in runs.items():
            write_text(run.cancel_request, "now" if now else "stop", durable=False)
            submission = submissions.latest(run)
            if submission is not None and submission.job is not None:
                jobs[now].append(submission.job)
        if told := [*jobs[False], *jobs[True]]:
            client.cancel(*told, waiting=True)
            client.tell(*told, signal=STOP)
        if jobs[True]:
            client.cancel(*jobs[True])


def _new_file(study: RunPaths) -> Path:
    """Claim the name of a new array: that of the study and a number, as the job will be called."""
    study.slurm.mkdir(exist_ok=True)
    number = len(list(study.slurm.glob("*.json"))) + 1
    while True:
        file = study.slurm / f"{study.root.name}-{number}.json"
        try:
            file.touch(exist_ok=False)
            return file
        except FileExistsError:
            number += 1
