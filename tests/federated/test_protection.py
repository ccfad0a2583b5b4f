"""What leaves a site, and what the server aggregates, are clipped and carry the noise that was accounted for."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import RecordDict

from ai4sdk.errors import RunFailed
from ai4sdk.federated.answers import ARRAYS
from ai4sdk.federated.inline import InlineGrid
from ai4sdk.federated.ledger import Ledger
from ai4sdk.federated.protection import protect_own, refuse_buffers
from ai4sdk.federated.rounds import Server
from ai4sdk.federated.strategies import make_strategy
from ai4sdk.federated.weights import State, to_record
from ai4sdk.spec.federation import Federation
from ai4sdk.spec.privacy import Privacy
from tests.federated.noop import INITIAL, app_of, bits

COUNT = 100_000
START = State({"w": np.zeros(COUNT)}, {})
SECRET = bytes(32)


def aggregated(folder: Path, updates: list[float], secret: bytes = SECRET, **privacy: Any) -> Any:
    """Let each site change every weight by a number, and return what one round makes of it."""

    def change(site: str, number: int, answer: RecordDict) -> None:
        answer[ARRAYS] = to_record({"w": np.full(COUNT, updates[int(site.rpartition("-")[2]) - 1])})

    names = [f"site-{number}" for number in range(1, len(updates) + 1)]
    how = Federation.model_validate({"partition": {"sites": len(updates)}, "privacy": {"mode": "central", **privacy}})
    grid = InlineGrid(app_of(change), names)
    server = Server(how, 1, make_strategy(how.strategy), grid, Ledger(folder), secret=secret)
    server.begin(START)
    server.round()
    return server.state.parameters["w"]


@pytest.mark.parametrize("sites", [1, 2, 5])
def test_noise_on_the_mean_of_any_number_of_sites_is_that_on_their_sum_divided(sites: int, tmp_path: Path) -> None:
    mean = aggregated(tmp_path, [0.0] * sites, noise_multiplier=0.5, clipping_norm=3.0)
    deviation = 0.5 * 3.0 / sites
    assert mean.std() == pytest.approx(deviation, rel=6 / math.sqrt(2 * COUNT))
    assert abs(mean.mean()) < 6 * deviation / math.sqrt(COUNT)


def test_no_site_moves_the_mean_by_more_than_its_part_of_the_norm(tmp_path: Path) -> None:
    alone = aggregated(tmp_path / "a", [0.0, 0.0, 0.0], noise_multiplier=1.0, clipping_norm=2.0)
    moved = aggregated(tmp_path / "b", [0.0, 1e6, 0.0], noise_multiplier=1.0, clipping_norm=2.0)
    assert np.linalg.norm(moved - alone) == pytest.approx(2.0 / 3, rel=1e-6)  # the noise is the same, and cancels


def test_another_secret_gives_other_noise(tmp_path: Path) -> None:
    first = aggregated(tmp_path / "a", [0.0, 0.0], noise_multiplier=1.0)
    other = aggregated(tmp_path / "b", [0.0, 0.0], b"\1" * 32, noise_multiplier=1.0)
    assert abs(np.corrcoef(first, other)[0, 1]) < 6 / math.sqrt(COUNT)


def test_what_a_site_sends_by_itself_is_clipped_and_noised() -> None:
    privacy = Privacy(mode="local", noise_multiplier=0.5, clipping_norm=3.0)
    still = protect_own(START, START, privacy, SECRET, "north 1").parameters["w"]
    assert still.std() == pytest.approx(1.5, rel=6 / math.sqrt(2 * COUNT))
    far = protect_own(State({"w": np.full(COUNT, 1e6)}, {}), START, privacy, SECRET, "north 1").parameters["w"]
    assert np.linalg.norm(far - still) == pytest.approx(3.0, rel=1e-6)


def test_the_types_of_weights_stay() -> None:
    privacy = Privacy(mode="local", noise_multiplier=0.5)
    sent = State({"w": INITIAL.parameters["w"], "scale": np.array(1.0, np.float32)}, {})
    found = protect_own(sent, sent, privacy, SECRET, "x")
    assert {name: (shape, kind) for name, (shape, kind, _) in bits(found).items()} == {
        "w": ((2, 3), "float32"),
        "scale": ((), "float32"),
    }


def test_buffers_that_would_tell_of_the_data_are_refused() -> None:
    with pytest.raises(RunFailed, match="count"):
        refuse_buffers(INITIAL)
    refuse_buffers(START)
