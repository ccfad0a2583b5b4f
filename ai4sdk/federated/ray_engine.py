"""A rehearsal on Flower's Ray engine: for more sites than one machine trains, or an existing cluster.

Each actor makes data and module from the run's plan, as the run's own process does, so that nothing but messages goes
there and back.
"""

from __future__ import annotations

import functools
import os
import socket
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.common.constant import PARTITION_ID_KEY

from ai4sdk.errors import EnvironmentFault
from ai4sdk.federated.inline import InlineGrid, answered, failed
from ai4sdk.planning.plan import read_plan_file
from ai4sdk.runs.layout import RunPaths
from ai4sdk.worker.signals import StopRequest

__all__ = ["RayGrid", "app_of_run"]

_LOOK = 0.2
"""Seconds between two looks at whether to stop."""
_ANSWER = 10.0
"""Seconds to wait for a cluster."""


class RayGrid(InlineGrid):
    """Hands messages to the actors of Flower's engine.

    Parameters
    ----------
    run
        What the actors make their app of.
    sites
        See `InlineGrid`.
    cpus, gpus
        Of this machine; of a cluster at ``RAY_ADDRESS`` it is what that has.
    each
        CPUs of an actor.
    stop
        Asked while answers are waited for.

    Raises
    ------
    EnvironmentFault
        If Ray is not installed, or cannot be started or reached.
    """

    def __init__(
        self, run: RunPaths, sites: Sequence[str], *, cpus: int, gpus: int, each: int, stop: StopRequest
    ) -> None:
        super().__init__(ClientApp(), sites)  # which answers nothing here
        for number, context in enumerate(self._contexts.values()):
            context.node_config[PARTITION_ID_KEY] = number
        self._stop = stop
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        address = os.environ.get("RAY_ADDRESS")
        if address:
            _require_reachable(address)
        here = {} if address else {"num_cpus": cpus, "num_gpus": gpus}
        try:
            from flwr.server.superlink.fleet.vce.backend.raybackend import RayBackend

            self._engine = RayBackend(
                {
                    "init_args": {**here, "log_to_driver": False},
                    "client_resources": {"num_cpus": each, "num_gpus": gpus},
                }
            )
            make: Callable[[], Any] = functools.partial(app_of_run, str(run.root), str(Path.cwd()))
            self._engine.build(make)  # whose app need only be callable
        except ImportError as error:
            raise EnvironmentFault(f"there is no Ray here: {error}", hint="pip install 'ray>=2.55,<2.56'") from error
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise EnvironmentFault(f"Ray cannot be used: {error}", hint="look at RAY_ADDRESS, or unset it") from error
        if not self._engine.num_workers:
            raise EnvironmentFault(
                f"Ray has no room for an actor with {each} CPUs and {gpus} GPUs",
                hint="a smaller hardware.cpus, or more federation.processes",
            )
        self._threads = ThreadPoolExecutor(self._engine.num_workers)

    def __enter__(self) -> RayGrid:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._engine.terminate()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Have messages answered, as many at once as there are actors; return their ids."""
        asked: dict[Future[Message], Message] = {}
        for message in self._named(messages):
            context = self._contexts[message.metadata.dst_node_id]
            asked[self._threads.submit(self._answer, message, context)] = message
        while wait(asked, timeout=_LOOK).not_done:
            self._stop.check()
        for future, message in asked.items():
            error = _cause(future.exception())
            self._answers[message.metadata.message_id] = failed(error, message) if error else future.result()
        return [message.metadata.message_id for message in asked.values()]

    def _answer(self, message: Message, context: Context) -> Message:
        answer, _ = self._engine.process_message(message, context)
        return answer


def _require_reachable(address: str) -> None:
    """Look whether anything listens at an address: Ray itself tries for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not port.isdigit():
        return  # `auto`, which Ray looks up on this machine
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER).close()
    except OSError as error:
        raise EnvironmentFault(
            f"RAY_ADDRESS={address} does not answer: {error}",
            hint="the address of a running Ray, or unset it to start one on this machine",
        ) from None


def _cause(error: BaseException | None) -> Exception | None:
    """Return what went wrong on the way to a site, out of what Ray puts around it."""
    cause = getattr(error, "cause", None) or error
    return cause if cause is None or isinstance(cause, Exception) else RuntimeError(str(cause))


@functools.lru_cache(maxsize=1)
def app_of_run(root: str, project: str) -> Callable[[Message, Context], Message]:
    """Return what answers for all sites of a run, made once an actor. That a site failed is an answer, too.

    Parameters
    ----------
    root
        Folder of the run; with a cluster, one that its machines see, too.
    project
        Folder that relative paths start from.
    """
    from ai4sdk.federated.task import Federated
    from ai4sdk.worker.ranks import read_rank
    from ai4sdk.worker.records import Records
    from ai4sdk.worker.task import Task
    from ai4sdk.worker.train import quiet_lightning

    os.chdir(project)
    quiet_lightning()
    paths = RunPaths(Path(root))
    plan = read_plan_file(paths.root)
    (task,) = plan.tasks
    sys.path[:0] = [str(paths.code / path) for path in plan.code["paths"]]
    rank = read_rank(1, {})
    opened = Task(plan, plan.as_job(), paths, Records(paths, writes=False), StopRequest(), rank, task.threads)
    federated = Federated(opened)
    federated.prepare()
    app = federated.app(federated.divide()[0])

    def answer(message: Message, context: Context) -> Message:
        made, error = answered(app, message, context)
        return made or failed(error, message)

    return answer
