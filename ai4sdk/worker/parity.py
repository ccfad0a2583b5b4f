"""``python -m ai4sdk.worker.parity RUN RUN TOLERANCE``: compare two trainings of one job; prints JSON.

The first was one process, the second several.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from ai4sdk.planning.plan import read_plan_file
from ai4sdk.runs.files import read_json_lines
from ai4sdk.runs.layout import RunPaths
from ai4sdk.worker.train import make_module, quiet_lightning, trained_weights

__all__ = ["compare", "reasons_to_differ"]


def compare(one: RunPaths, several: RunPaths, tolerance: float) -> dict[str, Any]:
    """Say how far two trainings are apart.

    Returns
    -------
    dict
        ``agree``; ``steps`` that both made; the largest relative difference of ``loss`` (every metric of training
        and validation) and ``weights`` with its place; ``notes`` on what differs for a good reason.
    """
    weights = _furthest(_weights(trained_weights(one, "last"), trained_weights(several, "last")))
    ours, theirs = _metrics(one), _metrics(several)
    loss = _furthest(
        (f"{name}, step {step}", _apart(theirs[step, name], ours[step, name]))
        for step, name in ours
        if (step, name) in theirs
    )
    steps = [max((step for step, _ in figures), default=-1) + 1 for figures in (ours, theirs)]
    notes = list(_notes(several))
    if steps[0] != steps[1]:
        notes.append(f"one process made {steps[0]} steps, several made {steps[1]}")
    agree = steps[0] == steps[1] and all(far["difference"] <= tolerance for far in (loss, weights))
    return {"agree": agree, "steps": min(steps), "loss": loss, "weights": weights, "notes": notes}


def reasons_to_differ(module: nn.Module, *, sync_batchnorm: bool) -> list[str]:
    """Say what in a module makes several processes differ from one though nothing is wrong."""
    parts = list(module.named_modules())
    dropping = [name for name, part in parts if isinstance(part, nn.modules.dropout._DropoutNd) and part.p > 0]
    normal = [name for name, part in parts if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    found = []
    if dropping:
        found.append(f"dropout ({_some(dropping)}): each process draws random numbers of its own")
    if normal and not sync_batchnorm:
        found.append(
            f"batch normalisation ({_some(normal)}): over the batch of each process; see training.sync_batchnorm"
        )
    if isinstance(module, pl.LightningModule) and not module.automatic_optimization:
        found.append("manual optimization: the module makes its own steps")
    return found


def _notes(several: RunPaths) -> Iterator[str]:
    plan = read_plan_file(several.root)
    job = plan.as_job()
    sys.path[:0] = [str(several.code / path) for path in plan.code["paths"]]
    yield from reasons_to_differ(make_module(job), sync_batchnorm=job.training.sync_batchnorm)
    for event in read_json_lines(several.events):
        if event.get("event") == "samples left out":
            yield f"{event['samples']} samples at the end of an epoch cannot be divided evenly and are left out"
            break


def _weights(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, weight in ours.items():
        other = theirs.get(name)
        if not isinstance(weight, Tensor) or not isinstance(other, Tensor) or weight.shape != other.shape:
            yield name, math.inf
        elif weight.numel():
            first, second = weight.double(), other.double()
            size = max(float(first.abs().max()), torch.finfo(torch.float32).tiny)
            apart = float((first - second).abs().max()) / size
            yield name, apart if apart == apart else math.inf


def _metrics(run: RunPaths) -> dict[tuple[int, str], float]:
    return {
        (record["step"], name): value
        for record in read_json_lines(run.metrics)
        for name, value in record["metrics"].items()
    }


def _apart(value: float, expected: float) -> float:
    if value == expected or (value != value and expected != expected):
        return 0.0
    apart = abs(value - expected) / max(abs(expected), 1e-8)
    return apart if apart == apart else math.inf


def _furthest(found: Any) -> dict[str, Any]:
    where, difference = max(found, key=lambda pair: pair[1], default=("", 0.0))
    return {"difference": difference, "where": where if difference else ""}


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def main(arguments: Sequence[str]) -> int:
    """Print how far two runs are apart."""
    quiet_lightning()
    one, several, tolerance = arguments
    print(json.dumps(compare(RunPaths(Path(one)), RunPaths(Path(several)), float(tolerance))))  # noqa: T201 - read by who started it
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
