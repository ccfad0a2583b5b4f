"""Names of backends and where their code is; looked at only when one is used."""

from __future__ import annotations

import difflib
import importlib
from typing import cast

from ai4sdk.backends.base import Backend
from ai4sdk.errors import EnvironmentFault, UsageError
from ai4sdk.spec.backend import backends_of_packages

__all__ = ["BACKENDS", "get_backend"]

BACKENDS: dict[str, tuple[str, str | None]] = {
    "kubernetes": ("ai4sdk.backends.kubernetes.backend:KubernetesBackend", None),
    "local": ("ai4sdk.backends.local.backend:LocalBackend", None),
    "oscar": ("ai4sdk.backends.oscar.backend:OscarBackend", None),
    "ray": ("ai4sdk.backends.ray.backend:RayBackend", None),
    "slurm": ("ai4sdk.backends.slurm.backend:SlurmBackend", None),
}
"""Name → (module:class, extra to install or nothing). Other packages add theirs by entry points of a group."""


def get_backend(name: str) -> Backend:
    """Return a backend by name.

    Raises
    ------
    UsageError
        If nobody knows the name.
    EnvironmentFault
        If its package is not installed.
    """
    if name in BACKENDS:
        path, extra = BACKENDS[name]
        module, _, attribute = path.partition(":")
        try:
            return cast(Backend, getattr(importlib.import_module(module), attribute)())
        except ModuleNotFoundError as error:
            if extra is None:
                raise
            raise EnvironmentFault(
                f"backend {name} needs the package {error.name}", hint=f"pip install 'ai4sdk[{extra}]'"
            ) from error
    found = backends_of_packages()
    if name in found:
        return cast(Backend, found[name].load()())
    names = sorted({*BACKENDS, *found})
    near = difflib.get_close_matches(name, names, n=1)
    raise UsageError(
        f"there is no backend {name!r}", hint=f"backend={near[0]}" if near else f"one of {', '.join(names)}"
    )
