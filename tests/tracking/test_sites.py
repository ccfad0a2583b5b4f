"""The sites of a federation in MLflow: a child run each, once, with their figures, however often shipping is killed."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from ai4sdk.runs.files import write_json
from ai4sdk.tracking import pending, sync
from ai4sdk.tracking.sites import MOST_SITES

from .conftest import STARTED, Run, Server, client_of, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.engine]

SITES = ["hospital-a", "klinik/ö", "c"]


def make_round(run: Run, number: int, sites: list[str], missing: str | None = None) -> None:
    """Write the record of a round as a server does; ``missing`` answered nothing that could be used."""
    answered = [site for site in sites if site != missing] if number else []
    folder = run.paths.federation / f"{number:05d}"
    folder.mkdir(parents=True)
    record = {
        "number": number,
        "up": sites if number else [],
        "sites": sites if number else [],
        "answered": dict.fromkeys(answered, 10 * number),
        "refused": {missing: "it sent no finite numbers"} if number and missing else {},
        "metrics": {},
        "site_metrics": {site: {"val_loss": 1 / (number + index)} for index, site in enumerate(answered)},
        "traffic": {site: [1000, 900 if site in answered else 0] for site in sites} if number else {},
    }
    write_json(folder / "round.json", record)
    os.utime(folder / "round.json", (STARTED + number, STARTED + number))


def children(client: Any, run: Run) -> dict[str, Any]:
    found = client.search_runs(
        [run.ledger["experiment_id"]],
        f"tags.`mlflow.parentRunId` = '{run.ledger['run_id']}'",
        max_results=1000,
    )
    named = {one.data.tags["ai4sdk.site"]: one for one in found}
    assert len(named) == len(found), "a site has two runs"
    return named


def expected(sites: list[str], site: str, rounds: int) -> list[tuple[int, float]]:
    return [(number, 1 / (number + sites.index(site))) for number in range(1, rounds + 1)]


def values(client: Any, child: Any, name: str) -> list[tuple[int, float]]:
    return sorted((point.step, point.value) for point in client.get_metric_history(child.info.run_id, name))


def test_each_site_has_a_run_under_the_federations_with_its_figures_by_round(make_run: Any, server: Server) -> None:
    run = make_run(uri=server.uri, experiment="sites")
    for number in range(5):
        make_round(run, number, SITES, missing="c" if number == 3 else None)
    run.end()
    run.ship()
    assert run.ledger["finished"], run.said
    client = client_of(server.uri)
    found = children(client, run)
    assert set(found) == set(SITES)
    child = found["klinik/ö"]
    assert child.info.run_name == "klinik/ö"
    assert child.info.status == "FINISHED"
    assert child.info.end_time == int((STARTED + 60) * 1000)
    assert values(client, child, "val_loss") == expected(SITES, "klinik/ö", 4)
    assert values(client, child, "traffic/down_bytes") == [(number, 1000.0) for number in range(1, 5)]
    assert values(client, found["c"], "took_part") == [(1, 1.0), (2, 1.0), (3, 0.0), (4, 1.0)]
    assert values(client, found["c"], "refused") == [(1, 0.0), (2, 0.0), (3, 1.0), (4, 0.0)]
    assert values(client, found["c"], "samples") == [(1, 10.0), (2, 20.0), (4, 40.0)]
    assert pending(run.paths.root) == 0


def test_a_federation_that_is_resumed_goes_on_in_the_same_runs(make_run: Any, server: Server) -> None:
    run = make_run(uri=server.uri, experiment="sites")
    make_round(run, 0, SITES)
    make_round(run, 1, SITES)
    run.end("interrupted")
    run.ship()
    client = client_of(server.uri)
    before = {site: child.info.run_id for site, child in children(client, run).items()}
    assert {child.info.status for child in children(client, run).values()} == {"KILLED"}
    run.say("running", attempt=2)
    make_round(run, 2, SITES)
    run.start_shipper()
    wait_until(
        lambda: {child.info.status for child in children(client, run).values()} == {"RUNNING"}, "the sites go on"
    )
    run.end(attempt=2)
    wait_until(lambda: run.ledger.get("finished"), "the end")
    after = children(client, run)
    assert {site: child.info.run_id for site, child in after.items()} == before
    assert {child.info.status for child in after.values()} == {"FINISHED"}
    assert values(client, after["hospital-a"], "val_loss") == expected(SITES, "hospital-a", 2)


def test_killing_the_shipper_again_and_again_doubles_no_site_and_no_value(make_run: Any, server: Server) -> None:
    run = make_run(uri=server.uri, experiment="sites")
    sites = [f"site-{number}" for number in range(12)]
    make_round(run, 0, sites)
    for number in range(1, 6):
        make_round(run, number, sites)
        process = run.start_shipper()
        wait_until(lambda: run.ledger.get("run_id"), "a run")
        time.sleep(2.0 + 0.3 * number)
        process.send_signal(signal.SIGKILL)
        process.wait()
    run.paths.tracking.unlink()  # and even what it knew of them is lost
    run.end()
    report = sync(run.paths.root)
    assert (report.pending, report.problem) == (0, None)
    client = client_of(server.uri)
    found = children(client, run)
    assert set(found) == set(sites)
    for site in sites:
        assert values(client, found[site], "val_loss") == expected(sites, site, 5)


def test_many_sites_have_no_runs_of_their_own(make_run: Any, tmp_path: Path) -> None:
    run = make_run()
    sites = [f"site-{number}" for number in range(MOST_SITES + 1)]
    for number in range(3):
        make_round(run, number, sites)
    run.end()
    run.ship()
    assert run.ledger["finished"], run.said
    assert run.ledger["sites"] == {}
    assert run.said.count("no runs of their own") == 1
    assert pending(run.paths.root) == 0
