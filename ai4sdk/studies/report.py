"""The report of a study: which point is best, what mattered, and every point, as one page that stands alone."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.page import details, document, escaped, facts_list, section, table, written_at
from ai4sdk.spec.units import format_span
from ai4sdk.studies.axes import all_axes, as_number, figure, shortened, value_key, value_text
from ai4sdk.studies.charts import (
    CHART_STYLE,
    MOST_DOTS,
    MOST_LINES,
    history_chart,
    importance_chart,
    parallel_chart,
    pareto_chart,
    slice_charts,
)
from ai4sdk.studies.importance import Importances
from ai4sdk.studies.point import PointState, Result, StudyView
from ai4sdk.studies.results import best, by_seed, counts, in_order, objective_value, pareto_front

__all__ = ["MOST_ROWS", "render"]

MOST_ROWS = 1000
MOST_FAILURES = 50
NUMBERS = ' class="n"'

STYLE = """
th button { all:unset; cursor:pointer } th button:focus-visible { outline:2px solid var(--accent); outline-offset:2px }
th[aria-sort=ascending] button::after { content:" ▲" } th[aria-sort=descending] button::after { content:" ▼" }
tr.first td { font-weight:600; color:var(--good) } a { color:var(--accent) }
td.succeeded { color:var(--good) } td.failed, td.interrupted, td.cancelled { color:var(--bad) }
.points th, .points td { white-space:nowrap }
.slices { display:grid; grid-template-columns:repeat(2, minmax(0, 1fr)); gap:1.2rem }
@media (max-width:720px) { .slices { grid-template-columns:minmax(0, 1fr) } }
.facts-list + .steps { margin-top:1rem } .scroll + .steps { margin-top:.8rem }
"""

SCRIPT = """
document.querySelectorAll("table.points th button").forEach((button) => button.addEventListener("click", () => {
  const head = button.closest("th"), column = head.cellIndex, body = head.closest("table").tBodies[0];
  const up = head.getAttribute("aria-sort") !== "ascending";
  const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
  const order = (a, b) => {
    const x = value(a), y = value(b);
    if (x === "" || y === "") return (x === "") - (y === "");
    const numbers = !isNaN(x) && !isNaN(y);
    return (numbers ? x - y : x.localeCompare(y)) * (up ? 1 : -1);
  };
  body.append(...[...body.rows].sort(order));
  for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
}));
"""


def render(
    view: StudyView, importances: Sequence[Importances], best_yaml: str | None, *, folder: Path | None = None
) -> str:
    """Return the page. Every text that comes from a user is escaped, and nothing in the page is fetched.

    Parameters
    ----------
    view
        The study.
    importances
        How much each axis matters for each objective, in their order; empty if that was not judged.
    best_yaml
        Content of ``best.yaml``; ``None`` if it was not written.
    folder
        The study's folder, where the page will be: points are linked to their own reports by the way from there.
        Without it there are no links.
    """
    sections = [
        _headline(view),
        _best(view, best_yaml),
        _history(view),
        _importance(view, importances),
        _seeds(view),
        _pareto(view),
        _parallel(view),
        _slices(view, next(iter(importances), None)),
        _points(view, folder),
        _failures(view, folder),
    ]
    times = [f"started {written_at(view.started)}"] if view.started else []
    header = f"""<p class="eyebrow">ai4sdk study</p>
<h1>{escaped(view.name)} <span class="state {escaped(view.state)}">{escaped(view.state)}</span></h1>
<p class="facts"><code>{escaped(view.id)}</code>{"".join(f"<span>{time}</span>" for time in times)}</p>"""
    title = f"{view.name} · {view.id}"
    return document(title, header, "".join(sections), style=STYLE + CHART_STYLE, script=SCRIPT)


def _headline(view: StudyView) -> str:
    numbers = counts(view)
    final = sum(numbers.get(state, 0) for state in PointState if state.final)
    tiles = []
    first = best(view)
    for index, objective in enumerate(view.objectives if first is not None else ()):
        way = "lower is better" if objective.direction == "min" else "higher is better"
        value = figure(objective_value(first, index)) if first is not None else ""
        name = objective.name if index == 0 and len(view.objectives) == 1 else f"{objective.name} of the first"
        tiles.append((value, name, way))
    tiles.append((f"{final:,}", "points done", f"of {max(view.total, len(view.results)):,}"))
    if numbers.get("reused"):
        tiles.append((f"{numbers['reused']:,}", "reused", "had succeeded before"))
    if view.started and view.ended:
        tiles.append((format_span(max(0.0, view.ended - view.started)), "took", "from start to end"))
    boxes = "".join(
        f'<div class="tile"><b>{escaped(value)}</b><span>{escaped(name)}</span><small>{escaped(hint)}</small></div>'
        for value, name, hint in tiles
    )
    states = ", ".join(f"{number:,} {escaped(name)}" for name, number in numbers.items())
    facts = [("points", states or "none"), ("search", escaped(view.search))]
    if view.objectives:
        goals = ", ".join(f"{escaped(each.name)} ({each.direction})" for each in view.objectives)
        facts.append(("objective", goals))
    facts.append(("config", f"<code>{escaped(view.config)}</code>"))
    return section("Result", f'<div class="tiles">{boxes}</div>{facts_list(facts)}')


def _best(view: StudyView, best_yaml: str | None) -> str:
    first = best(view)
    if first is None:
        return section("Best point", '<p class="quiet">No point has succeeded with a value yet.</p>')
    # Exact, as one may want to copy them; the table has four digits.
    facts = [
        (axis, f"<code>{escaped(value if isinstance(value, str) else value_key(value))}</code>")
        for axis, value in first.point.params.items()
    ]
    several = " (the first of the Pareto front)" if len(view.objectives) > 1 else ""
    body = f"<p>Point {first.point.number}{several}</p>{facts_list(facts)}"
    if best_yaml is not None:
        command = f"ai4sdk run config=runs/{view.id}/best.yaml"
        body += f'<dl class="steps"><dt>Run it</dt><dd><pre>{escaped(command)}</pre></dd></dl>'
        body += details("best.yaml", f"<pre>{escaped(best_yaml)}</pre>")
    return section("Best point", body)


def _history(view: StudyView) -> str:
    chart = history_chart(view)
    marks = [
        ('<circle cx="7" cy="7" r="4" class="dot"/>', "a point", True),
        ('<circle cx="7" cy="7" r="5" class="best"/>', "the best", True),
        ('<path d="M0,7h14" class="so-far"/>', "best so far", True),
        ('<path d="M3,4h8l-4,7z" class="pruned"/>', "pruned", PointState.PRUNED in _states(view)),
        ('<path d="M3,3l8,8m0,-8l-8,8" class="failed"/>', "failed (no value)", PointState.FAILED in _states(view)),
    ]
    legend = "".join(
        f'<span class="legend"><svg viewBox="0 0 14 14" aria-hidden="true">{mark}</svg>{name}</span>'
        for mark, name, there in marks
        if there
    )
    return section("How it went", _figure(chart, legend + _thinned_note(view, MOST_DOTS))) if chart else ""


def _importance(view: StudyView, importances: Sequence[Importances]) -> str:
    parts = []
    for objective, found in zip(view.objectives, importances, strict=False):
        caption = (
            f"How much of the differences in {escaped(objective.name)} each axis explains alone, as a share of what "
            "all explain (fANOVA)."
        )
        chart = importance_chart(found, objective.name)
        note = f'<p class="quiet">{escaped(found.note)}</p>' if found.note else ""
        body = (_figure(chart, caption) if chart else "") + note
        head = f"<h3>{escaped(objective.name)}</h3>" if body and len(importances) > 1 else ""
        parts.append(head + body)
    return section("What mattered", "".join(parts)) if any(parts) else ""


def _seeds(view: StudyView) -> str:
    summaries = by_seed(view)
    if not summaries:
        return ""
    axes = list(dict.fromkeys(axis for summary in summaries for axis in summary.params))
    short = shortened(all_axes(view))
    head = [
        *(escaped(short[axis]) for axis in axes),
        "points",
        *(cell for each in view.objectives for cell in (escaped(each.name), "lowest", "highest")),
    ]
    rows = []
    for summary in summaries[:MOST_ROWS]:
        cells = [_param(summary.params, axis) for axis in axes]
        cells.append(f"{summary.count}")
        for spread in summary.spreads:
            around = f" ± {spread.deviation:.2g}" if spread.deviation is not None else ""
            cells += [figure(spread.mean) + around, figure(spread.least), figure(spread.most)]
        rows.append(cells)
    words = "<p class='quiet'>Mean ± standard deviation over points that differ in their seed only.</p>"
    return section("Over seeds", words + table(head, rows, texts=len(axes)) + _cut_note(len(summaries)))


def _pareto(view: StudyView) -> str:
    chart = pareto_chart(view)
    if not chart:
        return ""
    more = " Further objectives are in the table." if len(view.objectives) > 2 else ""
    front = len(pareto_front(view))
    caption = f"Green: the {front} that no other point beats in one objective without losing in another."
    return section("Pareto front", _figure(chart, caption + more))


def _parallel(view: StudyView) -> str:
    chart = parallel_chart(view)
    caption = (
        "A line for each point that succeeded: the stronger its colour, the better; the best is green."
        + _thinned_note(view, MOST_LINES)
    )
    return section("Values side by side", _figure(chart, caption)) if chart else ""


def _slices(view: StudyView, importances: Importances | None) -> str:
    charts = "".join(f"<figure>{chart}</figure>" for chart in slice_charts(view, importances))
    return section("Axis by axis", f'<div class="slices">{charts}</div>') if charts else ""


def _points(view: StudyView, folder: Path | None) -> str:
    axes = all_axes(view)
    short = shortened(axes)
    columns = [
        ("point", "", True),
        *((each.name, "", True) for each in view.objectives),
        *((short[axis], axis, _has_numbers(view, axis)) for axis in axes),
        ("took", "", True),
        ("state", "", False),
    ]
    head = "".join(
        f'<th scope="col"{NUMBERS if numbers else ""} title="{escaped(title)}">'
        f'<button type="button">{escaped(name)}</button></th>'
        for name, title, numbers in columns
    )
    first = best(view)
    rows = []
    for result in in_order(view)[:MOST_ROWS]:
        cells = [_cell(_linked(result, folder), result.point.number)]
        cells += [_number_cell(result, index) for index in range(len(view.objectives))]
        cells += [_param_cell(result, axis) for axis in axes]
        cells.append(_cell("" if result.took is None else format_span(result.took), result.took))
        state = "reused" if result.reused else str(result.state)
        cells.append(f'<td class="{escaped(result.state)}">{escaped(state)}</td>')
        row = '<tr class="first">' if result is first else "<tr>"
        rows.append(f"{row}{''.join(cells)}</tr>")
    if not rows:
        return ""
    body = f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"
    body = f'<div class="scroll"><table class="points">{body}</table></div>'
    return section("Points", body + _cut_note(len(view.results)))


def _failures(view: StudyView, folder: Path | None) -> str:
    failed = [result for result in view.results if result.state is PointState.FAILED]
    if not failed:
        return ""
    causes: dict[str, list[Result]] = {}
    for result in failed:
        causes.setdefault(result.cause or "no cause was recorded", []).append(result)
    rows = []
    for cause, results in sorted(causes.items(), key=lambda item: -len(item[1]))[:MOST_FAILURES]:
        links = ", ".join(_linked(result, folder) for result in results[:MOST_FAILURES])
        more = f" and {len(results) - MOST_FAILURES:,} more" if len(results) > MOST_FAILURES else ""
        rows.append([f"<pre>{escaped(cause)}</pre>", links + more])
    left = f'<p class="quiet">And {len(causes) - MOST_FAILURES:,} more causes.</p>' if len(causes) > len(rows) else ""
    steps = f'<dl class="steps"><dt>Try them again</dt><dd><pre>{escaped(_retry(view))}</pre></dd></dl>'
    return section("Failures", table(["cause", "points"], rows, texts=2) + left + steps)


def _retry(view: StudyView) -> str:
    return f"ai4sdk study resume {view.id} --failed"


def _states(view: StudyView) -> set[PointState]:
    return {result.state for result in view.results}


def _linked(result: Result, folder: Path | None) -> str:
    """Return a point's number, as a link to its own report if there is one."""
    number = str(result.point.number)
    if folder is None or result.run is None:
        return number
    report = RunPaths(result.run).report
    if not report.exists():
        return number
    # Both real, as the way between two folders leads through what they really are, not through links to them.
    way = os.path.relpath(report.resolve(), folder.resolve())
    return f'<a href="{escaped(quote(way))}">{number}</a>'


def _has_numbers(view: StudyView, axis: str) -> bool:
    return any(as_number(result.point.params.get(axis)) is not None for result in view.results)


def _param(params: Mapping[str, Any], axis: str) -> str:
    return escaped(value_text(params[axis])) if axis in params else ""


def _param_cell(result: Result, axis: str) -> str:
    if axis not in result.point.params:
        return _cell("", "")
    value = result.point.params[axis]
    number = as_number(value)
    return _cell(escaped(value_text(value)), number if number is not None else value_text(value), number is not None)


def _number_cell(result: Result, index: int) -> str:
    value = objective_value(result, index)
    known = result.values is not None and index < len(result.values)
    return _cell(figure(value) if known else "", as_number(value))


def _cell(content: str, value: object, number: bool = True) -> str:
    """Return a cell of ready HTML that is sorted by a value; nothing is sorted last."""
    return f'<td{NUMBERS if number else ""} data-value="{"" if value is None else escaped(value)}">{content}</td>'


def _figure(chart: str, caption: str) -> str:
    return f'<figure class="wide"><div class="scroll">{chart}</div><figcaption>{caption}</figcaption></figure>'


def _thinned_note(view: StudyView, most: int) -> str:
    return f" Of more than {most:,} points every n-th is drawn." if len(view.results) > most else ""


def _cut_note(rows: int) -> str:
    if rows <= MOST_ROWS:
        return ""
    return f'<p class="quiet">The first {MOST_ROWS:,} of {rows:,}. All are in <code>points.jsonl</code>.</p>'
