"""``python -m ai4sdk.serving.download`` brings a model from MLflow: a process of its own, as MLflow is large."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ai4sdk.errors import Ai4Error, DataError, EnvironmentFault, NotFound

__all__ = ["download"]


def download(asked: Mapping[str, Any]) -> Path:
    """Return the folder of a model's package, which is downloaded unless it is here.

    Parameters
    ----------
    asked
        ``address`` (``models:/NAME@ALIAS``, ``models:/NAME/VERSION``, ``models:/MODEL_ID``, ``runs:/ID/PATH``);
        ``runs``, ``project`` and ``tracking``, as `ai4sdk.serving.sources.Sources` has them.

    Raises
    ------
    NotFound
        If there is no such model.
    DataError
        If it is no package of ai4sdk's.
    EnvironmentFault
        If MLflow does not answer.
    """
    from ai4sdk.data.secrets import resolve_secret
    from ai4sdk.spec import Tracking
    from ai4sdk.tracking.settings import places

    tracking = Tracking.model_validate(asked["tracking"])
    runs, address = Path(asked["runs"]).absolute(), str(asked["address"])
    uri, _, _ = places(tracking, runs, Path(asked["project"]))
    os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
    os.environ |= {"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false", "MLFLOW_HTTP_REQUEST_TIMEOUT": "60"}
    for field in ("username", "password", "token"):
        if (written := getattr(tracking, field)) is not None:
            os.environ[f"MLFLOW_TRACKING_{field.upper()}"] = resolve_secret(written)
    if uri.startswith("sqlite:///") and not (runs / "mlflow.db").is_file() and tracking.uri is None:
        told = os.environ.get("MLFLOW_TRACKING_URI")  # configs alone decide, so that a plan says what is served
        hint = f"tracking.uri={told}, if MLFLOW_TRACKING_URI is meant" if told else "tracking.uri=https://…"
        raise NotFound(f"there is no MLflow store in {runs}", hint=hint)

    import mlflow
    from mlflow.exceptions import MlflowException

    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    try:
        exact = _exact(address)
        place = runs / ".served" / re.sub(r"[^\w.-]+", "_", exact.partition(":/")[2])
        if not (place / "model.json").is_file():
            scratch = place.with_name(f".{place.name}.{os.getpid()}.part")
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir(parents=True)
            try:
                found = Path(mlflow.artifacts.download_artifacts(artifact_uri=exact, dst_path=str(scratch)))
                if not (found / "model.json").is_file():
                    raise DataError(
                        f"{address} is no model package of ai4sdk's", hint="`mlflow models serve` serves it"
                    )
                shutil.rmtree(place, ignore_errors=True)
                found.rename(place)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND"):
            raise NotFound(f"MLflow has no {address}: {error.message}", hint="`mlflow models` lists them") from None
        raise EnvironmentFault(f"MLflow cannot give {address}: {error.message}") from None
    except OSError as error:
        raise EnvironmentFault(f"{address} cannot be downloaded: {error}") from None
    return place


def _exact(address: str) -> str:
    """Return an address that always means the same model: of an alias, the version it stands for now."""
    from mlflow import MlflowClient

    if (match := re.fullmatch(r"models:/([^/@]+)@([^/@]+)", address)) is None:
        return address
    version = MlflowClient().get_model_version_by_alias(match[1], match[2])
    return f"models:/{match[1]}/{version.version}"


def main() -> int:
    """Read what is asked from standard input, and say where it is."""
    asked = json.loads(sys.stdin.read())
    answers = sys.stdout
    sys.stdout = sys.stderr  # whatever a library prints is no answer
    try:
        answer: dict[str, Any] = {"folder": str(download(asked))}
    except Ai4Error as error:
        answer = {"error": error.message, "hint": error.hint, "exit_code": error.exit_code}
    answers.write(json.dumps(answer) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
