"""A Flower Grid whose sites are real: it waits for them, for their answers, and never for ever."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping

from flwr.app import Error, Message
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.supercore.task_identity import TaskIdentity

from ai4sdk.federated.deploy.superlink import Letter, SuperLink
from ai4sdk.federated.late import LATE
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
    enough
        Answers to trainings with which no more are waited for; nothing for all.
    later
        Rounds in which answers are still taken that were not waited for; 0 for none.
    tell
        Told which sites are there, and how many are needed: whenever that changes while one waits, and once enough are.
    """

    def __init__(
        self,
        link: SuperLink,
        settings: Listen,
        stop: StopRequest,
        enough: int | None = None,
        later: int = 0,
        tell: Callable[[list[str], int], None] = lambda there, needed: None,
    ) -> None:
        self._link, self._settings, self._stop, self._enough, self._later = link, settings, stop, enough, later
        self._tell = tell
        self._awaited: dict[int, Letter] = {}
        """Node → a letter of an earlier round that is still to be answered."""
        self.failures: dict[int, Exception] = {}
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = link.run_id, SUPERLINK_NODE_ID, 0

    @property
    def nodes(self) -> Mapping[str, int]:
        """Site → node id, of all that were ever there."""
        return self._link.nodes()

    def gather(self, count: int) -> list[str]:
        """Return the sites that are there, after waiting for so many of them for as long as is set."""
        until, told = time.monotonic() + self._settings.wait, 0.0
        shown: list[str] | None = None
        while True:
            self._stop.check()
            with self._link.changed:
                nodes = self._link.nodes()
                up = [site for site, node in nodes.items() if self._link.is_up(node)]
                now = time.monotonic()
                enough = len(up) >= count
                if up != shown and (shown is not None or not enough):
                    shown = up
                    self._tell(up, count)
                if enough or now >= until:
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
            message.metadata.ttl = (2 + self._later) * deadline + 60
        trains = all(message.metadata.message_type == "train" for message in sent)
        letters = self._link.send(sent)
        self._wait(letters | self._awaited if trains else letters, deadline, self._enough if trains else None)
        if trains and self._later:
            late = [node for node, letter in letters.items() if not letter.done and self._link.is_up(node)]
            self._awaited |= {node: letters[node] for node in late}
        answers = self._link.take(node for node in letters if node not in self._awaited)
        replies = []
        for message in sent:
            node = message.metadata.dst_node_id
            answer = answers.get(node)
            if node in self._awaited:
                replies.append(Message(Error(LATE, "its answer is still to come"), reply_to=message))
                continue
            if answer is None:
                gone = not self._link.is_up(node)
                answer = "it is gone and has not answered" if gone else f"it did not answer within {deadline:g} s"
            replies.append(_reply(answer, message))
        return replies

    def _wait(self, letters: Mapping[int, Letter], deadline: float, enough: int | None) -> None:
        """Wait for all answers that can come, or for enough of them, but not for ever."""
        until = time.monotonic() + deadline
        while True:
            self._stop.check()
            with self._link.changed:
                waiting = [node for node, letter in letters.items() if not letter.done]
                if not any(self._link.is_up(node) for node in waiting) or time.monotonic() >= until:
                    return
                if enough is not None and len(letters) - len(waiting) >= enough:
                    return
                self._link.changed.wait(_LOOK)

    def late(self, now: int) -> dict[int, Message]:
        """Return answers that were late and have come since, by node."""
        done = {node: letter for node, letter in self._awaited.items() if letter.done}
        answers = self._link.take(done)
        for node in done:
            del self._awaited[node]
        return {node: _reply(answers[node], letter.message) for node, letter in done.items()}

    def forget(self, nodes: Iterable[int]) -> None:
        """Wait for no late answer of these nodes any more."""
        self._link.take([node for node in nodes if self._awaited.pop(node, None) is not None])


def _reply(answer: Message | str, question: Message) -> Message:
    return Message(Error(_NO_ANSWER, answer), reply_to=question) if isinstance(answer, str) else answer
