"""What a coordinator may ask of a site: the rounds that were agreed to and, where a site adds noise, each of them once.

A site that adds noise of its own need not trust the coordinator. One that is asked the same round with other weights
would add other noise, and each such answer would tell more of its data than the rounds that were agreed to.
"""

from __future__ import annotations

from pathlib import Path

from flwr.app import Message

from ai4sdk.errors import RunFailed
from ai4sdk.federated.answers import ARRAYS
from ai4sdk.federated.app import CONFIG, ROUND
from ai4sdk.runs.files import read_json, write_json

__all__ = ["NotAgreed", "Questions"]


class NotAgreed(RunFailed):
    """The coordinator asked for more than was agreed to."""


class Questions:
    """Remembers what was asked.

    Parameters
    ----------
    path
        File that lasts from attempt to attempt.
    rounds
        How many were agreed to.
    once
        Whether a round is trained with one set of weights only.
    """

    def __init__(self, path: Path, rounds: int, *, once: bool) -> None:
        self._path, self._rounds, self._once = path, rounds, once
        self._asked: dict[str, str] = read_json(path) if path.exists() else {}

    @property
    def last(self) -> int:
        """The last round that the site was asked to train in, in this attempt or an earlier one; 0 for none."""
        return max(map(int, self._asked), default=0)

    def take(self, message: Message) -> None:
        """Take note of a question before it is answered.

        Raises
        ------
        NotAgreed
            If it is not to be answered.
        """
        settings = message.content.config_records[CONFIG]
        number = settings[ROUND]
        if not isinstance(number, int) or not 1 <= number <= self._rounds:
            raise NotAgreed(f"round {number!r} was asked for; {self._rounds} rounds were agreed to")
        if message.metadata.message_type != "train":
            return
        # With all that the answer depends on: the same noise on two answers would cancel.
        asked = f"{message.content.array_records[ARRAYS].object_id} {settings.object_id}"
        before = self._asked.get(str(number))
        if before == asked:
            return
        if before is not None and self._once:
            raise NotAgreed(f"round {number} was asked for a second time, with other weights or settings")
        self._asked[str(number)] = asked
        write_json(self._path, self._asked)
