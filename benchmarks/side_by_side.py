"""Timing things side by side: alternating order, medians, ratios from one run."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable


def measure(contenders: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Call each contender once a round, in turn, and return its median in seconds."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for call in contenders.values():
        call()  # files into the cache, bytecode written
    for number in range(rounds):
        names = list(contenders)
        for name in names if number % 2 == 0 else reversed(names):
            start = time.perf_counter()
            contenders[name]()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def show(title: str, medians: dict[str, float], reference: str) -> None:
    """Print medians and their ratio to a reference, then the same as a line of JSON."""
    print(f"\n{title}")
    width = max(map(len, medians))
    for name, seconds in medians.items():
        print(f"  {name:{width}}  {seconds * 1000:9.1f} ms   {seconds / medians[reference]:6.2f} x {reference}")
    print(json.dumps({"title": title, "seconds": medians, "reference": reference}))
