"""How much what a federation gives away may tell about a site, or about a record."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from ai4sdk.spec.base import Section

PrivacyMode = Literal["central", "local", "record"]
Sampling = Literal["none", "poisson", "fixed"]


class Privacy(Section):
    """Differential privacy: what is clipped, how much noise is added, and what may be spent.

    ``epsilon`` and ``delta`` bound how much more likely anything that is seen becomes by what is protected: a whole
    site, or one record. They do not say that nothing can be learnt about the data as a whole.
    """

    mode: PrivacyMode
    """Who adds noise, and what is protected. ``central``: the server, which is trusted, to the sum of updates that it
    clipped; protects whole sites from everybody else. ``local``: each site, to its own clipped update; protects whole
    sites from the server, too, with far more noise. ``record``: each site, to every gradient (DP-SGD); protects one
    record of a site from everybody outside of it."""

    clipping_norm: float = Field(default=1.0, gt=0)
    """Largest L2 norm of an update or, with ``record``, of the gradient of one record; larger ones are scaled down."""

    noise_multiplier: float | None = Field(default=None, gt=0)
    """Standard deviation of the noise on a sum of updates (``local``: on one; ``record``: on the sum of a batch's
    gradients), divided by ``clipping_norm``; by default as much as ``epsilon`` needs."""

    epsilon: float | None = Field(default=None, gt=0)
    """Most that a run may spend."""

    delta: float = Field(default=1e-5, gt=0, lt=1)
    """Chance that is left out of the promise; it should be well below 1 divided by the number of what is protected."""

    budget: float | None = Field(default=None, gt=0)
    """Most epsilon that all runs together may spend on a dataset; nothing for no limit."""

    sampling: Sampling | None = None
    """What may be assumed of who is chosen for a round (``record``: for a batch), which nobody must know. ``none``:
    nothing, the safe choice, and the default but for ``record``; ``poisson``: each by itself, with the same chance
    (default for ``record``); ``fixed``: always as many, all of them equally likely."""

    accountant: Literal["pld", "rdp"] = "pld"
    """How epsilon is found: from privacy loss distributions, which is nearly exact, or by Rényi differential privacy,
    whose bound is some percent higher and that of most publications; ``fixed`` sampling needs the latter."""

    @model_validator(mode="before")
    @classmethod
    def _sampling_of_the_mode(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("sampling") is None:
            return {**data, "sampling": "poisson" if data.get("mode") == "record" else "none"}
        return data

    @model_validator(mode="after")
    def _can_be_promised(self) -> Self:
        if self.noise_multiplier is None and self.epsilon is None:
            raise ValueError("give noise_multiplier, or epsilon to have it found")
        if self.mode == "local" and self.sampling != "none":
            raise ValueError("with mode: local the server sees who takes part, so sampling must be none")
        if self.budget is not None and self.epsilon is not None and self.epsilon > self.budget:
            raise ValueError(f"epsilon: {self.epsilon:g} of one run is more than budget: {self.budget:g} of all runs")
        return self
