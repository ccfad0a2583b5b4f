"""Runs on a stand-in for Kubernetes, whose claim is not seen from here: everything is learnt through the API."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import ai4sdk
from ai4sdk.backends.kubernetes.refusals import NotAnswering
from ai4sdk.backends.registry import get_backend
from ai4sdk.errors import EnvironmentFault, RunFailed, UsageError
from ai4sdk.runs.files import read_json
from ai4sdk.runs.state import State, hold_lock, read_state
from ai4sdk.testing.helpers import command, wait_for

pytestmark = pytest.mark.slow

FUNCTION = """
import os
import time
from pathlib import Path


def catch(boats, go=None, fails=False):
    print(f"{boats} boats leave the harbour", flush=True)
    if fails:
        raise ValueError("the pond is empty")
    while go and not Path(go).exists():
        time.sleep(0.05)
    return {"fish": 2 * boats, "token": len(os.environ.get("TOKEN", ""))}
"""


@pytest.fixture
def pond(function_project: Path, kubernetes: Any) -> Path:
    (function_project / "pond.py").write_text(FUNCTION)
    (function_project / "configs").mkdir()
    (function_project / "pond.yaml").rename("configs/pond.yaml")
    write_options()
    return function_project


def write_options(**options: object) -> None:
    backend = {"kind": "kubernetes", "image": "pond:1", "claim": "pond", **options}
    layers = {"defaults": ["pond", "_self_"], "backend": backend}
    Path("configs/cluster.yaml").write_text(json.dumps(layers))


def start(*overrides: str) -> ai4sdk.Run:
    return ai4sdk.run("cluster", *overrides, wait=False)


def on_the_claim(cluster: Any, run: ai4sdk.Run) -> Path:
    return Path(cluster.claims["pond"], "runs", run.id)


def pods_of(cluster: Any) -> list[str]:
    return [pod["metadata"]["name"] for pod in cluster.get("pods")]


def test_a_run_ends_well_and_leaves_its_results_on_the_claim_and_its_log_here(pond: Path, kubernetes: Any) -> None:
    run = start()
    run.wait(timeout=120)
    assert run.state is State.SUCCEEDED
    assert run.status.exit_code == 0
    assert "3 boats leave the harbour" in command("logs", run.id).stdout
    there = on_the_claim(kubernetes, run)
    assert read_json(there / "state.json")["state"] == "succeeded"
    assert (there / "code" / "pond.py").read_text() == FUNCTION
    told = json.loads(command("status", run.id, "--json").stdout)
    assert (told["state"], told["attempt"], told["exit_code"]) == ("succeeded", 1, 0)
    assert f"/workspace/runs/{run.id} on the claim pond" in command("status", run.id).stdout


def test_what_a_run_left_comes_home_by_way_of_a_store(pond: Path, kubernetes: Any, tmp_path_factory: Any) -> None:
    store = tmp_path_factory.mktemp("store")
    write_options(results=f"file://{store}")
    run = start()
    run.wait(timeout=120)
    assert f"ai4sdk fetch {run.id} brings them here" in command("status", run.id).stdout
    assert not run.paths.scores.exists()
    fetched = command("fetch", run.id)
    assert fetched.returncode == 0, fetched.stderr
    assert run.scores == {"fish": 6, "token": 0}
    assert "results             here, as they were copied to file://" in command("status", run.id).stdout
    assert (run.state, run.status.attempt) == (State.SUCCEEDED, 1)
    assert ": no new files in" in command("fetch", run.id).stdout
    assert run.fetch().scores == {"fish": 6, "token": 0}


def test_results_that_could_not_be_copied_are_said_to_be_on_the_claim(pond: Path, kubernetes: Any) -> None:
    write_options(results="file:///proc/nowhere")
    run = start()
    run.wait(timeout=120)
    assert run.state is State.SUCCEEDED
    told = command("status", run.id).stdout
    assert f"/workspace/runs/{run.id} on the claim pond, which could not be copied: " in told
    fetched = command("fetch", run.id)
    assert fetched.returncode == 6
    assert "no whole copy" in fetched.stderr


def test_results_that_stay_on_the_claim_are_not_promised(pond: Path, kubernetes: Any) -> None:
    run = start()
    run.wait(timeout=120)
    fetched = command("fetch", run.id)
    assert fetched.returncode == 2
    assert f"what {run.id} left is /workspace/runs/{run.id} on the claim pond" in fetched.stderr
    assert "backend.results=" in fetched.stderr


def test_the_job_owns_what_belongs_to_it(pond: Path, kubernetes: Any) -> None:
    run = start()
    (job,), (config,) = kubernetes.get("jobs"), kubernetes.get("configmaps")
    assert config["metadata"]["ownerReferences"][0]["uid"] == job["metadata"]["uid"]
    assert job["metadata"]["namespace"] == "pond"
    assert job["metadata"]["annotations"]["ai4sdk/run"] == run.id
    assert (run.paths.kubernetes / "1.yaml").read_text().startswith("---\napiVersion: v1\nkind: ConfigMap\n")


def test_code_that_raises_is_not_tried_again(pond: Path, kubernetes: Any) -> None:
    run = start("+function.fails=true")
    with pytest.raises(RunFailed, match="the pond is empty") as caught:
        run.wait(timeout=120)
    assert caught.value.exit_code == 4
    assert len(pods_of(kubernetes)) == 1
    assert kubernetes.get("jobs")[0]["status"]["conditions"][0]["reason"] == "PodFailurePolicy"


@pytest.mark.parametrize("hard", [False, True], ids=["drained", "lost"])
def test_a_run_goes_on_in_another_pod_when_its_own_is_taken_away(pond: Path, kubernetes: Any, hard: bool) -> None:
    go = pond / "go"
    run = start(f"+function.go={go}")
    wait_for(lambda: "boats leave" in (run.paths.log("call").read_text() if _logged(run) else ""))
    kubernetes.evict(pods_of(kubernetes)[0], hard=hard)
    wait_for(lambda: len(pods_of(kubernetes)) == 2)
    go.touch()
    run.wait(timeout=120)
    assert run.state is State.SUCCEEDED
    assert run.status.attempt == 2
    assert command("logs", run.id).stdout.count("boats leave") == 2


def _logged(run: ai4sdk.Run) -> bool:
    get_backend("kubernetes").bring_log(run.paths, read_state(run.paths))  # type: ignore[attr-defined]
    return run.paths.log("call").exists()


def test_a_run_that_is_taken_away_too_often_is_interrupted_and_resumes(pond: Path, kubernetes: Any) -> None:
    go = pond / "go"
    write_options(backoff_limit=0)
    run = start(f"+function.go={go}")
    wait_for(lambda: _logged(run) and "boats leave" in run.paths.log("call").read_text())
    kubernetes.evict(pods_of(kubernetes)[0], hard=True)
    wait_for(lambda: run.state.ended)
    assert run.state is State.INTERRUPTED
    assert "its node was lost" in str(run.status.cause)
    go.touch()
    run.resume(wait=False).wait(timeout=120)
    assert run.state is State.SUCCEEDED
    assert [job["metadata"]["name"][-2:] for job in kubernetes.get("jobs")] == ["-1", "-2"]
    assert run.status.attempt == 2


def test_a_cancelled_run_is_gone_from_the_cluster_and_resumes(pond: Path, kubernetes: Any) -> None:
    go = pond / "go"
    run = start(f"+function.go={go}")
    wait_for(lambda: run.state is State.RUNNING)
    cancelled = command("cancel", run.id)
    assert cancelled.returncode == 0, cancelled.stderr
    wait_for(lambda: run.state.ended)
    assert (run.state, run.status.exit_code) == (State.CANCELLED, 130)
    assert not kubernetes.get("jobs")
    assert not kubernetes.get("configmaps")
    go.touch()
    run.resume(wait=False).wait(timeout=120)
    assert run.state is State.SUCCEEDED


def test_a_run_that_the_cluster_has_forgotten_is_found_to_have_succeeded(pond: Path, kubernetes: Any) -> None:
    run = start()
    wait_for(lambda: kubernetes.get("jobs")[0]["status"].get("conditions"))
    kubernetes.remove_job("pond", kubernetes.get("jobs")[0]["metadata"]["name"])  # as its ttl does
    wait_for(lambda: not kubernetes.get("jobs"))
    _submitted_long_ago(run)
    assert run.state is State.INTERRUPTED
    run.resume(wait=False).wait(timeout=120)
    assert run.state is State.SUCCEEDED
    assert (on_the_claim(kubernetes, run) / "logs" / "call.log").read_text().count("boats leave") == 1


def test_manifests_that_are_applied_by_hand_make_a_run_on_the_claim(pond: Path, kubernetes: Any) -> None:
    shown = command("plan", "config=cluster", "--script")
    assert shown.returncode == 0, shown.stderr
    for object_ in yaml.safe_load_all(shown.stdout):
        kubernetes.create(f"{object_['kind'].lower()}s", "default", object_)
    runs = kubernetes.claims["pond"] / "runs"
    wait_for(lambda: "succeeded" in command("ps", "--runs", str(runs)).stdout)
    assert [run.name for run in runs.glob("pond-*")] == [f"pond-{ai4sdk.plan('cluster').short_digest}"]


def test_a_run_that_waits_tells_what_it_waits_for_and_can_be_cancelled(pond: Path, kubernetes: Any) -> None:
    kubernetes.schedulable.clear()
    run = start()
    wait_for(lambda: pods_of(kubernetes))
    told = command("status", run.id)
    assert "queued" in told.stdout
    assert "Insufficient nvidia.com/gpu" in told.stdout
    assert command("logs", run.id).stdout == ""
    assert run.cancel(now=True) is State.CANCELLED


def test_a_run_waits_until_its_queue_admits_it(pond: Path, kubernetes: Any) -> None:
    write_options(queue="gpus")
    run = start()
    assert "suspended until its queue admits it" in command("status", run.id).stdout
    assert not kubernetes.get("pods")
    kubernetes.admit(kubernetes.get("jobs")[0]["metadata"]["name"])
    run.wait(timeout=120)
    assert run.state is State.SUCCEEDED


def test_a_secret_reaches_the_pod_and_no_manifest(pond: Path, kubernetes: Any) -> None:
    write_options(secrets={"TOKEN": "storage/token"})
    kubernetes.secrets["storage"] = {"token": "geheim"}
    run = start()
    run.wait(timeout=120)
    assert "geheim" not in json.dumps([kubernetes.get("jobs"), kubernetes.get("configmaps")])
    assert read_json(on_the_claim(kubernetes, run) / "evaluation" / "metrics.json")["token"] == 6


def test_a_secret_that_is_not_there_is_what_the_run_waits_for(pond: Path, kubernetes: Any) -> None:
    write_options(secrets={"TOKEN": "storage/token"})
    run = start()
    wait_for(lambda: "CreateContainerConfigError" in command("status", run.id).stdout)
    assert run.cancel(now=True) is State.CANCELLED


def test_a_job_that_somebody_deletes_makes_an_interrupted_run(pond: Path, kubernetes: Any) -> None:
    run = start(f"+function.go={pond / 'go'}")
    wait_for(lambda: run.state is State.RUNNING)
    kubernetes.remove_job("pond", kubernetes.get("jobs")[0]["metadata"]["name"])
    _submitted_long_ago(run)
    wait_for(lambda: run.state.ended)
    assert run.state is State.INTERRUPTED
    assert "not in the cluster any more" in str(run.status.cause)


def _submitted_long_ago(run: ai4sdk.Run) -> None:
    values = read_json(run.paths.state)
    values["extra"]["submitted"] -= 3600
    run.paths.state.write_text(json.dumps(values))


def test_a_run_is_not_submitted_twice(pond: Path, kubernetes: Any) -> None:
    run = start(f"+function.go={pond / 'go'}")
    again = command("resume", run.id)
    assert again.returncode == 2
    assert run.id in again.stderr
    backend = get_backend("kubernetes")
    submission = backend.render(run.plan, run.paths, pond)
    lock = hold_lock(run.paths)
    assert lock is not None
    with pytest.raises(UsageError, match="is in the cluster already, as job"):
        backend.submit(submission, run.paths, lock)
    assert len(kubernetes.get("jobs")) == len(kubernetes.get("configmaps")) == 1
    assert not run.state.ended


@pytest.mark.parametrize("resource", ["configmaps", "jobs"])
def test_a_submission_whose_answer_is_lost_counts(pond: Path, kubernetes: Any, resource: str) -> None:
    kubernetes.lost.add(resource)
    if resource == "jobs":
        run = start()
        run.wait(timeout=120)
        assert run.state is State.SUCCEEDED
    else:
        with pytest.raises(NotAnswering):
            start()
        assert not list(Path("runs").glob("*"))


@pytest.mark.parametrize(
    ("verb", "resource", "words"),
    [
        ("create", "jobs", "kubectl auth can-i create jobs -n pond"),
        ("create", "configmaps", "kubectl auth can-i create configmaps -n pond"),
    ],
)
def test_what_the_cluster_forbids_is_said_and_leaves_nothing(
    pond: Path, kubernetes: Any, verb: str, resource: str, words: str
) -> None:
    kubernetes.forbidden.add((verb, resource))
    refused = command("run", "config=cluster")
    assert refused.returncode == 7
    assert 'User "ana" cannot create' in refused.stderr
    assert words in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not list(Path("runs").glob("*"))
    assert not kubernetes.get("configmaps")


BUSY = "The server has received too many requests and has asked us to try again later"


def test_a_busy_server_is_asked_again(pond: Path, kubernetes: Any) -> None:
    for resource in ("configmaps", "jobs", "jobs"):
        kubernetes.refuse("create", resource, 429, "TooManyRequests", BUSY, retryAfterSeconds=0)
    kubernetes.refuse("create", "jobs", 409, "Conflict", 'Operation cannot be fulfilled on resourcequotas "q": ...')
    run = start()
    kubernetes.refuse("list", "jobs", 429, "TooManyRequests", BUSY, retryAfterSeconds=0)
    run.wait(timeout=120)
    assert run.state is State.SUCCEEDED
    assert not kubernetes.refusals


def test_a_server_that_is_busy_for_long_is_told_of_and_nothing_stays(pond: Path, kubernetes: Any) -> None:
    kubernetes.refuse("create", "jobs", 429, "TooManyRequests", BUSY, retryAfterSeconds=60)
    refused = command("run", "config=cluster")
    assert refused.returncode == 7
    assert BUSY in refused.stderr
    assert not kubernetes.get("configmaps")
    assert not list(Path("runs").glob("*"))


def test_a_quota_is_named_and_so_is_where_to_look(pond: Path, kubernetes: Any) -> None:
    why = "exceeded quota: gpus, requested: requests.nvidia.com/gpu=8, used: 4, limited: 8"
    kubernetes.refuse("create", "jobs", 403, "Forbidden", f'jobs.batch "x" is forbidden: {why}', kind="jobs")
    refused = command("run", "config=cluster")
    assert refused.returncode == 7
    assert why in refused.stderr
    assert "kubectl describe quota -n pond" in refused.stderr


def test_who_is_not_logged_in_is_told_so(pond: Path, kubernetes: Any) -> None:
    kubernetes.refuse("create", "configmaps", 401, "Unauthorized", "Unauthorized")
    with pytest.raises(EnvironmentFault, match="does not accept your credentials") as caught:
        start()
    assert "log in to the cluster again" in str(caught.value)


def test_a_namespace_that_is_not_there_is_a_mistake_of_the_config(pond: Path) -> None:
    write_options(namespace="sea")
    with pytest.raises(UsageError, match=r"there is no namespace sea in http.*\n.*backend.namespace=NAME"):
        start()


def test_without_permission_to_look_a_run_stands_as_it_did(pond: Path, kubernetes: Any) -> None:
    run = start(f"+function.go={pond / 'go'}")
    kubernetes.forbidden.add(("list", "jobs"))
    told = command("status", run.id)
    assert told.returncode == 0
    assert "this is how it stood" in told.stdout
    assert "does not let you list its jobs" in told.stdout


def test_a_server_that_does_not_answer_is_named(pond: Path, kubernetes: Any) -> None:
    run = start()
    text = kubernetes.kubeconfig.read_text()
    kubernetes.kubeconfig.write_text(text.replace(kubernetes.server, "http://127.0.0.1:1"))
    with pytest.raises(NotAnswering, match=r"the API server http://127\.0\.0\.1:1 does not answer: Connection refused"):
        start()
    assert "does not answer" in command("ps").stdout
    assert not read_state(run.paths).state.ended


def test_a_resume_that_is_not_possible_leaves_a_run_to_resume(pond: Path, kubernetes: Any) -> None:
    run = start("+function.fails=true")
    wait_for(lambda: run.state.ended)
    kubernetes.forbidden.add(("create", "jobs"))
    refused = command("resume", run.id)
    assert refused.returncode == 7
    assert (run.state, run.status.attempt) == (State.INTERRUPTED, 2)
    assert "does not let you" in str(run.status.cause)
    kubernetes.forbidden.clear()
    run.resume(wait=False)
    wait_for(lambda: run.state.ended)
    assert (run.state, run.status.attempt) == (State.FAILED, 3)


def test_another_cluster_is_not_believed(pond: Path, kubernetes: Any) -> None:
    run = start(f"+function.go={pond / 'go'}")
    values = read_json(run.paths.state)
    values["extra"] |= {"cluster": "https://elsewhere.example.org", "submitted": 0}
    run.paths.state.write_text(json.dumps(values))
    told = command("status", run.id)
    assert "it was submitted to https://elsewhere.example.org, and the kubeconfig leads to http" in told.stdout
    assert not run.state.ended


@pytest.mark.parametrize(
    ("options", "words"), [({}, "no way to a cluster"), ({"context": "sea"}, "no way to the context 'sea'")]
)
def test_without_a_kubeconfig_it_says_where_to_look(
    pond: Path, kubernetes: Any, monkeypatch: pytest.MonkeyPatch, options: dict[str, str], words: str
) -> None:
    write_options(**options)
    if not options:
        monkeypatch.setenv("KUBECONFIG", str(pond / "nowhere"))
    with pytest.raises(EnvironmentFault, match=words) as caught:
        start()
    assert "kubectl config get-contexts" in str(caught.value)


def test_without_the_client_it_says_what_to_install(pond: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    with pytest.raises(EnvironmentFault, match=r"pip install 'ai4sdk\[kubernetes\]'"):
        start()
    assert ai4sdk.plan("cluster").tasks, "planning needs no client"


def test_planning_for_kubernetes_imports_no_client(pond: Path) -> None:
    shown = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "ai4sdk", "plan", "config=cluster", "--script"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "KUBECONFIG": "/nowhere"},
    )
    assert shown.stdout.startswith("---\napiVersion: v1\n")
    assert not [line for line in shown.stderr.splitlines() if line.split("|")[-1].strip() in ("kubernetes", "torch")]
