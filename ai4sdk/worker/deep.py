"""Looking into a plan with torch: parameters, memory, and shapes through the module.

`ai4sdk plan --deep` starts this in a process of its own, with the plan on standard input, and reads one line of JSON
from its standard output.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ai4sdk.data.module import load_data
from ai4sdk.errors import Ai4Error
from ai4sdk.planning.code import CodeSnapshot, unpack
from ai4sdk.planning.plan import Plan
from ai4sdk.spec.units import format_size
from ai4sdk.worker.failures import failure_of
from ai4sdk.worker.instantiate import instantiate
from ai4sdk.worker.train import make_module

__all__ = ["look", "trace"]


def look(plan: Plan, project: Path) -> dict[str, str]:
    """Build the module and one batch of a plan.

    Parameters
    ----------
    plan
        The plan; its code must be importable by now.
    project
        Folder that relative addresses start at.

    Returns
    -------
    dict
        What to show, by name: parameters, memory, the batch, and the shapes after each layer.

    Raises
    ------
    Ai4Error
        If the module or the data cannot be made, or the module does not take the data.
    """
    job = plan.as_job()
    module = make_module(job)
    found: dict[str, str] = {}
    total = sum(parameter.numel() for parameter in module.parameters())
    trained = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
    weights = sum(tensor.numel() * tensor.element_size() for tensor in [*module.parameters(), *module.buffers()])
    found["parameters"] = f"{total:,}" + (f", {trained:,} of them trained" if trained != total else "")
    found["weights"] = f"{format_size(weights)}; a checkpoint with Adam's state about {format_size(3 * weights)}"
    data = load_data(
        job.learner.dataset,
        storage=job.storage,
        project=project,
        task=job.task,
        seed=job.seed,
        instantiate=instantiate,
    )
    data.datamodule.prepare_data()
    data.datamodule.setup("fit")
    loader = data.datamodule.train_dataloader()
    batch = next(iter(loader))
    found["batch"] = _shape_text(batch)
    with contextlib.suppress(TypeError):
        found["batches"] = f"{len(loader)} an epoch"
    inputs = batch[0] if isinstance(batch, list | tuple) and batch else batch
    if isinstance(inputs, Tensor):
        for name, shape, size in trace(module, inputs):
            found[f"  {name}"] = f"{shape}  {format_size(size)}"
    return found


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
            print(json.dumps(look(plan, Path.cwd())), file=answers, flush=True)
        return 0
    except Ai4Error as error:
        answer = {"error": error.message, "hint": error.hint}
    except Exception as error:  # noqa: BLE001 - the user's code may raise anything
        answer = {"error": failure_of(error).cause, "hint": None}
    print(json.dumps(answer), file=answers, flush=True)
    return 4


if __name__ == "__main__":
    sys.exit(main())
