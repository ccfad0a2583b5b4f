"""Ctrl-C while something is watched: once asks it to stop, twice stops it at once, a third time leaves it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

__all__ = ["interrupts_held", "interrupts_stop"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Held:
    """Remembers a first interrupt; a second one is not held back."""

    happened = False

    def __call__(self, *_: object) -> None:
        if self.happened:
            raise KeyboardInterrupt
        self.happened = True


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Hold an interrupt back while something is started, until `interrupts_stop` inside the block takes it on.

    Without it an interrupt in between would end the command, and what it had started would go on unseen.
    """
    with _handled_by(_Held(), _SIGNALS):
        yield


@contextmanager
def interrupts_stop(
    stop: Callable[[bool], None],
    note: Callable[[str], None],
    signals: Sequence[signal.Signals] = _SIGNALS,
) -> Iterator[None]:
    """Pass interrupts on.

    Parameters
    ----------
    stop
        Called with False after the first interrupt (write a checkpoint), with True after the second (at once).
    note
        Takes what to tell the user.
    signals
        What counts as an interrupt.
    """
    interrupts = 0

    def interrupt(*_: object) -> None:
        nonlocal interrupts
        interrupts += 1
        if interrupts > 2:
            raise KeyboardInterrupt
        stop(interrupts == 2)
        note("stopping with a checkpoint; Ctrl-C again stops at once" if interrupts == 1 else "stopping at once")

    with _handled_by(interrupt, signals) as before:
        if any(isinstance(handler, _Held) and handler.happened for handler in before):
            interrupt()
        yield


@contextmanager
def _handled_by(handler: Callable[..., None], signals: Sequence[signal.Signals]) -> Iterator[list[object]]:
    """Handle signals, and give those back that did before."""
    before = {number: signal.signal(number, handler) for number in signals}
    try:
        yield list(before.values())
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
