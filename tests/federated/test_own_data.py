"""Sites that have data of their own, rehearsed on one machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import ai4sdk
from ai4sdk.errors import ConfigError, DataError, RunFailed
from ai4sdk.privacy.budget import PrivacyLedger
from ai4sdk.runs.files import read_json
from ai4sdk.testing.helpers import weights

pytestmark = pytest.mark.slow

OWN = "++federation.sites={north: {dataset: {uri: north.csv}}, south: {dataset: {uri: south.csv}}}"


def run(*overrides: str) -> ai4sdk.Run:
    return ai4sdk.run("train", "tracking.kind=none", "training.mode=federated", "training.max_epochs=1", *overrides)


@pytest.fixture
def hospitals(project: Path) -> Path:
    """Return a project with files of two hospitals, which differ in what they hold."""
    for name, shift, rows in (("north", 0, 80), ("south", 40, 60)):
        lines = [f"{i % 7 + shift},{i % 5},{'no' if i % 2 else 'yes'}" for i in range(rows)]
        (project / f"{name}.csv").write_text("\n".join(["a,b,y", *lines]) + "\n")
    return project


def test_one_site_with_the_jobs_data_is_a_training_in_one_place(project: Path) -> None:
    alone = ai4sdk.run("train", "tracking.kind=none", "training.max_epochs=1")
    assert weights(run("++federation.sites={here: null}")) == weights(alone)


def test_samples_of_all_sites_are_prepared_alike_judged_together_and_packed_with_what_prepares_them(
    hospitals: Path,
) -> None:
    made = run(OWN)
    counts = read_json(made.paths.federation / "partition.json")
    assert {site: sum(classes.values()) for site, classes in counts.items()} == {"north": 56, "south": 42}
    assert read_json(made.paths.scores)["samples"] == 12 + 9
    model = ai4sdk.load_model(made.paths.package, trust_code=True)
    assert model.preprocessing is not None
    (a, _) = model.preprocessing.columns
    assert 10 < a.mean < 30, "between the sites', which are 3 and 43"
    assert len(model([{"a": 3, "b": 1}, {"a": 43, "b": 2}]).labels) == 2


def test_sites_that_scale_apart_give_other_weights_and_nothing_prepares_samples_of_all(hospitals: Path) -> None:
    together, apart = run(OWN), run(OWN, "++federation.scaling=apart")
    assert weights(apart) != weights(together)
    assert ai4sdk.load_model(apart.paths.package, trust_code=True).preprocessing is None
    plain = run(OWN, "dataset.standardize=false")
    assert weights(plain) == weights(run(OWN, "dataset.standardize=false", "++federation.scaling=apart"))
    with pytest.raises(ConfigError, match="one dataset is scaled before it is divided"):
        run("++federation.partition.sites=2", "++federation.scaling=apart")
    text = (hospitals / "south.csv").read_text()
    (hospitals / "south.csv").write_text(text.replace("yes", "maybe"))
    with pytest.raises((RunFailed, DataError), match="south and north differ in the classes"):
        run(OWN, "++federation.scaling=apart")


def test_a_site_trains_with_its_own_batches_learning_rate_and_length(hospitals: Path) -> None:
    same = weights(run(OWN))
    assert weights(run(OWN)) == same
    own = ("++federation.sites.north.local_epochs=2", "++federation.sites.north.dataset.loader.batch_size=4")
    for change in (*own, "++federation.sites.north.optimizer.lr=0.1"):
        assert weights(run(OWN, change)) != same
    still = run(OWN, "++federation.sites.north.optimizer.lr=0.0", "++federation.sites.south.optimizer.lr=0.0")
    first = ai4sdk.run("train", "tracking.kind=none", "optimizer.lr=0.0", "dataset.uri=north.csv")
    left, right = (load_file(made.paths.package / "weights.safetensors") for made in (still, first))
    for name, array in left.items():
        np.testing.assert_allclose(array, right[name], rtol=1e-6)


def test_what_each_sites_training_took_is_told_and_changes_nothing(hospitals: Path) -> None:
    made = run(OWN, "++hardware.core_watts=10")
    record = read_json(made.paths.federation / "00001" / "round.json")
    for site in ("north", "south"):
        cost = record["costs"][site]
        assert 0 < cost["cpu_seconds"] < 60
        assert cost["seconds"] > 0
        assert cost["joules"] == pytest.approx(10 * cost["cpu_seconds"], abs=0.02)
    assert "Wh" in made.paths.report.read_text()
    plain = run(OWN)
    assert weights(plain) == weights(made)
    assert "joules" not in read_json(plain.paths.federation / "00001" / "round.json")["costs"]["north"]


def test_each_dataset_has_its_own_account(hospitals: Path) -> None:
    made = run(OWN, "++federation.privacy={mode: record, epsilon: 8, delta: 1e-3}")
    spent = read_json(made.paths.federation / "privacy.json")["sites"]
    for site in ("north", "south"):
        fingerprint = made.plan.data[f"federation.sites.{site}.dataset"]["fingerprint"]
        (entry,) = PrivacyLedger(hospitals / "runs" / "privacy").entries(fingerprint)
        assert (entry.epsilon, entry.done) == (spent[site], True)


def test_sites_with_as_many_records_and_longer_rounds_need_more_noise(hospitals: Path) -> None:
    (hospitals / "south.csv").write_text((hospitals / "north.csv").read_text().replace("6,", "9,"))
    longer = "++federation.sites.south.local_epochs=3"
    made = run(OWN, longer, "++federation.privacy={mode: record, noise_multiplier: 1.5, delta: 1e-3}")
    counts = read_json(made.paths.federation / "partition.json")
    assert counts["north"] == counts["south"]
    spent = read_json(made.paths.federation / "privacy.json")["sites"]
    assert spent["south"] > 1.5 * spent["north"]


def test_sites_whose_data_are_not_alike_are_named(hospitals: Path) -> None:
    text = (hospitals / "south.csv").read_text()
    (hospitals / "south.csv").write_text(text.replace("yes", "maybe"))
    with pytest.raises((RunFailed, DataError), match="south and north differ in the classes: maybe, no and no, yes"):
        run(OWN)


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_on_flowers_ray_engine_the_weights_are_those_of_processes_here(
    hospitals: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    how = (OWN, "training.max_epochs=2", "++federation.batchnorm=local", "++federation.strategy=fedadam")
    there = run(*how, "++federation.engine=ray", "++federation.processes=2")
    assert weights(there) == weights(run(*how)) == weights(run(*how, "++federation.processes=1"))
    assert there.plan.digest == run(*how).plan.digest
