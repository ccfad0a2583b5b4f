"""The same script and events through OSCAR's own supervisor, whose buckets are on an S3 store.

It is installed into an environment of its own; ``AI4SDK_TEST_FAAS_SUPERVISOR=PYTHON`` names one that has it already.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ai4sdk.backends.oscar.calls import event_of
from ai4sdk.backends.oscar.definition import Definition
from ai4sdk.backends.oscar.standin import events

pytestmark = [pytest.mark.engine, pytest.mark.slow]

SUPERVISOR = "faas-supervisor==1.5.8"
NEEDED = ("boto3", "pyyaml", "requests", "setuptools<81", "webdavclient3", "pip<24.1")
"""What it needs, and the last pip that reads what it says of that: ``webdavclient3==3.14.6requests``."""
IN_OURS = {"storage_provider": "minio.ours"}
PROVIDER = {"endpoint": "http://x", "access_key": "${secret:KEY}", "secret_key": "${secret:SECRET}"}
BOTH: dict[str, Any] = {
    "input": [{"path": "fish/in", **IN_OURS}],
    "output": [{"path": "fish/out", **IN_OURS}],
    "storage_providers": {"minio": {"ours": PROVIDER}},
}


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The interpreter of an environment with the supervisor."""
    if named := os.environ.get("AI4SDK_TEST_FAAS_SUPERVISOR"):
        return named
    made = tmp_path_factory.mktemp("faas-supervisor") / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(made), "install", "-q")
    for command in (
        (sys.executable, "-m", "venv", "--without-pip", str(made.parent.parent)),
        (*pip, *NEEDED),
        (str(made), "-m", "pip", "--disable-pip-version-check", "install", "-q", "--no-deps", SUPERVISOR),
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            assert not os.environ.get("CI"), done.stderr[-2000:]
            pytest.skip("no environment with faas-supervisor can be made here")
    return str(made)


@pytest.fixture
def supervise(python: str, store: Any) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Have the supervisor serve a call."""

    def run(definition: Definition, event: str, **providers: Any) -> subprocess.CompletedProcess[str]:
        return _supervised(python, definition, event, providers or {"ours": store.provider})

    return run


def _supervised(
    python: str, definition: Definition, event: str, providers: dict[str, Any]
) -> subprocess.CompletedProcess[str]:
    service = {**definition.service, "storage_providers": {"minio": providers}}
    return subprocess.run(
        [python, "-m", "faassupervisor.supervisor"],
        input=event,
        env={
            **definition.service["environment"]["variables"],
            "SCRIPT": base64.b64encode(definition.script.encode()).decode(),
            "FUNCTION_CONFIG": base64.b64encode(json.dumps(service).encode()).decode(),
        },
        capture_output=True,
        text=True,
        check=False,
    )


def put(store: Any, key: str, content: str) -> str:
    path = store.folder / "fish" / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return json.dumps({"event": json.loads(events.event_of("fish", key, len(content), 0)), "storage_provider": "ours"})


def files_of(store: Any) -> dict[str, str]:
    found = (path for path in (store.folder / "fish" / "out").rglob("*") if path.is_file())
    return {str(path.relative_to(store.folder / "fish")): path.read_text() for path in found}


def test_an_object_becomes_a_result_and_a_log(supervise: Any, defined: Any, store: Any) -> None:
    done = supervise(defined(**BOTH), put(store, "in/deep/row.json", "7"))
    assert done.returncode == 0, done.stderr
    files = files_of(store)
    assert json.loads(files.pop("out/results/deep/row.json.json")) == {"of": 7}
    assert list(files) == ["out/logs/deep/row.json.log"]


@pytest.mark.parametrize("what", ["raises", "dies", "nothing", "kills"])
def test_a_failed_prediction_fails_the_job(supervise: Any, defined: Any, store: Any, what: str) -> None:
    done = supervise(defined(**BOTH), put(store, "in/deep/row.json", what))
    assert done.returncode == 1
    assert not [name for name in files_of(store) if name.startswith("out/results")]
    if what != "kills":  # that one kills the script itself
        assert json.loads(files_of(store)["out/errors/deep/row.json.error.json"])["input"] == "deep/row.json"


@pytest.mark.parametrize("what", ["raises", "dies", "nothing", "kills"])
def test_a_failed_prediction_fails_the_synchronous_call(supervise: Any, defined: Any, store: Any, what: str) -> None:
    for outputs in ({}, BOTH):
        done = supervise(defined(**outputs), base64.b64encode(what.encode()).decode())
        assert (done.returncode, done.stdout) == (1, "")


def test_a_file_that_is_not_meant_is_passed_over(supervise: Any, defined: Any, store: Any) -> None:
    places = {**BOTH, "input": [{"path": "fish/in", "prefix": ["row"], "suffix": [".json", ".csv"], **IN_OURS}]}
    for name in ("in/deep/x.json", "in/row.txt"):
        done = supervise(defined(**places), put(store, name, "7"))
        assert (done.returncode, files_of(store)) == (0, {}), done.stderr
        assert "is not meant by the inputs of this service" in done.stdout
    assert supervise(defined(**places), put(store, "in/deep/row.csv", "7")).returncode == 0
    assert "out/results/deep/row.csv.json" in files_of(store)


def test_without_an_output_the_supervisor_itself_is_ended(supervise: Any, defined: Any, store: Any) -> None:
    definition = defined(storage_providers=BOTH["storage_providers"])
    assert supervise(definition, put(store, "in/x", "raises")).returncode == -15


def test_the_reason_is_in_the_log(supervise: Any, defined: Any, store: Any) -> None:
    done = supervise(defined(**BOTH), put(store, "in/row.json", "raises"))
    assert 'it raised "this" \\ that' in done.stderr


def test_a_plain_script_that_fails_would_be_a_success(supervise: Any, defined: Any, store: Any) -> None:
    """Why all this is done: if it were not so any more, the script could be simpler."""
    definition = defined()
    definition.service["script"] = "exit 3"
    assert supervise(definition, base64.b64encode(b"x").decode()).returncode == 0


def test_the_answers_of_both_supervisors_are_the_same(supervise: Any, defined: Any, store: Any, tmp_path: Path) -> None:
    texts = ("aGVsbG8=", '{"a":  1}', "7", "[1]", "1234", event_of(b"\xd7\x6d\xf8").decode())
    calls = [("cat $INPUT_FILE_PATH", text) for text in texts]
    calls += [("echo 1 > $TMP_OUTPUT_DIR/a", "{}"), ("echo out; echo err >&2; exit 9", "{}")]
    for script, text in calls:
        definition = defined()
        definition.service["script"] = script
        real = supervise(definition, text)
        env = {
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "PATH": os.environ["PATH"],
            "SCRIPT": base64.b64encode(script.encode()).decode(),
            "FUNCTION_CONFIG": base64.b64encode(b"{}").decode(),
            "AI4SDK_BUCKETS": str(tmp_path),
        }
        ours = subprocess.run(
            [sys.executable, "-P", "-m", "ai4sdk.backends.oscar.standin.supervisor"],
            input=text,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (ours.returncode, ours.stdout) == (real.returncode, real.stdout), (script, text)
