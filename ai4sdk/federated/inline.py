"""A rehearsal within this process: messages are handed to the sites' app one after the other."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Mapping

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from ai4sdk.federated.app import SITE
from ai4sdk.worker.failures import one_line

log = logging.getLogger(__name__)

__all__ = ["InlineGrid", "answered", "failed"]

_RUN, _SERVER = 1, 1
_SITE_FAILED = 1  # a code of Error; Flower's own say what went wrong inside it


class InlineGrid(Grid):
    """Flower's Grid without a SuperLink.

    Parameters
    ----------
    app
        What answers.
    sites
        Names of the sites; their node ids are 2 and up, in this order.
    """

    def __init__(self, app: ClientApp, sites: Iterable[str]) -> None:
        self._app = app
        self._contexts = {
            number: Context(_RUN, number, {SITE: name}, RecordDict(), {}) for number, name in enumerate(sites, start=2)
        }
        self._ids = itertools.count(1)
        self._answers: dict[str, Message] = {}
        self._run = Run.create_empty(_RUN)
        self.failures: dict[int, Exception] = {}
        # Whoever makes a message is looked up there; a process that serves a SuperLink sets it the same way.
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = _RUN, _SERVER, 0

    @property
    def nodes(self) -> Mapping[str, int]:
        """Site → node id."""
        return {str(context.node_config[SITE]): number for number, context in self._contexts.items()}

    def gather(self, count: int) -> list[str]:
        """Return all sites, which are always there."""
        return list(self.nodes)

    def late(self, now: int) -> Mapping[int, Message]:
        """Return no answers: nobody is late here."""
        return {}

    def forget(self, nodes: Iterable[int]) -> None:
        """Wait for nothing of some nodes any more."""

    def set_run(self, run: Run) -> None:
        """Take another run's description."""
        self._run = run

    @property
    def run(self) -> Run:
        """What Flower knows of the run."""
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Make a message for a node."""
        return Message(content, dst_node_id=dst_node_id, message_type=message_type, group_id=group_id, ttl=ttl)

    def get_node_ids(self) -> Iterable[int]:
        """Return the nodes of all sites."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Have messages answered; return their ids."""
        pushed = []
        for message in self._named(messages):
            node = message.metadata.dst_node_id
            answer, error = answered(self._app, message, self._contexts[node])
            if error is not None:
                self.failures[node] = error
            self._answers[message.metadata.message_id] = answer or failed(error, message)
            pushed.append(message.metadata.message_id)
        return pushed

    def _named(self, messages: Iterable[Message]) -> list[Message]:
        """Give messages ids, as a SuperLink does."""
        named = list(messages)
        for message in named:
            message.metadata.__dict__["_message_id"] = str(next(self._ids))
        return named

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return answers; each is given once."""
        return [self._answers.pop(name) for name in message_ids if name in self._answers]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Have messages answered and return the answers."""
        return self.pull_messages(self.push_messages(messages))


def answered(
    app: Callable[[Message, Context], Message], message: Message, context: Context
) -> tuple[Message | None, Exception | None]:
    """Have an app answer a message; return its answer, or what it raised: that is an answer, too, as it is for real."""
    try:
        return app(message, context), None
    except Exception as error:
        log.warning("%s failed:", context.node_config[SITE], exc_info=True)
        return None, error


def failed(error: Exception | None, message: Message) -> Message:
    """Return the answer of a site that failed."""
    assert error is not None
    return Message(Error(_SITE_FAILED, one_line(error)), reply_to=message)
