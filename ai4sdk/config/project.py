"""The user's project: where its configs, its code and its runs are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ai4sdk.catalog.shipped import module_folders, shipped_configs, shipped_modules

__all__ = ["MARKER", "Project", "find_project"]

MARKER = ".ai4sdk"
"""File that `ai4sdk init` leaves in the top folder of a project."""


@dataclass(frozen=True)
class Project:
    """A folder with configs, modules and runs.

    Parameters
    ----------
    root
        The top folder.
    """

    root: Path

    def config_folders(self) -> list[tuple[str, Path]]:
        """Return the folders configs are looked for in, as (whose, folder), first wins."""
        own = [("project", self.root / "configs")]
        own += [(f"module {folder.name}", folder / "configs") for folder in module_folders(self.root / "modules")]
        ours = [("ai4sdk", shipped_configs())]
        ours += [(f"ai4sdk module {folder.name}", folder / "configs") for folder in module_folders(shipped_modules())]
        seen: set[Path] = set()
        folders = []
        for whose, folder in own + ours:
            if folder.is_dir() and folder.resolve() not in seen:
                seen.add(folder.resolve())
                folders.append((whose, folder))
        return folders

    def code_folders(self) -> list[Path]:
        """Return the folders the user's and the catalogue's code is imported from, first wins."""
        folders = [*module_folders(self.root / "modules"), self.root, *module_folders(shipped_modules())]
        return list(dict.fromkeys(folder.resolve() for folder in folders))


def display_path(path: Path) -> str:
    """Return a path relative to the current folder if it is inside it, else as it is."""
    try:
        return str(path.resolve().relative_to(Path.cwd().resolve()))
    except (ValueError, OSError):
        return str(path)


def find_project(start: Path | None = None) -> Project:
    """Find the project a folder belongs to.

    Parameters
    ----------
    start
        Where to look from; the current folder by default.

    Returns
    -------
    Project
        The nearest parent folder with a file ``.ai4sdk``, else ``start`` itself.
    """
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / MARKER).exists():
            return Project(folder)
    return Project(start)
