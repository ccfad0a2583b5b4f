"""What a run left is brought home whole, or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import ai4sdk
from ai4sdk.backends.kubernetes.results import bring, send
from ai4sdk.errors import DataError, NotFound
from ai4sdk.planning.plan import Plan
from ai4sdk.runs.layout import RunPaths


@pytest.fixture
def plan(function_project: Path) -> Plan:
    results = f"file://{function_project}/store/runs"
    backend = {"kind": "kubernetes", "image": "pond:1", "claim": "pond", "results": results}
    Path("configs").mkdir()
    Path("pond.yaml").rename("configs/pond.yaml")
    Path("configs/cluster.yaml").write_text(json.dumps({"defaults": ["pond", "_self_"], "backend": backend}))
    return ai4sdk.plan("cluster")


@pytest.fixture
def there(function_project: Path) -> RunPaths:
    """Return the folder of a run as pods see it."""
    run = RunPaths(function_project / "claim" / "runs" / "one")
    files = {"metrics.jsonl": "{}\n", "package/weights.safetensors": "0" * 5000, "state.json": "{}", "code/a.py": "1"}
    for name, text in files.items():
        (run.root / name).parent.mkdir(parents=True, exist_ok=True)
        (run.root / name).write_text(text)
    return run


@pytest.fixture
def here(function_project: Path) -> RunPaths:
    run = RunPaths(function_project / "runs" / "one")
    run.root.mkdir(parents=True)
    run.state.write_text('{"mine": 1}')
    return run


def test_what_it_left_comes_home_and_what_is_known_here_stays(plan: Plan, there: RunPaths, here: RunPaths) -> None:
    send(plan, there, Path())
    assert bring(plan, here, Path()) == 2
    assert (here.package / "weights.safetensors").read_text() == "0" * 5000
    assert here.state.read_text() == '{"mine": 1}'
    assert not here.code.exists()
    assert bring(plan, here, Path()) == 0, "all of it is here"


def test_a_copy_without_its_list_is_not_whole(plan: Plan, there: RunPaths, here: RunPaths) -> None:
    send(plan, there, Path())
    Path("store/runs/one/results.json").unlink()
    with pytest.raises(NotFound, match="no whole copy"):
        bring(plan, here, Path())


def test_a_file_that_was_damaged_on_the_way_is_refused(plan: Plan, there: RunPaths, here: RunPaths) -> None:
    send(plan, there, Path())
    Path("store/runs/one/package/weights.safetensors").write_text("1" * 5000)
    with pytest.raises(DataError, match=r"package/weights\.safetensors .* is not what the pod has copied"):
        bring(plan, here, Path())
    assert not list(here.package.iterdir())


@pytest.mark.parametrize("name", ["../two/metrics.jsonl", "/etc/passwd", "state.json", "code/a.py", ""])
def test_a_list_reaches_nothing_but_what_a_run_leaves(plan: Plan, there: RunPaths, here: RunPaths, name: str) -> None:
    send(plan, there, Path())
    file = Path("store/runs/one/results.json")
    listed = json.loads(file.read_text())
    listed["files"][0]["name"] = name
    file.write_text(json.dumps(listed))
    with pytest.raises(DataError, match="which is no file that a run leaves"):
        bring(plan, here, Path())
