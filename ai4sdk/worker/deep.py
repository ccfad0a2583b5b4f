"""Looking into a plan with torch: parameters, memory, shapes through the module and, when asked for, its pace.

`ai4sdk plan --deep` starts this in a process of its own, with the plan on standard input, and reads one line of JSON
from its standard output: ``{"rows": {name: text}, "refused": text or null, "key", "hint"}``, or ``{"error", "hint"}``.
"""

from __future__ import annotations

import contextlib
import json
import resource
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from ai4sdk.data.module import load_data
from ai4sdk.errors import Ai4Error
from ai4sdk.planning.code import CodeSnapshot, unpack
from ai4sdk.planning.plan import Plan
from ai4sdk.spec import Job
from ai4sdk.spec.scale import scale_of
from ai4sdk.spec.units import format_size, format_span
from ai4sdk.worker.estimate import Memory, estimate_memory
from ai4sdk.worker.failures import failure_of
from ai4sdk.worker.finetune import freeze
from ai4sdk.worker.instantiate import instantiate
from ai4sdk.worker.optimizers import configure_optimizers
from ai4sdk.worker.pace import measure_pace
from ai4sdk.worker.phases import divide_batch_size
from ai4sdk.worker.train import make_module

__all__ = ["Look", "look", "trace"]

_GPU_RUNTIME = 2**29
"""Bytes that CUDA and its libraries take of a GPU, about."""


@dataclass
class Look:
    """What was seen.

    Parameters
    ----------
    rows
        What to show, by name.
    refused
        Why the job cannot run with the hardware it asks for, if that is sure.
    key, hint
        The key that says so, and what to do about it.
    """

    rows: dict[str, str] = field(default_factory=dict)
    refused: str | None = None
    key: str = ""
    hint: str | None = None


def look(plan: Plan, project: Path, *, calibrate: bool = False) -> Look:
    """Build the module and one batch of a plan.

    Parameters
    ----------
    plan
        The plan; its code must be importable by now.
    project
        Folder that relative addresses start at.
    calibrate
        Whether to train for some seconds, to tell how long the whole training takes on a machine like this one.

    Returns
    -------
    Look
        Parameters, memory, the batch, the shapes after each layer; and whether it fits into the hardware.

    Raises
    ------
    Ai4Error
        If the module or the data cannot be made, or the module does not take the data.
    """
    job = plan.as_job()
    module = make_module(job)
    freeze(module, job.training.freeze)
    configure_optimizers(module, job.optimizer, job.scheduler)
    found = Look()
    total = sum(parameter.numel() for parameter in module.parameters())
    trained = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
    found.rows["parameters"] = f"{total:,}" + (f", {trained:,} of them trained" if trained != total else "")
    data = load_data(
        next(iter(job.datasets.values())),
        storage=job.storage,
        project=project,
        task=job.task,
        seed=job.seed,
        instantiate=instantiate,
        site=job.site_column,
    )
    divide_batch_size(data, job)
    data.datamodule.prepare_data()
    data.datamodule.setup("fit")
    loader = data.datamodule.train_dataloader()
    batch = next(iter(loader))
    _memory(job, estimate_memory(module, batch, job.training.precision), found)
    found.rows["batch"] = _shape_text(batch)
    with contextlib.suppress(TypeError):
        found.rows["batches"] = f"{len(loader)} an epoch"
    inputs = batch[0] if isinstance(batch, list | tuple) and batch else batch
    if isinstance(inputs, Tensor):
        for name, shape, size in trace(module, inputs):
            found.rows[f"  {name}"] = f"{shape}  {format_size(size)}"
    if calibrate and found.refused is None:
        _pace(job, module, data.datamodule, found)
    return found


def _memory(job: Job, memory: Memory, found: Look) -> None:
    """Tell of memory, and refuse what cannot fit: the estimate is a lower bound, for kernels need memory, too."""
    parts = {
        "weights": memory.weights,
        "gradients": memory.gradients,
        "optimizer": memory.optimizer,
        "activations": memory.activations,
        "batch": memory.batch,
    }
    total, several = memory.total, scale_of(job).processes
    if job.training.mode == "fsdp":  # gathered are only parts at a time
        world = scale_of(job).world_size
        for name in ("weights", "gradients", "optimizer"):
            if (size := parts[name]) is not None:
                parts[name] = size // world
                total -= size - size // world
    if job.training.mode == "ddp":  # gradients are copied to where they are added up
        parts["buckets"] = memory.gradients
        total += memory.gradients
    known = " + ".join(f"{name} {format_size(size)}" for name, size in parts.items() if size is not None)
    found.rows["memory"] = f"{'' if memory.complete else 'more than '}{format_size(total)}: {known}"
    found.rows |= {f"memory note {index}": note for index, note in enumerate(memory.notes, 1)}
    found.rows["checkpoint"] = f"about {format_size(memory.checkpoint)}"
    hardware = job.hardware
    if hardware.gpus:
        needed, limit, key = total + _GPU_RUNTIME, hardware.gpu_memory, "hardware.gpu_memory"
    else:
        # Python, torch, the data and the weights are in this process already.
        there = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        needed = several * (there + max(0, total - memory.weights - memory.batch))
        limit, key = hardware.memory, "hardware.memory"
    found.rows["node" if several > 1 else "process"] = f"at least {format_size(needed)} with torch and data"
    if limit is not None and needed > limit:
        found.refused = f"it needs at least {format_size(needed)}, and {key} is {format_size(limit)}"
        found.key = key
        found.hint = f"a smaller dataset.loader.batch_size, a smaller module, or more {key}"


def _pace(job: Job, module: pl.LightningModule, datamodule: pl.LightningDataModule, found: Look) -> None:
    """Tell how long the training takes."""
    pace = measure_pace(job, module, datamodule)
    seconds = pace.whole(job.training)
    alone = " (one process, without the others)" if job.training.is_shared else ""
    found.rows["pace"] = f"{pace.batch * 1000:.3g} ms a batch, the median of {pace.steps} that were tried here{alone}"
    if seconds is None:
        found.rows["time"] = "not known: the data has no end, or the training has none"
        return
    found.rows["time"] = f"about {format_span(seconds)} on a machine like this one, at most"
    if (limit := job.hardware.wall_time) is not None and seconds > limit:
        found.rows["time"] += f"; hardware.wall_time is {format_span(limit)}, so it would have to be resumed"


def trace(module: nn.Module, inputs: Tensor) -> list[tuple[str, str, int]]:
    """Run a batch through a module and note what each of its direct layers gives.

    Parameters
    ----------
    module
        The module; left in the mode it was in.
    inputs
        A batch of inputs.

    Returns
    -------
    list of tuple
        (name, shape, bytes) in the order of execution; layers inside a container one level deep are named apart.
    """
    seen: list[tuple[str, str, int]] = []

    def note(name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            size = output.numel() * output.element_size() if isinstance(output, Tensor) else 0
            seen.append((name, _shape_text(output), size))

        return hook

    layers = {
        name: layer for name, layer in module.named_modules() if name and name.count(".") < 2 and not _is_bag(layer)
    }
    hooks = [layer.register_forward_hook(note(name)) for name, layer in layers.items()]
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            output = module(inputs)
    finally:
        module.train(training)
        for hook in hooks:
            hook.remove()
    size = output.numel() * output.element_size() if isinstance(output, Tensor) else 0
    return [*seen, ("output", _shape_text(output), size)]


def _is_bag(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Sequential | nn.ModuleList | nn.ModuleDict)


def _shape_text(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{'×'.join(map(str, value.shape)) or 'scalar'} {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_shape_text(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return " and ".join(_shape_text(item) for item in value)
    return type(value).__name__


def main() -> int:
    """Read a plan from standard input and print what was seen as one line of JSON."""
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever the user's code prints must not mix with the answer
    try:
        plan = Plan.model_validate_json(sys.stdin.read())
        torch.set_num_threads(plan.job["hardware"]["cpus"])
        with tempfile.TemporaryDirectory(prefix="ai4sdk-") as folder:
            unpack(CodeSnapshot.from_json({k: v for k, v in plan.code.items() if k != "paths"}), Path(folder))
            sys.path.insert(0, folder)
            torch.manual_seed(plan.job["seed"])
            found = look(plan, Path.cwd(), calibrate="--calibrate" in sys.argv[1:])
            print(json.dumps(vars(found)), file=answers, flush=True)
        return 0
    except Ai4Error as error:
        answer = {"error": error.message, "hint": error.hint}
    except Exception as error:  # noqa: BLE001 - the user's code may raise anything
        answer = {"error": failure_of(error).cause, "hint": None}
    print(json.dumps(answer), file=answers, flush=True)
    return 4


if __name__ == "__main__":
    sys.exit(main())
