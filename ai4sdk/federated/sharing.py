"""Which parts of a module travel, and which stay at each site."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Literal

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ai4sdk.errors import RunFailed
from ai4sdk.federated.weights import Arrays, State, state_of

__all__ = ["Sharing"]

BatchNormPolicy = Literal["average", "local", "local_statistics"]


class Sharing:
    """Divides the state of a module into what all share and what is each site's own.

    Parameters
    ----------
    module
        The module.
    patterns
        Of the names of parameters and buffers that are shared.
    batchnorm
        What becomes of batch normalisation; see `ai4sdk.spec.Federation`.

    Raises
    ------
    RunFailed
        If a pattern fits nothing, or no parameter is shared.
    """

    def __init__(self, module: nn.Module, patterns: Sequence[str], batchnorm: BatchNormPolicy) -> None:
        state = state_of(module)
        names = [*state.parameters, *state.buffers]
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise RunFailed(
                    f"federation.share: {pattern!r} fits no parameter that is trained",
                    hint=f"there are {', '.join(names[:12])}{', …' if len(names) > 12 else ''}",
                )
        own = _of_batchnorm(module, batchnorm)
        self.own = frozenset(
            name for name in names if name in own or not any(fnmatchcase(name, pattern) for pattern in patterns)
        )
        """Names of what stays at each site."""
        if not state.parameters.keys() - self.own:
            raise RunFailed(
                "federation: no parameter is shared, so that sites learn nothing of each other",
                hint="federation.share=['*'], or a pattern of what is to be shared",
            )

    def shared_of(self, module: nn.Module) -> State:
        """Return what of a module's state travels."""
        state = state_of(module)
        return State(self._but_own(state.parameters), self._but_own(state.buffers))

    def own_of(self, module: nn.Module) -> Arrays:
        """Return what of a module's state stays."""
        state = state_of(module)
        return {name: array for name, array in {**state.parameters, **state.buffers}.items() if name in self.own}

    def _but_own(self, arrays: Arrays) -> Arrays:
        return {name: array for name, array in arrays.items() if name not in self.own}


def _of_batchnorm(module: nn.Module, policy: BatchNormPolicy) -> set[str]:
    """Return the names of what batch normalisation keeps to itself."""
    if policy == "average":
        return set()
    found: set[str] = set()
    for prefix, part in module.named_modules():
        if isinstance(part, _BatchNorm):
            kept = [name for name, _ in part.named_buffers()]
            kept += [name for name, _ in part.named_parameters()] if policy == "local" else []
            found |= {f"{prefix}.{name}" if prefix else name for name in kept}
    return found
