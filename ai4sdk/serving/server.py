"""The server: models, the socket, signals, and an end without a lost request."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from ai4sdk.errors import Ai4Error, EnvironmentFault
from ai4sdk.serving.access import AccessLog
from ai4sdk.serving.app import App
from ai4sdk.serving.http import HttpProtocol
from ai4sdk.serving.link import Spawned
from ai4sdk.serving.metrics import Metrics, PoolMetrics
from ai4sdk.serving.models import Models
from ai4sdk.serving.pool import Pool, PoolSettings
from ai4sdk.spec.serving import Serving

__all__ = ["Found", "cpus", "open_socket", "serve", "threads_of"]


@dataclass(frozen=True)
class Found:
    """A version to serve, and where it lies on this machine.

    Parameters
    ----------
    name, version, weight, trust_code
        See `ai4sdk.spec.serving`.
    folder
        A run or a package.
    """

    name: str
    version: str
    folder: Path
    weight: float = 1.0
    trust_code: bool = False


def cpus() -> int:
    """Return the number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0))


def threads_of(serving: Serving, versions: int) -> int:
    """Return how many threads a model process gets: its share of the CPUs."""
    return serving.threads or max(1, cpus() // (serving.workers * max(versions, 1)))


def open_socket(host: str, port: int) -> socket.socket:
    """Listen.

    Raises
    ------
    EnvironmentFault
        If that address cannot be had.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        opened = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise EnvironmentFault(
            f"cannot listen at {host}:{port}: {error.strerror or error}", hint="serving.port=0 takes a free one"
        ) from error
    opened.set_inheritable(False)
    return opened


def serve(
    serving: Serving,
    found: Sequence[Found],
    listening: socket.socket,
    *,
    spawned: Sequence[Spawned] = (),
    tell: Callable[[str], None],
) -> None:
    """Serve until a signal says to stop.

    Parameters
    ----------
    serving
        How.
    found
        What.
    listening
        The socket.
    spawned
        Model processes that were started already, to be used first.
    tell
        Told what the user should know.

    Raises
    ------
    Ai4Error
        If a model cannot be loaded.
    """
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_Server(serving, found, listening, spawned, tell).run())


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    import uvloop

    return uvloop.new_event_loop


class _Server:
    """A server while it runs."""

    def __init__(
        self,
        serving: Serving,
        found: Sequence[Found],
        listening: socket.socket,
        spawned: Sequence[Spawned],
        tell: Callable[[str], None],
    ) -> None:
        self._serving = serving
        self._found = found
        self._listening = listening
        self._spawned = list(spawned)
        self._tell = tell
        self._models = Models()
        self._metrics = Metrics()
        self._log = AccessLog(sys.stderr) if serving.access_log else None
        self._app = App(serving, self._models, self._metrics, self._log)
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._asked_to_stop)
        http = uvicorn.Server(
            uvicorn.Config(
                self._app,
                http=HttpProtocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=False,
                timeout_keep_alive=75,
                limit_concurrency=self._serving.limits.connections,
                timeout_graceful_shutdown=round(self._serving.grace),
            )
        )
        HttpProtocol.slow = self._serving.limits.slow
        http.capture_signals = contextlib.nullcontext  # type: ignore[method-assign] # they are ours
        answering = loop.create_task(http.serve(sockets=[self._listening]))
        loading = loop.create_task(self._load())
        stopping = loop.create_task(self._stopping.wait())
        try:
            await asyncio.wait({answering, loading, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if loading.done():
                loading.result()
                await asyncio.wait({answering, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            loading.cancel()
            await self._drain()
            http.should_exit = True
            with contextlib.suppress(asyncio.CancelledError):
                await answering
            if self._log is not None:
                self._log.flush()

    async def _load(self) -> None:
        """Load every model; what is there already answers in the meantime."""
        for found in self._found:
            pool = Pool(self._settings(found), PoolMetrics(self._metrics, found.name, found.version))
            taken, self._spawned = self._spawned[: self._serving.workers], self._spawned[self._serving.workers :]
            await pool.start(taken)
            self._models.add(found.name, found.version, pool, found.weight)
            golden = pool.facts["golden"]
            tried = (
                f"{golden} golden requests answered as when it was packed" if golden else "it has no golden requests"
            )
            alone = "" if pool.facts["batches"] else ", without batches"
            self._tell(f"{found.name} version {found.version} is ready: {tried}{alone}")

    def _settings(self, found: Found) -> PoolSettings:
        serving = self._serving
        return PoolSettings(
            name=found.name,
            version=found.version,
            folder=found.folder,
            devices=(serving.device,) * serving.workers,
            threads=threads_of(serving, len(self._found)),
            trust_code=found.trust_code,
            batch_size=serving.batch.size,
            batch_wait=serving.batch.wait,
            start=serving.start,
            timeout=serving.limits.timeout,
        )

    def _asked_to_stop(self) -> None:
        if self._stopping.is_set():
            self._tell("stopped at once")
            os._exit(130)
        self._app.draining = True
        self._tell("stopping when the requests that are here are answered; once more stops at once")
        self._stopping.set()

    async def _drain(self) -> None:
        """Answer what is here, at most ``serving.grace``, and end the processes."""
        self._app.draining = True
        try:
            await asyncio.wait_for(
                asyncio.gather(*(pool.close() for pool in self._models.pools())), self._serving.grace
            )
        except TimeoutError:
            self._tell(f"requests were not answered within {self._serving.grace:g} s; they are dropped")
        except Ai4Error as error:
            self._tell(str(error))
