"""What an exception means: whose fault it is, in one line, and the exit code of the task."""

from __future__ import annotations

import errno
import importlib.util
import sys
import traceback
from dataclasses import dataclass
from typing import Any, Literal

from ai4sdk.errors import Ai4Error, DataError, EnvironmentFault, RunFailed, RunInterrupted
from ai4sdk.worker.signals import StopTraining

__all__ = ["Failure", "disk_full", "environment_fault", "failure_of", "one_line"]

Kind = Literal["user", "data", "environment", "interrupted", "cancelled"]

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_LONGEST = 400
_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "is killed by signal: Killed")
_NO_SHARED_MEMORY = ("insufficient shared memory", "Bus error")
_NO_GPU = ("No CUDA GPUs are available", "Found no NVIDIA driver", "not compiled with CUDA")


@dataclass(frozen=True)
class Failure:
    """Why a task ended.

    Parameters
    ----------
    cause
        One line.
    kind
        Whose fault it is.
    exit_code
        As `ai4sdk.errors` numbers them.
    traceback
        Of the exception, for the log; empty where it would tell the user nothing.
    """

    cause: str
    kind: Kind
    exit_code: int
    traceback: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return what failure.json holds."""
        return {"cause": self.cause, "kind": self.kind, "exit_code": self.exit_code, "traceback": self.traceback}


def one_line(error: BaseException) -> str:
    """Return an exception as one line: its type and what it says, without the stack that torch's workers add."""
    text = str(error).strip()
    if "DataLoader worker process" in text and "Original Traceback" in text:
        return _shortened(text.splitlines()[-1])  # the last line of the worker's own traceback
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    name = type(error).__name__
    return _shortened(f"{name}: {lines[0]}" if lines else name)


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def disk_full(error: BaseException) -> bool:
    """Tell whether an error means that no more could be written: disk full, quota or largest file reached."""
    return isinstance(error, OSError) and error.errno in _FULL


def environment_fault(error: BaseException) -> EnvironmentFault | None:
    """Return the error as a fault of this machine, ``None`` if it is not one."""
    text = str(error)
    if disk_full(error):
        return EnvironmentFault(
            f"disk full: {text}", hint="free some space, then resume the run: it continues from the last checkpoint"
        )
    if isinstance(error, ModuleNotFoundError) and (name := (error.name or "").partition(".")[0]):
        return _missing(name, error)
    if any(phrase in text for phrase in _NO_SHARED_MEMORY) and isinstance(error, RuntimeError):
        return EnvironmentFault(
            "out of shared memory: the loader's workers hand batches over in /dev/shm",
            hint="give the container more (docker run --shm-size=2g), or dataset.loader.num_workers=0",
        )
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(phrase in text for phrase in _NO_MEMORY)
    ):
        return EnvironmentFault(
            f"out of memory: {one_line(error)}",
            hint="take smaller batches (dataset.loader.batch_size), then run again",
        )
    if isinstance(error, RuntimeError | AssertionError) and any(phrase in text for phrase in _NO_GPU):
        return EnvironmentFault(f"no GPU can be used here: {one_line(error)}", hint="hardware.gpus=0 trains on CPU")
    return None


def _missing(name: str, error: ModuleNotFoundError) -> EnvironmentFault | None:
    if name in sys.modules or importlib.util.find_spec(name) is not None:
        return None  # the package is there; a part of it that does not exist was asked for
    return EnvironmentFault(f"the package {name} is not installed: {error}", hint=f"pip install {name}")


def failure_of(error: BaseException, *, phase: str = "") -> Failure:
    """Say what an exception that ended a task means.

    Parameters
    ----------
    error
        What was raised.
    phase
        What the task was doing.
    """
    trace = "".join(traceback.format_exception(error))
    if isinstance(error, StopTraining):
        if error.reason != "stopped on request":
            return Failure(error.reason, "interrupted", RunInterrupted.exit_code)
        return Failure(error.reason, "cancelled", 130)
    if isinstance(error, KeyboardInterrupt):
        return Failure("stopped on request", "cancelled", 130)
    if isinstance(error, SystemExit):
        during = f" during {phase}" if phase else ""
        return Failure(f"the code called sys.exit({error.code!r}){during}", "user", RunFailed.exit_code, trace)
    known: BaseException = error if isinstance(error, Ai4Error) else environment_fault(error) or error
    if isinstance(known, DataError):
        return Failure(_cause(known), "data", known.exit_code, trace)
    if isinstance(known, EnvironmentFault):
        return Failure(_cause(known), "environment", known.exit_code, trace)
    if isinstance(known, Ai4Error):
        return Failure(_cause(known), "user", RunFailed.exit_code, trace)
    return Failure(one_line(known), "user", RunFailed.exit_code, trace)


def _cause(error: Ai4Error) -> str:
    return _shortened(f"{error.message} → {error.hint}" if error.hint else error.message)
