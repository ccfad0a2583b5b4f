"""A site's loop: ask for a message, answer it, and bear that the connection breaks or the coordinator restarts."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator

from flwr.app import Context, Error, Message, RecordDict

from ai4sdk.errors import EnvironmentFault, RunInterrupted
from ai4sdk.federated.app import CONFIG, ROUND, SITE
from ai4sdk.federated.deploy.client import Ended, Forgotten, Refused, SiteClient, Unreachable
from ai4sdk.federated.inline import answered

__all__ = ["serve"]

log = logging.getLogger(__name__)

_HEARTBEAT = 5.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 15.0
_LOOK = 0.2
_FAILED = 1
"""A code of Error."""


def serve(
    client: SiteClient,
    app: Callable[[Message, Context], Message],
    site: str,
    *,
    agree: Callable[[], None],
    check: Callable[[], None],
    patience: float,
    tell: Callable[[str, int, float], None],
) -> str:
    """Take part until the federation ends; return how it did.

    Parameters
    ----------
    client
        The connection.
    app
        What answers.
    site
        Name of the site.
    agree
        Looks at the terms, and raises if they are not those that were agreed to; asked whenever the site joins.
    check
        Raises if the site is to stop; asked often.
    patience
        Seconds that a coordinator may be out of reach.
    tell
        Told of each answer: kind of the message, round, seconds.

    Raises
    ------
    EnvironmentFault
        If the coordinator refuses the site.
    RunInterrupted
        If it is out of reach for too long.
    """
    return _Serving(client, app, site, agree, check, patience, tell).go()


class _Serving:
    def __init__(
        self,
        client: SiteClient,
        app: Callable[[Message, Context], Message],
        site: str,
        agree: Callable[[], None],
        check: Callable[[], None],
        patience: float,
        tell: Callable[[str, int, float], None],
    ) -> None:
        self._client, self._app, self._site, self._agree = client, app, site, agree
        self._check, self._patience, self._tell = check, patience, tell
        self._heard, self._pause, self._joined = time.monotonic(), _FIRST_PAUSE, False

    def go(self) -> str:
        with self._heartbeats():
            try:
                while True:
                    try:
                        self._once()
                        self._reached()
                    except Unreachable as error:
                        self._wait(error)
                    except Forgotten as error:
                        log.info("the coordinator has gone on without this site (%s); joining again", error)
                        self._joined = False
                        self._reached()
            except Ended as end:
                self._joined = False
                return str(end)
            except Refused as error:
                self._joined = False
                raise EnvironmentFault(
                    f"the coordinator refuses {self._site}: {error}",
                    hint="ask whoever coordinates for a token (`ai4sdk federated token issue`), or look at this "
                    "machine's clock; then `ai4sdk resume`",
                ) from None
            finally:
                if self._joined:
                    with contextlib.suppress(Unreachable, Forgotten, Refused, Ended):
                        self._client.deactivate()

    def _once(self) -> None:
        self._check()
        if not self._joined:
            self._agree()
            self._client.activate()
            self._joined = True
            log.info("%s has joined", self._site)
        message = self._client.pull(self._check)
        if message is None:
            return
        self._reached()
        answer = self._answer(message)
        while True:
            try:
                self._client.push(answer)
                return
            except Unreachable as error:
                self._wait(error)

    def _answer(self, message: Message) -> Message:
        began, node = time.monotonic(), int(self._client.node.node_id)
        run = message.metadata.run_id
        answer, error = answered(self._app, message, Context(run, node, {SITE: self._site}, RecordDict(), {}))
        if answer is None:  # what an error says may be data; its kind is enough
            answer = Message(Error(_FAILED, f"{type(error).__name__}; the site's log says more"), reply_to=message)
        number = message.content.config_records[CONFIG][ROUND] if CONFIG in message.content.config_records else 0
        assert isinstance(number, int)
        self._tell(message.metadata.message_type, number, time.monotonic() - began)
        return answer

    def _reached(self) -> None:
        self._heard, self._pause = time.monotonic(), _FIRST_PAUSE

    def _wait(self, error: Unreachable) -> None:
        """Wait a while, each time longer, or give up."""
        gone = time.monotonic() - self._heard
        if gone > self._patience:
            raise RunInterrupted(
                f"the coordinator was out of reach for {gone:.0f} s: {error}",
                hint="`ai4sdk resume` goes on when it is back; look at the address, the port and the certificate",
            ) from None
        log.warning("the coordinator is out of reach (%s); trying again in %.1f s", error, self._pause)
        until = time.monotonic() + self._pause
        while time.monotonic() < until:
            self._check()
            time.sleep(_LOOK)
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    @contextlib.contextmanager
    def _heartbeats(self) -> Iterator[None]:
        """Let the coordinator hear of this site while it trains."""
        stop = threading.Event()

        def beat() -> None:
            while not stop.wait(_HEARTBEAT):
                if self._joined:
                    # What is wrong is told to the loop, too, at its next request.
                    with contextlib.suppress(Unreachable, Refused, Forgotten, Ended):
                        self._client.heartbeat()

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
