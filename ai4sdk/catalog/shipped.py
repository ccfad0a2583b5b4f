"""Where configs and modules are: those that come with ai4sdk, and those of a folder of modules."""

from __future__ import annotations

from pathlib import Path

from ai4sdk.errors import EnvironmentFault

__all__ = ["module_folders", "shipped_configs", "shipped_modules"]

_PACKAGE = Path(__file__).resolve().parent.parent


def shipped_configs() -> Path:
    """Return the folder of our config groups; raises `EnvironmentFault` if the installation lost it."""
    return _shipped("configs")


def shipped_modules() -> Path:
    """Return the folder of our catalogue modules; raises `EnvironmentFault` if the installation lost it."""
    return _shipped("modules")


def module_folders(parent: Path) -> list[Path]:
    """Return the folders of the modules in a folder, sorted; one that is missing or cannot be read holds none."""
    try:
        return sorted(entry for entry in parent.iterdir() if entry.is_dir() and not entry.name.startswith((".", "_")))
    except OSError:
        return []


def _shipped(name: str) -> Path:
    """Inside an installed wheel the folder lies in the package; in a source checkout beside it."""
    for folder in (_PACKAGE / "_shipped" / name, _PACKAGE.parent / name):
        if folder.is_dir():
            return folder
    raise EnvironmentFault(
        f"the {name} that come with ai4sdk are not where it is installed ({_PACKAGE})",
        hint="pip install --force-reinstall ai4sdk",
    )
