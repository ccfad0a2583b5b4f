"""Runs on a real Slurm with an accounting database: accounts, qualities of service, and what is counted."""

from __future__ import annotations

import pytest

import ai4sdk
from ai4sdk.backends.slurm import client
from ai4sdk.runs.state import State
from ai4sdk.testing.helpers import command, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.slurm, pytest.mark.timeout(300)]

JOB = ("tracking.kind=none", "training.max_epochs=2", "+backend={kind: slurm}")
WRONG = [
    ("plan", ("++backend.account=fsh",), ["no account fsh", "deep, fish, root", "→ backend.account=fish"]),
    ("run", ("++backend.account=fsh",), ["no account fsh", "deep, fish, root", "→ backend.account=fish"]),
    ("run", ("++backend.account=deep",), ["only in urgent", "→ backend.partition=urgent"]),
    ("run", ("++backend.qos=shrt",), ["no quality of service shrt", "→ backend.qos=short"]),
    ("run", ("++backend.qos=long",), ["is for deep", "→ backend.account=deep"]),
]


def jobs(cluster) -> set[str]:
    return set(cluster.ask("sacct", "--noheader", "--allocations", "--format=JobID").split())


@pytest.mark.parametrize(("verb", "overrides", "words"), WRONG)
def test_a_wrong_account_or_quality_is_refused_before_anything_is_submitted(
    accounting, project, verb, overrides, words
):
    before = jobs(accounting)
    refused = command(verb, "config=train", *JOB, *overrides)
    assert refused.returncode == 2, refused.stderr
    assert refused.stderr.startswith(f"1 problem in the config:\ncommand line: {overrides[0]}\n")
    for word in words:
        assert word in refused.stderr
    assert not list(project.glob("runs/2*"))
    assert jobs(accounting) == before, "Slurm has not heard of it"


def test_a_run_is_charged_to_its_account_and_what_it_took_is_in_its_record(accounting, project):
    options = ("++backend.account=deep", "++backend.partition=urgent", "++backend.qos=long")
    planned = command("plan", "config=train", *JOB, *options)
    assert planned.returncode == 0, planned.stderr
    assert "cluster    checked with sinfo and sacctmgr\n" in planned.stdout
    run = ai4sdk.run("train", *JOB, *options, wait=False).wait(timeout=200)
    job = run.status.job
    wait_for(lambda: client.completed([job])[job].state == "COMPLETED", seconds=30)
    form = "--format=Account,Partition,QOS,State,ElapsedRaw"
    told = accounting.ask("sacct", "--noheader", "--parsable2", "--allocations", form, "--jobs", job).strip().split("|")
    assert told[:4] == ["deep", "urgent", "long", "COMPLETED"]
    counted = run.status.extra["accounting"]
    assert set(counted) == {"waited", "elapsed", "max_rss", "cpu_time", "cpu_efficiency"}
    assert abs(counted["elapsed"] - float(told[4])) < 3
    assert counted["max_rss"] > 50 * 2**20
    assert 0 < counted["cpu_efficiency"] <= 1.1


def test_points_of_a_study_are_compared_before_they_are_submitted(accounting, project):
    before = jobs(accounting)
    words = ("--wait", "config=train", "tracking.kind=none", "+backend={kind: slurm}", "training.max_epochs=1,2")
    refused = command("run", "-m", *words, "++backend.qos=long")
    assert refused.returncode == 2, refused.stderr
    assert "is for deep" in refused.stderr
    assert not list(project.glob("runs/2*"))
    later = command("run", "-m", *words, "hardware.cpus=1,64")
    assert later.returncode != 0
    assert "hardware.cpus: 64 CPUs a node can never be had in partition main: at most 4" in later.stdout + later.stderr
    assert jobs(accounting) == before


def test_a_cluster_that_enforces_no_accounting_is_asked_and_takes_any_name(slurm, project):
    names = ("++backend.account=any", "++backend.qos=other", "++backend.directives={hold: true}")
    planned = command("plan", "config=train", *JOB, *names)
    assert planned.returncode == 0, planned.stderr
    assert "checked with sinfo; backend.account and backend.qos unchecked" in planned.stdout
    run = ai4sdk.run("train", *JOB, *names, wait=False)
    assert run.cancel() is State.CANCELLED


def test_a_plan_is_made_without_a_cluster_and_says_so(project, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    planned = command("plan", "config=train", *JOB)
    assert planned.returncode == 0, planned.stderr
    assert "cluster    nothing was checked" in planned.stdout
