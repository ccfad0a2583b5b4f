"""Charts of a study as SVG: how it went, what mattered, and which values go with which.

Colours come from the page, so that they suit light and dark. Each mark tells its point when the pointer rests on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ai4sdk.runs.drawing import DRAWING_STYLE, clipped, drawing, element, label, polyline
from ai4sdk.studies.axes import all_axes, as_number, describe, shortened
from ai4sdk.studies.importance import Importances
from ai4sdk.studies.point import PointState, Result, StudyView
from ai4sdk.studies.results import best, history, objective_value, pareto_front, ranked
from ai4sdk.studies.svg import Scale, scale_of

__all__ = [
    "CHART_STYLE",
    "MOST_DOTS",
    "MOST_LINES",
    "MOST_SLICES",
    "history_chart",
    "importance_chart",
    "parallel_chart",
    "pareto_chart",
    "slice_charts",
]

MOST_LINES = 500
MOST_DOTS = 1000
"""More marks than these hide each other and make the page heavy; of more, every n-th is drawn, and the best."""
MOST_SLICES = 12

CHART_STYLE = (
    DRAWING_STYLE
    + """
svg .pruned { fill:none; stroke:var(--quiet); stroke-width:1.4 }
svg .failed { fill:none; stroke:var(--bad); stroke-width:1.8 }
svg .so-far { fill:none; stroke:var(--accent); stroke-width:2; stroke-linejoin:round }
svg .front { fill:none; stroke:var(--good); stroke-width:1.5; stroke-dasharray:4 3 }
svg .best { fill:var(--good); stroke:var(--card); stroke-width:1.5 }
svg .line { fill:none; stroke-width:1.3; stroke-opacity:.75;
  stroke:color-mix(in oklab, var(--accent) var(--rank), var(--faint)) }
svg .halo { fill:none; stroke:var(--card); stroke-width:6; stroke-linejoin:round }
svg .best-line { fill:none; stroke:var(--good); stroke-width:3; stroke-linejoin:round }
svg .line:hover { stroke:var(--ink); stroke-width:3; stroke-opacity:1 }
svg .pruned:hover, svg .failed:hover { stroke:var(--ink); stroke-width:2 }
.legend { display:inline-flex; gap:.35rem; align-items:center; margin-right:1rem }
.legend svg { width:14px; height:14px; display:inline-block }
"""
)

WIDTH = 1000.0
LEFT, RIGHT, TOP, BOTTOM = 74.0, 18.0, 14.0, 46.0


def history_chart(view: StudyView) -> str:
    """Draw the first objective of each point by its number, and the best value so far; empty without a value."""
    done = [result for result in ranked(view) if _value(result) is not None]
    pruned = [result for result in view.results if result.state is PointState.PRUNED]
    failed = [result for result in view.results if result.state is PointState.FAILED]
    if not view.objectives or not done:
        return ""
    frame = _Frame(
        scale_of([0, max(result.point.number for result in view.results)]),
        scale_of(
            [_value(result) for result in [*done, *pruned] if _value(result) is not None],
            missing=any(_value(result) is None for result in [*pruned, *failed]),
            room=0.05,
        ),
        height=330,
    )
    tell = _teller(view)
    parts = [frame.axes("point", view.objectives[0].name)]
    for result in _thinned(pruned, MOST_DOTS):
        parts.append(_triangle(*frame.place(result.point.number, _value(result)), tell(result)))
    for result in _thinned(failed, MOST_DOTS):
        parts.append(_cross(*frame.place(result.point.number, None), tell(result)))
    for result in _thinned(done, MOST_DOTS):
        parts.append(_dot(*frame.place(result.point.number, _value(result)), tell(result)))
    steps = [step for step in history(view) if as_number(step[1]) is not None]
    corners: list[tuple[float, float]] = []
    for number, value in steps:
        x, y = frame.place(number, value)
        # Only the corners of the stairs: there are few, however many points there are.
        if not corners or corners[-1][1] != y:
            corners += [(x, corners[-1][1]), (x, y)] if corners else [(x, y)]
    if steps:
        corners.append(frame.place(*steps[-1]))
    parts.append(polyline(corners, class_="so-far"))
    parts += _best_mark(view, frame, lambda result: (result.point.number, _value(result)), tell)
    return drawing(WIDTH, frame.height, f"{view.objectives[0].name} of each point", parts)


def importance_chart(importances: Importances, objective: str) -> str:
    """Draw a bar for each axis, of its importance for an objective; empty if nothing could be judged."""
    short = shortened(list(importances.values))
    room, row = 230.0, 26.0
    parts = []
    for index, (axis, share) in enumerate(importances.values.items()):
        y = 4 + index * row
        length = max(1.0, share * (WIDTH - room - 70))
        parts += [
            label(room - 10, y + 15, short[axis], anchor="end", most=32, class_="name"),
            element(
                "rect", x=room, y=y, width=length, height=row - 7, rx=3, class_="amount", title=f"{axis}: {share:.1%}"
            ),
            element("text", x=room + length + 8, y=y + 15, text=f"{share:.0%}" if share >= 0.01 else "< 1%"),
        ]
    return (
        drawing(WIDTH, len(importances.values) * row + 6, f"Importance of each axis for {objective}", parts)
        if parts
        else ""
    )


def parallel_chart(view: StudyView) -> str:
    """Draw each point that succeeded as a line through its value on every axis and, last, its first objective.

    The nearer to the best, the stronger a line's colour; the best is drawn on top. Empty for fewer than two points.
    """
    done = [result for result in ranked(view) if _value(result) is not None]
    axes = _varied(view, done)
    if not view.objectives or len(done) < 2 or not axes:
        return ""
    columns = [_axis_scale(axis, done) for axis in axes]
    objective = scale_of([_value(result) for result in done])
    width = max(WIDTH, 130.0 * (len(axes) + 1))
    left, top, bottom = 70.0, 44.0, 320.0
    step = (width - 2 * left) / len(axes)
    places = [left + index * step for index in range(len(axes) + 1)]
    short = shortened(axes)

    def corners(result: Result) -> list[tuple[float, float]]:
        params = result.point.params
        at = [scale.at(params.get(axis), present=axis in params) for axis, scale in zip(axes, columns, strict=True)]
        at.append(objective.at(_value(result)))
        return [(x, bottom - share * (bottom - top)) for x, share in zip(places, at, strict=True)]

    tell = _teller(view)
    parts = [_line(corners(result), rank, tell(result)) for result, rank in _shaded(done)]
    first = best(view)
    if first is not None and _value(first) is not None:
        parts.append(polyline(corners(first), class_="halo"))
        parts.append(polyline(corners(first), class_="best-line", title=f"best: {tell(first)}"))
    for x, name, scale in zip(
        places, [*(short[axis] for axis in axes), view.objectives[0].name], [*columns, objective], strict=True
    ):
        parts.append(label(x, 18, name, most=max(10, int(step / 7.5)), class_="name"))
        parts.append(element("line", x1=x, x2=x, y1=top, y2=bottom, class_="axis"))
        for share, text in scale.ticks():
            y = bottom - share * (bottom - top)
            parts.append(element("line", x1=x - 4, x2=x, y1=y, y2=y, class_="axis"))
            parts.append(label(x - 7, y + 4, text, anchor="end", most=max(6, int(min(step, 2 * left) / 8.5))))
    return drawing(width, bottom + 16, "Values and objective of each point", parts)


def pareto_chart(view: StudyView) -> str:
    """Draw the first two objectives over each other, with the Pareto front; empty with fewer objectives."""
    done = [result for result in ranked(view) if None not in (_value(result, 0), _value(result, 1))]
    if len(view.objectives) < 2 or not done:
        return ""
    frame = _Frame(
        scale_of([_value(result, 0) for result in done], room=0.04),
        scale_of([_value(result, 1) for result in done], room=0.05),
        height=420,
    )
    tell = _teller(view)
    parts = [frame.axes(view.objectives[0].name, view.objectives[1].name)]
    front = [result for result in pareto_front(view) if None not in (_value(result, 0), _value(result, 1))]
    on_front = {result.point.number for result in front}
    for result in _thinned([result for result in done if result.point.number not in on_front], MOST_DOTS):
        parts.append(_dot(*frame.place(_value(result, 0), _value(result, 1)), tell(result)))
    places = [(frame.place(_value(result, 0), _value(result, 1)), result) for result in _thinned(front, MOST_DOTS)]
    if len(view.objectives) == 2:
        # With a third objective the front is a surface, and no line through it means anything.
        parts.append(polyline([place for place, _ in sorted(places, key=lambda pair: pair[0])], class_="front"))
    parts += [element("circle", cx=x, cy=y, r=5, class_="best", title=tell(result)) for (x, y), result in places]
    return drawing(WIDTH, frame.height, "Both objectives of each point", parts)


def slice_charts(view: StudyView, importances: Importances | None = None) -> list[str]:
    """Draw the first objective over each axis, the most important axes first; at most `MOST_SLICES`."""
    done = [result for result in ranked(view) if _value(result) is not None]
    if not view.objectives or len(done) < 2:
        return []
    weight = importances.values if importances is not None else {}
    axes = sorted(_varied(view, done), key=lambda axis: -weight.get(axis, 0.0))[:MOST_SLICES]
    short = shortened(all_axes(view))
    heights = scale_of([_value(result) for result in done], room=0.05)
    return [_slice(view, axis, short[axis], done, heights) for axis in axes]


def _slice(view: StudyView, axis: str, name: str, done: Sequence[Result], heights: Scale) -> str:
    there = [result for result in done if axis in result.point.params]
    scale = scale_of([result.point.params[axis] for result in there], choices=True, room=0.04)
    frame = _Frame(scale, heights, height=270, width=500)
    tell = _teller(view)
    parts = [frame.axes(name, view.objectives[0].name)]
    for result in _thinned(there, MOST_DOTS // 4):
        parts.append(_dot(*frame.place(result.point.params[axis], _value(result)), tell(result)))
    parts += _best_mark(view, frame, lambda result: (result.point.params.get(axis), _value(result)), tell, needs=axis)
    return drawing(500, frame.height, f"{view.objectives[0].name} by {name}", parts)


class _Frame:
    """Two axes, and where on the drawing a pair of values lies."""

    def __init__(self, across: Scale, up: Scale, height: float, width: float = WIDTH) -> None:
        self.across, self.up = across, up
        self.width, self.height = width, height

    def place(self, x: object, y: object) -> tuple[float, float]:
        across = self.across.at(x)
        up = self.up.at(y, present=y is not None)
        return (
            LEFT + across * (self.width - LEFT - RIGHT),
            self.height - BOTTOM - up * (self.height - TOP - BOTTOM),
        )

    def axes(self, x_name: str, y_name: str) -> str:
        low, right = self.height - BOTTOM, self.width - RIGHT
        parts = []
        for share, text in self.up.ticks():
            y = low - share * (low - TOP)
            parts.append(element("line", x1=LEFT, x2=right, y1=y, y2=y, class_="grid"))
            parts.append(label(LEFT - 7, y + 4, text, anchor="end", most=9))
        ticks = self.across.ticks()
        for share, text in ticks:
            x = LEFT + share * (right - LEFT)
            parts.append(element("line", x1=x, x2=x, y1=low, y2=low + 4, class_="axis"))
            parts.append(label(x, low + 18, text, most=max(4, int((right - LEFT) / len(ticks) / 7.5))))
        parts.append(element("line", x1=LEFT, x2=right, y1=low, y2=low, class_="axis"))
        parts.append(label((LEFT + right) / 2, low + 38, x_name, most=60, class_="name"))
        middle = (TOP + low) / 2
        turned = element(
            "text", transform=f"rotate(-90 14 {middle:.1f})", x=14, y=middle, text_anchor="middle", class_="name",
            text=clipped(y_name, 34), title=y_name,
        )  # fmt: skip
        return "".join([*parts, turned])


def _value(result: Result, index: int = 0) -> float | None:
    """Return a value that can be drawn."""
    return as_number(objective_value(result, index))


def _varied(view: StudyView, done: Sequence[Result]) -> list[str]:
    """Return the axes on which these points differ: all others are one tick."""
    return [
        axis
        for axis in all_axes(view)
        if len({repr(result.point.params[axis]) if axis in result.point.params else "" for result in done}) > 1
    ]


def _axis_scale(axis: str, done: Sequence[Result]) -> Scale:
    values = [result.point.params[axis] for result in done if axis in result.point.params]
    return scale_of(values, choices=True, missing=len(values) < len(done))


def _teller(view: StudyView) -> Callable[[Result], str]:
    short = shortened(all_axes(view))
    return lambda result: describe(result, view, short)


def _thinned(results: Sequence[Result], most: int) -> Sequence[Result]:
    """Return evenly chosen ones, the first always among them."""
    return results[:: max(1, math.ceil(len(results) / most))]


def _shaded(done: Sequence[Result]) -> list[tuple[Result, float]]:
    """Return ranked points, the worst first, with how near to the best they are in 0..1."""
    drawn = _thinned(done, MOST_LINES)
    return [(result, 1 - place / max(1, len(drawn) - 1)) for place, result in enumerate(drawn)][::-1]


def _line(corners: Sequence[tuple[float, float]], rank: float, title: str) -> str:
    return polyline(corners, class_="line", style=f"--rank:{rank:.0%}", title=title)


def _dot(x: float, y: float, title: str) -> str:
    return element("circle", cx=x, cy=y, r=4, class_="dot", title=title)


def _triangle(x: float, y: float, title: str) -> str:
    return element(
        "path", d=f"M{x - 4:.1f},{y - 3.5:.1f}h8l-4,7.5z", class_="pruned", pointer_events="all", title=title
    )


def _cross(x: float, y: float, title: str) -> str:
    return element(
        "path", d=f"M{x - 4:.1f},{y - 4:.1f}l8,8m0,-8l-8,8", class_="failed", pointer_events="all", title=title
    )


def _best_mark(
    view: StudyView,
    frame: _Frame,
    where: Callable[[Result], tuple[object, object]],
    tell: Callable[[Result], str],
    needs: str | None = None,
) -> list[str]:
    """Return the mark of the best point, if it can be drawn and has the axis that is needed."""
    first = best(view)
    if first is None or _value(first) is None or (needs is not None and needs not in first.point.params):
        return []
    x, y = frame.place(*where(first))
    return [element("circle", cx=x, cy=y, r=6, class_="best", title=f"best: {tell(first)}")]
