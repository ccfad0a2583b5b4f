"""From a config's name to a job: the one call the floors above use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ai4sdk.config.compose import Composition, compose_layers
from ai4sdk.config.project import Project
from ai4sdk.config.validate import validate
from ai4sdk.errors import ConfigError, Problem
from ai4sdk.spec import Job

__all__ = ["Loaded", "inspect_job", "load_job"]


@dataclass(frozen=True)
class Loaded:
    """A job and the layers it was composed of."""

    job: Job
    composition: Composition


def load_job(config: str, overrides: Sequence[str] = (), project: Project | None = None) -> Loaded:
    """Compose and validate a config.

    Parameters
    ----------
    config
        Name of a config on the search path, or path of a YAML file.
    overrides
        Overrides in Hydra's grammar.
    project
        Project to compose in; by default that of the current folder.

    Returns
    -------
    Loaded
        The job and where its values came from.

    Raises
    ------
    ConfigError
        With every mistake found.
    NotFound
        If there is no such config.
    """
    composition, job, problems = inspect_job(config, overrides, project)
    if job is None:
        raise ConfigError(problems)
    return Loaded(job, composition)


def inspect_job(
    config: str, overrides: Sequence[str] = (), project: Project | None = None
) -> tuple[Composition, Job | None, list[Problem]]:
    """Compose and validate a config, returning its mistakes instead of raising them."""
    composition = compose_layers(config, overrides, project)
    job, problems = validate(composition)
    return composition, job, problems
