"""Opening an MLflow store: a server, or an sqlite file that is made when it is missing and never overwritten."""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ai4sdk.errors import EnvironmentFault
from ai4sdk.tracking.faults import NotNow
from ai4sdk.tracking.settings import Redactor, Settings

__all__ = ["connect", "set_environment", "uploading"]

log = logging.getLogger(__name__)

LOCK = ".mlflow.lock"
_MAKING_TAKES = 120.0
_ANSWER_WITHIN = "10"
_ANSWER_TO_UPLOAD_WITHIN = "120"


def set_environment(settings: Settings, redact: Redactor) -> None:
    """Set what MLflow reads from the environment, before it is imported. For a process of its own only.

    Credentials go this way and no other: they are resolved here, and never written or logged.

    Raises
    ------
    EnvironmentFault, DataError
        If a secret is not to be had.
    """
    os.environ |= {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_CONFIGURE_LOGGING": "false",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        # Waiting between attempts is this package's own business: it must see when the run ends.
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "GIT_PYTHON_REFRESH": "quiet",
    }
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", _ANSWER_WITHIN)
    from ai4sdk.data.secrets import resolve_secret

    for field in ("username", "password", "token"):
        written = getattr(settings.tracking, field)
        if written is not None:
            value = resolve_secret(written)
            redact.add(value)
            os.environ[f"MLFLOW_TRACKING_{field.upper()}"] = value


@contextmanager
def uploading() -> Iterator[None]:
    """Give a server time to store files."""
    before = os.environ.get("MLFLOW_HTTP_REQUEST_TIMEOUT", _ANSWER_WITHIN)
    os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(max(int(before), int(_ANSWER_TO_UPLOAD_WITHIN)))
    try:
        yield
    finally:
        os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = before


def connect(settings: Settings) -> Any:
    """Return an MLflow client for the settings' address, its store made if it is a file that is missing.

    Changes the current folder to the store's: MLflow leaves files in the current folder where it is not told
    better, and an address relative to it needs no quoting.

    Raises
    ------
    EnvironmentFault
        If the file is no store, a damaged one, or one of another version of MLflow.
    NotNow
        If the store is locked.
    OSError
        If the folder cannot be written.
    """
    uri = settings.uri
    if settings.database is not None:
        settings.database.parent.mkdir(parents=True, exist_ok=True)
        os.chdir(settings.database.parent)
        _make_or_check(settings)
        uri = f"sqlite:///{settings.database.name}"
    import mlflow

    logging.getLogger("mlflow").setLevel(logging.CRITICAL)  # it logs what it raises; we say it in our own words
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    return mlflow.MlflowClient(uri, uri)


def _make_or_check(settings: Settings) -> None:
    database = settings.database
    assert database is not None
    with _held(database.parent / LOCK):
        if not database.exists() or database.stat().st_size == 0:
            _make(database, settings.artifacts_uri or "")
        found = _revision_of(database)
    from mlflow.store.db.utils import _get_latest_schema_revision

    expected = _get_latest_schema_revision()
    if found != expected:
        import mlflow

        raise EnvironmentFault(
            f"the MLflow store {database} is not of this version of MLflow ({mlflow.__version__}): "
            f"its schema is {found}, not {expected}",
            hint=f"copy the file, then run `mlflow db upgrade {settings.shown_uri}` and `ai4sdk sync`; "
            "or record elsewhere: tracking.uri=sqlite:///other.db",
        )


@contextmanager
def _held(lock: Path) -> Iterator[None]:
    """Hold a lock that all who make stores in a folder take."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        until = time.monotonic() + _MAKING_TAKES
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise NotNow(f"another process has been making an MLflow store for long, holding {lock}") from None
                time.sleep(0.1)
        yield
    finally:
        os.close(descriptor)


def _make(database: Path, artifacts: str) -> None:
    """Make a store under another name and move it into place, so that a kill leaves no half of one."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    logging.getLogger("mlflow").setLevel(logging.CRITICAL)
    logging.getLogger("alembic").setLevel(logging.CRITICAL)
    beginning = f".{database.name}.part"
    for left in database.parent.glob(f"{beginning}*"):
        left.unlink(missing_ok=True)  # of a process that was killed here: we hold the lock
    scratch = database.with_name(f"{beginning}.{os.getpid()}")
    try:
        with _without_waiting_for_the_disk():
            store = SqlAlchemyStore(f"sqlite:///{scratch.name}", artifacts)
            store._dispose_engine()
        descriptor = os.open(scratch, os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        scratch.replace(database)
    finally:
        scratch.unlink(missing_ok=True)
    log.info("made the MLflow store %s", database)


@contextmanager
def _without_waiting_for_the_disk() -> Iterator[None]:
    """Have sqlite leave the file to the system: MLflow's migrations wait for the disk more than a hundred times."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def relax(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("PRAGMA journal_mode=MEMORY")

    event.listen(Engine, "connect", relax)
    try:
        yield
    finally:
        event.remove(Engine, "connect", relax)


def _revision_of(database: Path) -> str:
    """Return the version of a store's schema, without MLflow, which would upgrade an old store unasked."""
    elsewhere = "move it away, or record elsewhere: tracking.uri=sqlite:///other.db"
    try:
        with closing(sqlite3.connect(f"file:{quote(database.name)}?mode=rw", uri=True, timeout=5)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")}
            if not {"alembic_version", "experiments"} <= tables:
                raise EnvironmentFault(f"{database} is not a store of MLflow", hint=elsewhere)
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.OperationalError as error:
        if "locked" in str(error) or "busy" in str(error):
            raise NotNow(f"the MLflow store {database} is locked by another process") from error
        raise NotNow(f"the MLflow store {database} cannot be opened: {error}") from error
    except sqlite3.DatabaseError as error:
        raise EnvironmentFault(
            f"{database} is damaged, or not a store of MLflow: {error}",
            hint="move it away, and `ai4sdk sync` records the run in a new one",
        ) from error
    return str(row[0]) if row else "unknown"
