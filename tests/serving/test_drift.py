"""A served model is watched for drift: told at /drift, to Prometheus, in the log and in a file; requests do not wait."""

import json
import subprocess
import sys
import time

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
        (snapshot,) = json.loads(server.ask("/drift").body)["quickstart"]["1"]
        if snapshot["counters"]["samples"] >= samples:
            return snapshot
        time.sleep(0.2)
    raise AssertionError(f"{snapshot['counters']} are not {samples} samples")


def test_drift_is_told_wherever_one_looks(project, start, tmp_path):
    events = tmp_path / "drift.jsonl"
    server = start(
        next((project / "runs").glob("*quickstart*")), f"serving.drift_events={events}", "serving.drift.window=200"
    ).ready()
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
    assert json.loads(server.ask("/drift").body) == {"faulty": {"1": []}}
    server = start(next((project / "runs").glob("*quickstart*")), "serving.drift=null").ready()
    assert "not watched: serving.drift is null" in server.log
