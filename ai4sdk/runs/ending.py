"""How a run ended, as the error that fits."""

from __future__ import annotations

from ai4sdk.errors import Ai4Error, RunCancelled, RunFailed, RunInterrupted
from ai4sdk.runs.files import read_json
from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.state import RunState, State

__all__ = ["failure_of"]


def failure_of(paths: RunPaths, status: RunState) -> Ai4Error | None:
    """Return the error that fits how a run ended, or ``None`` if it succeeded or has not ended."""
    kinds: dict[State, type[Ai4Error]] = {
        State.FAILED: RunFailed,
        State.INTERRUPTED: RunInterrupted,
        State.CANCELLED: RunCancelled,
    }
    if status.state not in kinds:
        return None
    failed = status.state is State.FAILED
    how, hint = ("failed" if failed else f"was {status.state}"), f"ai4sdk resume {paths.id}"
    if failed:
        hint = f"ai4sdk logs {paths.id}{_whose_log(paths)}; then mend it and `{hint}`, or run again"
    error = kinds[status.state](f"{paths.id} {how}: {status.cause or 'no cause known'}", hint=hint)
    if failed and status.exit_code:
        error.exit_code = status.exit_code
    return error


def _whose_log(paths: RunPaths) -> str:
    """Return the option for the log of the process that failed, where it is not the first of several."""
    try:
        rank = read_json(paths.failure).get("rank")
    except (OSError, ValueError, AttributeError):
        return ""
    return f" --rank {rank}" if isinstance(rank, int) and rank > 0 else ""
