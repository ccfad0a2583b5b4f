"""How one dataset is divided among sites, to rehearse a federation with data that lies in one place."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from ai4sdk.spec.base import Section

PartitionMethod = Literal["iid", "dirichlet", "label", "quantity", "column"]

_OPTIONS = {
    "alpha": ("dirichlet", "quantity"),
    "sizes": ("quantity",),
    "classes": ("label",),
    "column": ("column",),
    "groups": ("column",),
}
"""Methods that read each option."""

_DEFAULTS = {"alpha": 0.5, "sizes": "dirichlet", "classes": 2}


class Partition(Section):
    """How the samples of one dataset are divided among sites."""

    method: PartitionMethod = "iid"
    """``iid`` at random, in equal parts; ``dirichlet`` gives each class to the sites in shares drawn from a Dirichlet
    distribution; ``label`` gives each site samples of a few classes only; ``quantity`` gives sites random samples, but
    some more than others; ``column`` follows a column of the data, such as the hospital."""

    sites: int | None = Field(default=None, ge=1)
    """Number of sites. With ``column`` each value is a site without it, and values are put together into so many sites
    of about the same size with it."""

    alpha: float | None = Field(default=None, gt=0, le=1e6)
    """With ``dirichlet`` and ``quantity``, how alike sites are: 100 is nearly the same for all, 0.1 very uneven; 0.5 by
    default. With ``sizes: power``, how fast sizes fall: 1 to a half, a third, a quarter."""

    sizes: Literal["dirichlet", "power"] | None = None
    """With ``quantity``: shares drawn from a Dirichlet distribution (default), or the n-th site gets a share
    proportional to ``n ** -alpha``."""

    classes: int | None = Field(default=None, ge=1)
    """With ``label``, classes of each site; 2 by default."""

    column: str | None = None
    """With ``column``, its name."""

    groups: dict[str, Annotated[list[str | int], Field(min_length=1)]] | None = Field(default=None, min_length=1)
    """With ``column``, the sites and the values of each, such as ``{north: [a, b], south: [c]}``."""

    seed: int = Field(default=0, ge=0)
    """Seed of what is random, apart from the job's so that repeated trainings see the same sites."""

    min_samples: int = Field(default=1, ge=1)
    """Fewest samples of a site. Uneven shares are drawn again where a site would get fewer."""

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_method(cls, data: Any) -> Any:
        """Fill in what the method reads and nobody set, so that a plan shows it."""
        if not isinstance(data, dict):
            return data
        method = data.get("method", "iid")
        read = {key: value for key, value in _DEFAULTS.items() if method in _OPTIONS[key]}
        return {**data, **{key: value for key, value in read.items() if data.get(key) is None}}

    @model_validator(mode="after")
    def _options_fit_the_method(self) -> Self:
        for option, methods in _OPTIONS.items():
            if getattr(self, option) is not None and self.method not in methods:
                raise ValueError(f"{option} is for method: {' or '.join(methods)}, not {self.method}")
        if self.method != "column" and self.sites is None:
            raise ValueError(f"method: {self.method} needs sites, their number")
        if self.method == "column" and self.column is None:
            raise ValueError("method: column needs column, its name")
        if self.groups is not None:
            if self.sites is not None:
                raise ValueError("give either sites, their number, or groups, which names them")
            site_of: dict[str, str] = {}
            for site, values in self.groups.items():
                for value in map(str, values):
                    if value in site_of:
                        raise ValueError(f"groups names {value!r} twice: in {site_of[value]} and in {site}")
                    site_of[value] = site
        return self
