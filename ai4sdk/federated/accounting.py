"""What a run of a federation spends of its data's privacy: reserved before it begins, settled when it has ended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
        budget = self._privacy.budget
        if budget is not None:
            for fingerprint, entry in self._entries(rounds, done=False):
                self._ledger.refuse_over(budget, fingerprint, entry)
        for fingerprint, entry in self._entries(rounds, done=False):
            self._ledger.write(fingerprint, entry, budget=budget)

    def settle(self, rounds: int) -> None:
        """Write down what so many rounds spent, and what that means.

        They count for each site, whether or not its answer did: what was sent was seen. A round that was tried again
        asks the same of a site, which answers the same.
        """
        for fingerprint, entry in self._entries(rounds, done=True):
            self._ledger.write(fingerprint, entry)
        how, epsilon, each = self._spent(rounds, self._sites)
        _tell(self._work, self._privacy, rounds, how, epsilon, each)

    def _spent(self, rounds: int, sites: Sequence[str]) -> tuple[Mechanism, float, dict[str, float]]:
        """Return what was done, what it spent and, of sites that spend each for itself, what each did."""
        if not self._accounts:
            return mechanism(self._privacy), spends(self._privacy, rounds), {}
        each = {site: self._accounts[site].spends(self._privacy, rounds) for site in sites}
        worst = max(each, key=lambda site: each[site])
        return self._accounts[worst].mechanism, each[worst], each

    def _entries(self, rounds: int, *, done: bool) -> Iterator[tuple[str, Entry]]:
        """Yield each dataset's fingerprint and what is spent of it."""
        of: dict[str, list[str]] = {}
        data = self._work.plan.data
        for site in self._sites:
            entry = data.get(f"federation.sites.{site}.dataset") or data["dataset"]
            of.setdefault(entry["fingerprint"], []).append(site)
        for fingerprint, sites in of.items():
            how, epsilon, _ = self._spent(rounds, sites)
            yield (
                fingerprint,
                Entry(self._work.paths.id, how.unit, how.to_dict(), rounds, epsilon, self._privacy.delta, done),
            )


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
    alike: dict[int, Account] = {}
    for site, data in sites.items():
        samples: int = len(data.parts["train"])  # type: ignore[arg-type] # a dataset with a length, as was looked at
        size = min(data.loader.batch_size, samples)
        federation = job.at(site).federation
        steps = federation.local_steps or (federation.local_epochs or 1) * -(-samples // size)
        try:
            if samples not in alike:
                alike[samples] = record_account(privacy, samples, size, steps, rounds)
        except ConfigError as error:
            problem = error.problems[0]
            raise RunFailed(f"{site}, with {samples} records: {problem.message}", hint=problem.fix) from None
        found[site] = alike[samples]
    return found
