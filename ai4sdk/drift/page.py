"""The page that shows how new data differ: one file that stands alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ai4sdk.drift.features import Features
from ai4sdk.drift.reference import Reference
from ai4sdk.drift.sketch import Sketch, Values, missing_in
from ai4sdk.drift.verdict import Finding, Verdict, counted, p_value
from ai4sdk.runs.drawing import DRAWING_STYLE, drawing, element, label
from ai4sdk.runs.page import document, escaped, facts_list, section, table

__all__ = ["page"]

MOST_PLOTS = 24
MOST_BARS = 20

STYLE = (
    DRAWING_STYLE
    + """
svg .old { fill:var(--faint) } svg .new { fill:var(--accent); fill-opacity:.75 }
.state.drift { color:var(--bad) } .state.same { color:var(--good) }
td.drifted { color:var(--bad); font-weight:600 }
.key { display:inline-block; width:.8em; height:.8em; border-radius:2px; margin:0 .3em 0 .8em }
.key.old { background:var(--faint) } .key.new { background:var(--accent); opacity:.75 }
"""
)

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 500.0, 220.0, 56.0, 10.0, 12.0, 34.0

Shares = NDArray[np.float64]


def page(verdict: Verdict, reference: Reference, inputs: Features, outputs: Features, *, data: Sequence[str]) -> str:
    """Return the page.

    Parameters
    ----------
    verdict
        What the tests say.
    reference
        What new samples were held against.
    inputs, outputs
        Features of the new samples and of the answers to them.
    data
        What the new samples are called.
    """
    count = sum(finding.drifted for finding in verdict.findings)
    state = ("drift", "drift") if verdict.drifted else ("same", "no drift")
    title = "Drift: " + ", ".join(data)
    header = f"""<p class="eyebrow">ai4sdk drift check</p>
<h1>{escaped(", ".join(data))} <span class="state {state[0]}">{state[1]}</span></h1>
<p class="facts"><span>{counted(verdict.samples)}</span><span>{count} of {len(verdict.findings)} tests below
alpha {verdict.alpha:g}</span></p>"""
    facts = [
        (
            "correction",
            "Holm, among samples and among answers: the chance of any false alarm, over all tests, is at most alpha",
        ),
        ("distance", "Kolmogorov–Smirnov of numbers, else half the sum of differences of shares; 0 to 1"),
        ("PSI", "population stability index; customarily below 0.1 small, above 0.25 large, with enough samples"),
        *(("note", escaped(note)) for note in verdict.notes),
    ]
    plots = _plots(verdict, reference, inputs, outputs)
    key = '<p><span class="key old"></span>reference<span class="key new"></span>new samples</p>'
    main = (
        section("How to read this", facts_list(facts))
        + section("Where they differ most", f'{key}<div class="figures">{"".join(plots)}</div>')
        + section("Every test", _table(verdict.findings))
    )
    return document(title, header, main, style=STYLE)


def _plots(verdict: Verdict, reference: Reference, inputs: Features, outputs: Features) -> list[str]:
    """Draw what differs, and always the values of the answers; without any the nearest to it."""
    values = [finding for finding in verdict.findings if finding.of == "values"]
    drawn = [
        finding for finding in verdict.findings if finding.drifted or (finding in values and finding.part == "output")
    ]
    made = []
    for finding in (drawn or values[:4])[:MOST_PLOTS]:
        known, new = (reference.inputs, inputs) if finding.part == "input" else (reference.outputs, outputs)
        what = " missing" if finding.of == "missing" else ""
        caption = (
            f"{finding.part}: {escaped(finding.name)}{what}, adjusted p {p_value(finding.adjusted)}, "
            f"distance {finding.comparison.distance:.3f}"
        )
        plot = (_plot_missing if what else _plot)(finding.name, known[finding.name], new[finding.name])
        made.append(f"<figure>{plot}<figcaption>{caption}</figcaption></figure>")
    return made


def _plot_missing(name: str, known: Sketch, values: Values) -> str:
    old, absent = known.missing / max(known.missing + known.samples, 1), missing_in(values) / max(len(values), 1)
    return _bars(name, ["missing", "present"], np.array([old, 1 - old]), np.array([absent, 1 - absent]))


def _plot(name: str, known: Sketch, values: Values) -> str:
    before, after, names = known.cells(values)
    old, new = before / max(before.sum(), 1), after / max(after.sum(), 1)
    if known.kind == "bins":
        assert known.edges is not None
        return _histogram(name, known.edges, old, new)
    if known.kind == "texts" or len(old) > MOST_BARS:
        order = np.argsort(-np.maximum(old, new), kind="stable")
        rest = order[MOST_BARS - 1 :] if len(order) > MOST_BARS else order[:0]
        order = order[: len(order) - len(rest)]
        names = [names[place] for place in order] + (["others"] if len(rest) else [])
        old, new = (np.append(part[order], part[rest].sum() if len(rest) else []) for part in (old, new))
    return _bars(name, names, old, new)


def _bars(name: str, names: Sequence[str], old: Shares, new: Shares) -> str:
    top = max(float(old.max(initial=0)), float(new.max(initial=0)), 1e-9)
    step = (WIDTH - LEFT - RIGHT) / len(names)
    parts = _frame(top, "share")
    for place, text in enumerate(names):
        x = LEFT + place * step
        for offset, share, kind in ((0.1, old[place], "old"), (0.5, new[place], "new")):
            height = float(share) / top * (HEIGHT - TOP - BOTTOM)
            parts.append(
                element(
                    "rect", x=x + offset * step, y=HEIGHT - BOTTOM - height, width=step * 0.4, height=height,
                    class_=kind, title=f"{text}: {share:.1%}",
                )
            )  # fmt: skip
        if len(names) <= 10 or place % (len(names) // 10 + 1) == 0:
            parts.append(label(x + step / 2, HEIGHT - BOTTOM + 15, text, most=max(3, int(step * 1.6 / 7))))
    return drawing(WIDTH, HEIGHT, f"Shares of {name}", parts)


def _histogram(name: str, edges: Shares, old: Shares, new: Shares) -> str:
    """Draw densities; a bin's area is its share. The outer bins have no end and are drawn as wide as their share."""
    edges, old, new = _fewer_bins(edges, old, new)
    if not len(edges):
        return _bars(name, ["any"], old, new)
    # Halves, as the span of the largest floats is none.
    span = edges[-1] / 2 - edges[0] / 2
    inner = 1.0 if len(edges) > 1 and span > 0 else 0.0
    places = (edges / 2 - edges[0] / 2) / span if inner else np.zeros(len(edges))
    places = np.concatenate([[-0.15], places, [places[-1] + 0.15]])
    places = (places + 0.15) / (places[-1] + 0.15)
    widths = np.maximum(np.diff(places), 1e-6)
    heights = [part / widths for part in (old, new)]
    top = float(np.quantile(np.concatenate(heights), 0.98)) or 1.0
    parts = _frame(None, "density")
    for shares, density, kind in ((old, heights[0], "old"), (new, heights[1], "new")):
        for place, share in enumerate(shares):
            height = min(1.0, float(density[place]) / top) * (HEIGHT - TOP - BOTTOM)
            parts.append(
                element(
                    "rect", x=LEFT + float(places[place]) * (WIDTH - LEFT - RIGHT), y=HEIGHT - BOTTOM - height,
                    width=float(widths[place]) * (WIDTH - LEFT - RIGHT), height=height, class_=kind,
                    title=f"{_between(edges, place)}: {share:.1%}",
                )
            )  # fmt: skip
    for place in sorted({0, len(edges) // 2, len(edges) - 1}):
        x = LEFT + float(places[place + 1]) * (WIDTH - LEFT - RIGHT)
        parts.append(label(x, HEIGHT - BOTTOM + 15, f"{edges[place]:.4g}", most=10))
    return drawing(WIDTH, HEIGHT, f"Distribution of {name}", parts)


def _fewer_bins(edges: Shares, old: Shares, new: Shares, most: int = 24) -> tuple[Shares, Shares, Shares]:
    if len(old) <= most:
        return edges, old, new
    starts = np.unique(np.linspace(0, len(old), most + 1).astype(int))[:-1]
    return edges[starts[1:] - 1], np.add.reduceat(old, starts), np.add.reduceat(new, starts)


def _between(edges: Shares, place: int) -> str:
    if place == 0:
        return f"up to {edges[0]:.4g}"
    return f"above {edges[-1]:.4g}" if place == len(edges) else f"{edges[place - 1]:.4g} to {edges[place]:.4g}"


def _frame(top: float | None, what: str) -> list[str]:
    low, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = [element("line", x1=LEFT, x2=right, y1=low, y2=low, class_="axis")]
    if top is None:
        return [*parts, label(LEFT - 6, TOP + 10, what, anchor="end", most=9)]
    for share in (0.5, 1.0):
        y = low - share * (low - TOP)
        parts.append(element("line", x1=LEFT, x2=right, y1=y, y2=y, class_="grid"))
        parts.append(label(LEFT - 6, y + 4, f"{share * top:.0%}", anchor="end", most=9))
    return parts


def _table(findings: Sequence[Finding]) -> str:
    head = ["feature", "of", "test", "p", "adjusted p", "distance", "PSI", "reference", "new"]
    rows = []
    for finding in findings:
        known = finding.comparison
        name = escaped(f"{finding.part}: {finding.name}")
        rows.append(
            [
                f"<b>{name}</b>" if finding.drifted else name,
                finding.of,
                known.test.replace("-", "\N{NON-BREAKING HYPHEN}"),
                p_value(known.p),
                f"<b>{p_value(finding.adjusted)}</b>" if finding.drifted else p_value(finding.adjusted),
                f"{known.distance:.3f}",
                f"{known.psi:.3f}",
                f"{known.reference:,}",
                f"{known.samples:,}",
            ]
        )
    return table(head, rows, texts=3)
