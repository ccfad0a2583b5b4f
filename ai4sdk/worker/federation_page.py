"""The part of a report that tells of a federation: who has which data, who took part, how each site did."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ai4sdk.data.partition_chart import partition_chart
from ai4sdk.federated.participation import changes
from ai4sdk.runs.drawing import DRAWING_STYLE, drawing, element, label, polyline
from ai4sdk.runs.files import read_json
from ai4sdk.runs.page import escaped, figure_text, section, table
from ai4sdk.spec.units import format_size, format_span

__all__ = ["FEDERATION_STYLE", "federation_section"]

FEDERATION_STYLE = (
    DRAWING_STYLE
    + """
svg .site { fill:none; stroke:var(--quiet); stroke-width:1.2; stroke-opacity:.6 }
svg .site:hover { stroke:var(--ink); stroke-width:3; stroke-opacity:1 }
svg .mean { fill:none; stroke:var(--accent); stroke-width:2.5; stroke-linejoin:round }
"""
)
"""CSS of what `federation_section` draws."""

MOST_SITES = 200
"""Rows of the table and lines of the curves; more sites are told of in numbers only."""
MOST_CURVES = 4
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 1000.0, 240.0, 74.0, 18.0, 14.0, 36.0

Rounds = Sequence[Mapping[str, Any]]


def federation_section(folder: Path) -> str:
    """Return the section of a federation's report as HTML; empty where there was none.

    Parameters
    ----------
    folder
        The run's ``federation/``.
    """
    if not (folder / "partition.json").is_file():
        return ""
    counts: dict[str, dict[str, int]] = read_json(folder / "partition.json")
    rounds = [read_json(path) for path in sorted(folder.glob("[0-9]*/round.json"))][1:]
    parts = [_headline(counts, rounds), partition_chart(counts), _table(counts, rounds)]
    names = sorted({name for record in rounds for name in record["metrics"] if not name.startswith("server/")})
    ordered = sorted(names, key=lambda name: not name.startswith("val"))
    for name in ordered[:MOST_CURVES]:
        parts.append(f"<h3>{escaped(name)} by round</h3>{_curves(name, rounds)}")
    if (folder / "privacy.json").is_file():
        told = "".join(f"<li>{escaped(line)}</li>" for line in read_json(folder / "privacy.json")["means"])
        parts.append(f"<h3>Privacy</h3><ul>{told}</ul>")
    return section("Federation", "".join(parts))


def _headline(counts: Mapping[str, Any], rounds: Rounds) -> str:
    answers = sum(len(record["answered"]) for record in rounds)
    refused = sum(len(record["refused"]) for record in rounds)
    again = sum(record["tries"] - 1 for record in rounds)
    told = f"{len(counts)} sites, {len(rounds)} rounds, {answers:,} answers"
    told += f", {refused:,} refused" if refused else ""
    told += f"; rounds were tried again {again:,} times for want of answers" if again else ""
    return f'<p class="quiet">{told}.</p>'


def _table(counts: Mapping[str, Mapping[str, int]], rounds: Rounds) -> str:
    last: dict[str, Mapping[str, float]] = {}
    took_part = dict.fromkeys(counts, 0)
    refused: dict[str, list[str]] = {}
    for record in rounds:
        last |= record["site_metrics"]
        for site in record["answered"]:
            took_part[site] = took_part.get(site, 0) + 1
        for site, why in record["refused"].items():
            refused.setdefault(site, []).append(why)
    names = sorted({name for metrics in last.values() for name in metrics})
    traffic, costs = _summed(rounds, "traffic"), _summed(rounds, "costs")
    measured = next((name for name in names if name.startswith("val")), names[0] if names else "")
    effects = changes([(record["answered"], record["metrics"].get(measured)) for record in rounds], counts)
    energy = any("joules" in cost for cost in costs.values())
    rows = [
        [
            escaped(site),
            f"{sum(classes.values()):,}",
            f"{took_part[site]:,}",
            _refusals(refused.get(site, [])),
            *(format_size(int(traffic.get(site, Counter())[way])) for way in (0, 1)),
            format_span(round(costs.get(site, Counter())["seconds"], 1)),
            *([f"{costs.get(site, Counter())['joules'] / 3600:.3g} Wh"] if energy else []),
            *(["/".join(f"{change:+.3g}" for change in effects.get(site, ()))] if effects else []),
            *(figure_text(last.get(site, {}).get(name)) for name in names),
        ]
        for site, classes in list(counts.items())[:MOST_SITES]
    ]
    head = ["site", "samples", "rounds", "refused", "down", "up", "training", *(["energy"] if energy else [])]
    if effects:
        head.append(f"change of {escaped(measured)} in a round with it/without")
    return table([*head, *(f"{escaped(name)}, last" for name in names)], rows)


def _summed(rounds: Rounds, what: str) -> dict[str, Counter[str | int]]:
    """Return sums over the rounds for each site: of bytes down (0) and up (1), or of costs by name.

    Records of older versions have none.
    """
    sums: dict[str, Counter[str | int]] = {}
    for record in rounds:
        for site, values in record.get(what, {}).items():
            sums.setdefault(site, Counter()).update(dict(enumerate(values)) if isinstance(values, list) else values)
    return sums


def _refusals(reasons: Sequence[str]) -> str:
    if not reasons:
        return "0"
    return f'<span title="{escaped(reasons[-1])}">{len(reasons):,}</span>'


def _curves(name: str, rounds: Rounds) -> str:
    """Draw a metric of each site, thin, and of the federation."""
    sites: dict[str, list[tuple[int, float]]] = {}
    for record in rounds:
        for site, metrics in record["site_metrics"].items():
            if _is_number(metrics.get(name)):
                sites.setdefault(site, []).append((record["number"], metrics[name]))
    mean = [(record["number"], record["metrics"][name]) for record in rounds if _is_number(record["metrics"].get(name))]
    every = [value for points in (*sites.values(), mean) for _, value in points]
    if not every:
        return ""
    low, high = min(every), max(every)
    spread, last = (high - low) or 1.0, max(2, len(rounds))

    def place(point: tuple[int, float]) -> tuple[float, float]:
        x = LEFT + (point[0] - 1) / (last - 1) * (WIDTH - LEFT - RIGHT)
        return x, TOP + (high - point[1]) / spread * (HEIGHT - TOP - BOTTOM)

    bottom = HEIGHT - BOTTOM
    parts = [element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=bottom, y2=bottom, class_="axis")]
    parts += [label(LEFT - 8, y, figure_text(value), anchor="end") for y, value in ((TOP + 4, high), (bottom, low))]
    parts += [label(x, HEIGHT - 14, text, anchor=anchor) for x, text, anchor in _ends(last)]
    for site, points in list(sites.items())[:MOST_SITES]:
        parts.append(polyline(map(place, points), class_="site", title=site))
    parts.append(polyline(map(place, mean), class_="mean", title="all sites, weighted by samples"))
    return drawing(WIDTH, HEIGHT, f"{name} of each site by round", parts)


def _ends(last: int) -> tuple[tuple[float, str, str], ...]:
    return (LEFT, "round 1", "start"), (WIDTH - RIGHT, f"round {last}", "end")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
