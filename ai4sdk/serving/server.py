"""The server: models, the socket, signals, and an end without a lost request."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import uvicorn
import uvloop

from ai4sdk.data.secrets import resolve_secret
from ai4sdk.errors import Ai4Error, EnvironmentFault
from ai4sdk.serving.access import AccessLog
from ai4sdk.serving.app import App
from ai4sdk.serving.deepaas.api import Api
from ai4sdk.serving.deepaas.forms import Limits
from ai4sdk.serving.deepaas.front import Front
from ai4sdk.serving.deepaas.modules import environment_of, module_of
from ai4sdk.serving.deepaas.served import ServedModule
from ai4sdk.serving.guard import Guard, Provider
from ai4sdk.serving.http import BehindProxies, HttpProtocol
from ai4sdk.serving.link import Spawned
from ai4sdk.serving.messages import HEADER_LENGTH
from ai4sdk.serving.metrics import Metrics, PoolMetrics
from ai4sdk.serving.models import Models
from ai4sdk.serving.pool import Pool, PoolSettings
from ai4sdk.serving.sources import Located, Sources
from ai4sdk.spec.serving import Serving

__all__ = ["Beside", "Wanted", "open_socket", "pool_settings", "serve", "threads_of", "wanted_of"]

log = logging.getLogger(__name__)

_KEEP_ALIVE = 75
_GPUS = Path("/proc/driver/nvidia/gpus")
"""A folder a GPU, where NVIDIA's driver is."""


@dataclass(frozen=True)
class Wanted:
    """A version to serve; see `ai4sdk.spec.serving`."""

    name: str
    version: str
    source: str
    weight: float
    trust_code: bool


class Beside(Protocol):
    """What asks the models beside those who do so over HTTP."""

    async def run(self) -> None:
        """Ask until `stop`, or until there is no more to ask; called when the models are loaded."""

    def stop(self) -> None:
        """Begin nothing more."""

    def close(self) -> None:
        """Let go of everything; also called where it was never run."""

    def lines(self) -> Iterable[str]:
        """Yield figures, in Prometheus's text form."""


def wanted_of(serving: Serving) -> list[Wanted]:
    """Return every version that is to be served."""
    return [
        Wanted(name, version, each.source, each.weight, each.trust_code)
        for name, model in serving.models.items()
        for version, each in model.every.items()
    ]


def threads_of(serving: Serving) -> int:
    """Return how many threads a model process gets: its share of the CPUs."""
    processes = serving.workers * max(len(wanted_of(serving)), 1)
    return serving.threads or max(1, len(os.sched_getaffinity(0)) // processes)


def pool_settings(serving: Serving, wanted: Wanted, located: Located) -> PoolSettings:
    """Return how the processes of a version are to be."""
    return PoolSettings(
        name=wanted.name,
        version=wanted.version,
        folder=located.folder,
        devices=tuple(_devices(serving)),
        threads=threads_of(serving),
        trust_code=wanted.trust_code,
        batch_size=serving.batch.size,
        batch_wait=serving.batch.wait,
        start=serving.start,
        timeout=serving.limits.timeout,
        engine=serving.engine,
        pixels=serving.limits.pixels,
        drift=serving.drift.model_dump(mode="json") if serving.drift else None,
        drift_events=str(Path(serving.drift_events).absolute()) if serving.drift_events else None,
    )


def open_socket(host: str, port: int) -> socket.socket:
    """Listen.

    Raises
    ------
    EnvironmentFault
        If that address cannot be had.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (while")[0]  # Python repeats the address
        at_port = error.errno in (errno.EADDRINUSE, errno.EACCES)
        raise EnvironmentFault(
            f"cannot listen at {host}:{port}: {reason}",
            hint="serving.port=0 takes a free one" if at_port else "serving.host is an address of this machine",
        ) from error


def serve(
    serving: Serving,
    sources: Sources,
    listening: socket.socket | None,
    *,
    beside: Callable[[Models], Beside] | None = None,
    spawned: Sequence[Spawned] = (),
    tell: Callable[[str], None],
) -> None:
    """Serve until a signal says to stop, or what is `beside` has ended.

    Parameters
    ----------
    serving
        What, and how.
    sources
        Finds the models.
    listening
        The socket for HTTP; nothing for no HTTP.
    beside
        Makes what else asks the models.
    spawned
        Model processes that were started already, to be used first.
    tell
        Told what the user should know.

    Raises
    ------
    Ai4Error
        If a model cannot be loaded, or what is beside cannot go on.
    """
    server = _Server(serving, sources, listening, beside, spawned, tell)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(server.run())
    finally:
        server.close()


class _Server:
    """A server while it runs."""

    def __init__(
        self,
        serving: Serving,
        sources: Sources,
        listening: socket.socket | None,
        beside: Callable[[Models], Beside] | None,
        spawned: Sequence[Spawned],
        tell: Callable[[str], None],
    ) -> None:
        self._serving = serving
        self._sources = sources
        self._listening = listening
        self._spawned = list(spawned)
        self._tell = tell
        self._models = Models()
        self._metrics = Metrics()
        self._served: dict[tuple[str, str], Located] = {}
        self._log = AccessLog(sys.stderr) if serving.access_log else None
        self._front = Front(self._models, serving.limits.body)
        deepaas = Api(self._front, can_train=serving.trainable) if "deepaas" in serving.protocols else None
        self._app = App(serving, self._models, self._metrics, guard=_guard_of(serving), log=self._log, deepaas=deepaas)
        self._stopping = asyncio.Event()
        self._reload = asyncio.Event()
        self._loaded = asyncio.Event()
        self._beside = beside(self._models) if beside is not None else None
        if self._beside is not None:
            self._metrics.further = self._beside.lines

    def close(self) -> None:
        """Let go of what is beside."""
        if self._beside is not None:
            self._beside.close()

    async def run(self) -> None:
        """Serve until asked to stop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._asked_to_stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload.set)
        http = answering = None
        if self._listening is not None:
            http = _Uvicorn(self._config())
            answering = loop.create_task(http.serve(sockets=[self._listening]))
        grpc = await self._start_grpc()
        loading = loop.create_task(self._load())
        beside = loop.create_task(self._run_beside()) if self._beside is not None else None
        working = [task for task in (answering, loading, beside) if task is not None]
        try:
            done, _ = await asyncio.wait(
                [loop.create_task(self._stopping.wait()), *working], return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                task.result()
        finally:
            loading.cancel()
            if beside is not None:
                await self._end_beside(beside)
            await self._drain()
            if grpc is not None:
                await grpc.stop(None)
            if http is not None and answering is not None:
                http.should_exit = True
                await answering
            if self._log is not None:
                self._log.flush()
        if beside is not None:
            beside.result()

    async def _run_beside(self) -> None:
        assert self._beside is not None
        await self._loaded.wait()
        await self._beside.run()

    async def _end_beside(self, task: asyncio.Task[None]) -> None:
        """Let what is beside end what it has begun, while the models can still be asked."""
        assert self._beside is not None
        self._app.draining = True
        self._beside.stop()
        self._loaded.set()
        await asyncio.wait([task])

    async def _start_grpc(self) -> Any:
        if self._serving.grpc_port is None or self._listening is None:
            return None
        try:
            from ai4sdk.serving.grpc.service import start_grpc
        except ImportError as error:
            raise EnvironmentFault(f"gRPC is not here: {error}", hint="pip install 'ai4sdk[grpc]'") from error
        server, port = await start_grpc(self._app, self._serving)
        self._tell(f"listening for gRPC at {self._serving.host}:{port}")
        return server

    def _config(self) -> uvicorn.Config:
        serving, tls = self._serving, self._serving.tls
        HttpProtocol.slow = serving.limits.slow
        application: Any = self._app
        if serving.origins:
            from starlette.middleware.cors import CORSMiddleware

            application = CORSMiddleware(
                application,
                allow_origins=serving.origins,
                allow_methods=["GET", "POST", "DELETE"],
                allow_headers=["*"],
                expose_headers=["x-request-id", "x-model-version", HEADER_LENGTH],
            )
        config = uvicorn.Config(
            BehindProxies(application),
            interface="asgi3",
            proxy_headers=False,
            http=HttpProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=_KEEP_ALIVE,
            limit_concurrency=serving.limits.connections,
            timeout_graceful_shutdown=max(1, round(serving.grace)),
            ssl_certfile=tls.certificate if tls else None,
            ssl_keyfile=tls.key if tls else None,
        )
        try:
            config.load()
        except (OSError, ssl.SSLError) as error:
            raise EnvironmentFault(
                f"serving.tls cannot be used: {getattr(error, 'strerror', None) or error}",
                hint="certificate and key are files in PEM that belong together",
            ) from error
        return config

    async def _load(self) -> None:
        """Load every model, then see to it that they stay the ones that their sources mean."""
        self._models.complete = False
        self._models.modules = dict.fromkeys(self._serving.modules, lambda: False)
        for wanted in wanted_of(self._serving):
            await self._put(wanted, await self._find(wanted))
        self._end_spawned()  # there is none left, except where modules alone are served
        for name in self._serving.modules:
            await self._put_module(name)
        self._models.complete = True
        self._loaded.set()
        every = self._serving.reload
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._reload.wait(), every)
            asked = self._reload.is_set()
            self._reload.clear()
            for wanted in wanted_of(self._serving):
                await self._exchange(wanted, asked=asked)

    async def _exchange(self, wanted: Wanted, *, asked: bool) -> None:
        """Serve what a source means now, if that is another model; one that does not load changes nothing."""
        try:
            located = await self._find(wanted)
            if located.identity == self._served[wanted.name, wanted.version].identity:
                if asked:
                    self._tell(f"{wanted.name} version {wanted.version} is what it was")
                return
            await self._put(wanted, located)
        except Ai4Error as error:
            self._tell(f"{wanted.name} version {wanted.version} stays what it was: {error}")
        except Exception:  # whatever it was, what is served goes on
            log.exception("%s version %s stays what it was", wanted.name, wanted.version)

    async def _find(self, wanted: Wanted) -> Located:
        return await asyncio.get_running_loop().run_in_executor(None, self._sources.find, wanted.source)

    async def _put(self, wanted: Wanted, located: Located) -> None:
        """Load a model, and serve it in the place of the one before, whose requests are answered first."""
        pool = Pool(
            pool_settings(self._serving, wanted, located), PoolMetrics(self._metrics, wanted.name, wanted.version)
        )
        taken, self._spawned = self._spawned[: self._serving.workers], self._spawned[self._serving.workers :]
        try:
            await pool.start(taken)
        except BaseException:
            await pool.close()
            raise
        before = self._models.add(wanted.name, wanted.version, pool, wanted.weight)
        self._served[wanted.name, wanted.version] = located
        golden, alone = pool.facts["golden"], "" if pool.facts["batches"] else ", without batches"
        tried = f"{golden} golden requests answered as when it was packed" if golden else "it has no golden requests"
        watched = "watched for drift" if pool.facts["unwatched"] is None else f"not watched: {pool.facts['unwatched']}"
        engine = _engine_of(pool.facts["engine"])
        self._tell(
            f"{wanted.name} version {wanted.version} is ready ({located.folder}): {tried}{alone}{engine}; {watched}"
        )
        if before is not None:
            await before.close()

    async def _put_module(self, name: str) -> None:
        """Start a module in its own environment."""
        serving, wanted = self._serving, self._serving.modules[name]
        environment = await asyncio.get_running_loop().run_in_executor(None, environment_of, wanted)
        module = module_of(name, wanted, environment, load_timeout=serving.start, said=self._tell)
        await module.start()
        limits = Limits(body=serving.limits.body, text=serving.limits.body)
        self._front.modules[name] = ServedModule(module, Path(serving.trainings) / name, limits)
        self._models.modules[name] = lambda: module.is_ready
        self._tell(f"{name} is ready (Python {module.description.python}, {environment})")

    def _end_spawned(self) -> None:
        """End processes that have no model to load."""
        for spawned in self._spawned:
            spawned.line.close()
            spawned.process.kill()
            spawned.process.wait()
        self._spawned = []

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
        self._end_spawned()
        try:
            modules = [served.module for served in self._front.modules.values()]
            closing = asyncio.gather(
                *(pool.close() for pool in self._models.pools()), *(module.finish() for module in modules)
            )
            await asyncio.wait_for(closing, self._serving.grace)
        except TimeoutError:
            self._tell(f"requests were not answered within {self._serving.grace:g} s; they are dropped")
        for served in self._front.modules.values():
            await served.module.close()


def _engine_of(chosen: Mapping[str, Any] | None) -> str:
    """Say what computes, and why not what was asked for."""
    if chosen is None:
        return ""
    count = chosen["threads"]
    why = f" ({chosen['why_not']})" if chosen["why_not"] else ""
    layout = ", channels last" if chosen["channels_last"] else ""
    return f", computed by {chosen['engine']}{why} with {count} thread{'s' if count > 1 else ''}{layout}"


class _Uvicorn(uvicorn.Server):
    """uvicorn's server, without its way with signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to who runs the server."""
        yield


def _devices(serving: Serving) -> Iterator[str]:
    """Yield where each process computes."""
    if serving.device != "auto":
        yield from [serving.device] * serving.workers
        return
    gpus = [f"cuda:{number}" for number, _ in enumerate(_GPUS.iterdir())] if _GPUS.is_dir() else []
    yield from gpus or ["cpu"] * serving.workers


def _guard_of(serving: Serving) -> Guard | None:
    if not serving.tokens and serving.oidc is None:
        return None
    tokens = [resolve_secret(token) for token in serving.tokens]
    return Guard(tokens, Provider(serving.oidc) if serving.oidc else None)
