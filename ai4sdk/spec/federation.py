"""How a module learns at several sites that share no data."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from ai4sdk.spec.availability import AlwaysAvailable, Availability
from ai4sdk.spec.base import Section, field_that_changes_nothing
from ai4sdk.spec.deployment import SITE_NAME, Join, Listen
from ai4sdk.spec.partition import Partition
from ai4sdk.spec.privacy import Privacy
from ai4sdk.spec.site import Site
from ai4sdk.spec.target import Target

STRATEGIES = {
    "fedavg": "flwr.serverapp.strategy.FedAvg",
    "fedavgm": "flwr.serverapp.strategy.FedAvgM",
    "fedprox": "flwr.serverapp.strategy.FedProx",
    "fedadam": "flwr.serverapp.strategy.FedAdam",
    "fedyogi": "flwr.serverapp.strategy.FedYogi",
    "fedadagrad": "flwr.serverapp.strategy.FedAdagrad",
    "fedmedian": "flwr.serverapp.strategy.FedMedian",
    "fedtrimmedavg": "flwr.serverapp.strategy.FedTrimmedAvg",
    "krum": "flwr.serverapp.strategy.Krum",
    "multikrum": "flwr.serverapp.strategy.MultiKrum",
    "bulyan": "flwr.serverapp.strategy.Bulyan",
    "qfedavg": "flwr.serverapp.strategy.QFedAvg",
    "scaffold": "ai4sdk.federated.scaffold.Scaffold",
}
"""Strategies that may be called by a short name."""


class Strategy(Target):
    """How what sites send is made into one module, with the arguments of the strategy beside its name."""

    target: str = Field(alias="_target_", min_length=1, pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$|^\$\{.*\}$")
    """A short name, or the dotted path of a class that derives from ``flwr.serverapp.strategy.Strategy``."""

    @model_validator(mode="before")
    @classmethod
    def _written_out(cls, data: Any) -> Any:
        """Replace a short name by what it stands for."""
        if isinstance(data, str):
            data = {"_target_": data}
        if not isinstance(data, dict) or not isinstance(name := data.get("_target_"), str):
            return data
        if name.isidentifier() and name.lower() not in STRATEGIES:
            near = get_close_matches(name.lower(), STRATEGIES, n=1)
            meant = f"did you mean {near[0]}? There" if near else "there"
            raise ValueError(f"no strategy is called {name}; {meant} are {', '.join(STRATEGIES)}, and dotted paths")
        return {**data, "_target_": STRATEGIES.get(name.lower(), name)}


class Personal(Section):
    """A module of its own that each site trains beside the global one (Ditto, Li et al. 2021, arXiv:2012.04221)."""

    strength: float = Field(default=0.1, ge=0)
    """Strength of the pull of its weights towards the global ones, lambda in the paper; with 0 it learns alone."""


class Late(Section):
    """How answers that come after their round count. Their sites are asked nothing else until then."""

    rounds: int = Field(default=3, ge=1)
    """Rounds after its own in which an answer still counts."""

    exponent: float = Field(default=0.5, ge=0)
    """An answer that comes n rounds late counts as ``(1 + n) ** -exponent`` of its samples, so that weights of long ago
    move those of now less. FedBuff has 0.5 (Nguyen et al. 2022, arXiv:2106.06639)."""


class Federation(Section):
    """Rounds of training at sites and aggregation by a server; used with ``training.mode: federated``.

    A site trains as a training in one place would: ``training.max_epochs`` (or ``max_steps``) is the whole length, and
    a round is a part of it. Learning-rate schedules go on from round to round.
    """

    partition: Partition | None = None
    """How one dataset is divided among sites, to rehearse a federation on this machine."""

    sites: dict[Annotated[str, Field(pattern=SITE_NAME, max_length=64)], Site] = {}
    """Sites that have data of their own, by name, in place of ``partition``: rehearsed on this machine, and the same
    sections are what they join with. The samples for evaluation are those of all sites."""

    scaling: Literal["together", "apart"] = "together"
    """How a rehearsal scales numbers in files of ``sites``: ``together``, by the training samples of all of them; or
    ``apart``, each site by its own, as sites do that join, so that the weights are theirs."""

    listen: Listen | None = field_that_changes_nothing(default=None)
    """Where the coordinator of real sites waits for them, in place of ``partition``."""

    join: Join | None = field_that_changes_nothing(default=None)
    """How a site takes part in the federation of a coordinator elsewhere, in place of ``partition``."""

    rounds: int | None = Field(default=None, ge=1)
    """Rounds; nothing for as many as ``training.max_epochs`` or ``max_steps`` has of them."""

    local_epochs: int | None = Field(default=1, ge=1)
    """Epochs that a site trains in a round."""

    local_steps: int | None = Field(default=None, ge=1)
    """Optimizer steps that a site trains in a round, in place of ``local_epochs``."""

    strategy: Strategy = Field(default={"_target_": "fedavg"}, validate_default=True)
    """How what sites send is made into one module."""

    share: list[str] = Field(default=["*"], min_length=1)
    """Patterns of the names of parameters and buffers that travel, such as ``backbone.*``. Others stay at each site,
    which trains them for itself. Those that ``training.freeze`` freezes never travel."""

    batchnorm: Literal["average", "local", "local_statistics"] = "average"
    """What becomes of batch normalisation: ``average`` treats its weights like all others and averages its statistics;
    with ``local`` both stay at each site (FedBN), with ``local_statistics`` the statistics do (SiloBN)."""

    personal: Personal | None = None
    """Each site also trains a module of its own, pulled towards the global one (Ditto). Nothing for none."""

    compression: Literal["none", "float16", "int8"] = "none"
    """How what sites send is made smaller: the change of each weight in 16 bits, or in 8 with the largest change of
    each array beside it, rounded up or down by chance. What goes to the sites stays whole."""

    fraction: float = Field(default=1.0, gt=0, le=1)
    """Share of the sites that train in a round, chosen anew each time."""

    min_sites: int = Field(default=1, ge=1)
    """Answers that a round needs at least."""

    retries: int = Field(default=2, ge=0)
    """How often a round with too few answers is tried again before the federation fails."""

    late: Late | None = None
    """What becomes of answers that come after their round: nothing discards them; else their change of the weights is
    added in the round in which they come."""

    enough: int | None = Field(default=None, ge=1)
    """Answers of real sites with which a round ends, whoever is still training; nothing waits for all of them, or for
    ``federation.listen.deadline``. With ``late`` this is a buffer as FedBuff has it."""

    slow: dict[str, Annotated[int, Field(ge=1)]] = {}
    """Sites of a rehearsal that answer late, and by how many rounds, to see what it does to the result."""

    availability: Availability = Field(default_factory=AlwaysAvailable)
    """Which sites of a rehearsal can be reached in a round, to see what it does to the result. A round that has too few
    of them is tried again in the next one's time."""

    privacy: Privacy | None = None
    """Differential privacy: noise on what sites or the server give away, and what it may cost. Nothing for none."""

    evaluate: Literal["sites", "server", "both", "none"] = "sites"
    """Who validates the global module after a round: sites, each on its own validation samples, with the mean weighted
    by their number; the server on all of them, in which case metrics begin with ``server/``; or both."""

    max_update_norm: float | None = Field(default=None, gt=0)
    """Largest change of the weights (L2 norm) that is accepted from a site; larger ones are refused."""

    engine: Literal["processes", "ray"] = field_that_changes_nothing(default="processes")
    """What trains the sites of a rehearsal: processes of this machine, or actors of Ray, which the environment variable
    ``RAY_ADDRESS`` may name a cluster for. The weights do not depend on it."""

    processes: int | None = field_that_changes_nothing(default=None, ge=1)
    """Processes that train the sites of a rehearsal; nothing for as many as there are sites and ``hardware.cpus``. The
    weights do not depend on it: a site has its share of the CPUs, and at least one, however many train at once."""

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.local_epochs is None) == (self.local_steps is None):
            raise ValueError("a round is either local_epochs or local_steps long; give one, and null for the other")
        return self

    @property
    def rehearsed(self) -> dict[str, Site]:
        """Sites with data of their own that are rehearsed here."""
        return self.sites if self.listen is None and self.join is None else {}

    @property
    def shares_all(self) -> bool:
        """Whether all that is trained travels."""
        return "*" in self.share and self.batchnorm == "average"
