"""What a plan settles that a job leaves open, or may say in several ways."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ai4sdk.errors import ConfigError, DataError, EnvironmentFault, NotFound
from ai4sdk.planning.checks import Finding
from ai4sdk.runs.layout import privacy_folder
from ai4sdk.spec import Job
from ai4sdk.spec.availability import TraceAvailability
from ai4sdk.spec.privacy import Privacy
from ai4sdk.spec.rounds import rounds_of
from ai4sdk.spec.scale import scale_of

if TYPE_CHECKING:
    from ai4sdk.privacy.budget import Entry, PrivacyLedger

__all__ = ["settle"]


def settle(
    job: Job, values: dict[str, Any], project: Path, data: Mapping[str, Mapping[str, Any]]
) -> tuple[Job, list[Finding]]:
    """Write out processes, rounds, traces and noise, so that a plan holds all that decides.

    Parameters
    ----------
    job
        The job, without mistakes so far.
    values
        The same as plain values, which are changed.
    project
        Folder that relative paths start from.
    data
        What is known of its data.

    Returns
    -------
    Job, list
        The job with all that, and what cannot be settled.
    """
    findings: list[Finding] = []
    if job.function is not None:
        return job, findings
    if job.training.is_shared:
        values["training"]["processes"] = scale_of(job).processes
    elif job.training.mode == "federated":
        findings = _settle_federation(job, values["federation"], project, data)
    else:
        return job, findings
    return Job.model_validate(values), findings


def _settle_federation(
    job: Job, federation: dict[str, Any], project: Path, data: Mapping[str, Mapping[str, Any]]
) -> list[Finding]:
    findings = []
    federation["rounds"] = rounds_of(job)
    if isinstance(how := job.federation.availability, TraceAvailability):
        from ai4sdk.data.trace import read_trace

        try:
            federation["availability"] = read_trace(how, project).model_dump(mode="json", by_alias=True)
        except (DataError, NotFound) as error:
            findings.append(Finding("federation.availability.file", error.message, error.hint))
    if job.federation.privacy is not None:
        found = {name: entry["fingerprint"] for name, entry in data.items()}
        findings += _spend(job.federation.privacy, federation, found, privacy_folder(Path(project, job.runs)))
    return findings


def _spend(
    privacy: Privacy, federation: dict[str, Any], fingerprints: Mapping[str, str], folder: Path
) -> list[Finding]:
    """Find the noise, and refuse what the budget of a dataset does not allow."""
    from ai4sdk.privacy.budget import Entry, PrivacyLedger
    from ai4sdk.privacy.spending import mechanism, spends, with_noise

    rounds = federation["rounds"]
    entry: Entry | None = None
    try:
        if privacy.mode != "record":
            privacy = with_noise(privacy, rounds)
        if privacy.budget is not None:
            if privacy.mode != "record":
                entry = Entry("", "site", mechanism(privacy).to_dict(), rounds, spends(privacy, rounds), privacy.delta)
            elif privacy.epsilon is not None:  # each site finds its noise, which depends on how many records it has
                entry = Entry("", "record", {}, rounds, privacy.epsilon, privacy.delta)
            over = _over(PrivacyLedger(folder), privacy.budget, fingerprints, entry) if entry is not None else []
            if over:
                return over
    except ConfigError as error:
        return [Finding(f"federation.privacy.{found.key}", found.message, found.fix) for found in error.problems]
    except EnvironmentFault as error:
        return [Finding("federation.privacy", error.message, error.hint)]
    federation["privacy"] = privacy.model_dump(mode="json", by_alias=True)
    return []


def _over(ledger: PrivacyLedger, budget: float, fingerprints: Mapping[str, str], entry: Entry) -> list[Finding]:
    """Find the datasets whose budget is not enough, each by the key that names it where there are several."""
    found = []
    for name, fingerprint in fingerprints.items():
        try:
            ledger.refuse_over(budget, fingerprint, entry)
        except DataError as error:
            whose = f"{name}: " if len(fingerprints) > 1 else ""
            found.append(Finding("federation.privacy.budget", whose + error.message, error.hint))
    return found
