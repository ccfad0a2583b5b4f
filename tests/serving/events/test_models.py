"""`ai4sdk serve` asks a trained model about files as they arrive."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from packages import make_code, make_package

__all__ = ["make_code", "make_package"]


def write(folder: Path, package: Path, **events: Any) -> None:
    given = {"input": "in", "output": "out", "dead_letter": "dead", "settle": 0, "every": 0.1, **events}
    models = {"tiny": {"source": str(package), "trust_code": True}}
    serving = {"models": models, "port": 0, "events": given}
    config = {"defaults": ["base", "_self_"], "name": "watch", "serving": serving}
    (folder / "watch.yaml").write_text(yaml.safe_dump(config))
    (folder / "in").mkdir(exist_ok=True)


def command(*more: str) -> list[str]:
    return [sys.executable, "-m", "ai4sdk", "serve", "config=watch.yaml", *more]


def run(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*more), cwd=folder, capture_output=True, text=True, check=False, timeout=300)


def results(folder: Path) -> dict[str, Any]:
    return {path.name.partition(".")[0]: json.loads(path.read_text()) for path in (folder / "out").glob("*.json")}


@pytest.mark.slow
def test_files_are_answered_by_the_model_and_what_it_refuses_is_a_dead_letter(make_package, tmp_path):
    package = make_package()
    write(tmp_path, package)
    (tmp_path / "in" / "good.json").write_text(json.dumps([[0.1, 0.2, 0.3, 0.4]]))
    (tmp_path / "in" / "short.json").write_text(json.dumps([[0.1]]))
    (tmp_path / "in" / "odd.bin").write_bytes(b"\0\1\2")
    done = run(tmp_path, "--once")
    assert done.returncode == 4, done.stderr
    (prediction,) = results(tmp_path)["good"]["predictions"]
    assert prediction["prediction"] in ("a", "b", "c")
    letters = [json.loads(path.read_text()) for path in (tmp_path / "dead").glob("*.error.json")]
    assert sorted((letter["key"], letter["status"]) for letter in letters) == [("odd.bin", 415), ("short.json", 400)]


@pytest.mark.slow
def test_killed_and_started_again_it_goes_on_and_no_process_stays(make_package, tmp_path):
    write(tmp_path, make_package())
    for number in range(30):
        (tmp_path / "in" / f"{number}.json").write_text(json.dumps([[number, 0, 0, 0]]))
    server = subprocess.Popen(command(), cwd=tmp_path, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        while not results(tmp_path) if (tmp_path / "out").is_dir() else True:
            assert server.poll() is None
            time.sleep(0.01)
        server.kill()
        server.wait()
        deadline = time.monotonic() + 60
        while group_of(server.pid):
            assert time.monotonic() < deadline, "a model's process stayed behind"
            time.sleep(0.1)
    finally:
        if group_of(server.pid):
            os.killpg(server.pid, signal.SIGKILL)
    assert run(tmp_path, "--once").returncode == 0
    assert sorted(map(int, results(tmp_path))) == list(range(30))
    assert not list((tmp_path / "dead").glob("*.json"))


def group_of(leader: int) -> list[int]:
    """Return the processes of a group that are alive."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, group = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(group) == leader and state != "Z":
            found.append(int(path.parent.name))
    return found


@pytest.mark.slow
def test_one_server_answers_over_http_and_processes_files_with_the_same_processes(make_package, tmp_path):
    write(tmp_path, make_package())
    server = subprocess.Popen(command(), cwd=tmp_path, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert server.stdout is not None
        address = server.stdout.readline().removeprefix("listening at ").strip()

        def get(path: str, body: bytes | None = None) -> Any:
            request = urllib.request.Request(address + path, body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.read().decode()

        def ready() -> bool:
            with contextlib.suppress(urllib.error.HTTPError):
                return bool(get("/health/ready"))
            return False

        until(ready)
        alone = len(group_of(server.pid))
        for number in range(20):
            (tmp_path / "in" / f"{number}.json").write_text(json.dumps([[number, 0, 0, 0]]))
        asked = json.dumps([[5, 0, 0, 0]]).encode()
        (answered,) = json.loads(get("/predict", asked))["predictions"]
        until(lambda: len(results(tmp_path)) == 20)
        assert results(tmp_path)["5"]["predictions"] == [answered]
        assert len(group_of(server.pid)) == alone
        # a result is there before it is counted
        until(lambda: "ai4sdk_events_done_total 20" in get("/metrics").splitlines())
        assert any(
            line.startswith('ai4sdk_requests_total{model="tiny",protocol="natural",status="200",version="1"} 1')
            for line in get("/metrics").splitlines()
        )
        server.terminate()
        assert server.wait(60) == 0
    finally:
        if group_of(server.pid):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_mistakes_are_told_before_a_model_is_loaded(tmp_path):
    write(tmp_path, tmp_path / "nowhere", output="in/out")
    done = run(tmp_path)
    assert done.returncode == 2
    assert "lie in each other" in done.stderr
    write(tmp_path, tmp_path / "nowhere")
    done = run(tmp_path)
    assert done.returncode == 6
    assert "Traceback" not in done.stderr
    config = yaml.safe_load((tmp_path / "watch.yaml").read_text())
    config["serving"]["models"] = {"a": "x", "b": "y"}
    (tmp_path / "watch.yaml").write_text(yaml.safe_dump(config))
    done = run(tmp_path)
    assert done.returncode == 2
    assert "one model" in done.stderr
    assert "serving.events.model=a" in done.stderr
    del config["serving"]["events"]
    (tmp_path / "watch.yaml").write_text(yaml.safe_dump(config))
    done = run(tmp_path, "--once")
    assert done.returncode == 2
    assert "serving.events" in done.stderr
