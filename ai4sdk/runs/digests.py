"""Finding the run that has succeeded with a digest: a link by digest for each, in the runs folder."""

from __future__ import annotations

import os
from pathlib import Path

from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.state import State, read_state

__all__ = ["find_success", "link_success"]

_FOLDER = "by-digest"


def link_success(runs: Path, digest: str, run: RunPaths) -> None:
    """Link a run under its digest; do so before its state says succeeded, so that no kill loses the link.

    Parameters
    ----------
    runs
        The runs folder.
    digest
        Of the run's plan.
    run
        The run, somewhere below the runs folder.

    Raises
    ------
    OSError
        If the link cannot be made.
    """
    folder = runs / _FOLDER
    folder.mkdir(exist_ok=True)
    scratch = folder / f".{os.getpid()}.part"
    scratch.unlink(missing_ok=True)
    scratch.symlink_to(os.path.relpath(run.root.resolve(), folder.resolve()))
    scratch.replace(folder / _name(digest))


def find_success(runs: Path, digest: str) -> RunPaths | None:
    """Return the run that has succeeded with a digest, ``None`` if there is none (any more)."""
    link = runs / _FOLDER / _name(digest)
    try:
        run = RunPaths(link.resolve(strict=True))
        return run if read_state(run).state is State.SUCCEEDED else None
    except (OSError, ValueError, KeyError):
        return None


def _name(digest: str) -> str:
    return digest.removeprefix("sha256:")
