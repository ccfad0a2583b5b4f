"""Finding the run that has succeeded with a digest: a link by digest for each, in the runs folder."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.state import State, is_study, read_state

__all__ = ["claim", "find_success", "link_success", "unclaim"]

_FOLDER = "by-digest"


def link_success(digest: str, run: RunPaths) -> None:
    """Link a run under its digest; do so before its state says succeeded, so that no kill loses the link.

    Parameters
    ----------
    digest
        Of the run's plan.
    run
        The run, in a runs folder or among the points of a study there.

    Raises
    ------
    OSError
        If the link cannot be made.
    """
    study = run.root.parent.parent
    runs = study.parent if is_study(study) else run.root.parent
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


def claim(runs: Path, digest: str) -> int | None:
    """Claim to be the one who runs a digest now, so that studies side by side share what both want.

    Parameters
    ----------
    runs
        The runs folder.
    digest
        Of a plan.

    Returns
    -------
    int or None
        A descriptor for `unclaim`; the claim ends with this process. ``None`` if another one runs it.

    Raises
    ------
    OSError
        If the claim cannot be written.
    """
    path = _claim(runs, digest)
    path.parent.mkdir(exist_ok=True)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except FileNotFoundError:
            pass
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError:  # a file system without locks: then nobody waits for anybody
            return descriptor
        os.close(descriptor)  # of a file that somebody has just given up and removed


def unclaim(runs: Path, digest: str, descriptor: int) -> None:
    """Give a claim up."""
    _claim(runs, digest).unlink(missing_ok=True)
    os.close(descriptor)


def _claim(runs: Path, digest: str) -> Path:
    return runs / _FOLDER / f".{_name(digest)}.claim"


def _name(digest: str) -> str:
    return digest.removeprefix("sha256:")
