"""What a plan settles that a job leaves open, or may say in several ways."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ai4sdk.errors import ConfigError, DataError, EnvironmentFault, NotFound
from ai4sdk.planning.checks import Finding
from ai4sdk.runs.layout import privacy_folder
from ai4sdk.spec import Job
from ai4sdk.spec.availability import TraceAvailability
from ai4sdk.spec.privacy import Privacy
from ai4sdk.spec.rounds import rounds_of
from ai4sdk.spec.scale import scale_of

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
        fingerprints = [entry["fingerprint"] for entry in data.values()]
        findings += _spend(job.federation.privacy, federation, fingerprints, privacy_folder(Path(project, job.runs)))
    return findings


def _spend(privacy: Privacy, federation: dict[str, Any], fingerprints: list[str], folder: Path) -> list[Finding]:
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
            if entry is not None:
                for fingerprint in fingerprints:
                    PrivacyLedger(folder).refuse_over(privacy.budget, fingerprint, entry)
    except ConfigError as error:
        return [Finding(f"federation.privacy.{found.key}", found.message, found.fix) for found in error.problems]
    except DataError as error:
        return [Finding("federation.privacy.budget", error.message, error.hint)]
    except EnvironmentFault as error:
        return [Finding("federation.privacy", error.message, error.hint)]
    federation["privacy"] = privacy.model_dump(mode="json", by_alias=True)
    return []
