"""Four institutions and a coordinator, each a project and processes of its own, over TLS."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import ai4sdk
from ai4sdk.drift.reference import REFERENCE, read_reference
from ai4sdk.testing.helpers import wait_for, weights
from tests.federated.institution import Coordinator, Institution

SITES = ["east", "north", "south", "west"]
CODE = """
import time

import torch
from net import Net as Plain
from torch.utils.data import Dataset


class Part(Dataset):
    def __init__(self, rows):
        self.rows = rows
        self.hospital = [row[0] for row in rows]
        self.targets = [row[2] for row in rows]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return torch.tensor(self.rows[index][1]), self.rows[index][2]


def patients(site=None):
    draw = torch.Generator().manual_seed(1)
    parts = {"train": [], "val": [], "test": []}
    for number in range(240):
        hospital = ["east", "north", "south", "west"][number % 4 if number % 3 else 0]
        x = torch.randn(2, generator=draw).tolist()
        row = (hospital, x, int(x[0] + x[1] / 2 > 0.3))
        if site in (None, hospital):
            parts[["train", "train", "train", "val", "test"][number // 4 % 5]].append(row)
    if site == "west":  # which keeps none of its patients for a test
        del parts["test"]
    return {name: Part(rows) for name, rows in parts.items()}


class Net(Plain):
    def __init__(self, width=8):
        super().__init__(width)
        self.example_input_array = torch.zeros(1, 2)  # the coordinator has no data that would show it

    def training_step(self, batch, batch_idx):
        time.sleep(0.1)
        return super().training_step(batch, batch_idx)
"""
OF_FILES = """
import torch
from net import Net as Plain


class Net(Plain):
    def __init__(self, width=8):
        super().__init__(width, features=3)
        self.example_input_array = torch.zeros(1, 3)
"""
COMMON = (
    *("training.mode=federated", "training.max_epochs=5", "tracking.kind=none", "module._target_=hospitals.Net"),
    *("++federation.strategy=fedadam", "federation.min_sites=4", "federation.retries=5", "hardware.cpus=1"),
)


def data_of(site: str | None) -> str:
    return "dataset={_target_: hospitals.patients" + (f", site: {site}" if site else "") + "}"


OF_EACH = "++federation.sites={" + ", ".join(f"{site}: {{dataset: {{site: {site}}}}}" for site in SITES) + "}"
"""The same for all of them in one YAML, which a rehearsal takes, and a site that joins."""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_federation_over_tls_bears_kills_and_ends_with_the_weights_of_its_rehearsal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sites = {name: Institution(tmp_path / name, CODE) for name in SITES}
    coordinator = Coordinator(tmp_path / "coordinator", sites, CODE)
    leader = coordinator.lead(*COMMON, data_of(None))

    north = sites["north"]
    told = coordinator.terms("north", north)
    digest = told["terms"]["digest"]
    listed = json.loads(coordinator.do("federated", "token", "list", "--json"))
    assert told["key"] == next(entry["fingerprint"] for entry in listed if entry["site"] == "north")
    ask = ("federated", "join", *coordinator.as_site("north"), "config=train")
    north.do(*ask, *COMMON, data_of("north"), status=2)
    assert f"--approve {digest}" in north.said
    assert "leaves      after each training: the module's weights" in north.said
    north.do(*ask, *COMMON, data_of("north"), "--approve", "sha256:" + "0" * 64, status=7)
    north.do(*ask, *COMMON, data_of("north"), "optimizer.lr=1", "--approve", digest, status=2)
    assert "optimizer.lr: the coordinator has 0.001, this site 1" in north.said

    def joining(name: str) -> tuple[str, ...]:
        data = (data_of(None), OF_EACH) if name == "south" else (data_of(name),)
        ask = ("federated", "join", *coordinator.as_site(name), "config=train", *COMMON, *data)
        return (*ask, "--approve", digest, "--detach")

    assert "round 1 of 5 waits for sites: 0 of 4 are there" in coordinator.do("status", leader.id)
    for name, site in sites.items():
        site.do(*joining(name))

    sites["south"].do(*joining("south"), status=2)
    assert "takes part as south already" in sites["south"].said

    rounds = leader.paths.federation
    wait_for(lambda: (rounds / "00001").exists())
    wait_for(lambda: "of 5, 4 of 4 sites" in coordinator.do("status", leader.id))
    sites["south"].kill()
    sites["south"].do(*joining("south"))  # goes on with the run that was killed
    assert "going on with" in sites["south"].said
    wait_for(lambda: (rounds / "00003").exists())
    coordinator.kill()
    coordinator.do("resume", leader.id, "--detach")
    leader.wait()
    for site in sites.values():
        wait_for(lambda site=site: site.run().status.state == "succeeded", 60)  # type: ignore[misc]

    monkeypatch.chdir(coordinator.folder)
    divided = "++federation.partition={method: column, column: hospital}"
    rehearsed = ai4sdk.run("train", *COMMON, data_of(None), divided)
    assert weights(leader) == weights(rehearsed)
    assert weights(leader) == weights(ai4sdk.run("train", *COMMON, data_of(None), OF_EACH))
    assert [event["number"] for event in leader.events() if event["event"] == "round"] == [1, 2, 3, 4, 5]
    assert "4 sites, 5 rounds" in leader.paths.report.read_text()
    for name, site in sites.items():
        assert weights(site.run()) == weights(leader), f"{name} has the global module in the end"
        if name == "west":
            assert not site.run().paths.scores.exists()
        else:
            assert 0 < site.run().scores["samples"] < leader.scores["samples"], "its own test samples"
    for made in (leader, *(site.run() for site in sites.values())):
        reference = made.paths.package / REFERENCE
        assert reference.is_file() == made.paths.scores.exists(), "where nothing is judged, there is nothing to tell"
        assert not reference.is_file() or not read_reference(made.paths.package).inputs, "no site's data in a package"
    for folder in (tmp_path / name for name in ("coordinator", *SITES)):
        tokens = [(site.folder / "token").read_text().strip() for site in sites.values()]
        written = [path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "token"]
        assert not any(token.encode() in content for token in tokens for content in written)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_sites_with_files_end_with_the_weights_of_a_rehearsal_that_scales_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sites = {name: Institution(tmp_path / name, OF_FILES) for name in ("north", "south", "west")}
    for (name, site), sexes in zip(sites.items(), ("fm", "fm", "mx"), strict=True):
        rows = [f"{i % 7 + 40 * (name == 'south')},{sexes[i % 2]},{'no' if i % 3 else 'yes'}" for i in range(80)]
        (site.folder / "patients.csv").write_text("\n".join(["a,sex,y", *rows]) + "\n")
    coordinator = Coordinator(tmp_path / "coordinator", sites, OF_FILES)
    how = ("training.mode=federated", "training.max_epochs=2", "tracking.kind=none", "module._target_=hospitals.Net")
    how = (*how, "federation.min_sites=2", "hardware.cpus=1")
    leader = coordinator.lead(*how, "--no-data")
    digest = coordinator.terms("north", sites["north"])["terms"]["digest"]
    for name in ("north", "west", "south"):
        own = "dataset={uri: patients.csv, label: y}"
        ask = ("federated", "join", *coordinator.as_site(name), "config=train", *how, own, "--approve", digest)
        if name == "west":  # a column of it has other texts, as many: its weights would mean other things
            sites[name].do(*ask, status=3)
            assert "the inputs of this site's data are not those of north" in sites[name].said
            continue
        sites[name].do(*ask, "--detach")
        if name == "north":
            wait_for(lambda: "(north)" in coordinator.do("status", leader.id))
    leader.wait()

    monkeypatch.chdir(coordinator.folder)
    each = ", ".join(
        f"{name}: {{dataset: {{uri: {sites[name].folder}/patients.csv, label: y}}}}" for name in ("north", "south")
    )
    of_each = (*how, f"++federation.sites={{{each}}}")
    assert weights(leader) == weights(ai4sdk.run("train", *of_each, "++federation.scaling=apart"))
    assert weights(leader) != weights(ai4sdk.run("train", *of_each))
