"""Run a Hydra sweeper plugin with a launcher of ours: the plugin chooses the points, a study runs them."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import version
from hydra._internal.callbacks import Callbacks
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobRuntime, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from ai4sdk.config.keys import nearest
from ai4sdk.errors import Ai4Error, ConfigError, EnvironmentFault, NotFound, Problem, RunFailed
from ai4sdk.spec.sweep import Direction

__all__ = ["Launch", "check_sweeper", "installed_sweepers", "run_sweeper"]

Launch = Callable[[list[list[str]]], Sequence[float | tuple[float, ...] | None]]
"""Runs a batch of points, given as overrides, and returns the objective(s) of each; ``None`` for one that failed."""

_FAILURE_RATES = ("max_failure_rate", "optim.max_failure_rate")
"""Where plugins have the share of failed points at which they stop."""


def installed_sweepers() -> list[str]:
    """Return the names of the sweeper plugins this environment has.

    Raises
    ------
    EnvironmentFault
        If a plugin cannot be loaded, which keeps Hydra from loading any.
    """
    return sorted(_loader().get_group_options("hydra/sweeper"))


_WORDS = {"min": "minimize", "max": "maximize"}
_DIRECTIONS: Mapping[str, Callable[[Sequence[Direction]], Any]] = {
    "direction": lambda ways: _WORDS[ways[0]] if len(ways) == 1 else [_WORDS[way] for way in ways],
    "optim.maximize": lambda ways: ways[0] == "max",
    "ax_config.experiment.minimize": lambda ways: ways[0] == "min",
}
"""Where plugins (Optuna's, Nevergrad's, Ax's) have the direction, and how they write it."""


def check_sweeper(name: str, options: Mapping[str, Any] | None = None, directions: Sequence[Direction] = ()) -> None:
    """Find out whether a plugin could be run, without running it.

    Parameters
    ----------
    name
        Of the plugin.
    options
        Settings below ``hydra.sweeper``.
    directions
        ``min`` or ``max`` for each objective.

    Raises
    ------
    NotFound
        If no such plugin is installed.
    ConfigError
        If it has no such option, not of that type, or one that contradicts the directions.
    EnvironmentFault
        If plugins cannot be loaded.
    """
    _check_name(name)
    _config(_loader(), name, options or {}, [], Path("sweeper"), directions)


def _check_name(name: str) -> None:
    names = installed_sweepers()
    if name not in names:
        near = nearest(name, names)
        hint = f"sweep.search=hydra:{near}" if near else f"pip install hydra-{name}-sweeper, if that is its package"
        raise NotFound(f"there is no Hydra sweeper {name!r}; installed are {', '.join(names)}", hint=hint)


def run_sweeper(
    name: str,
    options: Mapping[str, Any],
    overrides: Sequence[str],
    launch: Launch,
    folder: Path,
    directions: Sequence[Direction] = (),
) -> None:
    """Let a Hydra sweeper plugin choose points until it has seen enough.

    Parameters
    ----------
    name
        Of the plugin, such as ``optuna``: ``hydra/sweeper=NAME`` for Hydra.
    options
        Settings below ``hydra.sweeper``, nested or with dotted keys; a text chooses the option of a group where the
        plugin has one, such as ``sampler: random``.
    overrides
        The axes, and whatever else all points share, in Hydra's grammar.
    launch
        Runs a batch of points.
    folder
        Folder the plugin may write to.
    directions
        ``min`` or ``max`` for each objective, for plugins that have a setting for it.

    Raises
    ------
    NotFound
        If no such plugin is installed.
    ConfigError
        If the plugin has no such option, or not of that type.
    RunFailed
        If the plugin ended with an exception.
    EnvironmentFault
        If a plugin cannot be loaded.
    """
    _check_name(name)
    loader = _loader()
    folder.mkdir(parents=True, exist_ok=True)
    with _hydra(loader):
        config = _config(loader, name, options, overrides, folder, directions)
        HydraConfig.instance().set_config(copy.deepcopy(config))  # which makes it read-only
        with _launching(_StudyLauncher(launch)):
            try:
                sweeper = Plugins.instance().instantiate_sweeper(
                    hydra_context=HydraContext(config_loader=loader, callbacks=Callbacks()),
                    task_function=_no_task,
                    config=config,
                )
                sweeper.sweep(list(overrides))
            except Ai4Error:
                raise
            except _PointFailed as error:
                raise RunFailed(f"the Hydra sweeper {name} ended the search: {error}") from error
            except Exception as error:
                reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
                raise RunFailed(f"the Hydra sweeper {name} failed: {reason}") from error


class _PointFailed(Exception):
    """What a plugin sees in place of the exception that ended a point."""


class _StudyLauncher(Launcher):  # type: ignore[misc]
    """Hands the points of a plugin to a study."""

    def __init__(self, launch: Launch) -> None:
        self._launch = launch

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Do nothing: a study knows how to run its points."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        """Run a batch of points and wait for it."""
        batch = [list(overrides) for overrides in job_overrides]
        return [
            _job_return(overrides, objective) for overrides, objective in zip(batch, self._launch(batch), strict=True)
        ]


def _job_return(overrides: list[str], objective: float | tuple[float, ...] | None) -> JobReturn:
    job = JobReturn(overrides=overrides)
    if objective is None:
        job.status, job.return_value = JobStatus.FAILED, _PointFailed(f"the point {' '.join(overrides)} failed")
    else:
        job.status, job.return_value = JobStatus.COMPLETED, objective
    return job


class _Loader(ConfigLoaderImpl):  # type: ignore[misc]
    """Hydra's configs without an application's: points are composed and checked by the study that plans them."""

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """Return the config as it is; plugins call this to see whether a point can be composed."""
        return master_config


def _loader() -> _Loader:
    if version.getbase() is None:
        version.setbase("1.3")
    try:
        return _Loader(create_config_search_path(None))
    except Exception as error:
        raise EnvironmentFault(
            f"a Hydra plugin cannot be loaded: {type(error).__name__}: {error}",
            hint="`pip list | grep -i hydra` names them; upgrade or uninstall the one that is too old for this Python",
        ) from error


def _config(
    loader: _Loader,
    name: str,
    options: Mapping[str, Any],
    overrides: Sequence[str],
    folder: Path,
    directions: Sequence[Direction],
) -> DictConfig:
    """Compose Hydra's own config with the plugin's settings; whatever is written goes into the folder."""
    groups = {
        key: value
        for key, value in options.items()
        if isinstance(value, str) and loader.repository.group_exists(f"hydra/sweeper/{key}")
    }
    config: DictConfig = loader.load_configuration(
        config_name=None,
        overrides=[
            f"hydra/sweeper={name}",
            *(f"hydra/sweeper/{key}={json.dumps(value)}" for key, value in groups.items()),
            "hydra.output_subdir=null",
        ],
        run_mode=RunMode.MULTIRUN,
    )
    with open_dict(config):
        config.hydra.mode = RunMode.MULTIRUN
        config.hydra.run.dir = config.hydra.sweep.dir = config.hydra.runtime.output_dir = str(folder.resolve())
        config.hydra.overrides.task = list(overrides)
    for key in _FAILURE_RATES:
        if OmegaConf.select(config.hydra.sweeper, key) is not None:
            OmegaConf.update(config.hydra.sweeper, key, 1.0)  # a failed point does not end a study
    ways = {key: write(directions) for key, write in _DIRECTIONS.items() if directions and _has(config, key)}
    for key, value in ways.items():
        OmegaConf.update(config.hydra.sweeper, key, value)
    for key, value in options.items():
        if key not in groups:
            _set(config.hydra.sweeper, name, key, value)
    for key, value in ways.items():
        _check_direction(config, key, value)
    return config


def _has(config: DictConfig, key: str) -> bool:
    section, _, last = f".{key}".rpartition(".")
    node = OmegaConf.select(config.hydra.sweeper, section.lstrip(".")) if section else config.hydra.sweeper
    return isinstance(node, DictConfig) and last in node


def _check_direction(config: DictConfig, key: str, value: Any) -> None:
    """Refuse an option that says otherwise than the study does: tables and best.yaml go by the study."""
    given = OmegaConf.select(config.hydra.sweeper, key)
    plain = (
        [getattr(one, "name", one) for one in given] if isinstance(given, ListConfig) else getattr(given, "name", given)
    )
    if plain != value:
        message = f"{key} is {plain}, but the study says {value}, by sweep.direction or the objective's name"
        fix = "leave it out; sweep.direction says it for both"
        raise ConfigError([Problem(message, key=f"sweep.options.{key}", fix=fix)])


def _set(settings: DictConfig, name: str, key: str, value: Any) -> None:
    try:
        OmegaConf.update(settings, key, value, merge=True)
    except OmegaConfBaseException as error:
        section, _, last = key.rpartition(".")
        node = OmegaConf.select(settings, section) if section else settings
        known = [str(one) for one in node if one != "_target_"] if isinstance(node, DictConfig) else []
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        if isinstance(node, DictConfig) and last not in known:
            near = nearest(last, known)
            fix = f"{section}.{near}".lstrip(".") if near else f"one of {', '.join(known)}"
            reason = f"the Hydra sweeper {name} has no option {key!r}"
        else:
            fix = "leave it out, or give a value of that type"
        raise ConfigError([Problem(reason, key=f"sweep.options.{key}", fix=fix)]) from error


@contextmanager
def _hydra(loader: _Loader) -> Iterator[None]:
    """Be Hydra's application for a while: plugins ask its singletons."""
    application, config = GlobalHydra.instance().hydra, HydraConfig.instance().cfg
    job = JobRuntime.instance().get("name")
    try:
        GlobalHydra.instance().hydra = Hydra(task_name="study", config_loader=loader)
        yield
    finally:
        GlobalHydra.instance().hydra, HydraConfig.instance().cfg = application, config
        JobRuntime.instance().set("name", job)


@contextmanager
def _launching(launcher: Launcher) -> Iterator[None]:
    """Give plugins our launcher when they ask Hydra for the configured one."""
    plugins = Plugins.instance()
    plugins.instantiate_launcher = lambda **_: launcher
    try:
        yield
    finally:
        del plugins.instantiate_launcher


def _no_task(_: DictConfig) -> None:
    raise AssertionError("the points of a study are run by its launcher")
