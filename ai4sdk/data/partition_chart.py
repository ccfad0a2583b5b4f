"""A partition as a picture: how many samples of each class every site has."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ai4sdk.runs.drawing import drawing, element, label

__all__ = ["partition_chart"]

MOST_CLASSES = 20
"""Rarer classes are drawn together, as their bubbles could not be told apart."""

LEFT, RIGHT = 130.0, 14.0
WIDTH, NARROWEST = 1000.0, 14.0
BARS, ROW = 96.0, 30.0


def partition_chart(counts: Mapping[str, Mapping[str, int]]) -> str:
    """Draw a bar a site with all of its samples and, under it, a bubble a class whose area is its samples.

    Parameters
    ----------
    counts
        Site → class → number of samples, as `ai4sdk.data.partition.class_counts` gives them; with one class for data
        that has none, only bars are drawn.

    Returns
    -------
    str
        SVG for a page that has `ai4sdk.runs.drawing.DRAWING_STYLE`; empty without sites.
    """
    if not counts:
        return ""
    totals = {site: sum(row.values()) for site, row in counts.items()}
    rows = _rows(counts)
    width = max(WIDTH, LEFT + RIGHT + NARROWEST * len(counts))
    step = (width - LEFT - RIGHT) / len(counts)
    places = {site: LEFT + (index + 0.5) * step for index, site in enumerate(counts)}
    parts = _bars(totals, places, step, width)
    largest = max((size for row in rows.values() for size in row.values()), default=0)
    most = min(step, ROW) / 2 - 1
    for index, (name, row) in enumerate(rows.items()):
        y = BARS + (index + 0.5) * ROW
        parts.append(element("line", x1=LEFT, x2=width - RIGHT, y1=y, y2=y, class_="grid"))
        parts.append(label(LEFT - 10, y + 4, name, anchor="end", most=18))
        for site, size in row.items():
            if size:
                radius = max(1.0, most * math.sqrt(size / largest))
                told = f"{site}, {name}: {size:,} samples"
                parts.append(element("circle", cx=places[site], cy=y, r=radius, class_="dot", title=told))
    bottom = BARS + len(rows) * ROW + 18
    # As many names as have room for eight characters, but never one over another.
    every = math.ceil(64 / step)
    for index, (site, x) in enumerate(places.items()):
        if not index % every:
            parts.append(label(x, bottom, site, most=max(8, int(every * step / 7.5))))
    return drawing(width, bottom + 10, "Samples of each class and site", parts)


def _bars(totals: Mapping[str, int], places: Mapping[str, float], step: float, width: float) -> list[str]:
    base, largest = BARS - 8, max(totals.values()) or 1
    parts = [label(LEFT - 10, base - 4, "all samples", anchor="end", class_="name")]
    for site, total in totals.items():
        height = (base - 20) * total / largest
        thick = min(step * 0.7, 60.0)
        x, y = places[site] - thick / 2, base - height
        told = f"{site}: {total:,} samples"
        parts.append(element("rect", x=x, y=y, width=thick, height=height, rx=2, class_="amount", title=told))
        if step >= 46:
            parts.append(label(places[site], y - 5, f"{total:,}"))
    parts.append(element("line", x1=LEFT, x2=width - RIGHT, y1=base, y2=base, class_="axis"))
    return parts


def _rows(counts: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
    """Return class → site → samples for what is drawn as bubbles; of many classes the rarest as one."""
    often: dict[str, int] = {}
    for row in counts.values():
        for name, size in row.items():
            often[name] = often.get(name, 0) + size
    if len(often) < 2:
        return {}
    kept = list(often)
    if len(often) > MOST_CLASSES:
        frequent = set(sorted(often, key=lambda name: -often[name])[: MOST_CLASSES - 1])
        kept = [name for name in often if name in frequent]
    rows = {name: {site: row.get(name, 0) for site, row in counts.items()} for name in kept}
    if len(kept) < len(often):
        rest = {site: sum(size for name, size in row.items() if name not in rows) for site, row in counts.items()}
        rows[f"{len(often) - len(kept)} others"] = rest
    return rows
