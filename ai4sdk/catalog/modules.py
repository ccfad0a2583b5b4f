"""Which modules there are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ai4sdk.catalog.metadata import METADATA_FILE, read_metadata, validate_metadata
from ai4sdk.catalog.shipped import module_folders, shipped_modules
from ai4sdk.errors import ConfigError, NotFound, Problem

__all__ = ["CatalogModule", "find_modules"]

_NOT_CODE = {"configs", "tests", "test", "docs", "conftest", "setup"}


@dataclass(frozen=True)
class CatalogModule:
    """A folder with a model, its configs and its description.

    Parameters
    ----------
    name
        Name of the folder.
    folder
        The folder; it is put on the import path of a training.
    source
        ``project`` for the user's own, ``shipped`` for those that come with ai4sdk.
    metadata
        Content of ``ai4-metadata.yml``; empty without a readable one.
    packages
        Names under which its code is imported.
    options
        Config group → names it offers there; whole jobs are in the group ``""``.
    problems
        Mistakes in the metadata.
    """

    name: str
    folder: Path
    source: Literal["project", "shipped"]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    packages: tuple[str, ...] = ()
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    @property
    def summary(self) -> str:
        """One line that says what the module does; empty if its metadata does not."""
        return str(self.metadata.get("summary", ""))


def find_modules(folders: Iterable[Path]) -> list[CatalogModule]:
    """Find the modules in folders of modules.

    Parameters
    ----------
    folders
        Folders whose subfolders are modules, such as a project's ``modules`` and `shipped_modules`. Missing ones
        hold nothing. A module hides those of the same name in later folders.

    Returns
    -------
    list of CatalogModule
        Sorted by name. A broken description does not hide a module: it is told in ``problems``.
    """
    found: dict[str, CatalogModule] = {}
    for parent in folders:
        for folder in module_folders(parent):
            if folder.name not in found and (module := _read(folder)) is not None:
                found[folder.name] = module
    return [found[name] for name in sorted(found)]


def _read(folder: Path) -> CatalogModule | None:
    packages = _packages(folder)
    options = _options(folder / "configs")
    file = folder / METADATA_FILE
    if not (packages or options or file.is_file()):
        return None
    metadata: dict[str, Any] = {}
    try:
        metadata = read_metadata(file)
        problems = tuple(validate_metadata(metadata, path=file))
    except ConfigError as error:
        problems = error.problems
    except NotFound as error:
        problems = (Problem(error.message, fix=error.hint),)
    shipped = folder.resolve().is_relative_to(shipped_modules().resolve())
    return CatalogModule(
        folder.name, folder, "shipped" if shipped else "project", metadata, packages, options, problems
    )


def _packages(folder: Path) -> tuple[str, ...]:
    packages = {entry.parent.name for entry in folder.glob("*/__init__.py")} | {
        file.stem for file in folder.glob("*.py")
    }
    return tuple(sorted(name for name in packages - _NOT_CODE if name.isidentifier() and not name.startswith("__")))


def _options(configs: Path) -> dict[str, tuple[str, ...]]:
    groups: dict[str, list[str]] = {}
    for file in sorted(configs.rglob("*.yaml")):
        group = file.parent.relative_to(configs).as_posix()
        groups.setdefault("" if group == "." else group, []).append(file.stem)
    return {group: tuple(groups[group]) for group in sorted(groups)}
