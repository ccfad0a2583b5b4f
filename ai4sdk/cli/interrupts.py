"""Ctrl-C while something is watched: once asks it to stop, twice stops it at once, a third time leaves it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

__all__ = ["interrupts_stop"]


@contextmanager
def interrupts_stop(
    stop: Callable[[bool], None],
    note: Callable[[str], None],
    signals: Sequence[signal.Signals] = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP),
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

    handlers = {number: signal.signal(number, interrupt) for number in signals}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
