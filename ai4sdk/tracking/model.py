"""A run's model package as MLflow's LoggedModel, and as a version in its registry."""

from __future__ import annotations

import hashlib
import logging
import tempfile
from pathlib import Path
from typing import Any

from ai4sdk.errors import EnvironmentFault
from ai4sdk.tracking.describe import params_of
from ai4sdk.tracking.names import slug
from ai4sdk.tracking.recorder import Recorder
from ai4sdk.tracking.store import uploading

__all__ = ["package_digest", "register", "send_model"]

log = logging.getLogger(__name__)

DIGEST_TAG = "ai4sdk.package"


def package_digest(package: Path) -> str:
    """Return the SHA-256 over names and contents of a package's files."""
    total = hashlib.sha256()
    for file in sorted(path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
        with open(file, "rb") as stream:
            inner = hashlib.file_digest(stream, "sha256").hexdigest()
        total.update(f"{file.relative_to(package)}\0{inner}\n".encode(errors="surrogateescape"))
    return total.hexdigest()


def send_model(recorder: Recorder, step: int) -> str | None:
    """Log the package as a model, once for each package that the run makes.

    Parameters
    ----------
    recorder
        The run.
    step
        Step of the training that the weights are from.

    Returns
    -------
    str or None
        MLflow's id of the model; ``None`` without a package.

    Raises
    ------
    EnvironmentFault
        If the package's MLmodel file cannot be read.
    """
    package, ledger = recorder.paths.package, recorder.ledger
    if not (package / "MLmodel").is_file():
        return None
    digest = package_digest(package)
    known = ledger.model
    if known is not None and known.get("digest") == digest and known.get("ready"):
        return str(known["id"])
    model = _find_or_create(recorder, digest)
    ledger.model = {"digest": digest, "id": model.model_id, "ready": False}
    if str(model.status) != "READY":
        _upload(recorder, model)
        _link(recorder, model.model_id, step)
        recorder.client.finalize_logged_model(model.model_id, "READY")
    ledger.model["ready"] = True
    return str(model.model_id)


def _find_or_create(recorder: Recorder, digest: str) -> Any:
    """Return the model of this package; one that an earlier attempt began is continued."""
    client, experiment_id = recorder.client, recorder.ledger.experiment_id
    for model in client.search_logged_models([experiment_id], f"tags.`{DIGEST_TAG}` = '{digest}'"):
        if model.source_run_id == recorder.run_id:
            return model
    job = recorder.settings.job
    task = job.get("task")
    return client.create_logged_model(
        experiment_id,
        name=slug(str(job.get("name") or "model")),
        source_run_id=recorder.run_id,
        tags={DIGEST_TAG: digest, "ai4sdk.run_id": recorder.settings.identity},
        params=params_of(job),
        model_type=str(task) if task and task != "auto" else None,
    )


def _upload(recorder: Recorder, model: Any) -> None:
    """Upload the package, with an MLmodel that says which model and run it is.

    The package itself stays as it is: it belongs to the run directory, and is the same wherever it is recorded.
    """
    import yaml

    package = recorder.paths.package
    try:
        values = yaml.safe_load((package / "MLmodel").read_text(encoding="utf-8"))
        names = {"model_id": model.model_id, "model_uuid": model.model_id, "run_id": recorder.run_id}
        text = yaml.safe_dump({**values, **names, "artifact_path": model.artifact_location}, sort_keys=True)
    except (OSError, yaml.YAMLError, TypeError) as error:
        raise EnvironmentFault(f"{package / 'MLmodel'} cannot be read: {error}", hint="train again") from error
    with uploading(), tempfile.TemporaryDirectory() as folder:
        recorder.client.log_model_artifacts(model.model_id, str(package))
        file = Path(folder, "MLmodel")
        file.write_text(text, encoding="utf-8")
        recorder.client.log_model_artifact(model.model_id, str(file))


def _link(recorder: Recorder, model_id: str, step: int) -> None:
    from mlflow.entities import LoggedModelOutput

    outputs = getattr(recorder.client.get_run(recorder.run_id), "outputs", None)
    linked = {output.model_id for output in outputs.model_outputs} if outputs else set()
    if model_id not in linked:
        recorder.client.log_outputs(recorder.run_id, [LoggedModelOutput(model_id, step)])


def register(recorder: Recorder, model_id: str, run_id: str) -> None:
    """Enter a model into the registry under the job's ``register_as``, once, and give it the alias.

    Parameters
    ----------
    recorder
        The run, or the study, that registers it.
    model_id, run_id
        MLflow's ids of the model and of the run that made it.
    """
    from mlflow.exceptions import MlflowException

    tracking, ledger, client = recorder.settings.tracking, recorder.ledger, recorder.client
    name = tracking.register_as
    if name is None or (ledger.registered or {}).get("model_id") == model_id:
        return
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    version = _version_of(recorder, name, model_id, run_id)
    if tracking.alias:
        client.set_registered_model_alias(name, tracking.alias, version)
    ledger.registered = {"name": name, "version": version, "model_id": model_id}


def _version_of(recorder: Recorder, name: str, model_id: str, run_id: str) -> str:
    quote = '"' if "'" in name else "'"
    for found in recorder.client.search_model_versions(f"name = {quote}{name}{quote}"):
        if found.run_id == run_id and found.source == f"models:/{model_id}":
            return str(found.version)
    created = recorder.client.create_model_version(
        name,
        f"models:/{model_id}",
        run_id=run_id,
        tags={"ai4sdk.run_id": recorder.settings.identity},
        await_creation_for=60,
        model_id=model_id,
    )
    return str(created.version)
