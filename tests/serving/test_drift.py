"""A served model is watched for drift: told at /drift, to Prometheus, in the log and in a file; requests do not wait."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.engine, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("watched")
    (folder / ".ai4sdk").touch()
    argv = ["run", "config=quickstart", "training.max_epochs=1", "hardware.cpus=1", "tracking=none"]
    subprocess.run([sys.executable, "-m", "ai4sdk", *argv], cwd=folder, check=True, capture_output=True)
    return folder


def rows_of(start, stop):
    from sklearn.datasets import load_digits

    return load_digits().data[start:stop]


def told(server, samples):
    """What is told of drift once so many samples have been looked at."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        snapshot = json.loads(server.ask("/drift").body)["quickstart"]["1"]
        if snapshot.get("counters", {}).get("samples", 0) >= samples:
            return snapshot
        time.sleep(0.2)
    raise AssertionError(f"{snapshot} is not of {samples} samples")


def test_drift_is_told_wherever_one_looks(project, start, tmp_path):
    events = tmp_path / "drift.jsonl"
    server = start(
        next((project / "runs").glob("*quickstart*")), f"serving.drift_events={events}", "serving.drift.window=200",
        "serving.drift.load=1.0",
    ).ready()  # fmt: skip
    assert "watched for drift" in server.log
    like = rows_of(0, 1000)
    for at in range(0, 1000, 50):
        assert server.ask("/predict", {"inputs": like[at : at + 50].tolist()}).status == 200
    calm = told(server, 1000)
    assert calm["counters"]["windows"] == 5
    assert calm["state"] != "drift"
    for at in range(0, 1000, 50):
        assert server.ask("/predict", {"inputs": (16 - like[at : at + 50]).tolist()}).status == 200
    drifted = told(server, 2000)
    assert drifted["state"] == "drift"
    assert server.metric("ai4sdk_drift_state") == 2
    assert server.metric("ai4sdk_drift_samples") == 2000
    assert "drift watch: windows went from" in server.log
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    assert lines[-1]["state"] == "drift"
    assert lines[-1]["name"] == "quickstart"


def test_what_is_not_watched_says_so(project, start, faulty):
    server = start(faulty, "--trust-code").ready()
    assert "not watched: " in server.log
    told = json.loads(server.ask("/drift").body)["faulty"]["1"]
    assert told["state"] == "unwatched"
    assert "no drift reference" in told["why"]
    assert "ai4sdk_drift_" not in server.ask("/metrics").body.decode()
    server = start(next((project / "runs").glob("*quickstart*")), "serving.drift=null").ready()
    assert "not watched: serving.drift is null" in server.log


def test_one_process_watches_what_several_answer_and_another_takes_its_place(project, start, tmp_path):
    events = tmp_path / "drift.jsonl"
    server = start(
        next((project / "runs").glob("*quickstart*")), f"serving.drift_events={events}", "serving.drift.window=200",
        "serving.workers=2", "serving.drift.load=1.0",
    ).ready()  # fmt: skip
    like = rows_of(0, 1000)

    def ask(samples):
        # At once, so that both have something to do.
        with ThreadPoolExecutor(8) as several:
            batches = [samples[at : at + 50].tolist() for at in range(0, len(samples), 50)]
            assert {
                answer.status for answer in several.map(lambda rows: server.ask("/predict", {"inputs": rows}), batches)
            } == {200}

    ask(like)
    calm = told(server, 1000)
    assert calm["counters"]["windows"] == 5
    assert calm["counters"]["dropped_samples"] == calm["counters"]["errors"] == 0
    ask(16 - like[:400])
    assert told(server, 1400)["state"] == "drift"
    assert server.metric("ai4sdk_drift_samples") == 1400
    watcher = json.loads(server.ask("/drift").body)["quickstart"]["1"]["pid"]
    assert watcher in server.models()
    os.kill(watcher, signal.SIGKILL)
    server._wait_for("another is started")
    ask(like[:400])
    again = told(server, 400)
    assert again["pid"] != watcher
    assert again["counters"]["windows"] == 2
    assert again["state"] != "drift"  # what was before is forgotten, and the file says that it began anew
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    assert [line["event"] for line in lines].count("began") == 2
    assert {line["version"] for line in lines} == {"1"}
