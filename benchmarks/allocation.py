"""A small convolutional network on pictures of 224×224, with memory as glibc gives it back and as workers keep it.

Each way in processes of its own, in turns, as it differs from process to process how the heap lies. One thread.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import nn

from ai4sdk.worker.allocation import keep_memory

PICTURES = 64


def steps(kind: str, size: int) -> Callable[[], object]:
    """Return what works once through the pictures."""
    torch.manual_seed(0)
    widths = (3, 32, 64, 128, 128)
    made = [layer for pair in itertools.pairwise(widths) for layer in (nn.Conv2d(*pair, 3, 2, 1), nn.ReLU())]
    network = nn.Sequential(*made, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))
    pictures, classes = torch.rand(PICTURES, 3, 224, 224), torch.randint(0, 10, (PICTURES,))
    optimizer = torch.optim.Adam(network.parameters())

    def train() -> None:
        for rows in torch.randperm(PICTURES).split(size):
            batch = torch.stack([pictures[row].clone() for row in rows])
            loss = nn.functional.cross_entropy(network(batch), classes[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    @torch.inference_mode()
    def predict() -> None:
        for batch in pictures.split(size):
            network(batch)

    return train if kind == "train" else predict


def measure(kind: str, size: int, kept: bool, seconds: float) -> dict[str, float]:
    """Return pictures a second, page faults a picture, and the most memory in MiB of this process."""
    if kept:
        keep_memory()
    torch.set_num_threads(1)
    once = steps(kind, size)
    once()
    faults, began, count = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter(), 0
    while time.perf_counter() < began + seconds:
        once()
        count += PICTURES
    took, used = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    return {"rate": count / took, "faults": (used.ru_minflt - faults) / count, "mib": used.ru_maxrss / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--one", nargs=3, metavar=("KIND", "SIZE", "KEPT"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        kind, size, kept = given.one
        print(json.dumps(measure(kind, int(size), kept == "kept", given.seconds)))
        return
    print("                  pictures/s: kept, given back (slowest, fastest)  ratio  page faults a picture   most MiB")
    for kind, size in (("predict", 2), ("predict", 16), ("train", 4), ("train", 16), ("train", 32)):
        found: dict[str, list[dict[str, float]]] = {"kept": [], "given back": []}
        for _ in range(given.rounds):
            for way, each in found.items():
                argv = [sys.executable, __file__, "--seconds", str(given.seconds), "--one", kind, str(size), way]
                each.append(json.loads(subprocess.run(argv, check=True, capture_output=True, text=True).stdout))
        middle = {
            key: {way: statistics.median(one[key] for one in each) for way, each in found.items()}
            for key in ("rate", "faults", "mib")
        }
        rates = sorted(one["rate"] for one in found["given back"])
        rate, faults, mib = (list(middle[key].values()) for key in ("rate", "faults", "mib"))
        print(
            f"{kind:8}{size:3} a batch   {rate[0]:6.0f} {rate[1]:6.0f} ({rates[0]:.0f}, {rates[-1]:.0f})   "
            f"{rate[0] / rate[1]:5.2f}   {faults[0]:6.0f} {faults[1]:6.0f}   {mib[0]:5.0f} {mib[1]:5.0f}"
        )


if __name__ == "__main__":
    main()
