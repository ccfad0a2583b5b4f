"""Sites with parts, or whole modules, of their own."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import ai4sdk
from ai4sdk.errors import ConfigError, RunFailed, RunInterrupted
from ai4sdk.runs.files import read_json
from ai4sdk.testing.helpers import wait_for, weights

pytestmark = pytest.mark.slow

NORMED = """
import time
import torch
from net import Net


class Normed(Net):
    def __init__(self, width=8, features=2, pause=0.0):
        super().__init__(width, features)
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(features, width), torch.nn.BatchNorm1d(width), torch.nn.Linear(width, 2)
        )
        self.pause = pause

    def training_step(self, batch, batch_idx):
        time.sleep(self.pause)
        return super().training_step(batch, batch_idx)
"""


@pytest.fixture(autouse=True)
def hospitals(project: Path) -> Path:
    """Return a project whose samples come from three hospitals that measure differently, and one of them judges so."""
    rows = [
        f"{i % 7 + 20 * (i % 4 == 0)},{i % 5},{'abbc'[i % 4]},{'no' if (i % 7 > 2) != (i % 4 == 3) else 'yes'}"
        for i in range(200)
    ]
    (project / "data.csv").write_text("\n".join(["a,b,hospital,y", *rows]) + "\n", encoding="utf-8")
    (project / "normed.py").write_text(NORMED, encoding="utf-8")
    return project


def run(*overrides: str, wait: bool = True) -> ai4sdk.Run:
    federated = ("training.mode=federated", "++federation.partition={method: column, column: hospital}")
    return ai4sdk.run("train", "tracking.kind=none", "module._target_=normed.Normed", *federated, *overrides, wait=wait)


def sent(of: ai4sdk.Run) -> set[str]:
    """Return the names of what travelled."""
    last = sorted(of.paths.federation.glob("*/state.safetensors"))[-1]
    return {name.partition("/")[2] for name in load_file(last)}


def kept(of: ai4sdk.Run, site: str) -> dict[str, np.ndarray]:
    return dict(load_file(sorted((of.paths.federation / "sites" / site).glob("*.safetensors"))[-1]))


def test_normalisation_that_is_local_never_leaves_its_site_and_sites_differ() -> None:
    whole = run("++federation.batchnorm=local", "++federation.processes=1")
    assert sent(whole) == {f"layers.{part}" for part in ("0.weight", "0.bias", "2.weight", "2.bias")}
    mean = "own/layers.1.running_mean"
    assert not np.allclose(kept(whole, "a")[mean], kept(whole, "b")[mean])

    counts = {
        site: sum(classes.values()) for site, classes in read_json(whole.paths.federation / "partition.json").items()
    }
    shares = {site: count / sum(counts.values()) for site, count in counts.items()}
    package = load_file(whole.paths.package / "weights.safetensors")
    expected = sum(kept(whole, site)[mean].astype("f8") * share for site, share in shares.items())
    assert np.allclose(package["layers.1.running_mean"], expected, rtol=1e-5)

    assert weights(run("++federation.batchnorm=local", "++federation.processes=3", "name=three")) == weights(whole)


def test_a_kill_in_the_middle_changes_nothing_of_what_sites_keep() -> None:
    how = ("++federation.share=['layers.0.*']", "++federation.personal={strength: 0.5}", "training.max_epochs=4")
    how = (*how, "++federation.strategy=scaffold")
    whole = run(*how)
    broken = run(*how, "++module.pause=0.02", "name=broken", wait=False)
    wait_for(lambda: (broken.paths.federation / "00002").exists())
    worker = next(event["pid"] for event in broken.events() if event["event"] == "task started")
    os.kill(worker, signal.SIGKILL)
    with pytest.raises(RunInterrupted):
        broken.wait()
    broken.resume()
    assert weights(broken) == weights(whole)
    for site in "abc":
        one, other = kept(broken, site), kept(whole, site)
        assert {name.partition("/")[0] for name in one} == {"own", "control", "personal"}
        assert {name: array.tobytes() for name, array in one.items()} == {
            name: array.tobytes() for name, array in other.items()
        }


def test_a_module_of_its_own_is_trained_and_judged_at_each_site() -> None:
    plain = (
        "module._target_=net.Net",
        "optimizer=sgd",
        "optimizer.momentum=0",
        "optimizer.lr=0.05",
        "training.max_epochs=8",
    )
    free = run(*plain, "++federation.personal={strength: 0}")
    bound = run(*plain, "++federation.personal={strength: 10}", "name=bound")
    metrics = read_json(free.paths.federation / "00002/round.json")["metrics"]
    assert {"val_loss", "personal/val_loss"} <= metrics.keys()
    without = run(*plain, "name=without")
    assert weights(free) == weights(without), "the global module does not depend on it"

    def apart(of: ai4sdk.Run) -> float:
        own = [kept(of, site)["personal/layers.0.weight"] for site in "abc"]
        return float(np.ptp(own, axis=0).max())

    assert 0 < apart(bound) < apart(free) / 2


def test_what_cannot_be_is_told_before_it_runs_or_with_what_there_is() -> None:
    with pytest.raises(ConfigError, match="the server has not all of the module"):
        run("++federation.batchnorm=local", "++federation.evaluate=server")
    with pytest.raises(ConfigError, match="SCAFFOLD also sends how gradients changed"):
        run("++federation.strategy=scaffold", "++federation.privacy={mode: local, epsilon: 8}")
    with pytest.raises(RunFailed, match=r"'head.\*' fits no parameter that is trained"):
        run("++federation.share=['head.*']")
