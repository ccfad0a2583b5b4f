"""The ClientApp of a site: the same in a rehearsal and for real."""

from __future__ import annotations

import hashlib
from typing import Any

from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from ai4sdk.federated.answers import ARRAYS, BUFFERS, METRICS
from ai4sdk.federated.learner import Learner, Pull, Trained
from ai4sdk.federated.protection import protect_own
from ai4sdk.federated.strategies import WEIGHT_KEY
from ai4sdk.federated.weights import State, from_records, to_record
from ai4sdk.spec.privacy import Privacy

__all__ = ["CONFIG", "ROUND", "SITE", "make_app"]

CONFIG, ROUND, SITE = "config", "server-round", "site"
"""Names of the record of settings in a message, of the round in it, and of the site in a node's config."""


def make_app(learner: Learner, privacy: Privacy | None = None, secret: bytes = b"") -> ClientApp:
    """Make the app that trains and validates as the server's messages say.

    Parameters
    ----------
    learner
        Has the data of every site that this process answers for.
    privacy
        The section; with ``mode: local`` updates leave with noise.
    secret
        What that noise is drawn with.
    """
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        config = _config(message)
        pull = Pull(float(config.get("proximal-mu", 0.0)))  # what Flower's FedProx calls it
        site, sent = str(context.node_config[SITE]), _state(message)
        trained = learner.train(site, int(config[ROUND]), sent, pull)
        state = trained.state
        if privacy is not None and privacy.mode == "local":
            state = protect_own(
                state, sent, privacy, secret, f"{site}\0{config[ROUND]}\0{pull.strength}\0{_digest(sent)}"
            )
        arrays = {ARRAYS: to_record(state.parameters), BUFFERS: to_record(state.buffers)}
        return Message(RecordDict({**arrays, METRICS: _metrics(trained)}), reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        judged = learner.validate(str(context.node_config[SITE]), int(_config(message)[ROUND]), _state(message))
        return Message(RecordDict({METRICS: _metrics(judged)}), reply_to=message)

    return app


def _config(message: Message) -> Any:
    return message.content.config_records[CONFIG]


def _state(message: Message) -> State:
    return State(
        from_records(message.content.array_records[ARRAYS]), from_records(message.content.array_records[BUFFERS])
    )


def _digest(state: State) -> str:
    found = hashlib.sha256()
    for name, array in sorted({**state.parameters, **state.buffers}.items()):
        found.update(f"{name}\0{array.dtype}\0{array.shape}\0".encode())
        found.update(array.tobytes())
    return found.hexdigest()


def _metrics(trained: Trained) -> MetricRecord:
    return MetricRecord({**trained.metrics, WEIGHT_KEY: trained.samples})
