"""Making the user's objects from what the YAML says, and saying clearly whose fault it is when that fails."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate as _hydra_instantiate

from ai4sdk.data.secrets import resolve_secrets
from ai4sdk.errors import Ai4Error, RunFailed
from ai4sdk.worker.failures import environment_fault, one_line

__all__ = ["instantiate", "instantiate_all"]

log = logging.getLogger(__name__)

_FULL_KEY = re.compile(r"^full_key: (\S+)$", re.MULTILINE)


def instantiate(config: Mapping[str, Any], *, key: str = "", partial: bool = False) -> Any:
    """Call a target with its arguments.

    Parameters
    ----------
    config
        ``_target_`` and arguments, as Hydra's ``instantiate`` takes them. Nested targets are called first; the target
        gets plain lists and mappings. Secret references are looked up now.
    key
        Dotted key of the config in the job, for errors.
    partial
        Whether to return a callable that takes the remaining positional arguments.

    Raises
    ------
    RunFailed
        If the target is not there, does not take the arguments, or raised.
    EnvironmentFault
        If a package is missing, or memory or disk is full.
    """
    options = {"_convert_": "all", **({"_partial_": True} if partial else {})}
    try:
        return _hydra_instantiate({**resolve_secrets(config), **options})  # faster than as arguments, which are merged
    except InstantiationException as error:
        raise _explained(error, config, key) from (error.__cause__ or error)


def instantiate_all(value: Any, *, key: str = "") -> Any:
    """Return a copy of nested mappings and lists in which every mapping with a ``_target_`` is called."""
    if isinstance(value, Mapping):
        if "_target_" in value:
            return instantiate(value, key=key)
        return {name: instantiate_all(part, key=f"{key}.{name}".lstrip(".")) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [instantiate_all(part, key=f"{key}.{index}") for index, part in enumerate(value)]
    return value


def _explained(error: InstantiationException, config: Mapping[str, Any], key: str) -> Ai4Error:
    cause = error.__cause__
    while isinstance(cause, ImportError) and cause.__cause__ is not None:
        cause = cause.__cause__  # Hydra wraps what went wrong while the target's module was imported
    if isinstance(cause, Ai4Error):
        return cause
    if cause is not None and (fault := environment_fault(cause)) is not None:
        return fault
    inner = _FULL_KEY.search(str(error))
    where = ".".join(part for part in (key, inner[1] if inner else "") if part)
    target = _target_at(config, inner[1] if inner else "")
    if cause is None:
        return RunFailed(f"{where}: {one_line(error)}")
    return RunFailed(f"{where}: {target} raised {one_line(cause)}", hint=f"see the log, and {where} in the config")


def _target_at(config: Any, path: str) -> str:
    for part in filter(None, re.split(r"[.\[\]]+", path)):
        try:
            config = config[int(part)] if isinstance(config, list) else config[part]
        except (KeyError, IndexError, ValueError, TypeError):
            break
    return str(config.get("_target_", "?")) if isinstance(config, Mapping) else "?"
