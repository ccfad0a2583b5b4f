"""The engine of a study: the one process that decides which point runs next, and writes down what became of each."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import traceback
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ai4sdk.backends.base import Ended, Pool, PoolBackend
from ai4sdk.backends.launch import make_run, requeue_run
from ai4sdk.backends.local.spare import drop_spare
from ai4sdk.backends.registry import get_backend
from ai4sdk.config.encode import texts_of
from ai4sdk.config.keys import nearest
from ai4sdk.config.project import Project
from ai4sdk.errors import Ai4Error, ConfigError, EnvironmentFault, RunCancelled, RunInterrupted, UsageError
from ai4sdk.planning.plan import Plan
from ai4sdk.runs.digests import claim, find_success, link_success, unclaim
from ai4sdk.runs.files import write_json
from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.state import RunState, State, add_event, is_alive, is_run, read_state, write_last, write_state
from ai4sdk.runs.store import read_progress
from ai4sdk.spec.units import format_span
from ai4sdk.studies.attendance import is_unattended
from ai4sdk.studies.finish import finish
from ai4sdk.studies.layout import StudyPaths
from ai4sdk.studies.ledger import Ledger, LedgerReader
from ai4sdk.studies.outcome import NOTHING_MEASURED, first_objective, known_figures, values_of
from ai4sdk.studies.plan import StudyPlan, axis_text, read_study_file
from ai4sdk.studies.planned import PlannedSearch, make_search
from ai4sdk.studies.point import Point, PointState, Result
from ai4sdk.studies.reports import ReportTail
from ai4sdk.studies.search import Search
from ai4sdk.studies.space import identity
from ai4sdk.studies.view import view_of

__all__ = ["Engine", "execute"]

_POLL = 0.2
_LOOK_ELSEWHERE = 1.0
"""Seconds between two looks at points that another study runs."""
_POLL_REPORTS = 0.01
"""Seconds between two looks at reports: a worker waits for the answer."""
_NO_OBJECTIVE = "no objective"
_LACK = "a lack of the machine"
_LEAVING = "leaving"
_FREE_LOCK = 30.0
"""Seconds after which processes of a killed engine must be gone, beyond those that they have to stop."""

_NOT_THE_CODE = (3, 5, 7)
"""Exit codes of a run that failed for reasons outside its code: data out of reach, killed, a lack of the machine."""
_WALL_TIME = "wall time reached"
"""Cause of a run that was stopped, with a checkpoint, because its time was over; of `ai4sdk.worker.signals.Reason`."""
_LOST = (PointState.INTERRUPTED, PointState.CANCELLED)
_TRACKING_PATIENCE = 600.0
"""Longest time, in seconds, that records may still be sent after the last point."""


def execute(paths: StudyPaths, lock: int, *, failed_too: bool = False, look: bool = False) -> None:
    """Execute a study to its end; its state is then in its folder.

    One that a scheduler has all points of is left to it, once all are handed over.

    Parameters
    ----------
    paths
        Files of the study.
    lock
        Descriptor that holds the study's lock.
    failed_too
        Whether to try points again that failed by their own code.
    look
        Whether only to write down what became of points that were handed over.
    """
    before = state = read_state(paths)
    if not look:
        state = replace(state, state=State.RUNNING, started=time.time(), ended=None, pid=os.getpid(), extra={})
        state = replace(state, cause=None, exit_code=None)
    records: subprocess.Popen[bytes] | None = None
    try:
        if not look:
            write_state(paths, state)
        study = read_study_file(paths.study, Project(Path.cwd()))
        if study.job["backend"]["kind"] != "local":
            drop_spare()
        unattended = _is_unattended(study)
        if not unattended:
            records = _ship_records(paths, study)
        state = Engine(paths, study, Project(Path.cwd()), failed_too=failed_too, look=look).run(state)
        if unattended and state.state.ended:
            _ship_records(paths, study)  # nobody waits for that
    except ConfigError as error:
        found = error.problems[0]
        cause = f"{found.key}: {found.message}" if found.key else found.message
        state = _failed(state, f"what was planned is no longer possible: {cause}", error.exit_code)
    except Ai4Error as error:
        state = _failed(state, error.message, error.exit_code)
    except _Replaced:
        os.close(lock)
        if records is not None:
            records.kill()
        return
    except OSError as error:
        if not paths.root.exists():
            return  # the study was deleted, and there is nowhere left to say so
        state = _failed(state, f"the study's folder cannot be written: {error.strerror or error}", 7)
    except Exception as error:  # noqa: BLE001 - else the study would be taken for one that was killed
        traceback.print_exc()
        cause = f"a defect of ai4sdk or of the search: {type(error).__name__}: {error} (see {paths.log('engine')})"
        state = _failed(state, cause, 1)
    if not look or state != before:
        write_last(paths, state)
    os.close(lock)  # the study has ended; who resumes it need not wait for its records
    if records is not None:
        if state.state.ended:
            with contextlib.suppress(subprocess.TimeoutExpired):
                records.wait(_TRACKING_PATIENCE)
        records.kill()


class _Replaced(Exception):
    """A later start of the same engine executes the study by now: the node of this one was given up for lost."""


def _is_unattended(study: StudyPlan) -> bool:
    return is_unattended(study.sweep.search, study.sweep.pruner, study.job["backend"]["kind"])


def _failed(state: RunState, cause: str, exit_code: int) -> RunState:
    return replace(state, state=State.FAILED, cause=cause, exit_code=exit_code, ended=time.time())


def _ship_records(paths: StudyPaths, study: StudyPlan) -> subprocess.Popen[bytes] | None:
    """Start the process that ships the study and its points to MLflow."""
    if study.job["tracking"]["kind"] == "none":
        return None
    with open(paths.log("tracking"), "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "ai4sdk.tracking", "--study", str(paths.root)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            process_group=0,
        )


class Engine:
    """Runs the points of one study.

    Parameters
    ----------
    paths
        Files of the study.
    study
        Its plan.
    project
        Folder that relative addresses start at.
    failed_too
        Whether to try points again that failed by their own code.
    look
        Whether to start nothing.
    """

    def __init__(
        self, paths: StudyPaths, study: StudyPlan, project: Project, *, failed_too: bool = False, look: bool = False
    ) -> None:
        self._paths, self._study, self._project = paths, study, project
        self._runs = paths.root.parent
        self._backend = get_backend(study.job["backend"]["kind"])
        reader = LedgerReader(paths, study.points)
        self._results = dict(reader.read())
        judged_by = reader.objective
        self._objectives = study.objectives or ((judged_by,) if judged_by is not None else ())
        self._ledger = Ledger(paths)
        self._pool: Pool | None = None
        self._running: dict[Path, Point] = {}
        self._twins: dict[str, list[Point]] = {}
        self._again: deque[Point] = deque()
        self._elsewhere: deque[Point] = deque()  # which another study runs just now
        self._look_elsewhere = 0.0
        self._claims: dict[str, int] = {}
        self._waits: set[int] = set()
        self._asked: deque[Point] = deque()
        self._tries: dict[int, int] = {}
        self._phases: dict[int, list[str]] = {}
        self._tails: dict[int, ReportTail] = {}
        self._pruned: set[int] = set()
        self._lacks: dict[str | None, set[int]] = {}
        self._told_to_stop: str | None = None
        self._began: float | None = None
        self._in_job = False
        self._cut_short = False
        self._search: Search = make_search(study)
        self._unattended, self._only_looks = _is_unattended(study), look
        self._scheduled = hasattr(self._backend, "stand")
        if failed_too:
            for number, result in self._results.items():
                if result.state is PointState.FAILED:
                    self._results[number] = replace(result, state=PointState.WAITING)
        signal.signal(signal.SIGTERM, self._terminate)
        if self._scheduled:
            signal.signal(signal.SIGUSR1, self._leave)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def _terminate(self, *_: object) -> None:
        self._told_to_stop = self._told_to_stop or "terminated"

    def _leave(self, *_: object) -> None:
        """Note that the time of this process is over, which a scheduler starts again; the points are in its queue."""
        self._told_to_stop = self._told_to_stop or _LEAVING

    # ------------------------------------------------------------------ from the first point to the last

    def run(self, state: RunState) -> RunState:
        """Run what is left to run, and return the state that the study ends in."""
        deadline = time.time() + self._study.sweep.max_time if self._study.sweep.max_time is not None else None
        self._told_to_stop = state.extra.get("stopping")
        self._began, self._in_job = state.started, state.job is not None
        try:
            if self._study.sweep.search.startswith("hydra:"):
                with contextlib.suppress(RunCancelled):
                    self._by_sweeper(deadline)
            else:
                self._search.restore([result for _, result in sorted(self._results.items())])
                self._drain(self._search, deadline)
        finally:
            if self._pool is not None:
                self._pool.close()
            self._ledger.close()
        if self._leaves_points and self._in_job:  # whoever started this process knows what comes next
            return replace(state, state=State.QUEUED, extra={"stopping": self._told_to_stop})
        if self._running and self._unattended:
            told = {"stopping": self._told_to_stop} if self._told_to_stop else {}
            return replace(state, state=State.RUNNING, scheduler=self._study.job["backend"]["kind"], extra=told)
        ended = self._ending(state)
        finish(view_of(self._paths, state=str(ended.state), ended=ended.ended), self._paths)
        return ended

    def _by_sweeper(self, deadline: float | None) -> None:
        from ai4sdk.studies.hydra_sweeper import run_sweeper

        numbers = {identity(dict(result.point.params)): number for number, result in self._results.items()}

        def launch(batch: list[list[str]]) -> list[Any]:
            self._listen()
            self._end_sweep(deadline, unless=False)
            asked = []
            for texts in batch:
                params = self._study.planner.composer.read(texts)
                number = numbers.setdefault(identity(params), len(numbers))
                if number not in self._results:
                    self._plan_point(number, params)
                asked.append(number)
            search = PlannedSearch()
            search.restore([self._results[number] for number in dict.fromkeys(asked)])
            self._drain(search, deadline)
            self._end_sweep(deadline, unless=all(self._results[number].state.final for number in asked))
            return [self._value(number) for number in asked]

        sweep = self._study.sweep
        axes = [f"{axis.key}={axis_text(axis, most=None)}" for axis in self._study.space]
        name, directions = sweep.search.removeprefix("hydra:"), [one.direction for one in self._study.objectives]
        run_sweeper(name, sweep.options, axes, launch, self._paths.root / "sweeper", directions)

    def _end_sweep(self, deadline: float | None, *, unless: bool) -> None:
        """Unwind a Hydra sweeper that must not go on: only it knows how many points there would have been."""
        if not unless and (self._told_to_stop or (deadline is not None and time.time() > deadline)):
            self._cut_short = True
            raise RunCancelled("the study was told to stop")

    def _value(self, number: int) -> Any:
        """Return what a Hydra sweeper expects of a point: a number, several, or nothing."""
        values = self._results[number].values
        return values[0] if values is not None and len(values) == 1 else values

    def _drain(self, search: Search, deadline: float | None) -> None:
        """Run points until the search has none left."""
        self._adopt(search)
        while True:
            self._listen()
            late = deadline is not None and time.time() > deadline
            while self._told_to_stop is None and not late and self._has_room(search):
                point = self._next(search)
                if point is None:
                    break
                self._begin(point, search)
            if not self._running and (self._told_to_stop or late or not (self._again or self._elsewhere)):
                return
            some = False
            if self._pool is not None:
                pause = 0.0 if self._unattended else _POLL_REPORTS if self._tails else _POLL
                for ended in self._pool.wait(pause):
                    self._end(ended, search)
                    some = True
            elif self._elsewhere:
                time.sleep(_POLL)
            self._answer_reports(search)
            if not some and (self._unattended or self._leaves_points):
                return

    def _adopt(self, search: Search) -> None:
        """Go on with points that an engine which is gone had handed to a scheduler."""
        left = {number for number, result in self._results.items() if result.state is PointState.RUNNING}
        if not left or not self._scheduled:
            return
        pool = self._open_pool()
        while left and (asked := search.ask()) is not None:
            number, _ = asked
            point, run = self._results[number].point, self._paths.point(number)
            if number in left and is_run(run.root) and pool.adopt(run):
                self._running[run.root] = point
                self._follow_reports(point, run)
            else:
                self._asked.append(point)
            left.discard(number)

    def _has_room(self, search: Search) -> bool:
        """Tell whether to begin with another point.

        One that is known beforehand is made ready while others work, but a scheduler would not let it wait.
        """
        ahead = 1 if isinstance(search, PlannedSearch) and not self._scheduled else 0
        return self._unattended or self._pool is None or len(self._running) < self._pool.slots + ahead

    def _next(self, search: Search) -> Point | None:
        if self._asked:
            return self._asked.popleft()
        while (asked := search.ask()) is not None:
            number, params = asked
            if number not in self._results:
                self._plan_point(number, params)
            result = self._results[number]
            if not result.state.final:
                return result.point
            search.tell(number, None, result.state)
        if self._elsewhere and time.monotonic() >= self._look_elsewhere:
            self._again.extend(self._elsewhere)
            self._elsewhere.clear()
        return self._again.popleft() if self._again else None

    def _plan_point(self, number: int, params: Mapping[str, Any]) -> None:
        """Plan a point that was not known beforehand; one that cannot be planned has failed."""
        texts = texts_of(params)
        try:
            self._known(Point(number, params, texts, self._study.planner.plan(params).digest))
        except ConfigError as error:
            self._known(Point(number, params, texts, ""))
            cause = f"cannot be planned: {error.problems[0].message}"
            self._ledger.write("ended", number=number, state="failed", values=None, cause=cause, took=None)
            self._results[number] = replace(self._results[number], state=PointState.FAILED, cause=cause)

    def _known(self, point: Point) -> None:
        """Write down a point that was not known beforehand."""
        details = {"params": dict(point.params), "overrides": list(point.overrides), "digest": point.digest}
        self._ledger.write("asked", number=point.number, **details)
        self._results[point.number] = Result(point)

    # ------------------------------------------------------------------ one point

    def _begin(self, point: Point, search: Search) -> None:
        if any(running.digest == point.digest for running in self._running.values()):
            self._twins.setdefault(point.digest, []).append(point)
            return
        if not self._scheduled and not self._claim(point):
            return
        run = self._paths.point(point.number)
        done = find_success(self._runs, point.digest)
        if done is not None and done.root != run.root.resolve():
            self._unclaim(point)
            self._reuse(point, done, search)
            return
        if self._only_looks:
            return
        plan = self._study.planner.plan(point.params)
        if plan.digest != point.digest:
            raise EnvironmentFault(
                f"point {point.number} would not be what was planned: packages or the environment have changed",
                hint="start a new study; points that are the same are not run again",
            )
        if is_run(run.root) and not self._wait_until_free(run):
            return
        lock = self._lock_of(run, plan, point)
        if lock is None:  # it had come to its end before a kill, and only the ledger did not know
            self._take_end(point, run, read_state(run), search)
            return
        pool = self._open_pool()
        attempt = self._results[point.number].attempts + 1
        self._tries[point.number] = self._tries.get(point.number, 0) + 1
        self._ledger.write(
            "started", number=point.number, run=os.path.relpath(run.root, self._paths.root), attempt=attempt
        )
        self._results[point.number] = replace(
            self._results[point.number], state=PointState.RUNNING, run=run.root, attempts=attempt, cause=None
        )
        self._running[run.root] = point
        self._follow_reports(point, run)
        pool.start(run, self._backend.render(plan, run, self._project.root), lock)

    def _claim(self, point: Point) -> bool:
        """Claim a point, or put it aside while another study runs the same; what that comes to counts here, too."""
        if point.digest in self._claims:  # it is tried again
            return True
        claimed = claim(self._runs, point.digest)
        if claimed is None:
            if not self._elsewhere:
                self._look_elsewhere = time.monotonic() + _LOOK_ELSEWHERE
            if point.number not in self._waits:
                add_event(self._paths, "waits for another study", number=point.number)
                self._waits.add(point.number)
            self._elsewhere.append(point)
            return False
        self._claims[point.digest] = claimed
        return True

    def _unclaim(self, point: Point) -> None:
        if (claimed := self._claims.pop(point.digest, None)) is not None:
            unclaim(self._runs, point.digest, claimed)

    @property
    def _leaves_points(self) -> bool:
        """Whether points that run are left alone: what a scheduler has goes on without this process."""
        return self._scheduled and self._told_to_stop in ("terminated", _LEAVING)

    def _follow_reports(self, point: Point, run: RunPaths) -> None:
        if self._study.sweep.pruner is not None:
            self._tails[point.number] = ReportTail(run)

    def _wait_until_free(self, run: RunPaths) -> bool:
        """Wait for workers of an engine that was killed to write their last checkpoints; False if told to stop."""
        grace = float(self._study.job["backend"]["grace"])
        kill, give_up = time.monotonic() + grace + _FREE_LOCK / 2, time.monotonic() + grace + _FREE_LOCK
        while is_alive(run):
            self._listen()
            if self._told_to_stop:
                return False
            if time.monotonic() > give_up:
                raise RunInterrupted(f"{run.root} is still in use", hint=f"ai4sdk cancel {run.root} --now")
            if time.monotonic() > kill:
                self._backend.cancel(run, now=True)
            time.sleep(0.1)
        return True

    def _lock_of(self, run: RunPaths, plan: Plan, point: Point) -> int | None:
        """Make the run of a point, or queue it again; ``None`` if it has succeeded already."""
        if not is_run(run.root):
            lock = make_run(plan, run.root)
            write_json(run.membership, self._about(point), durable=False)
            return lock
        if read_state(run).state is State.SUCCEEDED:
            return None
        write_json(run.membership, self._about(point), durable=False)
        return requeue_run(run, plan)

    def _about(self, point: Point) -> dict[str, Any]:
        """Return what a worker must know of the study."""
        about: dict[str, Any] = {"study": self._paths.id, "number": point.number, "params": dict(point.params)}
        if self._study.sweep.pruner is not None:
            about["report"] = self._study.objectives[0].name
        return about

    def _open_pool(self) -> Pool:
        if self._pool is None:
            backend: Any = self._backend
            if not hasattr(backend, "pool"):
                kind = self._study.job["backend"]["kind"]
                raise UsageError(f"backend {kind} cannot run studies", hint="backend=local")
            opened: PoolBackend = backend
            self._pool = opened.pool(
                self._study.largest, self._paths.logs, self._project.root, parallel=self._study.sweep.parallel
            )
            add_event(self._paths, "pool opened", slots=self._pool.slots)
        return self._pool

    def _reuse(self, point: Point, done: RunPaths, search: Search) -> None:
        """Take the values of a run that has succeeded with this digest; running it again would give the same."""
        result = self._results[point.number]
        values = self._values_of(done)
        if values is None and self._study.objectives:
            cause = self._unmeasured(done)
            self._ledger.write("ended", number=point.number, state="failed", values=None, cause=cause, took=None)
            self._results[point.number] = replace(result, state=PointState.FAILED, cause=cause)
            search.tell(point.number, None, PointState.FAILED)
            return
        run = os.path.relpath(done.root, self._runs.resolve())
        self._ledger.write("reused", number=point.number, run=run, values=_listed_values(values))
        self._results[point.number] = replace(
            result, state=PointState.SUCCEEDED, reused=True, run=done.root, values=values
        )
        search.tell(point.number, values, PointState.SUCCEEDED)

    def _values_of(self, run: RunPaths) -> tuple[float, ...] | None:
        if not self._objectives and (found := first_objective(run)) is not None:
            self._ledger.write("objective", name=found.name, direction=found.direction)
            self._objectives = (found,)
        return values_of(run, self._objectives)

    def _unmeasured(self, run: RunPaths) -> str:
        """Say which objective a run does not have; if none has had it so far, no further point is worth its time."""
        known = known_figures(run)
        missing = [objective.name for objective in self._study.objectives if objective.name not in known]
        near = nearest(missing[0], known) if missing else None
        if all(result.values is None for result in self._results.values()):
            self._told_to_stop = self._told_to_stop or _NO_OBJECTIVE
        has = f"{near}, if that is meant" if near else ", ".join(sorted(known)) or "no figures"
        return f"it has no {', '.join(missing)}; it has {has}"

    def _end(self, ended: Ended, search: Search) -> None:
        if not self._paths.root.exists():
            raise FileNotFoundError(self._paths.root)
        point = self._running.pop(ended.run.root)
        self._answer_reports(search)
        if (tail := self._tails.pop(point.number, None)) is not None and tail.given_up:
            self._pruned.add(point.number)
        self._take_end(point, ended.run, ended.state, search)
        for twin in self._twins.pop(point.digest, []):
            self._again.append(twin)

    def _take_end(self, point: Point, run: RunPaths, state: RunState, search: Search) -> None:
        """Write down how a point ended, or have it tried again."""
        values: tuple[float, ...] | None = None
        cause, found = state.cause, PointState(str(state.state))
        result = self._results[point.number]
        if found is PointState.SUCCEEDED:
            link_success(point.digest, run)
            values = self._values_of(run)
            if values is None and self._study.objectives:
                found, cause = PointState.FAILED, self._unmeasured(run)
        elif point.number in self._pruned:
            step, value = list(result.reports.items())[-1]
            found, values, cause = PointState.PRUNED, (value,), f"given up after epoch {step}"
        elif found is PointState.FAILED and state.exit_code in _NOT_THE_CODE:
            found = PointState.INTERRUPTED
            if state.exit_code == EnvironmentFault.exit_code:
                self._notice_lack(point, cause)
        if found is PointState.INTERRUPTED and cause == _WALL_TIME:
            if self._got_further(point, run, state):
                self._tries[point.number] = 0  # its time was too short for all, not the machine at fault
            else:
                limit = format_span(self._study.first.tasks[0].wall_time or 0.0)
                found = PointState.FAILED
                cause = f"hardware.wall_time ({limit}) is too short: it was over before anything more was saved"
        may_again = self._tries.get(point.number, 0) <= self._study.sweep.retries
        may_again = may_again and self._told_to_stop is None and not self._only_looks
        if found is PointState.INTERRUPTED and may_again:
            add_event(self._paths, "again", number=point.number, cause=cause)
            self._results[point.number] = replace(result, state=PointState.WAITING)
            self._again.append(point)
            return
        self._unclaim(point)
        took = (state.ended or time.time()) - state.started if state.started else None
        self._ledger.write(
            "ended", number=point.number, state=str(found), values=_listed_values(values), cause=cause, took=took
        )
        self._results[point.number] = replace(result, state=found, values=values, cause=cause, took=took, run=run.root)
        if found.final:
            search.tell(point.number, values, found)

    def _notice_lack(self, point: Point, cause: str | None) -> None:
        """End the study where all points will fail as two did, of which none has succeeded: trying each is no use."""
        same = self._lacks.setdefault(cause, set())
        same.add(point.number)
        succeeded = any(result.state is PointState.SUCCEEDED and not result.reused for result in self._results.values())
        if len(same) > 1 and not succeeded:
            self._told_to_stop = self._told_to_stop or _LACK

    def _got_further(self, point: Point, run: RunPaths, state: RunState) -> bool:
        """Tell whether an attempt left more than it had found: a checkpoint, or a phase that is finished."""
        phases = read_progress(run).get("finished") or []
        before = self._phases.get(point.number, [])
        self._phases[point.number] = phases
        try:
            saved = run.last_checkpoint.stat().st_mtime
        except OSError:
            saved = 0.0
        return len(phases) > len(before) or saved >= (state.started or 0.0)

    # ------------------------------------------------------------------ words from outside

    def _answer_reports(self, search: Search) -> None:
        for number, tail in self._tails.items():
            for step, value in tail.read():
                result = self._results[number]
                if step not in result.reports:
                    self._ledger.write("report", number=number, step=step, value=value)
                    self._results[number] = replace(result, reports={**result.reports, step: value})
                tail.answer(step, search.report(number, step, value))

    def _listen(self) -> None:
        if not self._paths.root.exists():
            raise FileNotFoundError(self._paths.root)
        if self._in_job and read_state(self._paths).started != self._began:
            raise _Replaced
        try:
            request = self._paths.cancel_request.read_text(encoding="utf-8").strip()
        except OSError:
            request = ""
        if request:
            self._told_to_stop = "cancelled"
        if self._told_to_stop and self._pool is not None and not self._leaves_points:
            for root in self._running:
                self._pool.stop(RunPaths(root), now=request == "now")

    def _ending(self, state: RunState) -> RunState:
        """Say how the study ended."""
        counts = _count(self._results.values())
        total = self._study.total or len(self._results)
        left = total - sum(count for kind, count in counts.items() if kind.final)
        cut = bool(left) or self._cut_short
        rest = (
            "before its sweeper had all its points" if self._study.total is None else f"{left} of {total} points left"
        )
        found, code, cause = State.SUCCEEDED, 0, None
        failed = [result for result in self._results.values() if result.state is PointState.FAILED]
        if self._told_to_stop == _NO_OBJECTIVE:
            found, code = State.FAILED, 2
            cause = f"{NOTHING_MEASURED}: point {failed[0].point.number}: {failed[0].cause}"
        elif self._told_to_stop == _LACK:
            lack = next(cause for cause, points in self._lacks.items() if len(points) > 1)
            found, code = State.INTERRUPTED, EnvironmentFault.exit_code
            cause = f"no point can run here: {lack}; {rest}, for `ai4sdk study resume` when that is mended"
        elif cut and self._told_to_stop == "cancelled":
            found, code, cause = State.CANCELLED, 130, f"stopped on request, {rest}"
        elif cut and self._told_to_stop:
            found, code, cause = State.INTERRUPTED, 5, f"told to stop (SIGTERM), {rest}"
        elif lost := [result for result in self._results.values() if result.state in _LOST]:
            found, code = State.INTERRUPTED, 5
            first = f"point {lost[0].point.number}: {lost[0].cause}"
            cause = f"{len(lost)} of {total} points could not be finished: {first}"
        elif failed:
            found, code = State.FAILED, 4
            cause = f"{len(failed)} of {total} points failed: point {failed[0].point.number}: {failed[0].cause}"
        elif cut and self._unattended:
            found, code, cause = State.INTERRUPTED, 5, f"{rest}, which a resume starts"
        elif cut and self._study.sweep.max_time is not None:
            cause = f"sweep.max_time was over, {rest}"
        return replace(state, state=found, exit_code=code, cause=cause, ended=time.time())


def _count(results: Iterable[Result]) -> Mapping[PointState, int]:
    counts: dict[PointState, int] = {}
    for result in results:
        counts[result.state] = counts.get(result.state, 0) + 1
    return counts


def _listed_values(values: tuple[float, ...] | None) -> list[float] | None:
    return list(values) if values is not None else None
