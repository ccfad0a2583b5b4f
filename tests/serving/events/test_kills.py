"""Real processes, killed hard at random: no object is lost and none is doubled."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.slow

ANSWER = """
import asyncio
import json
import random

from ai4sdk.serving.messages import Request, Response


async def ask(request):
    await asyncio.sleep(random.random() * 0.02)
    text = bytes(request.body).decode()
    if text.startswith("bad"):
        return Response(422, "application/json", b'{"error": "bad"}')
    return Response(200, "application/json", json.dumps({"text": text}).encode())
"""
KILLS = 36
OBJECTS = 180


class Server:
    """``python -m ai4sdk.serving.events`` in a folder of its own."""

    def __init__(self, folder: Path, **events: Any) -> None:
        self.folder, self.config = folder, f"{events.get('state', 'events')}.yaml"
        (folder / "answer.py").write_text(ANSWER)
        given = {"input": "in", "output": "out", "dead_letter": "dead", "settle": 0.05, "every": 0.05, **events}
        (folder / self.config).write_text(yaml.safe_dump({"events": given}))
        (folder / "in").mkdir(exist_ok=True)
        self.log = folder / "log"

    def start(self, *more: str) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-m", "ai4sdk.serving.events", self.config, "--ask", "answer:ask", *more]
        with self.log.open("ab") as log:
            return subprocess.Popen(argv, cwd=self.folder, stderr=log)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]


class Reader(threading.Thread):
    """Takes results and dead letters away as they appear, and remembers each."""

    def __init__(self, *folders: Path) -> None:
        super().__init__(daemon=True)
        self.folders, self.seen, self.over = folders, [], threading.Event()

    def run(self) -> None:
        while not self.over.is_set():
            self.take()
            time.sleep(0.001)
        self.take()

    def take(self) -> None:
        for folder in self.folders:
            if not folder.is_dir():
                continue
            for entry in os.scandir(folder):
                if not entry.name.startswith(".") and entry.name.endswith(".json"):
                    data = json.loads(Path(entry.path).read_bytes())  # whole, at any moment
                    self.seen.append((entry.name, data))
                    Path(entry.path).unlink()


def put(folder: Path, name: str, text: str) -> None:
    scratch = folder / f".{name}"
    scratch.write_text(text)
    scratch.rename(folder / name)


def test_kills_at_random_neither_lose_nor_double_an_object(tmp_path):
    chance = random.Random(7)
    server = Server(tmp_path, concurrency=4)
    reader = Reader(tmp_path / "out", tmp_path / "dead")
    reader.start()
    names = iter(range(OBJECTS))
    killed_at_work = 0
    for _ in range(KILLS):
        for number in itertools.islice(names, OBJECTS // KILLS):
            put(tmp_path / "in", f"{number}.txt", f"{'bad' if number % 10 == 0 else 'good'} {number}")
        before = len(reader.seen)
        process = server.start()
        # Kill it at some moment after it has begun to work: of five objects it is at one, or has just ended the last.
        deadline = time.monotonic() + 60
        while len(reader.seen) == before and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(chance.random() * 0.04)
        process.kill()
        process.wait()
        ledger = (tmp_path / "events" / "ledger.jsonl").read_text()
        killed_at_work += ledger.count('"claimed"') > ledger.count('"done"') + ledger.count('"dead"')
    assert server.start("--once").wait(120) in (0, 4)  # with or without a dead letter in this life
    reader.over.set()
    reader.join()
    assert killed_at_work > KILLS / 4, "the kills came when there was nothing to lose"
    assert sorted(int(name.partition(".")[0]) for name, _ in reader.seen) == list(range(OBJECTS))
    for name, data in reader.seen:
        number = int(name.partition(".")[0])
        if number % 10 == 0:
            assert name.endswith(".error.json")
            assert data["reason"] == "bad"
        else:
            assert data == {"text": f"good {number}"}
    left = [path for path in (tmp_path / "out").rglob("*") if path.is_file() and {"scratch", "staged"} & {*path.parts}]
    assert left == []


def test_two_servers_of_which_one_is_killed_leave_nothing_behind(tmp_path):
    """The other one takes over what was held, after the lease."""
    for number in range(100):
        (tmp_path / "in").mkdir(exist_ok=True)
        put(tmp_path / "in", f"{number}.txt", f"good {number}")
    one = Server(tmp_path, lease=1, state="one")
    reader = Reader(tmp_path / "out")
    reader.start()
    first = one.start()
    two = Server(tmp_path, lease=1, state="two")
    second = two.start()
    while len(reader.seen) < 20:
        time.sleep(0.001)
    first.kill()
    first.wait()
    while len(reader.seen) < 100:
        assert second.poll() is None
        time.sleep(0.01)
    second.send_signal(signal.SIGTERM)
    assert second.wait(60) == 0
    reader.over.set()
    reader.join()
    assert sorted(int(name.partition(".")[0]) for name, _ in reader.seen) == list(range(100))


def test_sigterm_ends_what_was_begun(tmp_path):
    server = Server(tmp_path)
    for number in range(50):
        put(tmp_path / "in", f"{number}.txt", f"good {number}")
    process = server.start()
    while not any((tmp_path / "out").glob("*.json")):
        time.sleep(0.001)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    ended = server.lines()[-1]
    assert ended["event"] == "ended"
    assert ended["done"] == len(list((tmp_path / "out").glob("*.json")))
    assert ended["released"] == ended["in_flight"] == 0
    assert '"claimed"' not in (tmp_path / "events" / "ledger.jsonl").read_text().splitlines()[-1]
