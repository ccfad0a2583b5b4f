"""A federation's report shows every site, and nothing that a site sends can run in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ai4sdk.worker.federation_page import federation_section


def write(folder: Path, rounds: list[dict[str, Any]], sites: dict[str, dict[str, int]]) -> Path:
    (folder / "partition.json").write_text(json.dumps(sites))
    for number, record in enumerate([{}, *rounds]):
        path = folder / f"{number:05d}"
        path.mkdir()
        empty = {"number": number, "answered": {}, "refused": {}, "metrics": {}, "site_metrics": {}, "tries": 1}
        (path / "round.json").write_text(json.dumps({**empty, **record}))
    return folder


def test_it_shows_who_took_part_and_how_each_site_did(tmp_path: Path) -> None:
    rounds: list[dict[str, Any]] = [
        {"answered": {"a": 5, "b": 9}, "metrics": {"val_loss": 1.0}, "site_metrics": {"a": {"val_loss": 0.5}}},
        {"answered": {"a": 5}, "refused": {"b": "NaN"}, "metrics": {"val_loss": float("nan")}, "tries": 3},
    ]
    page = federation_section(write(tmp_path, rounds, {"a": {"x": 5}, "b": {"x": 4, "y": 5}}))
    assert "2 sites, 2 rounds, 3 answers, 1 refused; rounds were tried again 2 times" in page
    assert '<td>b</td><td class="n">9</td><td class="n">1</td><td class="n"><span title="NaN">1</span></td>' in page
    assert page.count("<svg") == 2
    assert "nan" not in page


def test_where_sites_missed_rounds_it_tells_what_rounds_with_and_without_them_did(tmp_path: Path) -> None:
    losses = [(1.0, "ab"), (0.5, "ab"), (0.4, "a")]
    rounds: list[dict[str, Any]] = [
        {"answered": dict.fromkeys(who, 5), "metrics": {"val_loss": loss}, "site_metrics": {"a": {"val_loss": loss}}}
        for loss, who in losses
    ]
    page = federation_section(write(tmp_path, rounds, {"a": {"x": 5}, "b": {"x": 4}}))
    assert "change of val_loss in a round with it/without" in page
    assert "-0.5/-0.1" in page


def test_names_and_reasons_that_sites_chose_are_only_text(tmp_path: Path) -> None:
    evil = '"><script>alert(1)</script>'
    rounds = [
        {"answered": {evil: 1}, "refused": {evil: evil}, "metrics": {evil: 1.0}, "site_metrics": {evil: {evil: 1.0}}}
    ]
    assert "<script>" not in federation_section(write(tmp_path, rounds, {evil: {evil: 1}}))


def test_a_run_that_is_no_federation_has_no_such_section(tmp_path: Path) -> None:
    assert federation_section(tmp_path) == ""
