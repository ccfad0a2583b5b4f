"""Requests a second of one small network behind several servers, one after the other in turns, in one run.

Needs wrk (``apt-get install wrk``). Peers that do not fit into this environment are given by the Python of theirs:
``--mlserver PYTHON`` (``pip install mlserver torch "uvloop<0.22"``: its processes that infer end at once with later
ones), ``--litserve PYTHON`` (``pip install litserve``).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

HERE = Path(__file__).resolve().parent
CONNECTIONS = 16
TRACE = """
import sys, torch, ai4sdk
module = ai4sdk.load_model(sys.argv[1]).module
module.to_torchscript(method="trace", example_inputs=torch.zeros(1, 64)).save(sys.argv[2])
"""


@dataclass
class Contender:
    """A server, and how it is asked."""

    name: str
    argv: list[str]
    path: str
    body: Path
    ready: str
    folder: Path
    port: int
    env: dict[str, str] = field(default_factory=dict)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def running(contender: Contender) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    """Start a server; yield it with the seconds until it was ready."""
    with open(contender.folder / f"{contender.name.replace(' ', '-')}.log", "wb") as log:
        began = time.perf_counter()
        process = subprocess.Popen(
            contender.argv, cwd=contender.folder, stdout=log, stderr=log, env={**os.environ, **contender.env}
        )
    try:
        while time.perf_counter() < began + 120:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{contender.port}{contender.ready}", timeout=5).close()
                break
            time.sleep(0.02)
        else:
            raise SystemExit(f"{contender.name} is not ready; see its log in {contender.folder}")
        yield process, time.perf_counter() - began
    finally:
        for each in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        process.kill()
        process.wait()


def load(contender: Contender, seconds: float) -> tuple[float, float]:
    """Return requests a second, and the 99th percentile of the latency in milliseconds."""
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds:g}s", "--latency", "-s", str(HERE / "post.lua")]
    address = f"http://127.0.0.1:{contender.port}{contender.path}"
    done = subprocess.run(
        [*command, address], env={**os.environ, "BODY": str(contender.body)}, capture_output=True, text=True, check=True
    )
    if "Non-2xx" in done.stdout:
        raise SystemExit(f"{contender.name} refuses:\n{done.stdout}")
    rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    tail = re.search(r"99%\s+([\d.]+)(us|ms|s)\b", done.stdout)
    assert rate is not None, done.stdout
    assert tail is not None, done.stdout
    return float(rate[1]), float(tail[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[tail[2]]


def memory(process: subprocess.Popen[bytes]) -> float:
    """Return the MiB that belong to a server's processes alone (USS), all of them together."""
    every = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    return sum(each.memory_full_info().uss for each in every) / 2**20


def train(folder: Path) -> Path:
    argv = ["run", "config=quickstart", "training.max_epochs=2", "hardware.cpus=1", "tracking=none", "name=digits"]
    (folder / ".ai4sdk").touch()
    subprocess.run([sys.executable, "-m", "ai4sdk", *argv], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return next((folder / "runs").glob("*digits*"))


def contenders_of(arguments: argparse.Namespace, folder: Path, run: Path) -> list[Contender]:
    network = folder / "network.pt"
    # in a process of its own: torch in this one would share memory with those servers alone that have the same torch
    subprocess.run([sys.executable, "-c", TRACE, str(run), str(network)], check=True, stderr=subprocess.DEVNULL)
    golden = json.loads((run / "package" / "golden" / "requests.json").read_text())[0]
    rows, v2 = folder / "rows.json", folder / "v2.json"
    rows.write_text(json.dumps(golden))
    tensor = {"name": "input", "datatype": "FP32", "shape": [1, 64], "data": golden["inputs"][0]}
    v2.write_text(json.dumps({"inputs": [tensor]}))
    env = {"NETWORK": str(network), "PYTHONPATH": str(HERE)}
    ports = [free_port() for _ in range(4)]
    ours = [sys.executable, "-m", "ai4sdk", "serve", str(run), f"serving.port={ports[0]}"]
    fast = [sys.executable, "-m", "uvicorn", "with_fastapi:app", "--port", str(ports[1]), "--log-level", "warning"]
    found = [
        Contender("ai4sdk", ours, "/predict", rows, "/health/ready", folder, ports[0]),
        Contender("ai4sdk V2", ours, "/v2/models/digits/infer", v2, "/health/ready", folder, ports[0]),
        Contender(
            "ai4sdk ONNX",
            [*ours[:-1], f"serving.port={ports[3]}", "serving.engine=onnx"],
            "/v2/models/digits/infer",
            v2,
            "/health/ready",
            folder,
            ports[3],
        ),
        Contender("FastAPI", fast, "/predict", rows, "/docs", folder, ports[1], env),
    ]
    if arguments.litserve:
        argv = [arguments.litserve, str(HERE / "with_litserve.py"), str(ports[2])]
        found.append(Contender("LitServe", argv, "/predict", rows, "/health", folder, ports[2], env))
    if arguments.mlserver:
        path = "/v2/models/digits"
        # As it comes, with a process that infers beside the one that listens; and in one process.
        for name, workers in (("MLServer V2", 1), ("MLServer one", 0)):
            place, port = folder / f"mlserver{workers}", free_port()
            place.mkdir()
            model = {
                "name": "digits",
                "implementation": "with_mlserver.Digits",
                "max_batch_size": 16,
                "max_batch_time": 0.001,
            }
            (place / "model-settings.json").write_text(json.dumps(model))
            settings = {
                "http_port": port,
                "grpc_port": free_port(),
                "metrics_port": free_port(),
                "parallel_workers": workers,
            }
            (place / "settings.json").write_text(json.dumps(settings))
            argv = [str(Path(arguments.mlserver).parent / "mlserver"), "start", str(place)]
            found.append(Contender(name, argv, f"{path}/infer", v2, f"{path}/ready", folder, port, env))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--mlserver", metavar="PYTHON")
    parser.add_argument("--litserve", metavar="PYTHON")
    arguments = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is missing: apt-get install wrk")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        contenders = contenders_of(arguments, folder, train(folder))
        rates: dict[str, list[float]] = {each.name: [] for each in contenders}
        tails: dict[str, list[float]] = {each.name: [] for each in contenders}
        starts: dict[str, list[float]] = {each.name: [] for each in contenders}
        sizes: dict[str, float] = {}
        for number in range(arguments.rounds):
            for contender in contenders if number % 2 == 0 else contenders[::-1]:
                with running(contender) as (process, seconds):  # alone on the machine
                    load(contender, 1)
                    rate, tail = load(contender, arguments.seconds)
                    rates[contender.name].append(rate)
                    tails[contender.name].append(tail)
                    starts[contender.name].append(seconds)
                    sizes[contender.name] = memory(process)
        reference = statistics.median(rates["FastAPI"])
        print(f"{'':12} requests/s  x FastAPI  p99 ms  ready s  MiB")
        for contender in contenders:
            rate, tail, ready = (statistics.median(each[contender.name]) for each in (rates, tails, starts))
            figures = f"{rate:10,.0f}  {rate / reference:9.2f}  {tail:6.1f}  {ready:7.2f}  {sizes[contender.name]:4.0f}"
            print(f"{contender.name:12} {figures}")
        print(json.dumps({"requests_per_second": rates, "p99_ms": tails, "ready_s": starts, "uss_mib": sizes}))


if __name__ == "__main__":
    main()
