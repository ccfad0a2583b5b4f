"""One run in MLflow: created once, described, fed with metrics and files, and ended. Every step may be repeated."""

from __future__ import annotations

import getpass
import json
import logging
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ai4sdk.errors import EnvironmentFault
from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.state import RunState, State
from ai4sdk.studies.layout import StudyPaths
from ai4sdk.tracking.describe import TAG_LIMIT, datasets_of, environment_of, params_of, study_params_of, tags_of
from ai4sdk.tracking.faults import RunGone
from ai4sdk.tracking.ledger import Ledger
from ai4sdk.tracking.names import cut, slug
from ai4sdk.tracking.settings import Redactor, Settings, credentials_in
from ai4sdk.tracking.store import uploading
from ai4sdk.tracking.tail import Point

__all__ = ["STATUS", "Recorder", "chunks"]

log = logging.getLogger(__name__)

METRICS_A_CALL = 1000
ENTRIES_A_CALL = 100
RUN_TAG = "ai4sdk.run_id"
DIGEST_TAG = "ai4sdk.digest"
OF_THE_JOB = frozenset({"plan.json", "config.yaml", "study.json", "best.yaml"})
"""Files that hold the job, and so what somebody may have spelled out in it."""

STATUS = {
    State.QUEUED: "SCHEDULED",
    State.RUNNING: "RUNNING",
    State.SUCCEEDED: "FINISHED",
    State.FAILED: "FAILED",
    State.CANCELLED: "KILLED",
    State.INTERRUPTED: "KILLED",
}
"""MLflow's word for a state; it has one for all that was stopped."""


def chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Yield slices of at most ``size`` items."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


class Recorder:
    """Writes one run into MLflow.

    Parameters
    ----------
    client
        The MLflow client.
    paths
        The run directory.
    settings
        Where the run is recorded.
    ledger
        What was shipped; changed as things arrive, written by the caller.
    """

    def __init__(self, client: Any, paths: RunPaths, settings: Settings, ledger: Ledger) -> None:
        self.client = client
        self.paths = paths
        self.settings = settings
        self.ledger = ledger
        self.started = 0.0

    # -- the run itself

    def open(self, state: RunState | None) -> None:
        """Find the run, or create it, and set it running.

        Raises
        ------
        RunGone
            If the ledger's run is not in the store: it must be forgotten, and all sent again.
        EnvironmentFault
            If somebody deleted the experiment or the run in MLflow.
        """
        run = self._known_run() if self.ledger.run_id else None
        if run is None:
            self.ledger.experiment = self.settings.experiment
            self.ledger.experiment_id = self._experiment()
            run = self._tagged_run() or self._new_run(state)
            self.ledger.run_id = run.info.run_id
        self.started = run.info.start_time / 1000
        if state is not None and not state.state.ended and run.info.status != "RUNNING":
            self.client.update_run(self.run_id, status="RUNNING")

    @property
    def run_id(self) -> str:
        """MLflow's id of the run."""
        assert self.ledger.run_id is not None, "the run is opened first"
        return self.ledger.run_id

    def _known_run(self) -> Any:
        from mlflow.exceptions import MlflowException

        try:
            run = self.client.get_run(self.ledger.run_id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                raise RunGone(f"MLflow no longer knows the run {self.ledger.run_id}") from error
            raise
        if run.info.lifecycle_stage != "active":
            raise EnvironmentFault(
                f"the MLflow run {self.ledger.run_id} was deleted",
                hint=f"bring it back with `mlflow runs restore --run-id {self.ledger.run_id}`, then `ai4sdk sync`",
            )
        return run

    def _experiment(self) -> str:
        from mlflow.exceptions import MlflowException

        name = self.settings.experiment
        for _ in range(2):  # another run may create it between the look and the creation
            found = self.client.get_experiment_by_name(name)
            if found is not None:
                if found.lifecycle_stage != "active":
                    raise EnvironmentFault(
                        f"the MLflow experiment {name!r} was deleted",
                        hint=f"bring it back with `mlflow experiments restore --experiment-id {found.experiment_id}`, "
                        "then `ai4sdk sync`; or record elsewhere: tracking.experiment=NAME",
                    )
                return str(found.experiment_id)
            root = self.settings.artifacts_uri
            try:
                return str(self.client.create_experiment(name, f"{root}/{slug(name)}" if root else None))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
        raise EnvironmentFault(f"the MLflow experiment {name!r} can neither be found nor created")

    def _tagged_run(self) -> Any:
        identity = self.settings.identity
        quote = '"' if "'" in identity else "'"
        digest = self.settings.plan.get("digest", "")
        found = self.client.search_runs(
            [self.ledger.experiment_id],
            filter_string=f"tags.`{RUN_TAG}` = {quote}{identity}{quote} AND tags.`{DIGEST_TAG}` = '{digest}'",
            order_by=["attributes.start_time ASC"],
            max_results=1,
        )
        return found[0] if found else None

    def _new_run(self, state: RunState | None) -> Any:
        started = (state.started or state.created) if state is not None else 0
        return self.client.create_run(
            self.ledger.experiment_id,
            start_time=int(started * 1000) or None,
            tags=self._tags(),
            run_name=self.settings.title,
        )

    # -- what it is

    def describe(self) -> None:
        """Send parameters, tags, datasets and environment, once, and again when it comes under another parent."""
        parent = self.settings.parent
        if self.ledger.described and self.ledger.parent == parent:
            return
        from mlflow.entities import Param

        wanted = (
            study_params_of(self.settings.plan) if isinstance(self.paths, StudyPaths) else params_of(self.settings.job)
        )
        sent = self.client.get_run(self.run_id).data.params  # a parameter cannot be changed once it is there
        params = [Param(key, value) for key, value in wanted.items() if key not in sent]
        for some in chunks(params, ENTRIES_A_CALL):
            self.client.log_batch(self.run_id, params=some)
        self.tag(self._tags())
        self._send_datasets()
        self._send_environment()
        self.ledger.described, self.ledger.parent = True, parent

    def _tags(self) -> dict[str, str]:
        return tags_of(self.settings.identity, self.settings.plan, _user()) | dict(self.settings.tags)

    def tag(self, tags: Mapping[str, str]) -> None:
        """Set tags."""
        from mlflow.entities import RunTag

        for some in chunks([RunTag(*pair) for pair in tags.items()], ENTRIES_A_CALL):
            self.client.log_batch(self.run_id, tags=some)

    def _send_datasets(self) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        inputs = [
            DatasetInput(
                Dataset(entry.name, entry.digest, entry.source_type, entry.source, entry.schema, entry.profile),
                [InputTag("mlflow.data.context", entry.context)],
            )
            for entry in datasets_of(self.settings.plan)
        ]
        if inputs:
            self.client.log_inputs(self.run_id, datasets=inputs)

    def _send_environment(self) -> None:
        environment = environment_of(self.settings.plan)
        pins = "".join(f"{name}=={version}\n" for name, version in sorted(environment["packages"].items()))
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "environment.json").write_text(json.dumps(environment, indent=2), encoding="utf-8")
            Path(folder, "requirements.txt").write_text(pins, encoding="utf-8")
            with uploading():
                self.client.log_artifacts(self.run_id, folder, "environment")

    # -- metrics

    def send(self, points: Iterable[Point], *, run_id: str | None = None, **linked: str | None) -> None:
        """Send values of metrics, of this run or of one below it; those that already arrived change nothing."""
        from mlflow.entities import Metric

        metrics = [Metric(point.name, point.value, point.time, point.step, **linked) for point in points]
        for some in chunks(metrics, METRICS_A_CALL):
            self.client.log_batch(run_id or self.run_id, metrics=some)

    # -- files

    def upload(self, file: Path, name: str) -> None:
        """Upload a file of the run directory unless this very version of it has arrived.

        Parameters
        ----------
        file
            The file.
        name
            Its path in the run directory, which it keeps in MLflow.
        """
        found = file.stat()
        version = [found.st_size, found.st_mtime_ns]
        if self.ledger.files.get(name) == version:
            return
        folder = name.rpartition("/")[0] or None
        with uploading(), tempfile.TemporaryDirectory() as scratch:
            sent = self._shown(file, Path(scratch)) if name in OF_THE_JOB else file
            self.client.log_artifact(self.run_id, str(sent), folder)
        self.ledger.files[name] = version

    def _shown(self, file: Path, scratch: Path) -> Path:
        """Return a file of the job, or a copy without the credentials that it spells out."""
        text = file.read_text(encoding="utf-8")
        shown = Redactor(credentials_in(self.settings.job))(text)
        if shown == text:
            return file
        copy = scratch / file.name
        copy.write_text(shown, encoding="utf-8")
        return copy

    # -- the end

    def end(self, state: RunState) -> None:
        """Say how the run ended."""
        cause = cut(state.cause or "", TAG_LIMIT)
        self.tag({"ai4sdk.state": str(state.state), "ai4sdk.attempts": str(state.attempt), "ai4sdk.cause": cause})
        ended = int(state.ended * 1000) if state.ended else None
        self.client.set_terminated(self.run_id, STATUS[state.state], ended)

    def abandon(self) -> None:
        """Say that the run's own folder is gone, and nothing more can come."""
        self.client.set_terminated(self.run_id, "KILLED")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
