"""Where the configs and modules that come with ai4sdk are."""

from __future__ import annotations

from pathlib import Path

__all__ = ["shipped_configs", "shipped_modules"]

_PACKAGE = Path(__file__).resolve().parent.parent


def shipped_configs() -> Path:
    """Return the folder of our config groups."""
    return _shipped("configs")


def shipped_modules() -> Path:
    """Return the folder of our catalogue modules."""
    return _shipped("modules")


def _shipped(name: str) -> Path:
    """Inside an installed wheel the folder lies in the package; in a source checkout beside it."""
    installed = _PACKAGE / "_shipped" / name
    return installed if installed.is_dir() else _PACKAGE.parent / name
