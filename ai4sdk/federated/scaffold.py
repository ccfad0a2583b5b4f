"""SCAFFOLD: corrects what sites whose data differ pull apart (Karimireddy et al. 2020, arXiv:1910.06378)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.common import MessageType
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from ai4sdk.federated.weights import Arrays, from_records, to_record

__all__ = ["CONTROL", "Scaffold"]

CONTROL = "control"
"""Record of the server's control variate in a message to a site, and of the change of the site's in its answer."""


class Scaffold(FedAvg):
    """Federated averaging with control variates.

    Sites count alike, whatever their size, as in the paper's algorithm 1.

    Parameters
    ----------
    server_learning_rate
        How far the global weights go towards the mean of what sites send (the paper's global step size).
    **options
        Of `flwr.serverapp.strategy.FedAvg`.
    """

    def __init__(self, server_learning_rate: float = 1.0, **options: Any) -> None:
        super().__init__(**options)
        self.server_learning_rate = server_learning_rate
        self.control: Arrays = {}
        self._sent: Arrays = {}
        self._all_sites = 0

    def state_dict(self) -> dict[str, Any]:
        """Return what must last."""
        return {"control": self.control}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take what `state_dict` returned."""
        self.control = dict(state.get("control", {}))

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the weights and the control variate.

        A grid that offers only some of the sites says in ``all_sites`` how many there are.
        """
        self._sent = from_records(arrays)
        self._all_sites = getattr(grid, "all_sites", 0) or len(list(grid.get_node_ids()))
        self.control = self.control or {name: np.zeros_like(array) for name, array in self._sent.items()}
        for message in super().configure_train(server_round, arrays, config, grid):
            content = RecordDict({**message.content, CONTROL: to_record(self.control)})
            yield Message(content, dst_node_id=message.metadata.dst_node_id, message_type=MessageType.TRAIN)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Move the weights by the mean of the updates, and the control variate by the changes of the sites'."""
        replies = list(replies)
        changes = [from_records(reply.content.array_records[CONTROL]) for reply in replies]
        for reply in replies:
            del reply.content[CONTROL]
            for record in reply.content.metric_records.values():
                record[self.weighted_by_key] = 1
        arrays, metrics = super().aggregate_train(server_round, replies)
        if arrays is None:
            return arrays, metrics
        mean, step = from_records(arrays), self.server_learning_rate
        moved = {name: before + step * (mean[name] - before) for name, before in self._sent.items()}
        self.control = {
            name: (value + np.sum([change[name] for change in changes], axis=0) / self._all_sites).astype(value.dtype)
            for name, value in self.control.items()
        }
        return to_record({name: array.astype(self._sent[name].dtype) for name, array in moved.items()}), metrics
