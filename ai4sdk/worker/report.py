"""The report of a run: one page that needs nothing beside it, for a scientist to read and to hand on.

It is made of the run's files alone, so ``python -P -m ai4sdk.worker.report RUN`` makes it again at any time. Points of
a study leave theirs without pictures, as drawing takes as long as a short training, and few of them are looked at.
"""

from __future__ import annotations

import base64
import json
import struct
import sys
import time
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ai4sdk.errors import DataError, EnvironmentFault
from ai4sdk.runs.files import read_json, read_json_lines, write_text
from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.page import details, document, escaped, facts_list, figure_text, section, table, written_at
from ai4sdk.runs.state import read_state
from ai4sdk.spec.units import format_size, format_span
from ai4sdk.worker.federation_page import FEDERATION_STYLE, federation_section
from ai4sdk.worker.pictures import draw_evaluation, learning_curves

__all__ = ["Report", "main", "render_report", "write_report"]

TABLE_ROWS_OPEN = 30
"""Longer tables are folded."""
CONFUSIONS = 8

CAPTIONS = {
    "confusion_matrix": "How often each true class (row) was taken for each class (column). Colour: share of the row.",
    "classes": "Precision, recall and F1 of each class, the weakest at the top; in brackets the number of samples.",
    "roc_and_precision_recall": "Left: caught against falsely alarmed, for every threshold; the further up and left, "
    "the better. Right: precision over recall.",
    "calibration": "Left: how often the model is right by how sure it is; below the diagonal it is too sure of itself. "
    "Right: how sure it is.",
    "predicted_and_true": "Predictions over true values; on the dotted line they agree.",
    "residuals": "Distribution of the errors. A mean beside zero is a bias.",
    "learning_curves": "Metrics as they were logged during training.",
}

WIDE = 1.7
"""Pictures of at least this width to a height of 1 take the whole width of the page."""

HEADLINES: dict[str, tuple[tuple[str, str, str], ...]] = {
    "classification": (
        ("accuracy", "Accuracy", "share of right answers"),
        ("balanced_accuracy", "Balanced accuracy", "mean over the classes"),
        ("roc_auc", "ROC AUC", "1 is perfect, 0.5 is chance"),
        ("log_loss", "Log loss", "lower is better"),
        ("expected_calibration_error", "Calibration error", "lower is better"),
    ),
    "regression": (
        ("r2", "R²", "1 is perfect, 0 is always the mean"),
        ("mae", "Mean absolute error", "in the target's unit"),
        ("rmse", "RMSE", "in the target's unit"),
        ("median_absolute_error", "Median absolute error", "in the target's unit"),
        ("bias", "Bias", "mean of predicted minus true"),
    ),
    "other": (),
}


@dataclass(frozen=True)
class Report:
    """What a report tells.

    Parameters
    ----------
    name, run, description
        Name of the job, id of the run, what the job is for.
    state
        How the run stands.
    plan
        The plan as its JSON file has it.
    scores
        Figures of the evaluation, as ``evaluation/metrics.json`` has them; empty where there was none.
    split
        Name of the split they were found on.
    pictures
        PNG bytes by the names that `ai4sdk.worker.pictures` gives; ``None`` where they are still to be drawn.
    timing
        What took how long, in seconds.
    written
        Unix time.
    federation
        Ready HTML of the section that tells of a federation.
    """

    name: str
    run: str
    state: str
    plan: Mapping[str, Any]
    scores: Mapping[str, Any] = field(default_factory=dict)
    split: str = "test"
    description: str = ""
    pictures: Mapping[str, bytes] | None = field(default_factory=dict)
    timing: Sequence[tuple[str, float]] = ()
    written: float = 0.0
    federation: str = ""


def write_report(paths: RunPaths, *, pictures: bool = True, state: str = "succeeded") -> None:
    """Write ``report.html`` of what the run's folder holds, and the pictures in it to ``evaluation/``, too.

    Parameters
    ----------
    paths
        Files of the run.
    pictures
        Whether to draw any.
    state
        How the run stands or, where only this report is missing, how it will.

    Raises
    ------
    OSError, ValueError
        If the plan or the figures cannot be read, or the report not be written.
    """
    plan = read_json(paths.plan)
    scores = read_json(paths.scores) if paths.scores.exists() else {}
    drawn = _draw(paths, scores) if pictures else {}
    job = plan.get("job", {})
    report = Report(
        name=str(plan.get("name") or job.get("name") or paths.id),
        run=paths.id,
        state=state,
        plan=plan,
        scores=scores,
        split=str(job.get("evaluation", {}).get("split", "test")),
        description=str(job.get("description", "")),
        pictures=drawn if pictures else None,
        timing=phase_times(read_json_lines(paths.events), time.time()),
        written=time.time(),
        federation=federation_section(paths.federation),
    )
    write_text(paths.report, render_report(report))


def _draw(paths: RunPaths, scores: Mapping[str, Any]) -> dict[str, bytes]:
    drawn = draw_evaluation(scores, **_predictions(paths))
    if curves := learning_curves(read_json_lines(paths.metrics)):
        drawn["learning_curves"] = curves
    if drawn:
        paths.evaluation.mkdir(exist_ok=True)
    for name, content in drawn.items():
        (paths.evaluation / f"{name}.png").write_bytes(content)
    return drawn


def _predictions(paths: RunPaths) -> dict[str, Any]:
    try:
        with np.load(paths.predictions, allow_pickle=False) as arrays:
            return {name: arrays.get(name) for name in ("outputs", "targets")}
    except (FileNotFoundError, zipfile.BadZipFile, ValueError):  # of an evaluation that had none, or damaged since
        return {"outputs": None, "targets": None}


def phase_times(events: Iterable[Mapping[str, Any]], now: float) -> list[tuple[str, float]]:
    """Add up the time between the events of a run by phase, over all attempts.

    Parameters
    ----------
    events
        Lines of ``events.jsonl``. A phase lasts until the next one begins or its task ends; of a task that was killed
        until the last that was heard of it.
    now
        Unix time at which a phase that still lasts is cut.
    """
    spans: dict[str, float] = {}
    phase: str | None = None
    since = last = 0.0
    for event in events:
        at, kind = event.get("time"), event.get("event")
        if not isinstance(at, int | float):
            continue
        if phase is not None and kind in ("phase", "task started", "task ended"):
            end = last if kind == "task started" else at
            spans[phase] = spans.get(phase, 0.0) + max(end - since, 0.0)
            phase = None
        if kind == "phase":
            phase, since = str(event.get("phase")), float(at)
        last = float(at)
    if phase is not None:
        spans[phase] = spans.get(phase, 0.0) + max(now - since, 0.0)
    return list(spans.items())


def render_report(report: Report) -> str:
    """Return the page. Every text that comes from a user is escaped, and nothing in the page can run or be fetched."""
    sections = [
        _headline(report),
        _notes(report),
        _pictures(report, exclude="learning_curves"),
        _classes(report.scores),
        _confusions(report.scores),
        _outputs(report.scores),
        report.federation,
        _pictures(report, only="learning_curves"),
        _data(report.plan),
        _what_was_run(report),
        _next_steps(report),
    ]
    lead = f'<p class="lead">{escaped(report.description)}</p>' if report.description else ""
    header = f"""<p class="eyebrow">ai4sdk run</p>
<h1>{escaped(report.name)} <span class="state {escaped(report.state)}">{escaped(report.state)}</span></h1>
{lead}
<p class="facts"><code>{escaped(report.run)}</code><span>{written_at(report.written)}</span></p>"""
    return document(
        f"{report.name} · {report.run}", header, "".join(sections), style=FEDERATION_STYLE if report.federation else ""
    )


def _headline(report: Report) -> str:
    scores = report.scores
    if not scores:
        return section("Result", '<p class="quiet">This run was not evaluated.</p>')
    task = str(scores.get("task", "other"))
    tiles = [
        f'<div class="tile"><b>{figure_text(scores[key])}</b>'
        f"<span>{escaped(label)}</span><small>{escaped(hint)}</small></div>"
        for key, label, hint in HEADLINES.get(task, ())
        if scores.get(key) is not None
    ]
    split = {"test": "test split", "val": "validation split", "train": "training split"}.get(report.split, report.split)
    lines = [f"On the {escaped(split)}: {int(scores.get('samples', 0)):,} samples."]
    if scores.get("majority_accuracy") is not None:
        always = figure_text(scores["majority_accuracy"])
        lines.append(f"Always naming the most frequent class would give an accuracy of {always}.")
    if scores.get("target_deviation") is not None:
        lines.append(f"Always naming the mean would give an RMSE of {figure_text(scores['target_deviation'])}.")
    grid = f'<div class="tiles">{"".join(tiles)}</div>' if tiles else ""
    return section("Result", f'{grid}<p class="quiet">{" ".join(lines)}</p>')


def _notes(report: Report) -> str:
    notes = [f"<li>{escaped(note)}</li>" for note in report.scores.get("notes", ())]
    return (
        f'<section class="notes"><h2>To know before trusting this</h2><ul>{"".join(notes)}</ul></section>'
        if notes
        else ""
    )


def _pictures(report: Report, *, only: str | None = None, exclude: str | None = None) -> str:
    title = "Learning curves" if only == "learning_curves" else "In pictures"
    if report.pictures is None:
        text = f"<p>Drawn when asked for: <code>ai4sdk report {escaped(report.run)}</code></p>"
        return section(title, text) if only is None else ""
    figures = []
    for name, content in report.pictures.items():
        if name == exclude or (only is not None and name != only):
            continue
        source = base64.b64encode(content).decode()
        caption = CAPTIONS.get(name, name.replace("_", " "))
        wide = ' class="wide"' if _aspect(content) >= WIDE else ""
        figures.append(
            f'<figure{wide}><img alt="{escaped(caption)}" src="data:image/png;base64,{source}">'
            f"<figcaption>{escaped(caption)}</figcaption></figure>"
        )
    if not figures:
        return ""
    return section(title, f'<div class="figures">{"".join(figures)}</div>')


def _classes(scores: Mapping[str, Any]) -> str:
    classes = scores.get("classes")
    if not classes:
        return ""
    keys = ("precision", "recall", "f1", "roc_auc")
    rows = [
        [
            escaped(entry["name"]),
            *(_bar(entry.get(key)) for key in keys),
            f"{entry['support']:,}",
            f"{entry['predicted']:,}",
        ]
        for entry in classes
    ]
    for label, key in (("macro average", "macro_average"), ("weighted average", "weighted_average")):
        mean = scores.get(key) or {}
        rows.append([f"<i>{label}</i>", *(_bar(mean.get(each)) for each in keys[:3]), "", "", ""])
    head = ["class", "precision", "recall", "F1", "ROC AUC", "samples", "predicted"]
    return section("Classes", _folded(table(head, rows), len(rows), f"{len(classes)} classes"))


def _confusions(scores: Mapping[str, Any]) -> str:
    matrix = scores.get("confusion_matrix")
    if not matrix:
        return ""
    names = [entry["name"] for entry in scores["classes"]]
    mistakes = sorted(
        ((count, row, column) for row, line in enumerate(matrix) for column, count in enumerate(line) if row != column),
        key=lambda mistake: (-mistake[0], mistake[1], mistake[2]),
    )
    rows = [
        [escaped(names[row]), escaped(names[column]), f"{count:,}", f"{count / sum(matrix[row]):.1%}"]
        for count, row, column in mistakes[:CONFUSIONS]
        if count
    ]
    if not rows:
        return section("Most frequent mistakes", '<p class="quiet">There are none: every answer was right.</p>')
    head = ["true", "taken for", "times", "of the true class"]
    return section("Most frequent mistakes", table(head, rows, texts=2))


def _outputs(scores: Mapping[str, Any]) -> str:
    outputs = scores.get("outputs")
    if not isinstance(outputs, Sequence) or isinstance(outputs, str):
        return ""
    keys = [key for key in outputs[0] if key != "name"]
    rows = [[escaped(entry["name"]), *(figure_text(entry[key]) for key in keys)] for entry in outputs]
    head = ["output", *(key.replace("_", " ") for key in keys)]
    return section("Outputs", _folded(table(head, rows), len(rows), f"{len(outputs)} outputs"))


def _data(plan: Mapping[str, Any]) -> str:
    datasets = plan.get("data") or {}
    blocks = []
    for name, entry in datasets.items():
        facts: list[tuple[str, str]] = [("address", f"<code>{escaped(entry.get('uri', ''))}</code>")]
        facts.append(("fingerprint", f"<code>{escaped(entry.get('fingerprint', ''))}</code>"))
        if isinstance(entry.get("bytes"), int):
            facts.append(("size", f"{format_size(entry['bytes'])} in {entry.get('files', 1)} file(s)"))
        for key, value in (entry.get("summary") or {}).items():
            if value not in (None, [], {}, "") and key != "complete":
                facts.append((key.replace("_", " "), _short_value(value)))
        title = f"<h3>{escaped(name)}</h3>" if len(datasets) > 1 else ""
        blocks.append(title + facts_list(facts))
    return section("Data", "".join(blocks)) if blocks else ""


def _what_was_run(report: Report) -> str:
    plan = report.plan
    job = plan.get("job") or {}
    facts = [
        ("plan", f"<code>{escaped(plan.get('digest', ''))}</code>"),
        ("module", f"<code>{escaped((job.get('module') or {}).get('_target_', ''))}</code>"),
        ("seed", escaped(job.get("seed", ""))),
        ("python", escaped(plan.get("python", ""))),
    ]
    if commit := (plan.get("created") or {}).get("git_commit"):
        facts.append(("git commit", f"<code>{escaped(commit)}</code>"))
    if report.timing:
        total = sum(seconds for _, seconds in report.timing)
        parts = ", ".join(f"{escaped(name)} {format_span(seconds)}" for name, seconds in report.timing)
        facts.append(("time", f"{format_span(total)} ({parts})"))
    rows = [[f"<code>{escaped(key)}</code>", f"<code>{escaped(value)}</code>"] for key, value in _flat(job)]
    config = details(f"Configuration ({len(rows)} values)", table(["key", "value"], rows, texts=2))
    packages = plan.get("packages") or {}
    lines = [[escaped(name), f"<code>{escaped(version)}</code>"] for name, version in sorted(packages.items())]
    installed = details(f"Packages ({len(lines)})", table(["package", "version"], lines, texts=2))
    return section("What was run", facts_list(facts) + config + (installed if lines else ""))


def _next_steps(report: Report) -> str:
    run = report.run
    steps = [
        ("Predict", f"ai4sdk predict {run} --input FILE"),
        ("In Python", f'from ai4sdk import load_model\nmodel = load_model("runs/{run}")'),
        ("With MLflow", f"mlflow models predict -m runs/{run}/package -i input.json --env-manager local"),
        ("Run the same again", f"ai4sdk rerun {run}"),
        ("Compare with another run", f"ai4sdk diff {run} OTHER"),
    ]
    items = [f"<dt>{escaped(label)}</dt><dd><pre>{escaped(command)}</pre></dd>" for label, command in steps]
    return section("Go on", f'<dl class="steps">{"".join(items)}</dl>')


def _folded(body: str, rows: int, label: str) -> str:
    return body if rows <= TABLE_ROWS_OPEN else details(label, body)


def _bar(share: float | None) -> str:
    """Return a number in 0..1 with a bar behind it."""
    if share is None:
        return '<span class="quiet">n/a</span>'
    return f'<span class="bar" style="--share:{min(max(share, 0.0), 1.0):.4f}">{share:.3f}</span>'


def _aspect(png: bytes) -> float:
    width, height = struct.unpack(">II", png[16:24])  # of the header that every PNG starts with
    return float(width / height)


def _short_value(value: Any) -> str:
    if isinstance(value, Mapping):
        text = ", ".join(f"{key} {part}" for key, part in value.items())
    elif isinstance(value, Sequence) and not isinstance(value, str):
        text = ", ".join(map(str, value))
    else:
        text = value if isinstance(value, str) else json.dumps(value)
    return escaped(text if len(text) <= 300 else f"{text[:300]}…")


def _flat(value: Any, name: str = "") -> Iterable[tuple[str, str]]:
    """Yield the values of a nested mapping by dotted key."""
    if isinstance(value, Mapping) and value:
        for key, part in value.items():
            yield from _flat(part, f"{name}.{key}" if name else str(key))
    else:
        yield name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def main(folder: str) -> int:
    """Write the report of a run again; return the exit code of what goes wrong."""
    paths = RunPaths(Path(folder))
    try:
        write_report(paths, state=str(read_state(paths).state))
    except OSError as error:
        sys.stderr.write(f"the report of {paths.id} cannot be written: {error.strerror}: {error.filename}\n")
        return EnvironmentFault.exit_code
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        sys.stderr.write(f"files of {paths.id} are damaged: {error}\n  → ai4sdk rerun {paths.id}\n")
        return DataError.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
