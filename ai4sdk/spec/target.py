"""A class or function of the user's, named in YAML as Hydra names it."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field

from ai4sdk.spec.base import Section

HYDRA_KEYS = frozenset({"_target_", "_args_", "_partial_", "_convert_", "_recursive_"})
"""Keys that tell Hydra how to call a target; every other key is an argument of it."""


class Target(Section):
    """Something to import and call, with the arguments to give it.

    Any key beside ``_target_`` is an argument. That the target exists and takes these arguments is checked at
    plan time by reading its source.
    """

    model_config = ConfigDict(extra="allow")

    target: str = Field(alias="_target_", min_length=1, pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$|^\$\{.*\}$")
    """Dotted path of a class or function, such as ``torch.optim.AdamW``."""

    @property
    def arguments(self) -> dict[str, Any]:
        """The keyword arguments, without Hydra's own keys."""
        return {key: value for key, value in (self.model_extra or {}).items() if key not in HYDRA_KEYS}

    def as_config(self) -> dict[str, Any]:
        """Return the mapping as written, ready for ``hydra.utils.instantiate``."""
        return {"_target_": self.target, **(self.model_extra or {})}
