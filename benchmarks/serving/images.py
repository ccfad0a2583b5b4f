"""Pictures of 224×224×3 as binary tensors through the server, beside the bare network at its best batch size.

Needs wrk. Both have one thread: the other core is the client's and the front's.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from run import Contender, free_port, load, running
from torch import nn

from ai4sdk.worker.allocation import keep_memory
from ai4sdk.worker.package import write_package

SIZES = (1, 2, 4, 8, 16, 32)
TURNS = 4
"""How often the served and the bare network take turns while one server runs."""


def layers() -> list[dict[str, object]]:
    """Return a small convolutional network, as a config makes it."""
    made: list[dict[str, object]] = []
    for into, out in ((3, 32), (32, 64), (64, 128), (128, 128)):
        size = {"in_channels": into, "out_channels": out, "kernel_size": 3, "stride": 2, "padding": 1}
        made += [{"_target_": "torch.nn.Conv2d", **size}, {"_target_": "torch.nn.ReLU"}]
    made += [{"_target_": "torch.nn.AdaptiveAvgPool2d", "output_size": 1}, {"_target_": "torch.nn.Flatten"}]
    return [*made, {"_target_": "torch.nn.Linear", "in_features": 128, "out_features": 10}]


def bare(network: nn.Module, pictures: torch.Tensor, seconds: float) -> float:
    """Return pictures a second of the network alone."""
    count, began = 0, time.perf_counter()
    with torch.inference_mode():
        while time.perf_counter() < began + seconds:
            network(pictures)
            count += len(pictures)
    return count / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=8)
    arguments = parser.parse_args()
    from hydra.utils import instantiate

    keep_memory()  # as the server does; else the bare network is, in one process out of two, half as fast
    torch.set_num_threads(1)
    target = {"_target_": "torch.nn.Sequential", "_args_": layers()}
    network = instantiate(target, _convert_="all").eval()
    pictures = torch.rand(max(SIZES), 3, 224, 224)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        package = write_package(
            folder / "package",
            module=network,
            module_target=target,
            task="classification",
            class_names=list("0123456789"),
            example_input=pictures[:2].numpy(),
            scores={"outputs": "logits"},
            plan_digest="sha256:0",
            run_id="benchmark",
            packages={},
            name="pictures",
        )
        (folder / ".ai4sdk").touch()
        raw = pictures[0].numpy().astype(np.float32).tobytes()
        tensor = {"name": "input", "datatype": "FP32", "shape": [1, 3, 224, 224]}
        text = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": len(raw)}}]}).encode()
        body = folder / "body"
        body.write_bytes(text + raw)
        os.environ |= {"KIND": "application/octet-stream", "LENGTH": str(len(text))}
        port = free_port()
        argv = [sys.executable, "-m", "ai4sdk", "serve", str(package), "--trust-code", f"serving.port={port}"]
        argv += ["serving.threads=1", "serving.access_log=false"]
        ours = Contender("ai4sdk", argv, "/v2/models/pictures/infer", body, "/health/ready", folder, port)
        rates: dict[str, list[float]] = {"served": [], **{f"bare {size}": [] for size in SIZES}}
        for _ in range(arguments.rounds):
            with running(ours):
                load(ours, 1)
                for _ in range(TURNS):  # short ones, as machines are faster now and slower then
                    rates["served"].append(load(ours, arguments.seconds / TURNS)[0])
                    for size in SIZES:
                        rates[f"bare {size}"].append(bare(network, pictures[:size], arguments.seconds / TURNS / 4))
    medians = {which: statistics.median(values) for which, values in rates.items()}
    best = max(value for which, value in medians.items() if which != "served")
    for which, rate in medians.items():
        print(f"{which:8} {rate:8.1f} pictures/s   {rate / best:5.2f} of the bare network's best")
    print(json.dumps(rates))


if __name__ == "__main__":
    main()
