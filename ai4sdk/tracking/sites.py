"""Ships the sites of a federation: each is a child of the federation's run, with its figures and never its data."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ai4sdk.runs.files import read_json
from ai4sdk.runs.state import RunState
from ai4sdk.tracking.ledger import Ledger
from ai4sdk.tracking.names import ValidNames
from ai4sdk.tracking.recorder import RUN_TAG, STATUS, Recorder
from ai4sdk.tracking.settings import KIND_TAG, PARENT_TAG
from ai4sdk.tracking.tail import Point

__all__ = ["MOST_SITES", "SITE_TAG", "SitesShipper", "unsent_rounds"]

log = logging.getLogger(__name__)

MOST_SITES = 50
"""Sites that have a run each; a federation of more is told of by its own run, its report and its rounds."""

SITE_TAG = "ai4sdk.site"


class SitesShipper:
    """Writes what the rounds of a federation tell of each site into MLflow. All of it may be repeated.

    Parameters
    ----------
    recorder
        Of the federation's run.
    ledger
        What was shipped; ``sites`` and ``rounds`` are changed as things arrive, and written by the caller.
    folder
        The run's ``federation/``.
    """

    def __init__(self, recorder: Recorder, ledger: Ledger, folder: Path) -> None:
        self._recorder, self._ledger, self._folder = recorder, ledger, folder

    def send(self) -> None:
        """Send the rounds that have been made since."""
        if self._ledger.ending is not None:  # the federation goes on
            for run in self._ledger.sites.values():
                self._recorder.client.update_run(run, status="RUNNING")
        for record, time in _rounds(self._folder, self._ledger.rounds):
            sites = _sites_of(record)
            if len(self._ledger.sites.keys() | sites) > MOST_SITES:
                if record["number"] == 1:
                    log.info("more than %d sites: they have no runs of their own in MLflow", MOST_SITES)
            else:
                for site in sites:
                    names = ValidNames()
                    figures = sorted(_figures(record, site).items())
                    points = [Point(names(name), value, time, int(record["number"])) for name, value in figures]
                    self._recorder.send(points, run_id=self._run_of(site, time))
            self._ledger.rounds = int(record["number"]) + 1

    def end(self, state: RunState) -> None:
        """Say that the federation has ended."""
        ended = int(state.ended * 1000) if state.ended else None
        for run in self._ledger.sites.values():
            self._recorder.client.set_terminated(run, STATUS[state.state], ended)

    def _run_of(self, site: str, time: int) -> str:
        """Return MLflow's id of a site's run, which is found or made."""
        if site not in self._ledger.sites:
            client, settings = self._recorder.client, self._recorder.settings
            parent = self._recorder.run_id
            tags = {RUN_TAG: f"{settings.identity}/{site}", KIND_TAG: "site", SITE_TAG: site, PARENT_TAG: parent}
            found = client.search_runs(
                [self._ledger.experiment_id], filter_string=f"tags.`{PARENT_TAG}` = '{parent}'", max_results=1000
            )
            run = next((one for one in found if one.data.tags.get(SITE_TAG) == site), None)
            if run is None:
                run = client.create_run(self._ledger.experiment_id, start_time=time, tags=tags, run_name=site)
            self._ledger.sites[site] = run.info.run_id
        return self._ledger.sites[site]


def unsent_rounds(folder: Path, ledger: Ledger) -> int:
    """Count the rounds of a federation beyond those that have arrived."""
    return len(_paths(folder)[ledger.rounds :])


def _rounds(folder: Path, first: int) -> Iterator[tuple[Mapping[str, Any], int]]:
    """Yield records of rounds, and when they were written in milliseconds since 1970."""
    for path in _paths(folder)[first:]:
        file = path / "round.json"
        yield read_json(file), int(file.stat().st_mtime * 1000)


def _paths(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.name.isdecimal())
    except OSError:
        return []


def _sites_of(record: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys([*record["up"], *record["sites"], *record["site_metrics"]]))


def _figures(record: Mapping[str, Any], site: str) -> dict[str, float]:
    """Return what a round tells of a site: what it measured, how many samples counted, bytes and what it cost."""
    figures = {name: float(value) for name, value in record["site_metrics"].get(site, {}).items()}
    figures["took_part"] = float(site in record["answered"])
    figures["refused"] = float(site in record["refused"])
    if site in record["answered"]:
        figures["samples"] = float(record["answered"][site])
    if traffic := record.get("traffic", {}).get(site):
        figures["traffic/down_bytes"], figures["traffic/up_bytes"] = map(float, traffic)
    figures |= {f"cost/{name}": value for name, value in record.get("costs", {}).get(site, {}).items()}
    return {name: value for name, value in figures.items() if math.isfinite(value)}
