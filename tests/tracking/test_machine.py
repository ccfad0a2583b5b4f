"""The machine's load is sampled under MLflow's names, and kept in bounds while it cannot be sent."""

from __future__ import annotations

import time

from ai4sdk.tracking.machine import KEPT, MachineLoad


def test_samples_wait_until_they_are_confirmed() -> None:
    load = MachineLoad(started=time.time() - 100, every=0)
    load.sample()
    assert load.waiting() == []  # a load is a mean over a span, and there was none yet
    load.sample()
    points = load.waiting()
    assert {point.name for point in points} == {
        "system/cpu_utilization_percentage",
        "system/system_memory_usage_megabytes",
        "system/system_memory_usage_percentage",
    }
    assert all(point.step in (100, 101) for point in points)
    load.sample()
    load.confirm(len(points))
    assert len(load.waiting()) == 3


def test_samples_that_cannot_be_sent_do_not_pile_up() -> None:
    load = MachineLoad(started=0, every=0)
    for _ in range(KEPT + 50):
        load.sample()
    assert len(load.waiting()) == 3 * KEPT


def test_samples_come_at_their_rate() -> None:
    load = MachineLoad(started=0, every=3600)
    for _ in range(5):
        load.sample()
    assert load.waiting() == []
