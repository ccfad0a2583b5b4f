"""Rehearsals of federations beside Flower's own simulation, with the same apps and strategy on both sides.

    python benchmarks/federated.py [noop] [digits] [many] [--rounds 3]

Flower's Ray engine is used where it is installed (`pip install 'ray[default]==2.55.1'`). Each contender is a process of
its own; what is timed is what comes after its imports.

Aims: 50 sites and 5 rounds that do nothing in at most 0.2 s; 10 sites and 10 rounds of the digits at least 5 times
faster than Flower's simulation, with the same weights; 1,000 sites of which 100 train in a round, a million parameters:
memory that does not grow with the number of sites.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from side_by_side import show

SHAPES = {"noop": (50, 5, 1_000), "many": (1000, 2, 1_000_000), "few": (100, 2, 1_000_000), "digits": (10, 10, 0)}
"""Sites, rounds, parameters."""


def noop_app() -> Any:
    """Return sites that send back what they were sent."""
    from flwr.app import Message as FlowerMessage
    from flwr.app import MetricRecord, RecordDict
    from flwr.clientapp import ClientApp

    app = ClientApp()

    @app.train()
    def train(message: Any, context: Any) -> Any:
        records = dict(message.content.array_records)
        return FlowerMessage(RecordDict({**records, "metrics": MetricRecord({"num-examples": 1})}), reply_to=message)

    return app


def digits(folder: Path) -> tuple[Any, Any, list[str]]:
    """Return the app of the digits' sites, their initial weights, and the names of the sites."""
    import pytorch_lightning as pl
    import torch

    from ai4sdk.config.load import load_job
    from ai4sdk.config.project import Project
    from ai4sdk.data.module import load_data
    from ai4sdk.federated.app import make_app
    from ai4sdk.federated.learner import Learner
    from ai4sdk.federated.memory import Memory
    from ai4sdk.federated.sites import divided
    from ai4sdk.federated.weights import state_of
    from ai4sdk.worker.instantiate import instantiate
    from ai4sdk.worker.signals import StopRequest
    from ai4sdk.worker.train import make_module, quiet_lightning

    quiet_lightning()
    torch.set_num_threads(1)
    overrides = ["training=federated", "++federation.partition.sites=10", "scheduler=none"]
    job = load_job("quickstart", overrides, Project(folder)).job
    sys.path.insert(0, str(Path(__file__).parents[1] / "modules" / "digits"))
    pl.seed_everything(1, verbose=False)
    options: dict[str, Any] = {"storage": job.storage, "project": folder, "task": job.task, "seed": job.seed}
    data = load_data(job.learner.dataset, instantiate=instantiate, **options)
    sites, _ = divided(data, job.federation.partition)
    module = make_module(job)
    return (
        make_app(Learner(job, module, sites, StopRequest(), Memory(folder / "sites"), 1)),
        state_of(module),
        list(sites),
    )


def parts(what: str, folder: Path) -> tuple[Any, Any, list[str]]:
    """Return app, initial weights and names of sites."""
    if what == "digits":
        return digits(folder)
    import numpy as np

    from ai4sdk.federated.weights import State

    count, _, size = SHAPES[what]
    return noop_app(), State({"w": np.zeros(size, np.float32)}, {}), [f"site-{number}" for number in range(count)]


def ours(what: str, folder: Path, processes: int) -> dict[str, Any]:
    """Time the rounds of our rehearsal."""
    import time

    from ai4sdk.federated.inline import InlineGrid
    from ai4sdk.federated.ledger import Ledger
    from ai4sdk.federated.pool import PoolGrid
    from ai4sdk.federated.rounds import Server
    from ai4sdk.federated.strategies import make_strategy
    from ai4sdk.spec.federation import Federation
    from ai4sdk.worker.signals import StopRequest

    app, initial, names = parts(what, folder)
    rounds = SHAPES[what][1]
    how = Federation(evaluate="none", fraction=100 / len(names) if len(names) >= 100 else 1.0)
    began = time.perf_counter()
    grid = InlineGrid(app, names) if processes == 1 else PoolGrid(app, names, processes, StopRequest())
    server = Server(how, 1, make_strategy(how.strategy), grid, Ledger(folder / "federation"))
    server.begin(initial)
    for _ in range(rounds):
        server.round()
    took = time.perf_counter() - began
    if isinstance(grid, PoolGrid):
        grid.__exit__()
    return {"seconds": took, "weights": digest(server.state.parameters)}


def flowers(what: str, folder: Path) -> dict[str, Any]:
    """Time the rounds of Flower's simulation on Ray."""
    import logging
    import time

    from flwr.app import ArrayRecord
    from flwr.clientapp import ClientApp
    from flwr.serverapp import ServerApp
    from flwr.serverapp.strategy import FedAvg
    from flwr.simulation import run_simulation

    from ai4sdk.federated.weights import from_records, to_record

    logging.getLogger("flwr").setLevel(logging.ERROR)
    inner, initial, names = parts(what, folder)
    rounds = SHAPES[what][1]
    wrapped = ClientApp()

    @wrapped.train()
    def train(message: Any, context: Any) -> Any:
        context.node_config["site"] = names[int(context.node_config["partition-id"])]
        # Its strategies take one record of arrays; ours keep buffers apart.
        every = message.content["arrays"]
        message.content["buffers"] = ArrayRecord({name: every.pop(name) for name in initial.buffers})
        answer = inner(message, context)
        answer.content["arrays"].update(answer.content.pop("buffers"))
        return answer

    server, found = ServerApp(), {}

    @server.main()
    def main(grid: Any, context: Any) -> None:
        # A share is one of the nodes that are there already, so that a number has to be said.
        count = {"min_train_nodes": min(100, len(names)), "min_available_nodes": len(names)}
        strategy = FedAvg(fraction_train=0.01, fraction_evaluate=0.0, **count)
        result = strategy.start(grid, to_record({**initial.parameters, **initial.buffers}), num_rounds=rounds)
        found.update({name: array for name, array in from_records(result.arrays).items() if name in initial.parameters})

    began = time.perf_counter()
    run_simulation(server, wrapped, len(names), backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}})
    return {"seconds": time.perf_counter() - began, "weights": digest(found)}


def digest(arrays: Any) -> list[float]:
    """Return a few figures that weights are compared by."""
    import numpy as np

    return [float(np.asarray(array, np.float64).sum()) for _, array in sorted(arrays.items())]


def run(what: str, how: str) -> dict[str, Any]:
    """Run a contender in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        argv = [sys.executable, __file__, "--one", what, how, folder]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr[-3000:])
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", nargs="*", default=["noop", "digits", "many"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", nargs=3)
    args = parser.parse_args()
    if args.one:
        import resource

        what, how, folder = args.one
        found = flowers(what, Path(folder)) if how == "flower" else ours(what, Path(folder), int(how))
        print(json.dumps({**found, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
        return
    contenders = {"ai4sdk, one process": "1", "ai4sdk, two processes": "2"}
    if importlib.util.find_spec("ray"):
        contenders["Flower's simulation on Ray"] = "flower"
    for what in args.what:
        results: dict[str, list[dict[str, Any]]] = {name: [] for name in contenders}
        for _ in range(args.rounds):
            for name, how in contenders.items():
                results[name].append(run(what, how))
        count, rounds, size = SHAPES[what]
        best = {name: sorted(found, key=lambda one: one["seconds"])[len(found) // 2] for name, found in results.items()}
        title = f"{what}: {count} sites, {rounds} rounds" + (f", {size:,} parameters" if size else "")
        show(title, {name: one["seconds"] for name, one in best.items()}, "ai4sdk, one process")
        for name, one in best.items():
            print(f"  {name}: peak {one['peak']:.0f} MiB, weights {one['weights'][:3]}")


if __name__ == "__main__":
    main()
