"""From a run or a package to a module with its weights: no pickle is read, no code runs that the user lacks."""

from __future__ import annotations

import hashlib
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ai4sdk.errors import Ai4Error, DataError, NotFound, RunFailed
from ai4sdk.runs.files import read_json
from ai4sdk.runs.layout import RunPaths
from ai4sdk.worker.description import CODE, WEIGHTS, Description, read_description
from ai4sdk.worker.imports import open_code, python_files, same_code

__all__ = ["Place", "fill_module", "find_package", "first_line", "make_module"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """Where a model is found.

    Parameters
    ----------
    package
        Folder of the package.
    code
        Folders its code may be imported from.
    trusted
        Whether code and arguments are used though the user may not have that code otherwise.
    """

    package: Path
    code: tuple[Path, ...]
    trusted: bool


def find_package(folder: Path, trust_code: bool | None) -> Place:
    """Find the package and the code of a run directory or of a bare package.

    Raises
    ------
    NotFound
        If the folder is neither, or the run has no model yet.
    DataError
        If the package is damaged.
    """
    paths = RunPaths(folder)
    if not paths.plan.is_file():
        roots = read_description(folder).code_paths
        return Place(folder, _code_folders(folder / CODE, roots), bool(trust_code))
    if not paths.package.is_dir():
        raise NotFound(
            f"the run {paths.id} has no model: there is no {paths.package.name}/ in it",
            hint=f"`ai4sdk status {paths.id}` tells how it stands",
        )
    return Place(paths.package, _code_folders(paths.code, _roots_of(paths)), trust_code is not False)


def make_module(known: Description, place: Place) -> nn.Module:
    """Make the module of a description, with the weights of its start.

    Raises
    ------
    NotFound
        If a class it names is not to be had, or is not one that may be made for a package of others.
    RunFailed
        If the module's own code raised.
    """
    from hydra.utils import instantiate

    config: Any = known.target
    homes = [folder for folder in place.code if folder.is_dir() and next(python_files(folder), None)]
    if place.trusted or (homes and all(same_code(folder, _own_places()) for folder in homes)):
        for folder in homes:
            config = open_code(folder).localized(config)
        homes = []
    for target in _targets_in(config):
        _check_target(target, place, homes)
    name = known.target.get("_target_")
    try:
        with torch.random.fork_rng(devices=[]):
            module = instantiate(config, _convert_="all")
    except Exception as error:
        cause = error.__cause__ or error
        raise RunFailed(
            f"{name} could not be made: {type(cause).__name__}: {first_line(cause)}",
            hint="the code or the packages differ from those it was trained with; see requirements.txt in the package",
        ) from error
    if not isinstance(module, nn.Module):
        raise RunFailed(f"{name} made a {type(module).__name__}, not a torch module")
    return module.eval()


def fill_module(module: nn.Module, known: Description, package: Path) -> None:
    """Load the weights into the module, after their checksum was found right."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = package / WEIGHTS
    again = "copy the package again, or take it from the run"
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != known.weights_sha256:
            raise DataError(f"{path} is not what the package was made with: its checksum differs", hint=again)
        weights: dict[str, Any] = load_file(path)
    except FileNotFoundError:
        raise DataError(f"{package} has no {WEIGHTS}", hint=again) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}", hint=again) from error
    except SafetensorError as error:
        raise DataError(f"{path} is no safetensors file: {error}", hint=again) from error
    for alias, stored in known.shared_weights.items():
        if stored not in weights:
            raise DataError(f"{path} lacks {stored}, which {alias} shares", hint=again)
        weights[alias] = weights[stored]
    weights.update(known.extra_state)
    if known.weights_dtype is not None:
        dtype = getattr(torch, known.weights_dtype, None)
        if not isinstance(dtype, torch.dtype):
            raise DataError(f"{package / 'model.json'} names no type of weights: {known.weights_dtype!r}", hint=again)
        module.to(dtype)
    try:
        module.load_state_dict(weights, strict=True)
    except Ai4Error:
        raise
    except Exception as error:  # hooks of the user's module may raise anything
        lines = [line.strip() for line in str(error).splitlines()[1:4]] or [first_line(error)]
        raise DataError(
            f"the weights of {package} do not fit {known.target['_target_']}: {' '.join(lines)}",
            hint="the class has changed since the training; use the code the model was trained with",
        ) from error


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text that says something, or its type."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _roots_of(paths: RunPaths) -> list[str]:
    try:
        roots = read_json(paths.plan)["code"]["paths"]
    except (OSError, ValueError, KeyError, TypeError):
        roots = None
    return [str(root) for root in roots] if isinstance(roots, list) else [""]


def _code_folders(base: Path, roots: Sequence[str]) -> tuple[Path, ...]:
    inside = base.resolve()
    folders = [(base / root).resolve() for root in roots]
    if outside := [str(folder) for folder in folders if not folder.is_relative_to(inside)]:
        raise DataError(f"the code of the model lies outside its folder: {outside[0]}", hint="do not use this package")
    return tuple(folders)


def _own_places() -> list[Path]:
    """Folders whose code the user has anyway: the project's and those Python imports from."""
    from ai4sdk.config.project import find_project

    return [*find_project().code_folders(), *(Path(entry) for entry in sys.path)]


def _targets_in(config: Any) -> Iterator[str]:
    """Yield every ``_target_`` of a config, the outermost first."""
    if isinstance(config, Mapping):
        if "_target_" in config:
            yield str(config["_target_"])
        for value in config.values():
            yield from _targets_in(value)
    elif isinstance(config, list | tuple):
        for value in config:
            yield from _targets_in(value)


def _check_target(target: str, place: Place, homes: Sequence[Path]) -> None:
    """Refuse what cannot be imported, and for packages of others what is no part of a network.

    A package of others could name any function with any argument, ``torch.load`` among them.
    """
    from hydra.utils import get_object

    trust = f"if you trust who made it, load_model({str(place.package)!r}, trust_code=True)"
    try:
        found = get_object(target)
    except Exception as error:  # whatever the user's module raises when imported
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        trusting = "" if place.trusted else f", or, {trust}"
        raise NotFound(
            f"{target} cannot be imported here ({first_line(cause)})",
            hint=f"install the code it belongs to{trusting}",
        ) from error
    if place.trusted:
        return
    parts = (nn.Module, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler)
    if not (isinstance(found, type) and issubclass(found, parts)):
        raise NotFound(
            f"the package calls {target}, which is no torch module, optimizer or schedule",
            hint=f"{trust[0].upper()}{trust[1:]}",
        )
    _warn_if_changed(found, target, homes)


def _warn_if_changed(found: type, target: str, homes: Sequence[Path]) -> None:
    """Warn where the class that is imported is not the one the model was made with."""
    file = getattr(sys.modules.get(found.__module__), "__file__", None)
    if file is None:
        return
    for home in homes:
        packaged = home.joinpath(*found.__module__.split("."))
        for path in (packaged.with_suffix(".py"), packaged / "__init__.py"):
            if path.is_file() and path.read_bytes() != Path(file).read_bytes():
                message = f"{file} differs from the code {target} was trained with ({path}); the installed one is used"
                log.warning(message)
                warnings.warn(message, stacklevel=5)
