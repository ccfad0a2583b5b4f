"""From what a config says of modules to modules."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ai4sdk.data.hashes import cache_folder
from ai4sdk.serving.deepaas.environment import make_environment
from ai4sdk.serving.deepaas.module import Module
from ai4sdk.spec import serving as spec

__all__ = ["environment_of", "module_of", "with_paths"]


def with_paths(serving: spec.Serving, project: Path) -> spec.Serving:
    """Return it with the paths that modules need made whole: relative ones start at the project, ``~`` is home."""
    modules = {
        name: module.model_copy(
            update={
                "environment": _whole(module.environment, project),
                "source": _whole(module.source, project),
                # without a slash it is a command's name
                "python": _whole(module.python, project) if module.python and "/" in module.python else module.python,
            }
        )
        for name, module in serving.modules.items()
    }
    return serving.model_copy(update={"modules": modules, "trainings": _whole(serving.trainings, project)})


def environment_of(wanted: spec.Module) -> Path:
    """Return a module's environment, which may have to be made first. Raises as `make_environment` does."""
    if wanted.environment is not None:
        return Path(wanted.environment)
    assert wanted.source is not None, "the spec has one of the two"
    python = Path(wanted.python) if wanted.python else None
    kept = cache_folder() / "environments"
    return make_environment(Path(wanted.source), kept, python=python, requirements=wanted.requirements)


def module_of(
    name: str, wanted: spec.Module, environment: Path, *, load_timeout: float, said: Callable[[str], None]
) -> Module:
    """Return a module as it is wanted, not started yet.

    Parameters
    ----------
    name
        Name it is served as.
    wanted
        What the config says.
    environment
        Where it is installed.
    load_timeout
        Seconds it has to load.
    said
        Told each line it prints.
    """
    return Module(
        wanted.module or name,
        environment,
        workers=wanted.workers,
        timeout=wanted.timeout,
        load_timeout=load_timeout,
        warm=wanted.warm,
        said=said,
    )


def _whole(path: str | None, project: Path) -> str | None:
    return None if path is None else str(project.absolute() / Path(path).expanduser())
