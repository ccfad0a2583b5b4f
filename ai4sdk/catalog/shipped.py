"""Where the configs and modules that come with ai4sdk are."""

from __future__ import annotations

from pathlib import Path

from ai4sdk.errors import EnvironmentFault

__all__ = ["shipped_configs", "shipped_modules"]

_PACKAGE = Path(__file__).resolve().parent.parent


def shipped_configs() -> Path:
    """Return the folder of our config groups; raises `EnvironmentFault` if the installation lost it."""
    return _shipped("configs")


def shipped_modules() -> Path:
    """Return the folder of our catalogue modules; raises `EnvironmentFault` if the installation lost it."""
    return _shipped("modules")


def _shipped(name: str) -> Path:
    """Inside an installed wheel the folder lies in the package; in a source checkout beside it."""
    for folder in (_PACKAGE / "_shipped" / name, _PACKAGE.parent / name):
        if folder.is_dir():
            return folder
    raise EnvironmentFault(
        f"the {name} that come with ai4sdk are not where it is installed ({_PACKAGE})",
        hint="pip install --force-reinstall ai4sdk",
    )
