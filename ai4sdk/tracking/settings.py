"""Where a run is recorded and as whom, read from its plan."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ai4sdk.errors import EnvironmentFault, NotFound
from ai4sdk.runs.files import read_json
from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.state import is_study
from ai4sdk.studies.layout import StudyPaths, study_of
from ai4sdk.tracking.ledger import read_ledger
from ai4sdk.tracking.names import cut

if TYPE_CHECKING:
    from ai4sdk.spec import Tracking

__all__ = ["CREDENTIALS", "Redactor", "Settings", "credentials_in", "places", "read_settings", "tracking_uri_of"]

CREDENTIALS = frozenset({"username", "password", "token"})
"""Fields of ``tracking`` and ``storage`` whose values are never shown."""

KIND_TAG = "ai4sdk.kind"
STUDY_TAG = "ai4sdk.study"
POINT_TAG = "ai4sdk.point"
PARENT_TAG = "mlflow.parentRunId"
"""The tag by which MLflow's page draws runs as a tree."""
TITLE_LIMIT = 120

_DATABASES = ("postgresql", "mysql", "mssql")
_REFERENCE = re.compile(r"\$\{secret:[^}]*\}")


@dataclass(frozen=True)
class Settings:
    """Where a run is recorded.

    Parameters
    ----------
    tracking
        The section of the job.
    experiment
        Name of the experiment.
    uri
        Address as MLflow takes it, absolute.
    database
        File of the sqlite store; ``None`` for a server or another database.
    artifacts
        Folder for artifacts of a store without a server; ``None`` for a server, which has its own place.
    plan
        The plan, as plain values; of a study, study.json.
    identity
        What tells the run from all others: the run directory's path inside the runs folder.
    title
        Name of the run in MLflow.
    tags
        Tags beside those of the plan: that it is a study, or which study's point it is.
    """

    tracking: Tracking
    experiment: str
    uri: str
    database: Path | None
    artifacts: Path | None
    plan: Mapping[str, Any]
    identity: str
    title: str
    tags: Mapping[str, str]

    @property
    def parent(self) -> str | None:
        """MLflow's id of the study's run that this one, a point of it, belongs under."""
        return self.tags.get(PARENT_TAG)

    @property
    def to_sync(self) -> str:
        """What `ai4sdk sync` is to be given: the run, or the study it is a point of."""
        return self.tags.get(STUDY_TAG, self.identity)

    @property
    def enabled(self) -> bool:
        """Whether the run is recorded at all."""
        return self.tracking.kind != "none"

    @property
    def job(self) -> Mapping[str, Any]:
        """The job, as plain values."""
        job = self.plan.get("job")
        return job if isinstance(job, Mapping) else {}

    @property
    def shown_uri(self) -> str:
        """The address without a user and password in it."""
        return without_user(self.uri)

    @property
    def artifacts_uri(self) -> str | None:
        """Address of the folder for artifacts, quoted as MLflow reads it."""
        return f"file://{quote(str(self.artifacts))}" if self.artifacts else None


def read_settings(run: Path) -> Settings:
    """Read where a run or a study is recorded; a point of a study where its study is.

    Parameters
    ----------
    run
        The run directory, or the study directory.

    Raises
    ------
    NotFound
        If the plan is gone or unreadable.
    EnvironmentFault
        If MLflow of this version cannot record at the address.
    """
    from pydantic import ValidationError

    from ai4sdk.spec import Tracking

    paths = RunPaths(run.absolute())
    try:
        plan = read_json(StudyPaths(paths.root).study if is_study(paths.root) else paths.plan)
        job = plan["job"]
        tracking = Tracking.model_validate(job.get("tracking") or {})
        name = str(job.get("name") or plan.get("name") or "ai4sdk")
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise NotFound(
            f"the plan of {paths.id} has no readable tracking section: {first['msg']}",
            hint="it was made by another version of ai4sdk",
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotFound(f"the plan of {paths.id} cannot be read: {error}", hint=f"ls {paths.root}") from error
    study = study_of(paths.root)
    runs = (study or paths).root.parent
    created = plan.get("created")
    project = created.get("project") if isinstance(created, dict) else None
    uri, database, artifacts = places(tracking, runs, Path(project or runs))
    title, tags = paths.id, {KIND_TAG: "study"} if is_study(paths.root) else {}
    if study is not None:
        # Of a study, its best point is registered: not each of them, by whoever ships it.
        tracking = tracking.model_copy(update={"register_as": None})
        title, tags = _as_point(paths, study, without_user(uri))
    identity = paths.root.relative_to(runs).as_posix()
    return Settings(tracking, tracking.experiment or name, uri, database, artifacts, plan, identity, title, tags)


def _as_point(paths: RunPaths, study: StudyPaths, uri: str) -> tuple[str, dict[str, str]]:
    """Return the title and the tags of a point: ``00007 lr=0.1``, and the study's run that it belongs under."""
    try:
        params = read_json(paths.membership)["params"]
        values = ", ".join(f"{str(axis).rpartition('.')[2]}={value}" for axis, value in params.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        values = ""
    folder = paths.root.name
    number = str(int(folder)) if folder.isdecimal() else folder
    tags = {KIND_TAG: "point", STUDY_TAG: study.id, POINT_TAG: number}
    parent = read_ledger(study.tracking)
    if parent.run_id is not None and parent.uri == uri:
        tags[PARENT_TAG] = parent.run_id
    return cut(Redactor()(f"{folder} {values}".rstrip()), TITLE_LIMIT), tags


def places(tracking: Tracking, runs: Path, project: Path) -> tuple[str, Path | None, Path | None]:
    """Return address, file and artifacts folder of the MLflow that a section names; see `Settings`."""
    if tracking.uri is None:
        return sqlite_uri(runs / "mlflow.db"), runs / "mlflow.db", runs / "mlartifacts"
    uri = tracking.uri.strip()
    scheme = uri.split(":", 1)[0].split("+", 1)[0].lower() if ":" in uri else ""
    if scheme in ("http", "https"):
        return uri.rstrip("/"), None, None
    if scheme == "sqlite" and uri.startswith("sqlite:///"):
        database = project.absolute() / uri.removeprefix("sqlite:///")
        return sqlite_uri(database), database, database.parent / "mlartifacts"
    if scheme in _DATABASES:
        return uri, None, runs / "mlartifacts"
    raise EnvironmentFault(
        f"MLflow cannot record at tracking.uri={without_user(uri)}",
        hint="give a server (https://...) or a store in one file (sqlite:///mlflow.db), or leave tracking.uri out",
    )


def sqlite_uri(database: Path) -> str:
    """Return the address of an sqlite store. Of all characters only ``%`` and ``?`` mean something in it."""
    return "sqlite:///" + str(database).replace("%", "%25").replace("?", "%3F")


def tracking_uri_of(run: Path) -> str:
    """Return the address a run is recorded at, for ``mlflow ui --backend-store-uri``; a server's is its page.

    Parameters
    ----------
    run
        The run directory.

    Returns
    -------
    str
        Such as ``sqlite:////home/ana/project/runs/mlflow.db`` or ``https://mlflow.example.org``; empty if the run
        is not recorded (``tracking=none``).
    """
    settings = read_settings(run)
    return settings.shown_uri if settings.enabled else ""


def without_user(uri: str) -> str:
    """Return an address without a user and password in it."""
    return re.sub(r"(?<=://)[^/@\s]*@", "", uri)


def credentials_in(value: Any) -> set[str]:
    """Return credentials that a job spells out instead of referring to them."""
    found: set[str] = set()
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key in CREDENTIALS - {"username"} and isinstance(item, str) and not _REFERENCE.fullmatch(item.strip()):
                found.add(item)
            else:
                found |= credentials_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            found |= credentials_in(item)
    return found


class Redactor:
    """Takes secrets and users in addresses out of texts.

    Parameters
    ----------
    secrets
        What must never be shown.
    """

    def __init__(self, secrets: set[str] | frozenset[str] = frozenset()) -> None:
        self._secrets: set[str] = set()
        self.add(*secrets)

    def add(self, *secrets: str) -> None:
        """Learn further secrets."""
        self._secrets |= {secret for secret in secrets if secret}

    def __call__(self, text: str) -> str:
        """Return the text without them."""
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, "***")
        return without_user(text)
