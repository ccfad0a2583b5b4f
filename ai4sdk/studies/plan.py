"""A config with axes → a study's plan: every point checked, frozen, and known by its digest."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ai4sdk.config.axes import Axis, Choice, Interval, read_axes, split_sweeps
from ai4sdk.config.compose import Composer, Composition
from ai4sdk.config.delta import PointComposer
from ai4sdk.config.encode import encode, texts_of
from ai4sdk.config.load import Loaded
from ai4sdk.config.project import Project, find_project
from ai4sdk.config.validate import located, validate
from ai4sdk.errors import ConfigError, NotFound, Problem, UsageError
from ai4sdk.planning.build import Parts, make_plan
from ai4sdk.planning.plan import Plan, digest_of
from ai4sdk.spec import Checkpoint, Job, Sweep
from ai4sdk.spec.base import complete
from ai4sdk.spec.sweep import Direction
from ai4sdk.studies.attendance import is_unattended
from ai4sdk.studies.corners import MOST_LOOKED_AT, MOST_SHOWN, Look, ends_of, first_of
from ai4sdk.studies.layout import FORMAT
from ai4sdk.studies.point import Objective, Point
from ai4sdk.studies.search import check_search
from ai4sdk.studies.space import active, check, grid, listed, sample, size

__all__ = ["PointPlanner", "StudyPlan", "axis_text", "make_study", "read_study_file"]

_SMALLER_IS_BETTER = re.compile(
    r"loss|err|mse|mae|rmse|nll|brier|perplexity|distance|time|seconds|latency|value$", re.IGNORECASE
)


class PointPlanner:
    """Makes the plans of a study's points.

    Parameters
    ----------
    composer
        Composes the points.
    parts
        What their plans share.
    command
        What the user typed.
    """

    def __init__(self, composer: PointComposer, parts: Parts, command: Sequence[str] = ()) -> None:
        self.composer, self.parts, self.command = composer, parts, tuple(command)

    def plan(self, params: Mapping[str, Any]) -> Plan:
        """Return the plan of a point; raises `ConfigError` with every mistake found."""
        composition = _alone(self.composer.compose(params))
        job, problems = validate(composition)
        if job is None:
            raise ConfigError(problems)
        plan = make_plan(Loaded(job, composition), command=self.command, parts=self.parts)
        if any(task.nodes > 1 for task in plan.tasks):
            message, fix = "a point of a study is on one node; this one would be on several", "hardware.nodes=1"
            raise ConfigError([located(composition, "hardware.nodes", message, f"{fix}, or run points alone")])
        return plan

    def to_json(self) -> dict[str, Any]:
        """Return all that later plans need, as JSON values."""
        return {"composer": self.composer.freeze(), "parts": self.parts.to_json(), "command": list(self.command)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any], project: Project) -> PointPlanner:
        """Make a planner of what `to_json` returned; it needs no files of the project."""
        return cls(PointComposer.thaw(values["composer"], project), Parts.from_json(values["parts"]), values["command"])


@dataclass(frozen=True)
class StudyPlan:
    """A study before it runs.

    Parameters
    ----------
    name
        Name of the job.
    config
        The config as asked for.
    sweep
        How it is searched.
    space
        What it varies.
    objectives
        What it optimises; empty where the results will tell.
    points
        The points, of a grid or random search; a search that learns makes its own.
    total
        Points there will be; ``None`` if a Hydra sweeper decides.
    job
        The job of the first point, as plain values.
    first
        The plan of the first point.
    planner
        Makes the plans of further points.
    needs
        The largest ``cpus`` and ``gpus`` that a point asks for.
    """

    name: str
    config: str
    sweep: Sweep
    space: tuple[Axis, ...]
    objectives: tuple[Objective, ...]
    points: tuple[Point, ...]
    total: int | None
    job: Mapping[str, Any]
    first: Plan
    planner: PointPlanner
    needs: Mapping[str, int] = field(default_factory=dict)
    digest: str = field(default="")

    @property
    def largest(self) -> Plan:
        """The first plan with the hardware of the point that asks for most: what runs must fit beside each other."""
        tasks = [
            task.model_copy(update={name: max(getattr(task, name), most) for name, most in self.needs.items()})
            for task in self.first.tasks
        ]
        return self.first.model_copy(update={"tasks": tasks})

    def to_json(self) -> str:
        """Return the text of study.json, without an id."""
        values = {
            "format": FORMAT,
            "name": self.name,
            "config": self.config,
            "digest": self.digest,
            "search": self.sweep.search,
            "sweep": self.sweep.model_dump(mode="json", exclude={"axes"}),
            "axes": {axis.key: axis_text(axis) + _condition_text(axis) for axis in self.space},
            "space": [_axis_json(axis) for axis in self.space],
            "objectives": [asdict(objective) for objective in self.objectives],
            "total": self.total,
            "created": self.first.created,
            "job": self.job,
            "needs": dict(self.needs),
            "planner": self.planner.to_json(),
            "points": [[point.params, point.digest] for point in self.points],
        }
        return json.dumps(values, ensure_ascii=False) + "\n"


def read_study_file(path: Path, project: Project) -> StudyPlan:
    """Read a study's plan.

    Raises
    ------
    UsageError
        If the file is none, or of another version.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise UsageError(f"{path} is no study of this version of ai4sdk", hint="start the study anew")
        planner = PointPlanner.from_json(values["planner"], project)
        points = tuple(
            Point(number, params, texts_of(params), digest) for number, (params, digest) in enumerate(values["points"])
        )
        complete(Sweep)
        space = tuple(map(_axis_from_json, values["space"]))
        first = points[0].params if points else first_of(space)
        return StudyPlan(
            name=values["name"],
            config=values["config"],
            sweep=Sweep.model_validate(values["sweep"]),
            space=space,
            objectives=tuple(Objective(**objective) for objective in values["objectives"]),
            points=points,
            total=values["total"],
            job=values["job"],
            first=planner.plan(first),
            planner=planner,
            needs=values.get("needs", {}),
            digest=values["digest"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} cannot be read as a study: {error}", hint="it is left as it is") from error


def axis_text(axis: Axis, most: int | None = 20) -> str:
    """Return the values of an axis in Hydra's grammar, cut after ``most`` of them for a reader."""
    values = axis.values
    if isinstance(values, Interval):
        text = f"interval({values.low:g},{values.high:g})" if most else f"interval({values.low!r},{values.high!r})"
        text = f"int({text})" if values.integer else text
        return f"tag(log,{text})" if values.log else text
    shown = [encode(value) for value in values.values[:most]]
    text = ",".join(shown)
    if len(values.values) > len(shown):
        return f"{text},… ({len(values.values)} values)"
    if most is not None:
        return text
    return f"tag(ordered,choice({text}))" if values.ordered else f"choice({text})"


def _condition_text(axis: Axis) -> str:
    return f" when {axis.when[0]}={axis.when[1]}" if axis.when else ""


def make_study(
    config: str, overrides: Sequence[str] = (), project: Project | None = None, *, command: Sequence[str] = ()
) -> StudyPlan:
    """Plan a study.

    Parameters
    ----------
    config
        Name of a config, or path of a YAML file.
    overrides
        Overrides in Hydra's grammar; those with several values are axes.
    project
        Project to work in; by default that of the current folder.
    command
        What the user typed, kept as a note.

    Returns
    -------
    StudyPlan
        Nothing was imported of the user's code, and nothing written.

    Raises
    ------
    ConfigError
        With every mistake found, in the axes and in what they lead to.
    NotFound
        If there is no such config.
    """
    project = project or find_project()
    reader = Composer(config, project)
    fixed, typed, problems = split_sweeps(overrides, reader.repository)
    base = reader.compose(fixed)
    sweep, wrong = _sweep(base)
    written, more = read_axes(
        {key: axis.model_dump() if hasattr(axis, "model_dump") else axis for key, axis in sweep.axes.items()},
        reader.repository,
    )
    problems += [*wrong, *(located(base, problem.key, problem.message, problem.fix) for problem in more)]
    set_by_hand = {text.partition("=")[0] for text in fixed} | {axis.key for axis in typed}
    space = (*(axis for axis in written if axis.key not in set_by_hand), *typed)
    by_hand = {text.partition("=")[0]: text for text in overrides}
    planner = PointPlanner(PointComposer(config, fixed, project), Parts(), command)
    look = Look(planner.plan, planner.composer.is_group, space, base, by_hand)
    problems += [look.located(problem) for problem in check(space)]
    if wrong and space and len(problems) == len(wrong):
        problems += _few([problem for problem in look().problems if not problem.key.startswith("sweep")])
    if not space and not problems:
        nothing = Problem("nothing is varied: no value has several", fix="-m optimizer.lr=1e-2,1e-3")
        if written:
            message = f"nothing is left to vary: {', '.join(axis.key for axis in written)} is set by hand"
            nothing = Problem(message, fix="leave that out, or for a single run add ~sweep.axes")
        problems += base.problems or [nothing]
    if problems:
        raise ConfigError(problems)

    corners = look()
    if corners.first is None or corners.problems:
        raise ConfigError(_few(corners.problems))
    problems = [look.located(problem) for problem in _ambiguous(sweep, corners.watched)]
    objectives = () if problems else _objectives(sweep, corners.first.as_job())
    if not problems:
        problems = _search_problems(sweep, space, objectives, look)
        problems += [look.located(problem) for problem in _backend_fits(corners.first, sweep)]
        if sweep.pruner is not None and (cannot := _cannot_be_pruned(corners.first)):
            problems.append(look.located(Problem(cannot, key="sweep.pruner", fix="sweep.pruner=null")))
    if problems:
        raise ConfigError(problems)
    points, total = _points(planner, sweep, space, corners.digests, look)
    first = corners.first
    if not points:
        _read_all_shapes(planner, space)
    identity: list[Any] = [sweep.model_dump(mode="json", exclude={"parallel", "retries", "max_time", "axes"})]
    identity += [[_axis_json(axis) for axis in space], first.digest, [point.digest for point in points]]
    return StudyPlan(
        name=first.name,
        config=config,
        sweep=sweep,
        space=space,
        objectives=objectives,
        points=points,
        total=total,
        job=first.job,
        first=first,
        planner=planner,
        needs=corners.needs,
        digest=digest_of(identity),
    )


def _alone(composition: Composition) -> Composition:
    """Return a point's composition as that of a single run: what is varied is no part of it."""
    return replace(composition, values={key: value for key, value in composition.values.items() if key != "sweep"})


def _sweep(base: Composition) -> tuple[Sweep, list[Problem]]:
    """Read the section, or say what is wrong with it; then it has nothing but axes."""
    complete(Sweep)
    section = base.values.get("sweep") or {}
    try:
        return Sweep.model_validate(section), []
    except ValidationError:
        job, problems = validate(replace(base, problems=()))  # which says it with lines and advice
        assert job is None
        wrong = [problem for problem in problems if problem.key.split(".")[0] == "sweep"]
    try:
        return Sweep.model_validate({"axes": section["axes"]}), wrong
    except (ValidationError, KeyError, TypeError):
        return Sweep(), wrong


def _backend_fits(first: Plan, sweep: Sweep) -> Iterator[Problem]:
    from ai4sdk.backends.registry import get_backend

    kind = first.job["backend"]["kind"]
    if not hasattr(get_backend(kind), "pool"):
        yield Problem(
            f"backend {kind} runs plans one by one; it cannot run studies", key="backend.kind", fix="backend=local"
        )
    elif is_unattended(sweep.search, sweep.pruner, kind) and sweep.max_time is not None:
        message = f"backend {kind} is given all points at once; nobody stays to start none after a while"
        yield Problem(message, key="sweep.max_time", fix="sweep.max_time=null; hardware.wall_time bounds each point")


def _cannot_be_pruned(plan: Plan) -> str:
    """Say why a pruner can do nothing with a plan's training; nothing if it can."""
    if plan.job["function"] is not None:
        return "a pruner looks at a training epoch by epoch, and this job calls a function"
    if plan.job["training"]["mode"] == "federated":
        return "a pruner looks at a training epoch by epoch, and this one has rounds"
    if any(task.world_size > 1 for task in plan.tasks):
        return "a pruner cannot end a training of several processes early"
    return ""


def _sweeper_fits(sweep: Sweep, objectives: Sequence[Objective]) -> Iterator[Problem]:
    if not sweep.search.startswith("hydra:"):
        return
    from ai4sdk.studies.hydra_sweeper import check_sweeper

    try:
        check_sweeper(sweep.search.removeprefix("hydra:"), sweep.options, [one.direction for one in objectives])
    except NotFound as error:
        yield Problem(error.message, key="sweep.search", fix=error.hint)
    except ConfigError as error:
        yield from error.problems


def _few(problems: Sequence[Problem]) -> Iterable[Problem]:
    if len(problems) <= MOST_SHOWN:
        return problems
    return [*problems[:MOST_SHOWN], Problem(f"and {len(problems) - MOST_SHOWN} more like these")]


def _objectives(sweep: Sweep, job: Job) -> tuple[Objective, ...]:
    checkpoint = job.training.checkpoint
    names = list(sweep.objective)
    directions = list(sweep.direction)
    if not names:
        if checkpoint.monitor is None:
            return ()
        names, directions = [checkpoint.monitor], directions or [checkpoint.mode]
    if not directions:
        directions = [_guessed_direction(name, checkpoint) for name in names]
    return tuple(Objective(name, direction) for name, direction in zip(names, directions, strict=True))


def _guessed_direction(name: str, checkpoint: Checkpoint) -> Direction:
    if name == checkpoint.monitor:
        return checkpoint.mode
    return "min" if _SMALLER_IS_BETTER.search(name) else "max"


def _ambiguous(sweep: Sweep, watched: frozenset[tuple[str | None, str]]) -> Iterator[Problem]:
    """Find an objective that is left to ``training.checkpoint``, where points have different ones."""
    metrics = {metric for metric, _ in watched}
    if not sweep.objective and len(metrics) > 1:
        names = sorted(metric for metric in metrics if metric is not None)
        shown = ", ".join([*names, *(["none"] if None in metrics else [])])
        message = f"points watch different metrics ({shown}); say which one they are compared by"
        yield Problem(message, key="sweep.objective", fix=f"sweep.objective={names[0]}")
        return
    asked = set(sweep.objective) or metrics
    modes = {mode for metric, mode in watched if metric is not None and metric in asked}
    if not sweep.direction and len(modes) > 1:
        message = "points differ in training.checkpoint.mode; say whether a small or a large value is better"
        yield Problem(message, key="sweep.direction", fix="sweep.direction=min")


def _search_problems(
    sweep: Sweep, space: tuple[Axis, ...], objectives: tuple[Objective, ...], look: Look
) -> list[Problem]:
    problems = [
        look.located(problem)
        for problem in (*check_search(sweep, space, objectives), *_sweeper_fits(sweep, objectives))
    ]
    learns = sweep.search not in ("grid", "random")
    if (learns or sweep.pruner is not None) and not objectives:
        fix = "sweep.objective=val_loss, or what your module logs"
        who = sweep.search if learns else "a pruner"
        message = f"{who} needs something to optimise"
        problems.append(look.located(Problem(message, key="sweep.objective", fix=fix)))
    return problems


def _points(
    planner: PointPlanner,
    sweep: Sweep,
    space: tuple[Axis, ...],
    seen: Mapping[tuple[str, ...], str],
    look: Look,
) -> tuple[tuple[Point, ...], int | None]:
    """Plan the points that are known beforehand; those that cannot be planned are reported together."""
    if sweep.search == "grid":
        chosen: Iterator[dict[str, Any]] = grid(space)
        if sweep.points is not None:
            chosen = islice(chosen, sweep.points)
    elif sweep.search == "random":
        assert sweep.points is not None
        chosen = (sample(space, sweep.seed, number) for number in range(sweep.points))
    else:
        combinations = size(space)
        return (), sweep.points if combinations is None or sweep.points is None else min(sweep.points, combinations)
    points: list[Point] = []
    problems: dict[tuple[str, str], Problem] = {}
    for number, params in enumerate(chosen):
        texts = texts_of(params)
        try:
            points.append(Point(number, params, texts, seen.get(texts) or planner.plan(params).digest))
        except ConfigError as error:
            for problem in error.problems:
                with_all = replace(problem, message=f"{problem.message} (with {' '.join(texts)})")
                problems.setdefault((problem.key, problem.message), look.at_axis(problem, params) or with_all)
            if len(problems) > MOST_SHOWN:
                break
    if problems:
        raise ConfigError(_few(list(problems.values())))
    return tuple(points), len(points)


def _read_all_shapes(planner: PointPlanner, space: Sequence[Axis]) -> None:
    """Read all options that a search may choose, so that editing files later changes nothing."""
    groups = tuple(axis for axis in space if isinstance(axis.values, Choice) and planner.composer.is_group(axis.key))
    free = [axis for axis in space if axis not in groups]
    for options in islice(grid(groups), MOST_LOOKED_AT) if groups else ():
        point = dict(options)
        for axis in free:
            if active(axis, point):
                point[axis.key] = (listed(axis.values) or ends_of(axis))[0]
        planner.plan(point)


def _axis_json(axis: Axis) -> dict[str, Any]:
    return {"key": axis.key, "when": list(axis.when) if axis.when else None, **asdict(axis.values)}


def _axis_from_json(values: Mapping[str, Any]) -> Axis:
    rest = {key: value for key, value in values.items() if key not in ("key", "when")}
    chosen = Choice(tuple(rest["values"]), rest["ordered"]) if "values" in rest else Interval(**rest)
    when = values["when"]
    return Axis(values["key"], chosen, (when[0], when[1]) if when else None)
