"""A federation whose sites do next to nothing, for tests of what surrounds them."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from ai4sdk.federated.answers import ARRAYS, BUFFERS, METRICS
from ai4sdk.federated.app import CONFIG, ROUND, SITE
from ai4sdk.federated.inline import InlineGrid
from ai4sdk.federated.late import Slow
from ai4sdk.federated.ledger import Ledger
from ai4sdk.federated.rounds import Server, SitesGrid
from ai4sdk.federated.scaffold import CONTROL
from ai4sdk.federated.strategies import WEIGHT_KEY, make_strategy
from ai4sdk.federated.weights import Arrays, State, from_records, to_record
from ai4sdk.spec.federation import Federation

gc.freeze()  # some of Flower's strategies collect garbage for every array, which takes long where much is loaded

INITIAL = State({"w": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)}, {"count": np.array(0)})

Change = Callable[[str, int, RecordDict], Any]
"""Site, round and its answer → nothing, when the answer was changed in place; or another answer; or an error."""


def app_of(change: Change = lambda site, number, answer: None) -> ClientApp:
    """Make sites that move the weights a bit, each its own way, as Flower's random state of the round says."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        site, number = str(context.node_config[SITE]), _round(message)
        arrays = from_records(message.content.array_records[ARRAYS])
        draw = np.random.default_rng([number, len(site), *site.encode()])
        moved: Arrays = {
            name: (array + draw.normal(size=array.shape)).astype(array.dtype) for name, array in arrays.items()
        }
        buffers = from_records(message.content.array_records[BUFFERS])
        counted = {name: np.asarray(value + 1) for name, value in buffers.items()}
        metrics = MetricRecord({"train_loss": float(number), WEIGHT_KEY: 10})
        answer = RecordDict({ARRAYS: to_record(moved), BUFFERS: to_record(counted), METRICS: metrics})
        if CONTROL in message.content.array_records:
            answer[CONTROL] = to_record({name: moved[name] - arrays[name] for name in arrays})
        return Message(change(site, number, answer) or answer, reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        assert isinstance(message.content[CONFIG], ConfigRecord)
        return Message(RecordDict({METRICS: MetricRecord({"val_loss": 1.0, WEIGHT_KEY: 5})}), reply_to=message)

    return app


def _round(message: Message) -> int:
    number = message.content.config_records[CONFIG][ROUND]
    assert isinstance(number, int)
    return number


def server_of(
    folder: Path, sites: int = 4, change: Change = lambda site, number, answer: None, seed: int = 1, **federation: Any
) -> Server:
    """Make a server with sites called site-1 and so on, gone on after the last round there is."""
    how = Federation(**{"partition": {"sites": sites}, **federation})
    names = [f"site-{number}" for number in range(1, sites + 1)]
    reached = InlineGrid(app_of(change), names)
    grid: SitesGrid = Slow(reached, how.slow) if how.slow else reached
    server = Server(how, seed, make_strategy(how.strategy), grid, Ledger(folder))
    server.begin(INITIAL)
    return server


def bits(state: State) -> dict[str, tuple[tuple[int, ...], str, bytes]]:
    """Return a state to the last bit."""
    return {
        name: (array.shape, str(array.dtype), array.tobytes())
        for name, array in {**state.parameters, **state.buffers}.items()
    }
