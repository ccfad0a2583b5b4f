"""What a run of a federation spends of its data's privacy: reserved before it begins, settled when it has ended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ai4sdk.data.loaders import SplitData
from ai4sdk.errors import ConfigError, RunFailed
from ai4sdk.federated.dp_sgd import PrivateRecords
from ai4sdk.privacy.accountant import Mechanism, promise
from ai4sdk.privacy.budget import Entry, PrivacyLedger
from ai4sdk.privacy.spending import Account, mechanism, record_account, spends
from ai4sdk.runs.files import write_json
from ai4sdk.runs.layout import privacy_folder
from ai4sdk.spec import Job
from ai4sdk.spec.privacy import Privacy
from ai4sdk.worker.phases import Work

__all__ = ["Spending", "tell_promised"]

_Spent = tuple[Mechanism, float]
"""What was done, and the epsilon that it spent."""


class Spending:
    """Accounts for a run that has the data of some sites.

    Parameters
    ----------
    work
        The task of the run.
    privacy
        The section.
    sites
        Site → its data.

    Raises
    ------
    RunFailed
        If no noise is enough for a site that protects its records, or the noise that is said is not.
    """

    def __init__(self, work: Work, privacy: Privacy, sites: Mapping[str, SplitData]) -> None:
        self._work, self._privacy, self._sites = work, privacy, list(sites)
        self._ledger = PrivacyLedger(privacy_folder(work.paths.root.parent))
        self._accounts = _accounts(work.job, privacy, sites) if privacy.mode == "record" else {}

    def private_records(self, secret: bytes) -> PrivateRecords | None:
        """Return what records are protected with, where they are."""
        if not self._accounts:
            return None
        noise = {site: account.mechanism.noise_multiplier for site, account in self._accounts.items()}
        return PrivateRecords(self._privacy, noise, secret)

    def reserve(self, rounds: int) -> None:
        """Reserve what so many rounds may spend; refuse more than there is."""
        budget, entries = self._privacy.budget, self._entries(self._spent(rounds), rounds, done=False)
        if budget is not None:  # of all datasets before one is written down
            for fingerprint, entry in entries:
                self._ledger.refuse_over(budget, fingerprint, entry)
        for fingerprint, entry in entries:
            self._ledger.write(fingerprint, entry, budget=budget)

    def settle(self, rounds: int) -> None:
        """Write down what so many rounds spent, and what that means.

        They count for each site, whether or not its answer did: what was sent was seen. A round that was tried again
        asks the same of a site, which answers the same.
        """
        spent = self._spent(rounds)
        for fingerprint, entry in self._entries(spent, rounds, done=True):
            self._ledger.write(fingerprint, entry)
        how, epsilon = _most(spent.values())
        each = {site: epsilon for site, (_, epsilon) in spent.items()} if self._accounts else {}
        _tell(self._work, self._privacy, rounds, how, epsilon, each)

    def _spent(self, rounds: int) -> dict[str, _Spent]:
        """Return what was done at each site, and the epsilon that it spent."""
        if not self._accounts:
            return dict.fromkeys(self._sites, (mechanism(self._privacy), spends(self._privacy, rounds)))
        return {
            site: (account.mechanism, account.spends(self._privacy, rounds)) for site, account in self._accounts.items()
        }

    def _entries(self, spent: Mapping[str, _Spent], rounds: int, *, done: bool) -> list[tuple[str, Entry]]:
        """Return each dataset's fingerprint and what is spent of it."""
        of: dict[str, list[str]] = {}
        data = self._work.plan.data
        for site in self._sites:
            entry = data.get(f"federation.sites.{site}.dataset") or data["dataset"]
            of.setdefault(entry["fingerprint"], []).append(site)
        most = {fingerprint: _most(spent[site] for site in sites) for fingerprint, sites in of.items()}
        run, delta = self._work.paths.id, self._privacy.delta
        return [
            (fingerprint, Entry(run, how.unit, how.to_dict(), rounds, epsilon, delta, done))
            for fingerprint, (how, epsilon) in most.items()
        ]


def _most(spent: Iterable[_Spent]) -> _Spent:
    return max(spent, key=lambda one: one[1])


def tell_promised(work: Work, privacy: Privacy, rounds: int) -> None:
    """Write down what rounds mean for sites whose data are not here; what they spent is in their own records."""
    if privacy.mode == "record":
        said = {"epsilon": privacy.epsilon, "delta": privacy.delta, "rounds": rounds}
        means = "Each site finds its noise and accounts for its own records; its own run tells what it spent."
        write_json(work.paths.federation / "privacy.json", {**said, "means": [means]})
        return
    how = mechanism(privacy)
    _tell(work, privacy, rounds, how, spends(privacy, rounds), {})


def _tell(work: Work, privacy: Privacy, rounds: int, how: Mechanism, epsilon: float, each: Mapping[str, float]) -> None:
    said: dict[str, Any] = {"epsilon": epsilon, "delta": privacy.delta, "rounds": rounds}
    if each:
        said["sites"] = dict(each)
    said |= {"means": promise(how, epsilon, privacy.delta), "mechanism": how.to_dict()}
    write_json(work.paths.federation / "privacy.json", said)
    work.records.event("privacy", epsilon=epsilon, delta=privacy.delta)


def _accounts(job: Job, privacy: Privacy, sites: Mapping[str, SplitData]) -> dict[str, Account]:
    """Return what each site does that protects its records, with the noise that it needs."""
    rounds = job.federation.rounds
    assert rounds is not None  # planning writes it out
    found: dict[str, Account] = {}
    alike: dict[tuple[int, int, int], Account] = {}
    for site, data in sites.items():
        samples: int = len(data.parts["train"])  # type: ignore[arg-type] # a dataset with a length, as was looked at
        size = min(data.loader.batch_size, samples)
        federation = job.at(site).federation
        steps = federation.local_steps or (federation.local_epochs or 1) * -(-samples // size)
        try:
            if (samples, size, steps) not in alike:
                alike[samples, size, steps] = record_account(privacy, samples, size, steps, rounds)
        except ConfigError as error:
            problem = error.problems[0]
            raise RunFailed(f"{site}, with {samples} records: {problem.message}", hint=problem.fix) from None
        found[site] = alike[samples, size, steps]
    return found
