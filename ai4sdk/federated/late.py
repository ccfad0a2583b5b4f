"""Answers that come after their round: who is still waited for, and what such an answer counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from flwr.app import Error, Message

from ai4sdk.federated.answers import ARRAYS, METRICS, Answer
from ai4sdk.federated.inline import InlineGrid
from ai4sdk.federated.strategies import WEIGHT_KEY
from ai4sdk.federated.weights import State, from_records, to_record

__all__ = ["LATE", "Slow", "as_if_fresh"]

LATE = 77
"""A code of Error: the answer is still to come."""

_TRAIN = "train"


class Slow:
    """The sites of a rehearsal, some of which answer rounds late.

    Parameters
    ----------
    grid
        Reaches them.
    delays
        Site → rounds by which its training takes longer than a round; tries of a round count as rounds.
    """

    def __init__(self, grid: InlineGrid, delays: Mapping[str, int]) -> None:
        self._grid = grid
        self._delays = {grid.nodes[site]: rounds for site, rounds in delays.items()}
        self._held: dict[int, tuple[int, Message]] = {}
        self._now = 0

    @property
    def nodes(self) -> Mapping[str, int]:
        """Site → node id."""
        return self._grid.nodes

    @property
    def failures(self) -> Mapping[int, Exception]:
        """What nodes of this process raised, most recently."""
        return self._grid.failures

    def gather(self, count: int) -> list[str]:
        """Return the sites that can be reached."""
        return self._grid.gather(count)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Have messages answered; the answers of slow sites to trainings are kept until they are due."""
        replies: list[Message] = []
        sent = list(messages)
        asked = {message.metadata.dst_node_id: message for message in sent}
        for reply in self._grid.send_and_receive(sent, timeout=timeout):
            node = reply.metadata.src_node_id
            question = asked[node]
            if question.metadata.message_type == _TRAIN and self._delays.get(node):
                self._held[node] = (self._now + self._delays[node], reply)
                reply = Message(Error(LATE, f"its answer is {self._delays[node]} rounds late"), reply_to=question)
            replies.append(reply)
        return replies

    def late(self, now: int) -> dict[int, Message]:
        """Return the answers that are due, by node; from here on it is ``now``."""
        self._now = now
        due = [node for node, (when, _) in self._held.items() if when <= now]
        return {node: self._held.pop(node)[1] for node in due}

    def forget(self, nodes: Iterable[int]) -> None:
        """Wait for nothing of these nodes any more."""
        for node in nodes:
            self._held.pop(node, None)


def as_if_fresh(answer: Answer, sent: State, now: State, factor: float) -> Answer:
    """Return a late answer as one to the weights there are now: the same change, of fewer samples.

    Parameters
    ----------
    answer
        Of a site that was sent other weights, which is changed.
    sent
        Those.
    now
        The weights that the change is added to.
    factor
        What its samples count, 0 to 1.
    """
    content: Any = answer.message.content
    got = from_records(content.array_records[ARRAYS])
    moved = {
        name: (now.parameters[name] + (array - sent.parameters[name])).astype(array.dtype)
        for name, array in got.items()
    }
    content[ARRAYS] = to_record(moved)
    late = replace(answer, factor=factor)
    content.metric_records[METRICS][WEIGHT_KEY] = late.weight
    return late
