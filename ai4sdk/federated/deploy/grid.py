"""A Flower Grid whose sites are real: it waits for them, for their answers, and never for ever."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping

from flwr.app import Error, Message
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.supercore.task_identity import TaskIdentity

from ai4sdk.federated.deploy.superlink import SuperLink
from ai4sdk.spec.deployment import Listen
from ai4sdk.worker.signals import StopRequest

__all__ = ["DeployedGrid"]

log = logging.getLogger(__name__)

_LOOK = 0.2
"""Seconds between two looks at whether to stop."""
_TELL = 30.0
"""Seconds after which it is told again whom one waits for."""
_NO_ANSWER = 1
"""A code of Error."""


class DeployedGrid:
    """Reaches sites through a SuperLink.

    Parameters
    ----------
    link
        The SuperLink, which listens.
    settings
        How long to wait.
    stop
        Asked while one waits.
    """

    def __init__(self, link: SuperLink, settings: Listen, stop: StopRequest) -> None:
        self._link, self._settings, self._stop = link, settings, stop
        self.failures: dict[int, Exception] = {}
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = link.run_id, SUPERLINK_NODE_ID, 0

    @property
    def nodes(self) -> Mapping[str, int]:
        """Site → node id, of all that were ever there."""
        return self._link.nodes()

    def gather(self, count: int) -> list[str]:
        """Return the sites that are there, after waiting for so many of them for as long as is set."""
        until, told = time.monotonic() + self._settings.wait, 0.0
        while True:
            self._stop.check()
            with self._link.changed:
                nodes = self._link.nodes()
                up = [site for site, node in nodes.items() if self._link.is_up(node)]
                now = time.monotonic()
                if len(up) >= count or now >= until:
                    return up
                if now - told > _TELL:
                    told = now
                    log.info(
                        "%d of the %d sites that a round needs are there: %s", len(up), count, ", ".join(up) or "-"
                    )
                self._link.changed.wait(_LOOK)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Have messages answered; sites that are gone, or late, are answered for by an error."""
        sent = list(messages)
        deadline = self._settings.deadline if timeout is None else timeout
        for message in sent:
            message.metadata.ttl = 2 * deadline + 60
        letters, until = self._link.send(sent), time.monotonic() + deadline
        while True:
            self._stop.check()
            with self._link.changed:
                waiting = [node for node, letter in letters.items() if not letter.done]
                if not any(self._link.is_up(node) for node in waiting) or time.monotonic() >= until:
                    break
                self._link.changed.wait(_LOOK)
        answers = self._link.take()
        replies = []
        for message in sent:
            node = message.metadata.dst_node_id
            answer = answers.get(node)
            if answer is None:
                late = f"it did not answer within {deadline:g} s"
                answer = late if self._link.is_up(node) else "it is gone and has not answered"
            if isinstance(answer, str):
                answer = Message(Error(_NO_ANSWER, answer), reply_to=message)
            replies.append(answer)
        return replies
