"""Studies made by hand."""

from __future__ import annotations

import math
import random
from pathlib import Path

from ai4sdk.studies.point import Objective, Point, PointState, Result, StudyView

LOSS = Objective("val_loss", "min")
ACCURACY = Objective("test/accuracy", "max")


def result(number, params=None, values=None, state=None, **facts):
    """A point; it succeeded if it has values and nothing else is said."""
    state = state or (PointState.SUCCEEDED if values is not None else PointState.FAILED)
    params = params if params is not None else {"x": number}
    overrides = tuple(f"{axis}={value}" for axis, value in params.items())
    return Result(Point(number, params, overrides, f"sha256:{number:04x}"), state, values, **facts)


def view(*results, objectives=(LOSS,), axes=None, total=None, **facts):
    axes = axes if axes is not None else tuple(dict.fromkeys(a for each in results for a in each.point.params))
    known = {"id": "20260101-120000-fish-abcd", "name": "fish", "config": "fish", "search": "grid", "state": "running"}
    return StudyView(
        objectives=tuple(objectives),
        axes=axes,
        total=len(results) if total is None else total,
        results=tuple(results),
        **{**known, **facts},
    )


def losses(*values, **facts):
    return view(*(result(number, values=(value,)) for number, value in enumerate(values)), **facts)


def fish(points=60, objectives=(LOSS,), folder=Path("runs/20260101-120000-fish-abcd")):
    """A study as people have it: four axes, some points pruned, some failed, some reused, one running."""
    chance = random.Random(1)
    results = []
    for number in range(points):
        optimizer = chance.choice(["adam", "sgd", "rmsprop"])
        params = {
            "training.optimizer.lr": 10 ** chance.uniform(-4, -1),
            "module.hidden": chance.choice([16, 32, 64, 128]),
            "optimizer": optimizer,
            "seed": number % 3,
        }
        if optimizer == "sgd":
            params["training.optimizer.momentum"] = round(chance.uniform(0, 0.99), 3)
        rate = params["training.optimizer.lr"]
        loss = 0.2 + 0.15 * (math.log10(rate) + 2.3) ** 2 + 4 / params["module.hidden"] + chance.gauss(0, 0.02)
        values = (loss, 1 / (1 + loss) + chance.gauss(0, 0.03))[: len(objectives)]
        run, took = folder / "points" / f"{number:05d}", chance.uniform(20, 90)
        if number == points - 1:
            results.append(result(number, params, state=PointState.RUNNING, run=run, attempts=1))
        elif number % 13 == 7:
            results.append(
                result(number, params, cause="ValueError: loss is NaN in epoch 3", run=run, took=took, attempts=1)
            )
        elif number % 7 == 5:
            results.append(result(number, params, values, PointState.PRUNED, run=run, took=took / 3, attempts=1))
        else:
            results.append(result(number, params, values, run=run, took=took, reused=number % 11 == 3, attempts=1))
    return view(
        *results,
        objectives=objectives,
        total=points + 4,
        search="tpe",
        started=1_770_000_000.0,
        ended=1_770_003_000.0,
    )
