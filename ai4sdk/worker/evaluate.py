"""Run a trained module over a split and judge what it answers."""

from __future__ import annotations

import io
import logging
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ai4sdk.runs.files import write_json
from ai4sdk.worker.calling import (
    Call,
    Undecided,
    as_array,
    call_module,
    choose_call,
    float_type,
    main_tensor,
    moved,
    split_batch,
    still,
)
from ai4sdk.worker.scores import classification_scores, regression_scores

__all__ = ["Evaluation", "evaluate"]

log = logging.getLogger(__name__)

Task = Literal["auto", "classification", "regression", "other"]
Decided = Literal["classification", "regression", "other"]
Array = NDArray[Any]


@dataclass(frozen=True)
class Evaluation:
    """What a module answered over a split, and how good it is.

    Parameters
    ----------
    task
        ``classification``, ``regression`` or ``other``; never ``auto``.
    scores
        Figures as `ai4sdk.worker.scores` makes them; empty where none is known for the task.
    targets, outputs
        Labels ``(N,)`` or values ``(N, ...)``, and what the module answered; ``None`` where nothing of an array's
        form came.
    class_names
        Names by class number, where known.
    call
        Which method of the module answered.
    notes
        What a reader must know to trust the figures, in sentences.
    seconds
        Time of the pass over the data.
    """

    task: Decided
    scores: dict[str, Any] = field(default_factory=dict)
    targets: Array | None = None
    outputs: Array | None = None
    class_names: list[str] | None = None
    call: Call = "forward"
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def samples(self) -> int:
        """Number of samples that were seen."""
        return 0 if self.outputs is None else len(self.outputs)

    def to_json(self) -> dict[str, Any]:
        """Return figures and notes, ready for JSON."""
        head = {"task": self.task, "samples": self.samples, "seconds": round(self.seconds, 3), "call": self.call}
        return {**self.scores, **head, "notes": self.notes}

    def save(self, folder: Path) -> None:
        """Write ``metrics.json`` and ``predictions.npz`` (``outputs`` and ``targets``, where there are any)."""
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {"outputs": self.outputs, "targets": self.targets}
        present = {name: array for name, array in arrays.items() if array is not None}
        if present:
            buffer = io.BytesIO()
            np.savez_compressed(buffer, **present)  # type: ignore[arg-type] # the stub takes keywords for an option
            scratch = folder / f".predictions.npz.{os.getpid()}.part"
            scratch.write_bytes(buffer.getbuffer())
            scratch.replace(folder / "predictions.npz")
        write_json(folder / "metrics.json", self.to_json())


def evaluate(
    module: nn.Module,
    loader: Iterable[Any],
    *,
    task: Task = "auto",
    class_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    device: torch.device | str = "cpu",
) -> Evaluation:
    """Judge a module by a split.

    Parameters
    ----------
    module
        A LightningModule (or any torch module). It is left as found: training mode, buffers, device; and so is
        the state of all random numbers.
    loader
        Batches of inputs and targets, see `ai4sdk.worker.calling.split_batch`. Only outputs and targets are kept.
    task
        What the module predicts; ``auto`` tells it from targets and outputs.
    class_names
        Names by class number.
    output_names
        Names of a regressor's outputs.
    device
        Where the module computes.

    Returns
    -------
    Evaluation
        Batches or answers of a form that is not known give no figures and a note that says why. What the user's
        code raises after it has answered once is raised.
    """
    started = time.monotonic()
    place = torch.device(device)
    home = next((weight.device for weight in module.parameters()), place)
    notes: list[str] = []
    collected = _Collected()
    generators = list(_generators(loader))
    try:
        module.to(place)
        with still(module):
            collected.fill(module, loader, place)
    except Undecided as error:
        notes.append(f"No figures: {error}.")
        log.warning("evaluation gives no figures: %s", error)
    finally:
        module.to(home)
        for generator, state in generators:
            generator.set_state(state)
    seconds = time.monotonic() - started
    names = [str(name) for name in class_names] if class_names is not None else None
    outputs, targets = collected.arrays(notes)
    if outputs is None:
        return Evaluation("other", class_names=names, call=collected.call, notes=notes, seconds=seconds)
    targets = _fitting(targets, outputs, task, notes)
    decided, scores = _judge(outputs, targets, task, names, output_names, notes)
    return Evaluation(decided, scores, targets, outputs, names, collected.call, notes, seconds)


class _Collected:
    """Outputs and targets of the batches seen so far."""

    def __init__(self) -> None:
        self.call: Call = "forward"
        self.outputs: list[Array] = []
        self.targets: list[Array] = []
        self.labelled = True

    def fill(self, module: nn.Module, loader: Iterable[Any], device: torch.device) -> None:
        dtype = float_type(module)
        for index, batch in enumerate(loader):
            inputs, targets = split_batch(batch)
            inputs, given = moved(inputs, device, dtype), moved(targets, device)
            if index == 0:
                self.call, answer = choose_call(module, inputs, given)
            else:
                answer = call_module(module, inputs, self.call, given, index)
            output = as_array(main_tensor(answer))
            self.outputs.append(output[None] if output.ndim == 0 else output)
            if isinstance(targets, Tensor):
                target = as_array(targets)
                self.targets.append(target[None] if target.ndim == 0 else target)
            else:
                self.labelled = False

    def arrays(self, notes: list[str]) -> tuple[Array | None, Array | None]:
        """Join the batches; what cannot be joined is noted and left out."""
        if not self.outputs:
            if not notes:
                notes.append("No figures: the split has no samples.")
            return None, None
        try:
            outputs = np.concatenate(self.outputs)
        except ValueError:
            shapes = sorted({output.shape[1:] for output in self.outputs})
            notes.append(f"No figures: the outputs of different batches have different shapes: {shapes}.")
            return None, None
        if not self.labelled:
            notes.append("No figures: the batches carry no targets that are tensors.")
            return outputs, None
        try:
            return outputs, np.concatenate(self.targets)
        except ValueError:
            notes.append("No figures: the targets of different batches have different shapes.")
            return outputs, None


def _generators(loader: Any) -> Iterator[tuple[torch.Generator, Tensor]]:
    """Find the random generators that iterating the loader draws from, with their state."""
    seen: set[int] = set()
    for owner in (loader, getattr(loader, "sampler", None)):
        generator = getattr(owner, "generator", None)
        if isinstance(generator, torch.Generator) and id(generator) not in seen:
            seen.add(id(generator))
            yield generator, generator.get_state()


def _fitting(targets: Array | None, outputs: Array, task: Task, notes: list[str]) -> Array | None:
    """Bring targets into the form the figures take: one-hot rows of a classifier become class numbers."""
    if targets is None:
        return None
    if len(targets) != len(outputs):
        notes.append(f"No figures: {len(outputs)} outputs for {len(targets)} targets.")
        return None
    one_hot = (
        targets.ndim == 2
        and targets.shape[1] > 1
        and targets.shape == outputs.shape
        and bool(np.isin(targets, (0, 1)).all() and (targets.sum(axis=1) == 1).all())
    )
    if one_hot and (task == "classification" or (task == "auto" and targets.dtype.kind in "iub")):
        notes.append("One-hot targets were read as class numbers.")
        numbers: Array = targets.argmax(axis=1)
        return numbers
    return targets


def _looks_like(outputs: Array, targets: Array, names: Sequence[str] | None) -> Decided:
    """Tell the task from the form of outputs and targets."""
    flat = targets.ndim == 1 or (targets.ndim == 2 and targets.shape[1] == 1)
    single = outputs.ndim == 1 or (outputs.ndim == 2 and outputs.shape[1] == 1)
    two_valued = bool(np.isin(targets, (0, 1)).all())
    if targets.dtype.kind in "iub" and flat:
        if outputs.ndim == 2 and outputs.shape[1] > 1:
            return "classification"
        if single and outputs.dtype.kind in "iub":
            return "classification"
        if single:
            return "classification" if two_valued else "regression"
        return "other"
    if targets.dtype.kind == "f":
        if flat and single and two_valued and names is not None and len(names) == 2:
            return "classification"
        if targets.size == outputs.size:
            return "regression"
    return "other"


def _judge(
    outputs: Array,
    targets: Array | None,
    task: Task,
    names: Sequence[str] | None,
    output_names: Sequence[str] | None,
    notes: list[str],
) -> tuple[Decided, dict[str, Any]]:
    if targets is None:
        return ("other" if task == "auto" else task), {}
    decided: Decided = _looks_like(outputs, targets, names) if task == "auto" else task
    form = f"outputs of shape {outputs.shape} and targets of shape {targets.shape}, type {targets.dtype}"
    if task == "auto" and decided == "regression" and bool(np.isin(targets, (0, 1)).all()):
        notes.append("The targets are only 0 and 1; for figures of a classifier set task: classification.")
    try:
        if decided == "classification":
            answers = outputs.reshape(-1) if outputs.dtype.kind in "iub" else outputs
            if targets.size != len(outputs):
                raise ValueError("a classifier has one class number a sample")
            scores = classification_scores(targets, answers, class_names=names)
        elif decided == "regression":
            if targets.size != outputs.size:
                raise ValueError("a regressor has as many outputs as targets")
            scores = regression_scores(
                targets.reshape(len(outputs), -1), outputs.reshape(len(outputs), -1), names=output_names
            )
        else:
            if task != "other":
                notes.append(f"No figures are known for {form}.")
            return "other", {}
    except ValueError as error:
        notes.append(f"No figures of {decided}: {error} ({form}).")
        return (decided if task != "auto" else "other"), {}
    if scores["non_finite"]:
        notes.append(f"{scores['non_finite']} of {scores['samples']} predictions are not finite and are left out.")
    if left_out := scores.get("unknown_labels", 0):
        notes.append(f"{left_out} of {scores['samples']} labels are no class of the model and are left out.")
    if left_out := scores.get("missing_targets", 0):
        notes.append(f"{left_out} of {scores['samples']} targets are missing and are left out.")
    return decided, scores
