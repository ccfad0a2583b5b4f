"""An environment with a module and the real DEEPaaS in it, made once, and servers of both kinds."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn

from ai4sdk.serving.deepaas.api import Api
from ai4sdk.serving.deepaas.asgi import Application
from ai4sdk.serving.deepaas.environment import make_environment
from ai4sdk.serving.deepaas.module import Module
from ai4sdk.serving.deepaas.served import ServedModule

POND = Path(__file__).parent / "pond"
REQUIREMENTS = ["deepaas==2.5.2", "numpy<2"]


@pytest.fixture(scope="session")
def environment(tmp_path_factory) -> Path:
    """An environment of its own: DEEPaaS 2.5.2, webargs 5, numpy 1, and the modules of the folder ``pond``."""
    kept = os.environ.get("AI4SDK_TEST_ENVIRONMENTS")  # to keep it from one session to the next
    folder = Path(kept) if kept else tmp_path_factory.mktemp("environments")
    return make_environment(POND, folder, requirements=REQUIREMENTS)


@pytest.fixture(scope="session")
def bare_environment(tmp_path_factory) -> Path:
    """An environment without any module."""
    place = tmp_path_factory.mktemp("bare") / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    return place


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="session")
def serving():
    """What serves modules by HTTP, as a context."""
    return _serving


@contextmanager
def _serving(names: list[str], environment: Path, folder: Path, *, api=None, **options) -> Iterator[httpx.Client]:
    """Serve modules by HTTP, in a thread, and yield a client."""
    port = free_port()
    modules = {name: Module(name, environment, **options) for name in names}
    served = {name: ServedModule(module, folder / name) for name, module in modules.items()}
    application = Application(Api(served, **(api or {})))
    config = uvicorn.Config(application, host="127.0.0.1", port=port, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    failed: list[BaseException] = []

    async def run() -> None:
        try:
            await asyncio.gather(*(module.start() for module in modules.values()))
            await server.serve()
        except Exception as error:  # noqa: BLE001 - raised where it is waited for
            failed.append(error)
        finally:
            await asyncio.gather(*(module.close() for module in modules.values()))

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.02)
        if failed:
            raise failed[0]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            client.modules = modules
            yield client
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def ours(environment, tmp_path_factory) -> Iterator[httpx.Client]:
    """Our server of the module ``pond``."""
    with _serving(["pond"], environment, tmp_path_factory.mktemp("trainings")) as client:
        yield client


@pytest.fixture(scope="module")
def theirs(environment) -> Iterator[httpx.Client]:
    """The real one."""
    yield from running_deepaas(environment, "pond")


@pytest.fixture(scope="module")
def another_deepaas(environment) -> Iterator[httpx.Client]:
    """The real one, for tests that cost it a worker each."""
    yield from running_deepaas(environment, "pond", "--workers", "3")


def running_deepaas(environment: Path, name: str, *options: str) -> Iterator[httpx.Client]:
    port = free_port()
    command = [str(environment / "bin" / "deepaas-run"), "--listen-port", str(port), "--model-name", name, *options]
    environ = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environ) as process:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
                wait_for_answer(client, process)
                yield client
        finally:
            process.kill()


def wait_for_answer(client: httpx.Client, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            client.get("/")
            return
        except httpx.TransportError:
            assert process.poll() is None, "deepaas-run ended"
            assert time.monotonic() < deadline, "deepaas-run does not answer"
            time.sleep(0.1)


@pytest.fixture
def serve(environment, tmp_path) -> Iterator[Callable[..., httpx.Client]]:
    """Serve modules with options of the test's own."""
    stack = []

    def start(*names: str, folder: Path = tmp_path / "trainings", **options) -> httpx.Client:
        context = _serving(list(names), environment, folder, **options)
        client = context.__enter__()
        stack.append(context)
        return client

    yield start
    for context in reversed(stack):
        context.__exit__(None, None, None)
