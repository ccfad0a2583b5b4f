"""What a cluster has against plans: its own commands are asked side by side, and `offers` and `accounts` decide."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ai4sdk.backends.slurm import accounts, client, offers
from ai4sdk.errors import Ai4Error, Problem
from ai4sdk.planning.plan import Plan

__all__ = ["Cluster", "ask"]


@dataclass(frozen=True)
class Cluster:
    """What a cluster said of itself.

    Parameters
    ----------
    offered
        Its nodes; empty if it said nothing that is understood.
    accounting
        What the user's accounts are; ``None`` if nobody asked, or there was no answer.
    """

    offered: Sequence[offers.Offer]
    accounting: accounts.Accounting | None = None

    @property
    def accounting_enforced(self) -> bool:
        """Whether accounts matter, and are known."""
        known = self.accounting
        return known is not None and bool(known.associations) and "associations" in known.enforced

    @property
    def asked(self) -> str:
        """Names of the commands whose answers count; empty if none does."""
        answered = {"sinfo": bool(self.offered), "sacctmgr": self.accounting_enforced}
        return " and ".join(name for name, did in answered.items() if did)

    def problems(self, plan: Plan) -> list[Problem]:
        """Return everything a plan asks for that it can never have here."""
        partition = client.of_user("partition")
        found = offers.problems(plan, self.offered, partition)
        if self.accounting is not None:
            default = [partition] if partition else [one.partition for one in self.offered if one.default]
            found += accounts.problems(plan, self.accounting, default, client.of_user("account"))
        return found


def ask(*plans: Plan, patience: float | None = None) -> Cluster:
    """Ask a cluster what it has; for the accounting database, which is slow to answer, only plans that name accounts.

    Parameters
    ----------
    plans
        What is to be submitted.
    patience
        Seconds to wait for an answer.

    Raises
    ------
    NotAnswering
        If the controller cannot be reached.
    """
    named = {key for plan in plans for key in ("account", "qos") if plan.job["backend"][key] is not None}
    if not named:
        return Cluster(offers.read_offers(client.offered(offers.FORMAT, patience)))
    with ThreadPoolExecutor() as pool:
        offered = pool.submit(client.offered, offers.FORMAT, patience)
        settings = pool.submit(client.settings, patience)
        associations = pool.submit(client.associations, accounts.FORMAT, patience)
        qualities = pool.submit(client.qualities, patience) if "qos" in named else None
        nodes = offers.read_offers(offered.result())
        try:
            said = settings.result()
            rows = accounts.read_associations(associations.result(), said["ClusterName"])
            names = frozenset(qualities.result().lower().split()) if qualities else frozenset()
        except (Ai4Error, KeyError):  # no accounting, or none that users may look into
            return Cluster(nodes)
    enforced = frozenset(said.get("AccountingStorageEnforce", "").lower().split(","))
    return Cluster(nodes, accounts.Accounting(rows, names, enforced - {"", "none", "(null)"}))
