"""The ClientApp of a site: the same in a rehearsal and for real."""

from __future__ import annotations

import time
from typing import Any

from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from ai4sdk.federated.answers import ARRAYS, BUFFERS, COST, METRICS
from ai4sdk.federated.compression import Compression, compress
from ai4sdk.federated.learner import Learner, Order, Trained
from ai4sdk.federated.protection import protect_own
from ai4sdk.federated.scaffold import CONTROL
from ai4sdk.federated.strategies import WEIGHT_KEY
from ai4sdk.federated.weights import State, from_records, to_record
from ai4sdk.spec.privacy import Privacy

__all__ = ["CONFIG", "ROUND", "SINCE", "SITE", "make_app", "state_in"]

CONFIG, ROUND, SINCE, SITE = "config", "server-round", "since", "site"
"""Names of the record of settings in a message, of the round in it and of that in which the site's answer last counted,
and of the site in a node's config."""


def make_app(
    learner: Learner,
    privacy: Privacy | None = None,
    secret: bytes = b"",
    compression: Compression = "none",
    core_watts: float | None = None,
) -> ClientApp:
    """Make the app that trains and validates as the server's messages say.

    Parameters
    ----------
    learner
        Has the data of every site that this process answers for.
    privacy
        The section; with ``mode: local`` updates leave with noise.
    secret
        What that noise is drawn with.
    compression
        How updates are made smaller, noise and all.
    core_watts
        What a busy core draws; with it a site tells the energy that its processor took.
    """
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        began, busy = time.perf_counter(), time.process_time()
        order = _order(message, context)
        trained = learner.train(order)
        state, sent = trained.state, order.state
        if privacy is not None and privacy.mode == "local":
            state = protect_own(state, sent, privacy, secret, f"{order.site}\0{order.question}")
        drawn_with = f"{learner.seed}\0{order.site}\0{order.round_number}"
        packed = compress(state.parameters, sent.parameters, compression, drawn_with)
        arrays = {name: to_record(part) for name, part in packed.items()} | {BUFFERS: to_record(state.buffers)}
        if trained.control is not None:
            arrays[CONTROL] = to_record(trained.control)
        cost: dict[str, Any] = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - busy}
        if core_watts is not None:
            cost["joules"] = cost["cpu_seconds"] * core_watts
        return Message(RecordDict({**arrays, METRICS: _metrics(trained), COST: ConfigRecord(cost)}), reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        order = _order(message, context)
        judged = learner.validate(order.site, order.round_number, order.since, order.state)
        return Message(RecordDict({METRICS: _metrics(judged)}), reply_to=message)

    return app


def _order(message: Message, context: Context) -> Order:
    config: Any = message.content.config_records[CONFIG]
    control = message.content.array_records.get(CONTROL)
    return Order(
        site=str(context.node_config[SITE]),
        round_number=int(config[ROUND]),
        since=int(config.get(SINCE, 0)),
        state=state_in(message),
        pull=float(config.get("proximal-mu", 0.0)),  # what Flower's FedProx calls it
        control=from_records(control) if control is not None else None,
    )


def state_in(message: Message) -> State:
    """Return the weights that a message of the server carries."""
    return State(
        from_records(message.content.array_records[ARRAYS]), from_records(message.content.array_records[BUFFERS])
    )


def _metrics(trained: Trained) -> MetricRecord:
    return MetricRecord({**trained.metrics, WEIGHT_KEY: trained.samples})
