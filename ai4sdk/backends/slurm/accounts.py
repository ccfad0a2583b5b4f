"""Which accounts and qualities of service a user may have, and what a plan names beside them. Pure, as `offers` is.

Only what Slurm is sure to refuse is a problem: a cluster takes any name unless it enforces its accounting.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from ai4sdk.config.keys import nearest
from ai4sdk.errors import Problem
from ai4sdk.planning.plan import Plan

__all__ = ["FORMAT", "Accounting", "Association", "problems", "read_associations"]

FORMAT = "Cluster,DefaultAccount,Account,Partition,QOS"
"""What sacctmgr is asked for."""


@dataclass(frozen=True)
class Association:
    """An account that the user may charge, all names in lower case as Slurm heeds no case.

    Parameters
    ----------
    cluster
        Where.
    default
        Whether it is what jobs are charged to that name none.
    account
        Its name.
    partition
        The only partition it may be used in; empty if it may be in all.
    qualities
        Qualities of service its jobs may have.
    """

    cluster: str
    default: bool
    account: str
    partition: str
    qualities: frozenset[str]


@dataclass(frozen=True)
class Accounting:
    """What is known of the user's accounts; of what is not known nothing is said.

    Parameters
    ----------
    associations
        Of this cluster.
    qualities
        All qualities of service there are.
    enforced
        What Slurm sees to (``AccountingStorageEnforce``), such as ``associations`` and ``qos``.
    """

    associations: Sequence[Association] = ()
    qualities: frozenset[str] = frozenset()
    enforced: frozenset[str] = field(default=frozenset())


def read_associations(answer: str, cluster: str) -> list[Association]:
    """Read what sacctmgr answers with FORMAT; other clusters' rows, and lines not understood, are left out."""
    found = []
    for line in answer.lower().splitlines():
        fields = line.split("|")
        if len(fields) != 5 or not fields[2] or fields[0] != cluster.lower():
            continue
        of, default, account, partition, qualities = fields
        names = frozenset(name for name in qualities.split(",") if name)
        found.append(Association(of, account == default, account, partition, names))
    return found


def problems(
    plan: Plan, known: Accounting, partitions: Collection[str] = (), account: str | None = None
) -> list[Problem]:
    """Return what is wrong with the account and the quality of service that a plan names.

    Parameters
    ----------
    plan
        What is to be submitted.
    known
        What the user may have.
    partitions
        Where the job will be if the plan names no partition; empty if that is not known.
    account
        Account that the user's environment names; the plan's own comes first.
    """
    options = plan.job["backend"]
    if not known.associations or "associations" not in known.enforced or "clusters" in options["directives"]:
        return []
    asked = options["partition"]
    wanted = {name.lower() for name in (asked.split(",") if asked else partitions)}
    return [*_account(options["account"], known, wanted), *_quality(options, known, wanted, account)]


def _account(name: str | None, known: Accounting, wanted: set[str]) -> Iterator[Problem]:
    if name is None:
        return
    accounts = sorted({one.account for one in known.associations})
    if name.lower() not in accounts:
        near = nearest(name, accounts)
        yield Problem(
            f"you may use no account {name} on this cluster; there are {_listed(accounts)}",
            key="backend.account",
            fix=f"backend.account={near}" if near else None,
        )
        return
    places = {one.partition for one in known.associations if one.account == name.lower()}
    if wanted and "" not in places and not places & wanted:
        where = ", ".join(sorted(wanted))
        yield Problem(
            f"account {name} may not be used in partition {where}, only in {_listed(places)}",
            key="backend.account",
            fix=f"backend.partition={min(places)}",
        )


def _quality(
    options: dict[str, str | None], known: Accounting, wanted: set[str], account: str | None
) -> Iterator[Problem]:
    name = options["qos"]
    if name is None or "qos" not in known.enforced:
        return
    charged = (options["account"] or account or "").lower()
    rows = [one for one in known.associations if (one.account == charged if charged else one.default)]
    rows = [one for one in rows if not wanted or one.partition in ("", *wanted)]
    allowed = frozenset().union(*(one.qualities for one in rows))
    if not allowed or name.lower() in allowed:
        return
    there = f"account {rows[0].account} may have {_listed(allowed)}"
    others = {one.account for one in known.associations if name.lower() in one.qualities}
    if others:
        yield Problem(
            f"quality of service {name} is for {_listed(others)}; {there}",
            key="backend.qos",
            fix=f"backend.account={min(others)}",
        )
        return
    near = nearest(name, allowed)
    what = "you may not have" if name.lower() in known.qualities else "the cluster has no"
    yield Problem(
        f"{what} quality of service {name}; {there}", key="backend.qos", fix=f"backend.qos={near}" if near else None
    )


def _listed(names: Collection[str]) -> str:
    listed = sorted(names)
    return ", ".join(listed[:8]) + (", …" if len(listed) > 8 else "")
