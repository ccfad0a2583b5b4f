"""From a config's name to a job: the one call the floors above use."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

from ai4sdk.config.compose import Composition, compose_layers
from ai4sdk.config.project import Project
from ai4sdk.config.validate import validate
from ai4sdk.config.yaml_files import dump_yaml
from ai4sdk.errors import ConfigError, Problem
from ai4sdk.spec import Job

__all__ = ["Loaded", "has_axes", "inspect_job", "load_job"]


@dataclass(frozen=True)
class Loaded:
    """A job and the layers it was composed of."""

    job: Job
    composition: Composition

    def __repr__(self) -> str:
        does = self.job.function or self.job.module
        what = does.target if does is not None else f"serves {', '.join(self.job.serving.models)}"
        return f"<Job {self.job.name}: {what} from config {self.composition.config!r}>"

    def to_yaml(self) -> str:
        """Return the job as YAML, defaults filled in and secrets as references."""
        values = self.job.model_dump(mode="json", by_alias=True)
        return dump_yaml(values)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(self.to_yaml())}</pre>"


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


def has_axes(composition: Composition) -> bool:
    """Tell whether a config has axes of its own, so that running it is a study."""
    section = composition.values.get("sweep")
    return isinstance(section, dict) and bool(section.get("axes"))
