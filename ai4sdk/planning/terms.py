"""What a coordinator and its sites agree to: all that decides what a site trains and sends, and nothing of its own.

Both make it from their own copy of the config and the code, so that equal digests mean that the site runs what it has
on its own disk, and that this is what the coordinator counts on. No code travels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ai4sdk.planning.code import take_snapshot
from ai4sdk.planning.plan import digest_of, results_of
from ai4sdk.spec import Job

__all__ = ["differences", "terms_of", "what_leaves"]

_OF_COORDINATOR = ("checkpoint", "early_stopping", "init_from")
"""Keys of ``training`` that a site has nothing to do with."""

_AGREED = (
    *("rounds", "local_epochs", "local_steps", "strategy", "share", "batchnorm", "personal", "fraction", "min_sites"),
    *("evaluate", "max_update_norm", "privacy", "compression"),
)
"""Keys of ``federation`` that are agreed to."""

_OF_SITES = ("optimizer", "local_epochs", "local_steps")
"""Keys of a site in ``federation.sites`` that are agreed to, as they change what it sends."""


def terms_of(job: Job, search: Sequence[Path]) -> dict[str, Any]:
    """Return the terms of a federation.

    Parameters
    ----------
    job
        The job, settled.
    search
        Folders that the user's code is imported from.

    Returns
    -------
    dict
        JSON values; ``digest`` covers the others.
    """
    decided = results_of(job)
    federation = {name: decided["federation"][name] for name in _AGREED}
    if federation["privacy"] is not None:  # what may be spent is between each site and its own data
        federation["privacy"] = {name: value for name, value in federation["privacy"].items() if name != "budget"}
    federation["sites"] = {
        name: {key: value for key, value in site.items() if key in _OF_SITES and value is not None}
        for name, site in decided["federation"]["sites"].items()
        if any(site[key] is not None for key in _OF_SITES)
    }
    training = {name: value for name, value in decided["training"].items() if name not in _OF_COORDINATOR}
    run_by_sites = {name: decided[name] for name in ("module", "optimizer", "scheduler")}
    terms: dict[str, Any] = {
        "seed": job.seed,
        "task": job.task,
        **run_by_sites,
        "training": training,
        "federation": federation,
        "code": take_snapshot(_targets(run_by_sites), search).digest,
    }
    return {**terms, "digest": digest_of(terms)}


def _targets(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["_target_"]] if isinstance(value.get("_target_"), str) else []
        return own + [name for child in value.values() for name in _targets(child)]
    return [name for child in value for name in _targets(child)] if isinstance(value, list) else []


def differences(theirs: Mapping[str, Any], ours: Mapping[str, Any], key: str = "") -> list[str]:
    """Return a line for each value in which two terms differ, without their digests."""
    found = []
    for name in sorted({*theirs, *ours} - {"digest"}):
        path, one, other = f"{key}.{name}".lstrip("."), theirs.get(name), ours.get(name)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            found += differences(one, other, path)
        elif one != other:
            found.append(f"{path}: the coordinator has {one!r}, this site {other!r}")
    return found


def what_leaves(terms: Mapping[str, Any]) -> list[str]:
    """Return sentences that say what a site sends under some terms."""
    federation, privacy = terms["federation"], terms["federation"]["privacy"]
    shared = "all of its parameters and buffers" if federation["share"] == ["*"] else ", ".join(federation["share"])
    lines = [f"after each training: the module's weights ({shared}) as trained on the site's data"]
    if federation["batchnorm"] != "average":
        lines.append(f"not sent: of batch normalisation, what {federation['batchnorm']!r} keeps at the site")
    lines.append("the number of its training and validation samples, and the metrics that the module logs")
    lines.append("a digest of the names of its classes and inputs, to tell whether they are those of other sites")
    lines.append("how long it trained, and what processor time (with hardware.core_watts: energy) that took")
    if federation["strategy"]["_target_"].rpartition(".")[2] == "Scaffold":
        lines.append("the change of its control variate: means of gradients")
    lines.append("never: samples, labels, files, code, or what an error says (only its kind)")
    if privacy is None:
        lines.append("privacy: no noise is added, so weights tell the coordinator something of the data")
    elif privacy["mode"] == "record":
        norm, delta = privacy["clipping_norm"], privacy["delta"]
        most = f"at most epsilon {privacy['epsilon']:g}" if privacy["epsilon"] else "noise as agreed"
        lines.append(
            f"privacy: gradients of single records clipped to {norm:g}, with noise added by this site as it trains: "
            f"{most} at delta {delta:g} for a record, over all rounds"
        )
    else:
        who = "this site, before it sends" if privacy["mode"] == "local" else "the coordinator, which is trusted"
        noise, norm = privacy["noise_multiplier"], privacy["clipping_norm"]
        lines.append(f"privacy: updates clipped to {norm:g}, noise of {noise:.3g} times that, added by {who}")
    return lines
