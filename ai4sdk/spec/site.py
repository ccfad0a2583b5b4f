"""What a site of a federation has of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from ai4sdk.spec.base import Section, field_that_changes_nothing
from ai4sdk.spec.dataset import Dataset
from ai4sdk.spec.hardware import Hardware
from ai4sdk.spec.target import Target

__all__ = ["Site", "written_out"]

_MISSING = "???"


class Site(Section):
    """What a site has of its own. Each section stands beside that of the job, which holds for what it leaves out."""

    dataset: Dataset
    """Its samples."""

    optimizer: Target | None = None
    """How it trains, where that is not as everywhere, such as ``lr`` alone."""

    local_epochs: int | None = Field(default=None, ge=1)
    """Epochs that it trains in a round, in place of ``federation.local_epochs``."""

    local_steps: int | None = Field(default=None, ge=1)
    """Optimizer steps that it trains in a round, in place of ``federation.local_steps``."""

    hardware: Hardware | None = field_that_changes_nothing(default=None)
    """What it trains on when it joins; a rehearsal has the hardware of the job for all."""


def written_out(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a job with all that its sites have, written out at each of them.

    Parameters
    ----------
    values
        A job as plain values, right or wrong; what is no mapping where one should be is left as it is.

    Returns
    -------
    dict
        The same values where there are no sites. Else each site has all of its dataset, and all of those other
        sections that it says something of. A job whose own dataset does not say where it lies has the first site's,
        for what is told from data, such as ``${data:features}``.
    """
    federation = values.get("federation")
    sites = federation.get("sites") if isinstance(federation, dict) else None
    if not isinstance(sites, dict) or not sites:
        return dict(values)
    made = {name: _site(values, {} if site is None else site) for name, site in sites.items()}
    whole = {**values, "federation": {**federation, "sites": made}}  # type: ignore[dict-item] # a mapping, as it has sites
    first = next(iter(made.values()))
    if _lies_nowhere(values.get("dataset")) and isinstance(first, dict) and not _lies_nowhere(first.get("dataset")):
        whole["dataset"] = first["dataset"]
    return whole


def _site(values: Mapping[str, Any], site: Any) -> Any:
    if not isinstance(site, dict):
        return site
    made = {**site, "dataset": _dataset(values.get("dataset"), site.get("dataset"))}
    for name in ("optimizer", "hardware"):
        if site.get(name) is not None:
            made[name] = _beside(values.get(name), site[name])
    return made


def _dataset(common: Any, own: Any) -> Any:
    if isinstance(common, dict) and isinstance(own, dict) and "uri" in own:
        common = {name: value for name, value in common.items() if name != "fingerprint"}  # of other files
    return common if own is None else _beside(common, own)


def _beside(common: Any, own: Any) -> Any:
    """Return a section with what it leaves out; one that calls something else has its own arguments alone."""
    if not (isinstance(common, dict) and isinstance(own, dict)):
        return own
    if "_target_" in own and own["_target_"] != common.get("_target_"):
        return own
    return {**common, **{name: _beside(common.get(name), value) for name, value in own.items()}}


def _lies_nowhere(dataset: Any) -> bool:
    return dataset is None or (
        isinstance(dataset, dict) and "_target_" not in dataset and dataset.get("uri", _MISSING) == _MISSING
    )
