"""Servers of packages, for tests that ask them."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import namedtuple

import pytest
from packages import make_code, make_package, writing

__all__ = ["make_code", "make_package", "writing"]

Answer = namedtuple("Answer", "status headers body")


class Server:
    """`ai4sdk serve` in a process of its own."""

    def __init__(self, folder, *argv, env=None):
        self.log_file = folder / f"server-{time.monotonic_ns()}.log"
        command = [sys.executable, "-m", "ai4sdk", "serve", *map(str, argv), "serving.port=0"]
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=folder, stdout=log, stderr=log, env={**os.environ, **(env or {})}, start_new_session=True
            )
        self.url = self._wait_for(r"listening at (\S+)")

    @property
    def log(self):
        return self.log_file.read_text()

    @property
    def port(self):
        return int(self.url.rpartition(":")[2])

    def _wait_for(self, pattern, seconds=180):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if match := re.search(pattern, self.log):
                return match[1] if match.groups() else match[0]
            assert self.process.poll() is None, self.log
            time.sleep(0.05)
        raise AssertionError(f"{pattern} is not in:\n{self.log}")

    def ready(self, times=1):
        self._wait_for(r"(?s)" + r".*".join([r"version \S+ is ready"] * times))
        return self

    def ask(self, path, body=None, kind="application/json", method=None, **headers):
        data = json.dumps(body).encode() if isinstance(body, dict | list) else body
        request = urllib.request.Request(self.url + path, data=data, method=method)
        if data is not None:
            request.add_header("content-type", kind)
        for name, value in headers.items():
            request.add_header(name.replace("_", "-"), value)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return Answer(answer.status, dict(answer.headers), answer.read())
        except urllib.error.HTTPError as error:
            return Answer(error.code, dict(error.headers), error.read())

    def metric(self, name):
        text = self.ask("/metrics").body.decode()
        return sum(float(line.split()[-1]) for line in text.splitlines() if re.match(rf"{name}[ {{]", line))

    def models(self):
        """Process ids of the model processes."""
        found = subprocess.run(
            ["ps", "-o", "pid=,args=", "--ppid", str(self.process.pid)], capture_output=True, text=True, check=False
        )
        return [int(line.split()[0]) for line in found.stdout.splitlines() if "ai4sdk.serving.process" in line]

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
        return self.process.wait()


@pytest.fixture
def start(tmp_path):
    servers = []

    def start(*argv, env=None):
        servers.append(Server(tmp_path, *argv, env=env))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    """A package whose module fails on demand."""
    from serving.faulty import write_faulty_package

    return write_faulty_package(tmp_path_factory.mktemp("faulty"))


@pytest.fixture(scope="module")
def server(tmp_path_factory, faulty):
    """A server of it."""
    running = Server(
        tmp_path_factory.mktemp("server"), faulty, "--trust-code", "serving.limits.timeout=3", "serving.limits.slow=1.5",
        "serving.limits.body=1MB", "serving.threads=1",
    ).ready()  # fmt: skip
    yield running
    running.stop()
