"""An engine that imports what it needs while its study is still planned: both ends of its socket.

Nothing is imported here that takes time, as the process that plans has other things to do.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from ai4sdk.backends.local.spare import FROM_THE_START
from ai4sdk.studies.layout import StudyPaths

__all__ = ["ReadyEngine", "ready_engine", "wait_for_study"]

_LONGEST_MESSAGE = 2**16


class ReadyEngine:
    """Starts an engine that has no study yet.

    It has nothing of the study until it is handed over, and ends when whoever started it ends before that.

    Raises
    ------
    OSError
        If no process can be started.
    """

    def __init__(self) -> None:
        self._connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                self.process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "ai4sdk.studies", "--ready"],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,  # one that dies is replaced by one that has a log
                    start_new_session=True,
                    env={**os.environ, **FROM_THE_START},  # its zygote has to have them from the start
                )
        except BaseException:
            self._connection.close()
            raise

    def hand_over(self, paths: StudyPaths, project: Path, lock: int, log: int, options: Sequence[str]) -> bool:
        """Give it its study; ``False`` if it has died by now."""
        message = json.dumps({"study": str(paths.root), "project": str(project), "options": options})
        try:
            socket.send_fds(self._connection, [message.encode()], [lock, log])
        except ConnectionError:
            return False
        finally:
            self.close()
        return True

    def close(self) -> None:
        """Let it end, unless it has its study."""
        self._connection.close()


@contextlib.contextmanager
def ready_engine() -> Iterator[ReadyEngine | None]:
    """Have an engine made ready during the block; ``None`` where none can be: then one is started later."""
    engine = None
    with contextlib.suppress(OSError):
        engine = ReadyEngine()
    try:
        yield engine
    finally:
        if engine is not None:
            engine.close()


def wait_for_study() -> tuple[StudyPaths, int, list[str]] | None:
    """Become the engine of the study that standard input tells of.

    Returns
    -------
    tuple of StudyPaths, int and list of str, optional
        The study, the descriptor that holds its lock, and options; ``None`` if there will be none. The process is then
        in the project's folder, and its output goes to the study's log.
    """
    from ai4sdk.backends.local.spare import fork_spare
    from ai4sdk.planning.plan import Plan, TaskPlan
    from ai4sdk.spec import Job
    from ai4sdk.spec.base import complete

    for model in (Job, Plan, TaskPlan):
        complete(model)
    fork_spare()
    with socket.socket(fileno=os.dup(0)) as connection:
        try:
            message, descriptors, _, _ = socket.recv_fds(connection, _LONGEST_MESSAGE, 2)
        except ConnectionError:
            return None
    if not message:
        return None
    told = json.loads(message)
    lock, log = descriptors
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.close(nothing)
    os.close(log)
    os.chdir(told["project"])
    return StudyPaths(Path(told["study"])), lock, told["options"]
