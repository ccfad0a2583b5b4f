"""The script, run as the stand-in's supervisor runs it: a failure is one, whatever happened."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ai4sdk.backends.oscar.definition import Definition
from ai4sdk.backends.oscar.standin.events import event_of
from ai4sdk.backends.oscar.standin.supervisor import answer_of, object_of

TOOLS = ("awk", "cat", "cp", "grep", "ln", "mkdir", "mktemp", "rm", "sed", "tail", "tee", "tr")
OUT = [{"path": "fish/out"}]
BOTH = {"input": [{"path": "fish/in"}], "output": OUT}


@dataclass(frozen=True)
class Done:
    status: int
    answer: str
    said: str
    files: dict[str, str]


@pytest.fixture
def call(tmp_path: Path) -> Callable[..., Done]:
    """Run the supervisor for an event: text as it is, or an object's key and content."""
    buckets = tmp_path / "buckets"
    buckets.mkdir()

    def run(definition: Definition, event: str = "", *, key: str = "", content: str = "", **env: str) -> Done:
        if key:
            path = buckets / "fish" / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
            event = event_of("fish", key, len(content), 0)
        before = set(buckets.rglob("*"))
        done = subprocess.run(
            [sys.executable, "-P", "-m", "ai4sdk.backends.oscar.standin.supervisor"],
            input=event,
            env={
                "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
                **definition.service["environment"]["variables"],
                "SCRIPT": base64.b64encode(definition.script.encode()).decode(),
                "FUNCTION_CONFIG": base64.b64encode(json.dumps(definition.service).encode()).decode(),
                "AI4SDK_BUCKETS": str(buckets),
                **env,
            },
            capture_output=True,
            text=True,
            check=False,
        )
        new = {path for path in buckets.rglob("*") if path.is_file()} - before
        return Done(
            done.returncode,
            done.stdout,
            done.stderr,
            {str(path.relative_to(buckets)): path.read_text() for path in sorted(new)},
        )

    return run


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_a_synchronous_call_is_answered_with_the_result_alone(call: Any, defined: Any) -> None:
    done = call(defined(), encoded("{}"))
    assert (done.status, json.loads(base64.b64decode(done.answer))) == (0, {"of": {}})


def test_results_and_logs_are_apart_and_named_after_the_object(call: Any, defined: Any) -> None:
    done = call(defined(**BOTH), key="in/deep/row 1.json", content="7")
    assert done.status == 0
    assert json.loads(done.files["fish/out/results/deep/row 1.json.json"]) == {"of": 7}
    assert done.files["fish/out/logs/deep/row 1.json.log"].startswith("log of ")
    assert len(done.files) == 2


@pytest.mark.parametrize("what", ["raises", "dies", "nothing", "kills"])
@pytest.mark.parametrize("outputs", [[], OUT, [{"path": "fish/out", "suffix": [".json"], "prefix": ["results/"]}]])
def test_a_failed_prediction_is_never_reported_as_success(call: Any, defined: Any, what: str, outputs: Any) -> None:
    done = call(defined(output=outputs), encoded(f'"{what}"'))
    assert done.status != 0
    assert done.answer == ""
    assert not [name for name in done.files if "/results/" in name]


@pytest.mark.parametrize("what", ["raises", "dies", "nothing", "kills"])
def test_nor_is_one_of_an_object(call: Any, defined: Any, what: str) -> None:
    assert call(defined(**BOTH), key="in/x", content=what).status != 0
    assert call(defined(), key="in/x", content=what).status != 0 or what == "kills"


def test_the_reason_is_beside_the_results_under_a_name_of_its_own(call: Any, defined: Any) -> None:
    done = call(defined(**BOTH), key='in/a "b".json', content="raises")
    (name,) = done.files
    assert name == 'fish/out/errors/a "b".json.error.json'
    told = json.loads(done.files[name])
    assert (told["service"], told["input"], told["exit_status"]) == ("pond", 'a "b".json', 3)
    assert told["error"].endswith('it raised "this" \\ that')


def test_the_reason_is_in_the_supervisors_log_too(call: Any, defined: Any) -> None:
    assert 'it raised "this" \\ that' in call(defined(), encoded("raises")).said


def test_a_package_with_other_weights_is_refused(call: Any, defined: Any) -> None:
    done = call(defined(weights="0" * 64, output=OUT), encoded("{}"))
    assert done.status == 1
    assert json.loads(*done.files.values())["exit_status"] == 3
    assert "is not the model package that this service was made for" in done.said


def test_an_image_without_ai4sdk_is_a_failure_that_says_so(call: Any, defined: Any, tmp_path: Path) -> None:
    (tmp_path / "bin" / "ai4sdk").unlink()
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in TOOLS:
        (tools / name).symlink_to(shutil.which(name) or pytest.fail(name))
    done = call(defined(), encoded("{}"), PATH=str(tools))
    assert done.status == 1
    assert "not found" in done.said


@pytest.mark.parametrize("key", ["in/../../../../escape", "in/./x", "in//x"])
def test_no_name_leads_out_of_the_output_folder(call: Any, defined: Any, key: str, tmp_path: Path) -> None:
    definition = defined(**BOTH)
    event = event_of("fish", key, 1, 0)
    source = tmp_path / "buckets" / "fish" / key
    source.parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "buckets" / "fish" / "in").mkdir(parents=True, exist_ok=True)
    source.write_text("1")
    done = call(definition, event)
    assert done.status == 0
    assert sorted(done.files)[-1].startswith("fish/out/results/")


@pytest.mark.parametrize("what", ["7", "raises"])
@pytest.mark.parametrize(
    "name", ["-n", "--help", "a*", "$HOME", "`id`", "a'b", "a\\b", "ü", "a\nb", "%s", "-rf x", "in/x", "..x", "a/-b"]
)
def test_any_name_is_kept(call: Any, defined: Any, name: str, what: str) -> None:
    done = call(defined(**BOTH), key=f"in/{name}", content=what)
    if what == "raises":
        assert done.status == 1
        (file,) = done.files
        assert file == f"fish/out/errors/{name}.error.json"
        assert json.loads(done.files[file])["input"] == name
    else:
        assert done.status == 0
        assert sorted(done.files) == [f"fish/out/logs/{name}.log", f"fish/out/results/{name}.json"]


@pytest.mark.parametrize("shell", ["dash", "bash --posix", "busybox sh"])
def test_every_shell_reads_it(defined: Any, shell: str, tmp_path: Path) -> None:
    program = shutil.which(shell.split()[0])
    if program is None:
        pytest.skip(f"no {shell} here")
    for values in ({}, BOTH, {"expose": {}}):
        script = tmp_path / "script.sh"
        script.write_text(defined(**values).script)
        done = subprocess.run([program, *shell.split()[1:], "-n", str(script)], capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, b"")


def test_an_exposed_service_serves_where_no_supervisor_is(defined: Any, tmp_path: Path) -> None:
    (tmp_path / "bin" / "ai4sdk").write_text('#!/bin/sh\necho "$@"\n')
    definition = defined(expose={"api_port": 9000})
    done = subprocess.run(
        ["/bin/sh", "-c", definition.script],
        env=definition.service["environment"]["variables"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split()[0] == "serve"
    assert "serving.port=9000" in done.stdout


def test_several_files_are_answered_as_an_archive_and_none_by_what_was_printed(tmp_path: Path) -> None:
    assert answer_of(tmp_path, "said", stored=False) == "said"
    (tmp_path / "a").write_text("1")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c").write_text("2")
    archive = zipfile.ZipFile(io.BytesIO(base64.b64decode(answer_of(tmp_path, "said", stored=False))))
    assert {name: archive.read(name) for name in archive.namelist()} == {"a": b"1", "b/c": b"2"}
    assert answer_of(tmp_path, "said", stored=True) == "said"


def test_an_event_names_its_object_as_minio_quotes_it() -> None:
    found = object_of(event_of("fish", "in/a b+c/ü.csv", 3, 0))
    assert found is not None
    assert (found.bucket, found.key) == ("fish", "in/a b+c/ü.csv")
    delegated = object_of(json.dumps({"event": json.loads(event_of("fish", "x", 1, 0)), "storage_provider": "m"}))
    assert delegated is not None
    for text in ("", "{}", "[]", "7", "null", '{"Records": []}', '{"Records": [{"eventSource": "OneTrigger"}]}'):
        assert object_of(text) is None
