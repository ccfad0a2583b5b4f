"""Pictures of how good a model is and how it learned, as PNG bytes.

Drawn with matplotlib's objects, without pyplot: nothing global is touched, nothing stays open. Colours are from Okabe
and Ito's set and maps of one hue, which readers with a colour vision deficiency can tell apart.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from ai4sdk.worker.scores import calibration_bins, class_names_for, kind_of_outputs, probabilities_of, scorable_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

__all__ = [
    "calibration_curve",
    "class_bars",
    "confusion_matrix",
    "draw_evaluation",
    "learning_curves",
    "metric_panels",
    "predicted_and_true",
    "residuals",
    "roc_and_precision_recall",
]

log = logging.getLogger(__name__)

Array = NDArray[Any]

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#7f7f7f"
CURVES = (BLUE, ORANGE, GREEN, "#CC79A7", "#56B4E9", "#E69F00", "#000000")
DPI = 130
MAX_CLASSES_DRAWN = 25
"""Bars and curves are drawn for this many classes; of more, for those the model does worst on."""
MAX_NUMBERED = 25
"""Confusion matrices with more classes show colours without numbers."""
MAX_POINTS = 5000
MAX_OUTPUTS_DRAWN = 6
MAX_PANELS = 24


def draw_evaluation(scores: Mapping[str, Any], outputs: Array | None, targets: Array | None) -> dict[str, bytes]:
    """Draw every picture that an evaluation allows.

    Parameters
    ----------
    scores
        Figures, as ``evaluation/metrics.json`` has them.
    outputs, targets
        What the module answered, shape ``(N, ...)``, and labels ``(N,)`` or values ``(N, ...)``.

    Returns
    -------
    dict
        PNG bytes by file stem, in the order to be read; empty where there is nothing to draw.
    """
    if not scores.get("scored") or outputs is None or targets is None:
        return {}
    if scores["task"] == "regression":
        names = [entry["name"] for entry in scores.get("outputs", [])]
        truth = targets.reshape(len(targets), -1).astype(np.float64)
        guess = outputs.reshape(len(outputs), -1).astype(np.float64)
        keep = np.isfinite(truth).all(axis=1) & np.isfinite(guess).all(axis=1)
        return _drawn(
            {
                "predicted_and_true": lambda: predicted_and_true(truth[keep], guess[keep], names),
                "residuals": lambda: residuals(truth[keep], guess[keep], names),
            }
        )
    names = [entry["name"] for entry in scores["classes"]]
    pictures: dict[str, Callable[[], bytes]] = {
        "confusion_matrix": lambda: confusion_matrix(scores["confusion_matrix"], names),
        "classes": lambda: class_bars(scores["classes"]),
    }
    kind = kind_of_outputs(outputs) if scores.get("outputs") is None else scores["outputs"]
    if kind != "labels":
        chances = probabilities_of(outputs, kind)
        numbers = np.nan_to_num(targets.reshape(-1), nan=-1).astype(np.int64)
        keep = scorable_rows(numbers, chances)
        pictures["roc_and_precision_recall"] = lambda: roc_and_precision_recall(numbers[keep], chances[keep], names)
        pictures["calibration"] = lambda: calibration_curve(numbers[keep], chances[keep])
    return _drawn(pictures)


def _drawn(pictures: Mapping[str, Callable[[], bytes]]) -> dict[str, bytes]:
    """Draw pictures; one that cannot be drawn is missed in the report, but costs no training its end."""
    drawn = {}
    for name, draw in pictures.items():
        try:
            drawn[name] = draw()
        except Exception:
            log.exception("the picture %s could not be drawn", name)
    return drawn


def confusion_matrix(matrix: Sequence[Sequence[int]] | Array, names: Sequence[str]) -> bytes:
    """Draw how often each true class (row) was taken for each class (column).

    Parameters
    ----------
    matrix
        Counts, shape ``(C, C)``.
    names
        Names by class number.
    """
    counts = np.asarray(matrix)
    classes = len(counts)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    side = float(np.clip(2.2 + 0.42 * classes, 4.2, 13))
    figure, axes = _figure(side + 0.9, side)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    bar = figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03)
    bar.set_label("share of the true class")
    bar.outline.set_visible(False)
    labels = [_short(name) for name in class_names_for(classes, names)]
    # with very many classes every name would be unreadable; every n-th still says where one is
    step = max(1, -(-classes // 50))
    places = list(range(0, classes, step))
    size = float(np.clip(240 / max(classes / step, 1), 5.5, 9))
    turned = sum(map(len, labels)) + len(labels) > 9 * side
    axes.set_xticks(places, [labels[place] for place in places], fontsize=size, rotation=90 if turned else 0)
    axes.set_yticks(places, [labels[place] for place in places], fontsize=size)
    axes.set(xlabel="predicted", ylabel="true", title="Confusion matrix")
    axes.spines[:].set_visible(False)
    if classes <= MAX_NUMBERED:
        for row, column in np.ndindex(counts.shape):
            if counts[row, column]:
                colour = "white" if shares[row, column] > 0.55 else "black"
                text = f"{counts[row, column]}"
                axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=size - len(text) / 3)
    return _png(figure)


def class_bars(classes: Sequence[Mapping[str, Any]]) -> bytes:
    """Draw precision, recall and F1 of each class, the worst at the top.

    Parameters
    ----------
    classes
        Entries with ``name``, ``precision``, ``recall``, ``f1`` and ``support``, as the scores hold them.
    """
    known = [entry for entry in classes if entry["f1"] is not None]
    ranked = sorted(known, key=lambda entry: (entry["f1"], -entry["support"]))
    shown = ranked[:MAX_CLASSES_DRAWN][::-1]
    figure, axes = _figure(7, 1.5 + 0.36 * max(len(shown), 2))
    place = np.arange(len(shown))
    for offset, key, colour in ((0.27, "precision", BLUE), (0.0, "recall", ORANGE), (-0.27, "f1", GREEN)):
        axes.barh(place + offset, [entry[key] for entry in shown], height=0.25, color=colour, label=_nice(key))
    axes.set_yticks(place, [f"{_short(entry['name'])}  ({entry['support']})" for entry in shown])
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.6, max(len(shown), 1) - 0.4)
    rest = f" (the {len(shown)} worst of {len(known)})" if len(known) > len(shown) else ""
    axes.set(xlabel="0 … 1, higher is better", title=f"Classes and their number of samples{rest}")
    axes.grid(axis="x", alpha=0.3)
    _legend(figure, axes)
    return _png(figure)


def roc_and_precision_recall(labels: Array, probabilities: Array, names: Sequence[str]) -> bytes:
    """Draw the receiver operating characteristic and precision over recall.

    Parameters
    ----------
    labels, probabilities
        Shapes ``(N,)`` and ``(N, C)``; every row scorable. With two classes the curves are those of class 1, else
        of each class against the rest; of many classes the seven with the smallest area.
    names
        Names by class number.
    """
    count = probabilities.shape[1]
    numbers = [1] if count == 2 else list(range(count))
    curves = [
        (number, *_curves(labels == number, probabilities[:, number]))
        for number in numbers
        if 0 < (labels == number).sum() < len(labels)
    ]
    areas = {number: float(np.trapezoid(hits, alarms)) for number, alarms, hits, _ in curves}
    chosen = sorted(curves, key=lambda curve: areas[curve[0]])[: len(CURVES)]
    figure, left, right = _figure_of_two(9.6, 4.4)
    left.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":")
    every = class_names_for(count, names)
    for (number, alarms, hits, precision), colour in zip(chosen, CURVES, strict=False):
        left.plot(alarms, hits, color=colour, linewidth=1.8, label=f"{_short(every[number])}  {areas[number]:.3f}")
        right.plot(hits, precision, color=colour, linewidth=1.8)
    left.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC (area under the curve)")
    right.set(xlabel="recall", ylabel="precision", title="Precision and recall")
    for axes in (left, right):
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.02)
        axes.grid(alpha=0.3)
    if chosen:
        worst = f"the {len(chosen)} lowest of {len(curves)}" if len(curves) > len(chosen) else None
        left.legend(fontsize=8, frameon=False, title=worst, title_fontsize=8, loc="lower right")
    else:
        left.text(0.5, 0.5, "needs two classes in the data", ha="center", va="bottom")
    return _png(figure)


def calibration_curve(labels: Array, probabilities: Array) -> bytes:
    """Draw how often the model is right by how sure it is; on the diagonal the two agree.

    Parameters
    ----------
    labels, probabilities
        Shapes ``(N,)`` and ``(N, C)``; every row scorable.
    """
    steps = calibration_bins(labels, probabilities)
    sure, right = [step["confidence"] for step in steps], [step["accuracy"] for step in steps]
    counts = np.array([step["count"] for step in steps], dtype=float)
    figure, left, below = _figure_of_two(9.6, 4.2)
    left.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":")
    left.plot(sure, right, color=BLUE, linewidth=1, alpha=0.4)
    left.scatter(sure, right, s=20 + 180 * counts / max(counts.max(initial=1), 1), color=BLUE, alpha=0.75)
    left.set(xlabel="confidence", ylabel="accuracy", title="Calibration (size: number of samples)")
    left.set_xlim(-0.02, 1.04)
    left.set_ylim(-0.04, 1.08)
    below.hist(probabilities.max(axis=1), bins=30, range=(0, 1), color=BLUE, alpha=0.8)
    below.set(xlabel="confidence", ylabel="samples", title="How sure the model is")
    for axes in (left, below):
        axes.grid(alpha=0.3)
    return _png(figure)


def predicted_and_true(targets: Array, predictions: Array, names: Sequence[str] = ()) -> bytes:
    """Draw predictions over targets, a panel an output.

    Parameters
    ----------
    targets, predictions
        Shape ``(N, D)``, finite.
    names
        Names of the outputs.
    """
    figure, panels = _output_panels(targets.shape[1], names, height=4.4)
    rows = _sample_of(len(targets))
    for index, (axes, name) in enumerate(panels):
        truth, guess = targets[rows, index], predictions[rows, index]
        low, high = min(truth.min(), guess.min()), max(truth.max(), guess.max())
        margin = (high - low) * 0.04 or 1.0
        ends = [low - margin, high + margin]
        axes.plot(ends, ends, color=GREY, linewidth=1, linestyle=":")
        axes.scatter(truth, guess, s=14, alpha=_opacity(len(rows)), color=BLUE, linewidths=0)
        axes.set(xlabel="true", ylabel="predicted", xlim=ends, ylim=ends, title=name or "Predicted and true")
        axes.set_aspect("equal")
        axes.grid(alpha=0.3)
    return _png(figure)


def residuals(targets: Array, predictions: Array, names: Sequence[str] = ()) -> bytes:
    """Draw the distribution of the errors (prediction minus target), a panel an output.

    Parameters
    ----------
    targets, predictions
        Shape ``(N, D)``, finite.
    names
        Names of the outputs.
    """
    figure, panels = _output_panels(targets.shape[1], names, height=3.6)
    for index, (axes, name) in enumerate(panels):
        errors = predictions[:, index] - targets[:, index]
        mean, spread = errors.mean(), np.ptp(errors)
        if spread <= 1e-9 * max(abs(mean), 1e-300):  # too narrow to be cut into bins
            ends = (mean - (abs(mean) or 1), mean + (abs(mean) or 1))
        else:
            ends = (errors.min(), errors.max())
        axes.hist(errors, bins=int(np.clip(np.sqrt(len(errors)) * 1.5, 8, 60)), range=ends, color=BLUE, alpha=0.8)
        axes.axvline(0, color="black", linewidth=1)
        axes.axvline(mean, color=ORANGE, linewidth=1.8, linestyle="--", label=f"mean {mean:.3g}")
        axes.set(xlabel="predicted minus true", ylabel="samples", title=name or "Errors")
        axes.legend(fontsize=8, frameon=False)
    return _png(figure)


def metric_panels(records: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, tuple[list[float], list[float]]]]:
    """Sort a run's metric records into panels: training and validation of the same name share one.

    Parameters
    ----------
    records
        Lines of ``metrics.jsonl``: ``{"step", "epoch", "metrics": {name: value}}``. What is no number is left out.

    Returns
    -------
    dict
        Panel name → series name (such as ``train``, ``val``) → steps and values. Values of one name and step
        appear once, the last one written, as a resumed run writes some steps twice.
    """
    series: dict[str, dict[str, dict[float, float]]] = {}
    for record in records:
        metrics, step = record.get("metrics"), record.get("step")
        at = _number(step)
        if not isinstance(metrics, Mapping) or at is None:
            continue
        for name, value in metrics.items():
            number = _number(value)
            if number is not None:
                panel, label = _panel_of(str(name))
                series.setdefault(panel, {}).setdefault(label, {})[at] = number
    panels: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    for panel, lines in series.items():
        for label, points in lines.items():
            steps = sorted(points)
            panels.setdefault(panel, {})[label] = (steps, [points[step] for step in steps])
    return panels


def learning_curves(records: Iterable[Mapping[str, Any]]) -> bytes | None:
    """Draw how the metrics changed during training, a panel a metric.

    Parameters
    ----------
    records
        Lines of ``metrics.jsonl``, see `metric_panels`.

    Returns
    -------
    bytes or None
        The picture; nothing where no metric has a value.
    """
    panels = metric_panels(records)
    if not panels:
        return None
    # panels with a validation series matter most, then what was measured most often
    ranked = sorted(panels.items(), key=lambda item: (-len(item[1]), item[0]))[:MAX_PANELS]
    figure, places = _panels(len(ranked), width=4.6, height=3.1)
    for axes, (panel, lines) in zip(places, ranked, strict=True):
        for label, (steps, values) in sorted(lines.items()):
            marker = "o" if len(steps) <= 30 else None
            colour, width = _LOOKS.get(label, (GREY, 1.6))
            axes.plot(steps, values, color=colour, linewidth=width, label=label, marker=marker, markersize=3)
        axes.set(title=_nice(panel), xlabel="step")
        axes.grid(alpha=0.3)
        if len(lines) > 1 or next(iter(lines)):
            axes.legend(fontsize=8, frameon=False)
        every = np.array([value for _, series in lines.values() for value in series])
        if (every > 0).all() and every.max() > 1000 * every.min():
            axes.set_yscale("log")
    return _png(figure)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure, panels = _panels(1, width=width, height=height)
    return figure, panels[0]


def _figure_of_two(width: float, height: float) -> tuple[Figure, Axes, Axes]:
    figure, panels = _panels(2, width=width / 2, height=height)
    return figure, panels[0], panels[1]


def _panels(count: int, *, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """Make a figure of panels, at most three in a row, each of the given size in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = 2 if count == 4 else min(count, 3)
    rows = -(-count // columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False)
    panels = list(grid.flat)
    for unused in panels[count:]:
        unused.remove()
    for axes in panels[:count]:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    return figure, panels[:count]


def _output_panels(count: int, names: Sequence[str], *, height: float) -> tuple[Figure, list[tuple[Axes, str]]]:
    """Make a panel an output, each with the output's name; a single output may have none."""
    figure, panels = _panels(min(count, MAX_OUTPUTS_DRAWN), width=4.6, height=height)
    labels = names or [""] if count == 1 else class_names_for(count, names)
    return figure, [(axes, _short(name) if name else "") for axes, name in zip(panels, labels, strict=False)]


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # drawn as a box; tables have the name
        # Without the software's name equal pictures are equal bytes. Figure.savefig would draw twice.
        figure.dpi = DPI
        cast("FigureCanvasAgg", figure.canvas).print_png(buffer, metadata={"Software": None})
    figure.clear()
    return buffer.getvalue()


def _legend(figure: Figure, axes: Axes) -> None:
    figure.legend(*axes.get_legend_handles_labels(), fontsize=8, frameon=False, ncols=3, loc="outside lower center")


def _short(name: Any, width: int = 24) -> str:
    """Shorten a name for an axis; ``$`` would start mathematics."""
    text = " ".join(str(name).split())
    return (text if len(text) <= width else f"{text[: width - 1]}…").replace("$", r"\$") or "''"


def _nice(name: str) -> str:
    words = {"f1": "F1", "lr": "learning rate", "loss": "loss", "acc": "accuracy", "mae": "MAE", "rmse": "RMSE"}
    return words.get(name, name.replace("_", " ")).replace("$", r"\$")


def _number(value: Any) -> float | None:
    number = isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value)
    return float(value) if number else None


_PARTS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def _panel_of(name: str) -> tuple[str, str]:
    """Split ``val_loss``, ``val/loss`` or ``loss/val`` into panel and series, here ``loss`` and ``val``."""
    for suffix in ("_step", "_epoch"):
        if name.endswith(suffix) and name != suffix:
            panel, label = _panel_of(name.removesuffix(suffix))
            return panel, label if suffix == "_epoch" else f"{label} (steps)"
    for separator in ("/", "_", ".", "-"):
        head, _, tail = name.partition(separator)
        if tail and head.lower() in _PARTS:
            return tail, _PARTS[head.lower()]
        head, _, tail = name.rpartition(separator)
        if head and tail.lower() in _PARTS:
            return head, _PARTS[tail.lower()]
    return name, ""


_LOOKS = {
    "": (BLUE, 1.6),
    "train": (BLUE, 1.6),
    " (steps)": ("#8fbbdc", 1.0),
    "train (steps)": ("#8fbbdc", 1.0),
    "val": (ORANGE, 1.6),
    "test": (GREEN, 1.6),
}
"""Colour and line width by series, the same in every panel."""


def _curves(positive: Array, scores: Array) -> tuple[Array, Array, Array]:
    """Return false positive rate, true positive rate and precision for every threshold, from none to all."""
    order = np.argsort(-scores, kind="stable")
    hits, ranked = positive[order].astype(float), scores[order]
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)  # equal scores fall together
    caught = np.cumsum(hits)[last]
    taken = last + 1.0
    precision = caught / taken
    alarms = (taken - caught) / (len(hits) - hits.sum())
    return (
        np.concatenate([[0.0], alarms]),
        np.concatenate([[0.0], caught / hits.sum()]),
        np.concatenate([[precision[0]], precision]),
    )


def _sample_of(count: int) -> Array:
    """Choose the rows to draw, evenly spread, so that pictures stay the same for the same data."""
    return np.unique(np.linspace(0, count - 1, min(count, MAX_POINTS)).astype(int))


def _opacity(points: int) -> float:
    return float(np.clip(30 / np.sqrt(points), 0.15, 0.8))
