"""Which studies need a process of ours while their points run."""

from __future__ import annotations

from ai4sdk.backends.registry import get_backend

__all__ = ["hosts", "is_planned", "is_unattended"]


def hosts(search: str, pruner: object, backend: str) -> bool:
    """Tell whether the engine of a study is a job of its backend's scheduler, too."""
    return not is_planned(search, pruner) and hasattr(get_backend(backend), "host")


def is_planned(search: str, pruner: object) -> bool:
    """Tell whether all points are known beforehand, whatever becomes of the others."""
    return search in ("grid", "random") and pruner is None


def is_unattended(search: str, pruner: object, backend: str) -> bool:
    """Tell whether a study needs nobody while its points run: they are known, and its backend takes all at once."""
    return is_planned(search, pruner) and bool(getattr(get_backend(backend), "unattended", False))
