"""The last words on a run: how it ended, its figures, and what to type next."""

from __future__ import annotations

from typing import Any

from ai4sdk.config.project import display_path
from ai4sdk.runs.ending import failure_of
from ai4sdk.runs.files import read_json
from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.state import RunState
from ai4sdk.spec.units import format_span
from ai4sdk.tracking.ledger import read_ledger

__all__ = ["closing_lines", "headline_figures"]


def closing_lines(run: RunPaths, state: RunState) -> list[str]:
    """Return the lines to print when a run has ended."""
    took = f" in {format_span(state.ended - state.started)}" if state.ended and state.started else ""
    if error := failure_of(run, state):
        return [str(error)]
    lines = [f"{run.id} succeeded{took}", ""]
    figures = headline_figures(run)
    width = max((len(name) for name, _ in figures), default=0)
    lines += [f"  {name:{width}}  {value}" for name, value in figures]
    lines.append("")
    if results := state.extra.get("results"):
        lines.append(f"  results    {results}")
    if run.report.exists():
        lines.append(f"  report     {display_path(run.report)}")
    if run.package.is_dir():
        lines.append(f"  predict    ai4sdk predict {run.id} --input FILE")
    if records := _records(run):
        lines.append(f"  records    {records}")
    return lines


def _records(run: RunPaths) -> str:
    """Return how to look at the run's records in MLflow, nothing if there are none."""
    ledger = read_ledger(run.tracking)
    if ledger.last_error:
        return f"not all sent ({ledger.last_error}); ai4sdk sync {run.id}"
    return f"mlflow ui --backend-store-uri {ledger.uri}" if ledger.uri.startswith("sqlite:") else ledger.uri


def headline_figures(run: RunPaths) -> list[tuple[str, str]]:
    """Return the few figures of an evaluation that matter most, as (name, text)."""
    try:
        scores: Any = read_json(run.scores)
    except (OSError, ValueError):
        return []
    if not isinstance(scores, dict):
        return []
    if not isinstance(scores.get("task"), str):  # what a function returned, under its own names
        return [(name, f"{value:.6g}") for name, value in scores.items() if isinstance(value, int | float)]
    flat = {**scores, **(scores["scores"] if isinstance(scores.get("scores"), dict) else {})}
    names = ("accuracy", "balanced_accuracy", "macro_f1", "roc_auc", "log_loss", "rmse", "mae", "r2")
    found = [(name, flat[name]) for name in names if isinstance(flat.get(name), int | float)]
    split = scores.get("split", "test")
    return [(f"{split} {name}", f"{value:.4f}") for name, value in found]
