"""Checkpoints on disk: written whole or not at all, and read with as little trust as possible."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, cast

import torch
from lightning_fabric.plugins.io.checkpoint_io import CheckpointIO

from ai4sdk.errors import Ai4Error, EnvironmentFault, RunFailed
from ai4sdk.runs.files import sync
from ai4sdk.worker.failures import disk_full

__all__ = [
    "AtomicCheckpointIO",
    "checkpoint_due",
    "find_last",
    "previous",
    "read_checkpoint",
    "read_last",
    "remove_half_written",
    "write_checkpoint",
]

log = logging.getLogger(__name__)

_SHARE = 0.005
"""Share of the time that checkpoints between epochs may cost."""


def checkpoint_due(*, since: float, cost: float, every: float, epoch_begins: bool) -> bool:
    """Decide whether to take a checkpoint now.

    Parameters
    ----------
    since
        Seconds since the last one, or since the start.
    cost
        Seconds that the last one took.
    every
        Longest time between two.
    epoch_begins
        Whether an epoch has just ended.

    Returns
    -------
    bool
        True when ``every`` has passed. Between two epochs also before, unless the last one is so fresh that another
        would cost more than a two-hundredth of the time.
    """
    return since >= every or (epoch_begins and since * _SHARE >= cost)


def previous(path: Path) -> Path:
    """Return the name under which the checkpoint before the last is kept, such as ``last.prev.ckpt``."""
    return path.with_name(f"{path.stem}.prev{path.suffix}")


class _Watched(io.RawIOBase):
    """A file that remembers why writing failed: torch replaces that error by one of its own."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.failure: OSError | None = None

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.failure = self.failure or error
            raise

    def flush(self) -> None:
        pass


def write_checkpoint(checkpoint: Mapping[str, Any], path: Path, *, keep_previous: bool = False) -> None:
    """Replace a checkpoint by a new one, atomically and durably.

    Parameters
    ----------
    checkpoint
        What to save.
    path
        File to write; its folder is made if it is missing.
    keep_previous
        Whether the old file stays as `previous`, where the file system can do that without a copy.

    Raises
    ------
    EnvironmentFault
        If the disk is full, or the folder cannot be written. The old checkpoint is untouched and nothing half-written
        is left behind.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}.part")
    watched: _Watched | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(scratch, "wb") as file:
            watched = _Watched(file)
            torch.save(dict(checkpoint), cast(IO[bytes], watched))
            file.flush()
            os.fsync(file.fileno())
        if keep_previous:
            _keep(path)
        scratch.replace(path)
        sync(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            scratch.unlink()
        cause = watched.failure if watched is not None and watched.failure is not None else error
        if isinstance(cause, OSError):
            raise _fault(path, cause) from error
        raise


def _keep(path: Path) -> None:
    """Give the old file a second name; where that fails, do without."""
    spare = path.with_name(f".{previous(path).name}.{os.getpid()}.part")
    try:
        spare.unlink(missing_ok=True)
        os.link(path, spare)
        spare.replace(previous(path))
    except OSError as error:
        log.debug("no previous checkpoint is kept: %s", error)


def _fault(path: Path, error: OSError) -> EnvironmentFault:
    if disk_full(error):
        return EnvironmentFault(
            f"disk full: the checkpoint {path.name} could not be written ({error.strerror})",
            hint=f"free some space under {path.parent}, then resume the run: it continues from the checkpoint before",
        )
    return EnvironmentFault(
        f"the checkpoint {path} could not be written: {error.strerror}", hint="see that the folder exists and is yours"
    )


def read_checkpoint(path: Path, *, trusted: bool = False) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Parameters
    ----------
    path
        File to read.
    trusted
        Whether the run wrote it itself: only then may it hold objects beside tensors and plain values, which are
        read by running code.

    Raises
    ------
    RunFailed
        If the file is damaged, or holds objects and is not trusted.
    FileNotFoundError
        If there is none.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except pickle.UnpicklingError as error:
        if not trusted:
            raise RunFailed(
                f"{path} holds more than weights and plain values; reading it would run code from the file",
                hint="start from a model package (its weights are safetensors), or from a run of your own",
            ) from error
        checkpoint = _load_objects(path)
    except Exception as error:  # torch raises RuntimeError, EOFError, KeyError, … for a damaged file
        raise _damaged(path, error) from error
    if not isinstance(checkpoint, dict):
        raise RunFailed(f"{path} is no checkpoint: it holds a {type(checkpoint).__name__}")
    return checkpoint


def _load_objects(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:  # as above, and whatever the objects' own code raises
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> Ai4Error:
    if isinstance(error, OSError) and error.errno is not None:
        return EnvironmentFault(f"the checkpoint {path} could not be read: {error.strerror}")
    lines = str(error).strip().splitlines()
    return RunFailed(f"the checkpoint {path} is damaged: {lines[0][:200] if lines else type(error).__name__}")


def read_last(path: Path) -> dict[str, Any] | None:
    """Read the checkpoint that a run continues from, see `find_last`; ``None`` if there is none."""
    return find_last(path)[1]


def find_last(path: Path) -> tuple[Path | None, dict[str, Any] | None]:
    """Find and read the checkpoint that a run continues from.

    A damaged one is passed over for the one before it; without any that can be read the training starts anew, which
    gives the same result.

    Returns
    -------
    path, checkpoint
        Its file and what is in it, ``None`` twice if there is none.
    """
    for candidate in (path, previous(path)):
        try:
            return candidate, read_checkpoint(candidate, trusted=True)
        except FileNotFoundError:
            continue
        except RunFailed as error:
            log.warning("%s; it is passed over", error.message)
    return None, None


def remove_half_written(folder: Path) -> None:
    """Remove what a kill in the middle of writing left in a folder of checkpoints."""
    for path in folder.glob(".*.part"):
        path.unlink(missing_ok=True)


class AtomicCheckpointIO(CheckpointIO):
    """How Lightning writes and reads the checkpoints of a run.

    Parameters
    ----------
    last
        The checkpoint that the run continues from; of it the one before is kept as `previous`.
    preloaded
        A checkpoint that was read already: given out instead of reading it once more.
    """

    def __init__(self, last: Path, preloaded: dict[str, Any] | None = None) -> None:
        self._last, self._preloaded = last, preloaded

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write it with `write_checkpoint`."""
        write_checkpoint(checkpoint, Path(path), keep_previous=Path(path) == self._last)

    def load_checkpoint(
        self, path: Any, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Give out the preloaded checkpoint, or read one."""
        checkpoint, self._preloaded = self._preloaded, None
        return checkpoint if checkpoint is not None else read_checkpoint(Path(path), trusted=True)

    def remove_checkpoint(self, path: Any) -> None:
        """Delete it."""
        Path(path).unlink(missing_ok=True)
