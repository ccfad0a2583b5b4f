"""python -m ai4sdk.backends.ray RUN_DIR ATTEMPT JOB: what a Ray job's entrypoint executes."""

import signal
import sys
from dataclasses import replace
from pathlib import Path

from ai4sdk.backends.base import Command
from ai4sdk.backends.job import JobSupervisor, supervise_job
from ai4sdk.backends.local.task import stop_request
from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.state import RunState, State


class _RaySupervisor(JobSupervisor):
    def stop_signal(self, command: Command) -> signal.Signals:
        """Pass nothing on that Ray has sent to every process itself; a task would take it for impatience."""
        return signal.SIGCONT if self.terminated else signal.SIGTERM

    def conclude(self, state: RunState) -> RunState:
        """Tell what SIGTERM means here: somebody stopped the job at Ray."""
        if state.state is State.INTERRUPTED and self.terminated and not stop_request(self.run):
            return replace(state, state=State.CANCELLED, cause=f"job {self.job} was stopped at Ray", exit_code=130)
        return state


if __name__ == "__main__":
    folder, attempt, job = sys.argv[1:]
    sys.exit(supervise_job(_RaySupervisor(RunPaths(Path(folder)), scheduler="ray", job=job), int(attempt)))
