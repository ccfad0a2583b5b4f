"""What a cluster offers, and what a plan asks for that it does not have. Pure: sinfo's answer comes from `client`.

Only what Slurm could never run is a problem; where in doubt nothing is said, and sbatch has the last word.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ai4sdk.config.keys import nearest
from ai4sdk.errors import Problem
from ai4sdk.planning.plan import Plan
from ai4sdk.spec.units import format_size, format_span

__all__ = ["FORMAT", "Offer", "problems", "read_offers", "read_span"]

FORMAT = "%P|%l|%D|%c|%m|%d|%G|%f"
"""What sinfo is asked for; features stand last, for only they could hold a bar."""

_ELSEWHERE = ("clusters", "reservation")
"""Options of sbatch with which a job is not bound to what the partitions here offer."""


@dataclass(frozen=True)
class Offer:
    """Nodes of a partition that are alike.

    Parameters
    ----------
    partition
        Its name.
    default
        Whether jobs that name no partition go there.
    limit
        Longest time, in seconds, a job may take.
    nodes
        How many there are.
    cpus, memory, disk
        Of each node; sizes in bytes.
    gres
        Name and model in lower case → how many a node has; the model is empty where the cluster names none.
    features
        What `backend.constraint` may name.
    """

    partition: str
    default: bool
    limit: float
    nodes: int
    cpus: int
    memory: int
    disk: int
    gres: Mapping[tuple[str, str], int]
    features: frozenset[str]


def read_offers(answer: str) -> list[Offer]:
    """Read what ``sinfo --exact --format=FORMAT`` answers; lines that are not understood are left out."""
    offers = []
    for line in answer.splitlines():
        fields = line.split("|", 7)
        if len(fields) < 8 or not all(field.isdecimal() for field in fields[2:6]):
            continue
        name, limit, nodes, cpus, memory, disk, gres, features = fields
        offers.append(
            Offer(
                name.removesuffix("*"),
                name.endswith("*"),
                read_span(limit),
                int(nodes),
                int(cpus),
                int(memory) * 2**20,
                int(disk) * 2**20,
                _read_gres(gres),
                frozenset() if features == "(null)" else frozenset(features.split(",")),
            )
        )
    return offers


def read_span(text: str) -> float:
    """Read a limit as Slurm writes it, such as ``1-02:03:04`` or ``30:00``; one that is no time bounds nothing."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text)
    if match is None:
        return math.inf
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def problems(plan: Plan, offers: Sequence[Offer], default: str | None = None) -> list[Problem]:
    """Return everything a plan asks for that the cluster does not have.

    Parameters
    ----------
    plan
        What is to be submitted.
    offers
        What the cluster has; of nothing nothing is said.
    default
        Partition that the user's environment names; the plan's own comes first.
    """
    options = plan.job["backend"]
    if not offers or any(name in options["directives"] for name in _ELSEWHERE):
        return []
    names = {offer.partition for offer in offers}
    found: list[Problem] = []
    for name in (options["partition"] or "").split(","):
        if name and name not in names:
            found.append(_unknown("partition", "backend.partition", name, names))
    found += _features(options["constraint"], offers)
    wanted = set((options["partition"] or default or "").split(",")) - {""}
    ours = [offer for offer in offers if (offer.partition in wanted if wanted else offer.default)]
    # Of a wrong partition's nodes nothing can be said; those of all partitions tell what there is at most.
    return found + list(_resources(plan, ours or list(offers)))


def _features(constraint: str | None, offers: Iterable[Offer]) -> Iterator[Problem]:
    known = frozenset().union(*(offer.features for offer in offers))
    for word in re.split(r"[&|,()\[\]]+", constraint or ""):
        name = word.partition("*")[0].lstrip("!")
        if name and name not in known:
            yield _unknown("feature", "backend.constraint", name, known)


def _resources(plan: Plan, offers: Sequence[Offer]) -> Iterator[Problem]:
    where = "partition " + ", ".join(dict.fromkeys(offer.partition for offer in offers))
    tasks, options = plan.tasks, plan.job["backend"]
    most = max(offer.cpus for offer in offers)
    if (cpus := max(task.cpus for task in tasks)) > most:
        yield _too_much("hardware.cpus", f"{cpus} CPUs a node", where, f"{most}", f"{most}")
    for key, asked, size in (
        ("hardware.memory", max(task.memory or 0 for task in tasks), max(offer.memory for offer in offers)),
        ("hardware.disk", max(task.disk or 0 for task in tasks), max(offer.disk for offer in offers)),
    ):
        if asked > size:
            what = f"{format_size(asked)} of {key.partition('.')[2]} a node"
            yield _too_much(key, what, where, format_size(size), f"{size // 2**20}MiB" if size else "null")
    sizes = {name: sum(o.nodes for o in offers if o.partition == name) for name in {o.partition for o in offers}}
    if (nodes := max(task.nodes for task in tasks)) > (most := max(sizes.values())):
        yield _too_much("hardware.nodes", f"{nodes} nodes", where, f"{most}", f"{most}")
    limit = max(offer.limit for offer in offers)
    # A quality of service may lift a partition's limit.
    if options["qos"] is None and (time := sum(task.wall_time for task in tasks if task.wall_time)) > limit:
        yield _too_much("hardware.wall_time", format_span(time), where, format_span(limit), f"{limit:.0f}s")
    if gpus := max(task.gpus for task in tasks):
        yield from _gpus(gpus, options["gres"], plan.job["hardware"]["gpu_model"], offers, where)


def _gpus(count: int, gres: str, model: str | None, offers: Sequence[Offer], where: str) -> Iterator[Problem]:
    gres, _, kind = gres.partition(":")
    names = {name for offer in offers for name, _ in offer.gres}
    if gres.lower() not in names:
        yield _unknown("generic resource", "backend.gres", gres, names)
        return
    if kind:  # a model within backend.gres is sbatch's to judge
        return
    models = {kind for offer in offers for name, kind in offer.gres if name == gres.lower()}
    asked = (model or "").replace(" ", "_").lower()
    if asked and asked not in models:
        yield _unknown("GPU model", "hardware.gpu_model", model or "", models - {""})
        return
    most = max(
        sum(number for (name, kind), number in offer.gres.items() if name == gres.lower() and asked in ("", kind))
        for offer in offers
    )
    if count > most:
        yield _too_much("hardware.gpus", f"{count} GPUs a node", where, f"{most}", f"{most}")


def _read_gres(text: str) -> dict[tuple[str, str], int]:
    """Read a node's resources, such as ``gpu:A100:2(S:0-1),shard:8``."""
    found: dict[tuple[str, str], int] = {}
    for item in re.sub(r"\([^)]*\)", "", text).split(","):
        name, *kind, count = item.lower().split(":") if ":" in item else (item.lower(), "1")
        if name and not count.isdecimal():  # a model without a number is one, such as gpu:a100
            kind, count = [count], "1"
        if name:
            key = (name, ":".join(kind))
            found[key] = found.get(key, 0) + int(count)
    return found


def _unknown(what: str, key: str, value: str, known: Iterable[str]) -> Problem:
    listed = sorted(known)
    near = nearest(value, listed)
    there = f"there are {', '.join(listed[:8])}{', …' if len(listed) > 8 else ''}" if listed else "there are none"
    return Problem(f"the cluster has no {what} {value}; {there}", key=key, fix=f"{key}={near}" if near else None)


def _too_much(key: str, asked: str, where: str, most: str, fix: str) -> Problem:
    return Problem(f"{asked} can never be had in {where}: at most {most}", key=key, fix=f"{key}={fix}")
