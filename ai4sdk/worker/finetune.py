"""Starting from weights that exist, and keeping some of them as they are."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from types import MethodType
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from ai4sdk.errors import EnvironmentFault, NotFound, RunFailed
from ai4sdk.worker.checkpoint import read_checkpoint

__all__ = ["WeightReport", "freeze", "load_weights", "read_weights"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WeightReport:
    """What became of the weights of a file.

    Parameters
    ----------
    loaded
        Names in the module that got their weights from the file.
    missing
        Names in the module that the file has not; they keep their fresh values.
    unexpected
        Names in the file that the module has not.
    mismatched
        Names in both whose shapes differ: the module's keep their fresh values. Name → (module's shape, file's shape).
    """

    loaded: list[str]
    missing: list[str]
    unexpected: list[str]
    mismatched: dict[str, tuple[list[int], list[int]]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the report ready for JSON: names of what was not loaded, and how many were."""
        return {
            "loaded": len(self.loaded),
            "missing": self.missing,
            "unexpected": self.unexpected,
            "mismatched": {name: list(shapes) for name, shapes in self.mismatched.items()},
        }


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the weights of a model package (``weights.safetensors``) or of a checkpoint, onto the CPU.

    Raises
    ------
    NotFound
        If the file is not there.
    RunFailed
        If it is damaged, or would run code on reading.
    """
    if not path.is_file():
        raise NotFound(f"the weights to start from are gone: {path}", hint="plan again: training.init_from=…")
    if path.suffix != ".safetensors":
        checkpoint = read_checkpoint(path)
        weights: Any = checkpoint.get("state_dict", checkpoint)
        return {name: value for name, value in weights.items() if isinstance(value, Tensor)}
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise RunFailed(f"the weights {path} are damaged: {error}") from error
    except OSError as error:
        raise EnvironmentFault(f"the weights {path} cannot be read: {error.strerror or error}") from error
    return tensors


def load_weights(module: nn.Module, weights: Mapping[str, Tensor], source: str) -> WeightReport:
    """Copy weights into a module by name.

    A part that was replaced, such as the head of a classifier with other classes, keeps its fresh weights and is
    listed in the report.

    Parameters
    ----------
    module
        The module.
    weights
        Name → tensor.
    source
        Where they come from, for the log and errors.

    Raises
    ------
    RunFailed
        If no name and shape fits.
    """
    own = module.state_dict(keep_vars=True)
    fitting = {name: value for name, value in weights.items() if name in own and own[name].shape == value.shape}
    if not fitting:
        raise RunFailed(
            f"nothing of {source} fits the module: it has {_some(weights)}, the module has {_some(own)}",
            hint="training.init_from must name a run or package of the same kind of module",
        )
    module.load_state_dict(fitting, strict=False)
    tied = {own[name].data_ptr() for name in fitting}  # two names of one tensor: a package stores it under one
    report = WeightReport(
        loaded=sorted(fitting),
        missing=sorted(name for name in own.keys() - weights.keys() if own[name].data_ptr() not in tied),
        unexpected=sorted(weights.keys() - own.keys()),
        mismatched={
            name: (list(own[name].shape), list(weights[name].shape))
            for name in sorted(own.keys() & weights.keys())
            if name not in fitting
        },
    )
    log.info("weights: %d of %d loaded from %s", len(report.loaded), len(own), source)
    for name, (mine, theirs) in report.mismatched.items():
        log.warning("weights: %s starts fresh, its shape is %s and not %s", name, mine, theirs)
    if report.missing:
        log.warning("weights: not in %s, so these start fresh: %s", source, ", ".join(report.missing))
    if report.unexpected:
        log.warning("weights: the module has no %s", ", ".join(report.unexpected))
    return report


def _some(names: Mapping[str, Any]) -> str:
    listed = ", ".join(list(names)[:3]) or "nothing"
    return f"{listed}, …" if len(names) > 3 else listed


def freeze(module: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Stop training the parameters whose names fit a shell pattern.

    Normalisation layers all of whose parameters are frozen also keep their running statistics: they stay in eval mode.

    Returns
    -------
    list of str
        Names of the frozen parameters.

    Raises
    ------
    RunFailed
        If a pattern fits nothing, or nothing is left to train.
    """
    if not patterns:
        return []
    parameters = dict(module.named_parameters())
    frozen: dict[str, None] = {}
    for pattern in patterns:
        fitting = [name for name in parameters if fnmatchcase(name, pattern)]
        if not fitting:
            raise RunFailed(
                f"training.freeze: {pattern!r} fits no parameter of the module", hint=_near(pattern, parameters)
            )
        frozen.update(dict.fromkeys(fitting))
    if not any(parameters[name].requires_grad for name in parameters.keys() - frozen.keys()):
        raise RunFailed("training.freeze leaves nothing to train", hint="name fewer layers")
    for name in frozen:
        parameters[name].requires_grad_(False)
    for part in module.modules():
        own = list(part.parameters(recurse=False))
        if isinstance(part, _NormBase) and own and not any(parameter.requires_grad for parameter in own):
            part.eval()
            part.train = MethodType(_stay_in_eval, part)  # type: ignore[method-assign]
    log.info("frozen: %d of %d parameters", len(frozen), len(parameters))
    return list(frozen)


def _stay_in_eval(part: nn.Module, mode: bool = True) -> nn.Module:
    return nn.Module.train(part, False)


def _near(pattern: str, names: Mapping[str, Any]) -> str:
    """Say which names there are, the nearest first."""
    wanted = pattern.rstrip("*.")
    heads = list(dict.fromkeys(head for name in names for head in _heads(name)))
    near = difflib.get_close_matches(wanted, heads, n=3, cutoff=0.5)
    if near:
        return "did you mean " + " or ".join(f"{head}*" for head in near) + "?"
    tops = list(dict.fromkeys(name.partition(".")[0] for name in names))
    return "the names begin with " + ", ".join(tops[:12])


def _heads(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[: count + 1]) for count in range(len(parts))]
