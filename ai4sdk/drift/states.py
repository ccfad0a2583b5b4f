"""States of detectors: ok, warning, drift, and back."""

from __future__ import annotations

from typing import Literal

__all__ = ["LEVELS", "Hits", "Latch", "State", "worst"]

State = Literal["ok", "warning", "drift"]

LEVELS: dict[State, int] = {"ok": 0, "warning": 1, "drift": 2}
"""As numbers for a gauge."""


class Hits:
    """One hit is a warning, two in a row are drift; each miss is a step back."""

    def __init__(self) -> None:
        self.state: State = "ok"
        self.row = 0

    def see(self, hit: bool) -> State:
        """Take the next window into account."""
        self.row = self.row + 1 if hit else 0
        if self.row >= 2:
            self.state = "drift"
        elif hit:
            self.state = "drift" if self.state == "drift" else "warning"
        else:
            self.state = "warning" if self.state == "drift" else "ok"
        return self.state


class Latch:
    """A hit is drift until so many samples without another."""

    def __init__(self, hold: int) -> None:
        self.state: State = "ok"
        self.hold = hold
        self.since = 0

    def see(self, hit: bool, count: int = 1) -> State:
        """Take the next sample, or so many of them, into account."""
        self.since = 0 if hit else self.since + count
        if hit:
            self.state = "drift"
        elif self.since >= self.hold:
            self.state = "ok"
        return self.state


def worst(states: list[State]) -> State:
    """Return the worst of some states."""
    return max(states, key=LEVELS.__getitem__, default="ok")
