"""After a run was started: watch it, or say where it is."""

from __future__ import annotations

import sys

from ai4sdk.backends.standing import current_state, is_queued
from ai4sdk.planning.plan import Plan
from ai4sdk.runs.layout import RunPaths

__all__ = ["follow"]


def follow(run: RunPaths, plan: Plan, *, detach: bool, wait: bool) -> int:
    """Watch a run, unless it is to be left alone: on a cluster it is, if nobody says otherwise."""
    if wait or not (detach or is_queued(plan)):
        from ai4sdk.cli.watch import watch

        return watch(run, plan)
    print(run.id)
    if note := current_state(run).note:
        print(f"  {note}", file=sys.stderr)
    print(f"  → ai4sdk logs -f {run.id}", file=sys.stderr)
    return 0
