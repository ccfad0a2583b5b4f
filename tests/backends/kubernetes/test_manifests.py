"""The manifests, word for word. `AI4SDK_GOLDEN=write` writes the golden files anew; then read the diff."""

from __future__ import annotations

import json
import os
import re
import string
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import ai4sdk
from ai4sdk.backends.kubernetes.backend import KubernetesBackend
from ai4sdk.backends.kubernetes.manifests import manifests, to_yaml
from ai4sdk.backends.kubernetes.names import label_value, object_name
from ai4sdk.errors import ConfigError, UsageError
from ai4sdk.planning.plan import Plan, read_plan_file
from ai4sdk.runs.layout import RunPaths

GOLDEN = Path(__file__).parent / "golden"
RUN = RunPaths(Path("/home/ana/pond/runs/20260102-030405-pond-abcd"))
PROJECT = Path("/home/ana/pond")
VERSIONS = ("1.29", "1.31", "1.33", "1.35", "1.37")
"""Of Kubernetes; schemas of older ones want `onPodConditions` in every rule, though their servers did not."""

CASES = {
    "plain": "",
    "gpu": """
hardware: {cpus: 8, gpus: 1, gpu_model: NVIDIA-A100-SXM4-80GB, memory: 64GiB, disk: 50GB, wall_time: 36h}
backend:
  namespace: fisheries
  image_pull_policy: Always
  image_pull_secrets: [registry]
  service_account: trainer
  node_selector: {pool: gpu, example.org/on: "y"}
  tolerations: [{key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}, {key: team, value: fish}]
  queue: gpu-queue
  env: {LEVEL: "1e3", ANSWER: "yes", PORT: "0x1F", TEXT: "a: b # c", CLOCK: "12:30:45", NOTHING: ""}
  secrets: {S3_TOKEN: storage/token}
  config_maps: {REGION: site/region}
  volumes: [{claim: catches, path: /data, sub_path: "2026"}, {claim: scratch, path: /scratch, read_only: false}]
  shared_memory: 8GiB
  user: 4711
  labels: {team: fish}
  annotations: {example.org/note: it is "mine"}
  backoff_limit: 0
  ttl_after_finished: 2h
  grace: 5m
""",
    "nodes": "training: {mode: ddp}\nhardware: {cpus: 4, gpus: 2, nodes: 3}",
}
TRAINJOBS = {
    "trainjob": "backend: {workload: trainjob}",
    "trainjob-gpus": """
training: {mode: ddp}
hardware: {cpus: 8, gpus: 2, nodes: 3, gpu_model: NVIDIA-A100-SXM4-80GB, memory: 64GiB, wall_time: 36h}
backend:
  workload: trainjob
  runtime: our-torch
  namespace: fisheries
  image_pull_secrets: [registry]
  service_account: trainer
  node_selector: {pool: gpu}
  tolerations: [{key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}]
  queue: gpu-queue
  env: {LEVEL: "1e3"}
  secrets: {S3_TOKEN: storage/token}
  config_maps: {REGION: site/region}
  volumes: [{claim: catches, path: /data, sub_path: "2026"}]
  shared_memory: 8GiB
  labels: {team: fish}
  annotations: {example.org/note: it is "mine"}
""",
}


def plan_of(text: str = "") -> Plan:
    values = yaml.safe_load(text) or {}
    backend = {"kind": "kubernetes", "image": "registry.example.org/pond:1", "claim": "pond"}
    values |= {"defaults": ["train", "_self_"], "backend": {**backend, **values.get("backend", {})}}
    Path("configs/cluster.yaml").write_text(json.dumps(values))  # what is text there stays text
    return ai4sdk.plan("cluster")


def objects_of(name: str, **kwargs: Any) -> list[dict[str, Any]]:
    return manifests(plan_of({**CASES, **TRAINJOBS}[name]), RUN, PROJECT, **kwargs)


def job_of(objects: list[dict[str, Any]]) -> dict[str, Any]:
    return objects[-1]


def pod_of(objects: list[dict[str, Any]]) -> dict[str, Any]:
    pod: dict[str, Any] = job_of(objects)["spec"]["template"]["spec"]
    return pod


@pytest.mark.parametrize("name", [*CASES, *TRAINJOBS])
def test_the_manifests_are_as_they_were_approved(project: Path, name: str) -> None:
    objects = objects_of(name)
    assert json.loads(objects[0]["data"]["plan.json"])["format"] == "ai4sdk.plan/1"
    objects[0]["data"]["plan.json"] = "{...}\n"
    text = re.sub(r"sha256:[0-9a-f]{64}", "sha256:0000", to_yaml(objects))
    golden = GOLDEN / f"{name}.yaml"
    if os.environ.get("AI4SDK_GOLDEN") == "write":
        golden.write_text(text)
    assert text == golden.read_text()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", CASES)
def test_every_version_of_kubernetes_knows_every_field(project: Path, name: str, version: str) -> None:
    validate = pytest.importorskip("kubernetes_validate").validate
    for object_ in yaml.safe_load_all(to_yaml(objects_of(name))):
        validate(object_, version, strict=True)


@pytest.mark.parametrize("name", CASES)
def test_the_official_client_reads_them_and_loses_nothing(project: Path, name: str) -> None:
    api = pytest.importorskip("kubernetes").client.ApiClient()
    for object_ in objects_of(name):
        read = api.deserialize(SimpleNamespace(data=json.dumps(object_)), f"V1{object_['kind']}")
        assert api.sanitize_for_serialization(read) == object_


@pytest.mark.parametrize("name", [*CASES, *TRAINJOBS])
def test_the_yaml_reads_back_as_what_it_was(project: Path, name: str) -> None:
    objects = objects_of(name)
    assert list(yaml.safe_load_all(to_yaml(objects))) == objects


@given(
    st.text(min_size=1, max_size=12)
    | st.sampled_from(["1e3", "0x1f", "yes", "NO", "~", ".inf", "1_000", "12:30", "0o7", "2026-01-01", "=", "<<", "%a"])
)
def test_any_text_stays_text_in_yaml(text: str) -> None:
    written = to_yaml([{"a": text, text: "a"}])
    assert list(yaml.safe_load_all(written)) == [{"a": text, text: "a"}]
    value = written.splitlines()[1].removeprefix("a: ")
    assert value[0] in "\"'|" or re.fullmatch(r"[A-Za-z/][\w./-]*", value), value


job_names = st.from_regex(r"[A-Za-z0-9][\w.-]{0,63}", fullmatch=True)  # as spec.Job takes them
LETTERS = string.ascii_letters + string.digits


@given(job_names, st.integers(1, 9999))
def test_names_and_labels_of_any_job_are_valid(name: str, attempt: int) -> None:
    run_id = f"20260102-030405-{name}-a1b2"
    made = object_name(run_id, attempt)
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", made), "a Service's name begins with a letter"
    assert len(f"{made}-9999") <= 63, "it is a host's name, with the index of its pod"
    for text in (name, run_id):
        label = label_value(text)
        assert len(label) <= 63
        assert re.fullmatch(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?", label)


@given(st.lists(job_names, min_size=2, max_size=2, unique=True))
def test_different_runs_have_different_names(names: list[str]) -> None:
    one, other = (f"20260102-030405-{name}-a1b2" for name in names)
    assert object_name(one) != object_name(other)
    assert label_value(one) != label_value(other)


def test_points_of_studies_have_names_too() -> None:
    run = RunPaths(Path("/x/runs/20260102-030405-pond-abcd/points/00007"))
    assert re.fullmatch(r"ai4-20260102-030405-pond-abcd-7-[0-9a-f]{8}-1", object_name(run.id))


def test_each_attempt_has_objects_of_its_own(project: Path) -> None:
    names = {object_["metadata"]["name"] for attempt in (1, 2) for object_ in objects_of("plain", attempt=attempt)}
    assert names == {"ai4-20260102-030405-pond-abcd-1", "ai4-20260102-030405-pond-abcd-2"}


def test_what_a_pod_gets_is_what_it_asks_for(project: Path) -> None:
    resources = pod_of(objects_of("gpu"))["containers"][0]["resources"]
    assert resources["requests"] == resources["limits"]
    assert resources["limits"] == {
        "cpu": "8",
        "memory": str(64 * 2**30),
        "ephemeral-storage": str(50 * 10**9),
        "nvidia.com/gpu": "1",
    }


def test_a_mistake_of_the_users_is_not_tried_again_and_a_loss_is(project: Path) -> None:
    first, second = job_of(objects_of("plain"))["spec"]["podFailurePolicy"]["rules"]
    assert (first["action"], first["onPodConditions"][0]["type"]) == ("Count", "DisruptionTarget")
    assert second["action"] == "FailJob"
    kept = second["onExitCodes"]
    assert kept["operator"] == "NotIn"
    assert not {1, 2, 3, 4, 7, 130} & set(kept["values"])
    assert {5, 143} <= set(kept["values"])


def test_nodes_find_each_other(project: Path) -> None:
    config, service, job = objects_of("nodes")
    name = job["metadata"]["name"]
    pod = job["spec"]["template"]["spec"]
    env = {entry["name"]: entry.get("value") for entry in pod["containers"][0]["env"]}
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == 3
    assert pod["subdomain"] == service["metadata"]["name"]
    port = service["spec"]["ports"][0]["port"]
    assert env["AI4SDK_LEADER"] == f"{name}-0.{service['metadata']['name']}:{port}"
    assert config["metadata"]["name"] == name


def test_the_plan_arrives_whole(project: Path, tmp_path: Path) -> None:
    plan = plan_of()
    written = next(yaml.safe_load_all(to_yaml(manifests(plan, RUN, PROJECT))))
    (tmp_path / "plan.json").write_text(written["data"]["plan.json"])
    assert read_plan_file(tmp_path / "plan.json") == plan


def test_a_plan_that_fits_into_no_configmap_is_refused(project: Path) -> None:
    plan = plan_of()
    plan = plan.model_copy(update={"code": {**plan.code, "archive": "a" * 2**20}})
    with pytest.raises(UsageError, match=r"a ConfigMap of Kubernetes takes 1 MiB"):
        manifests(plan, RUN, PROJECT)


def test_the_run_directory_lies_on_the_claim(project: Path) -> None:
    pod = pod_of(objects_of("plain"))["containers"][0]
    assert pod["args"][1] == "/workspace/runs/20260102-030405-pond-abcd"
    assert pod["workingDir"] == "/workspace"
    shared = pod_of(manifests(plan_of("backend: {mount_path: /home/ana}"), RUN, PROJECT))["containers"][0]
    assert shared["args"][1] == str(RUN.root)
    assert shared["workingDir"] == str(PROJECT)


def test_the_pod_starts_the_processes_that_this_machine_would(project: Path) -> None:
    submission = KubernetesBackend().render(plan_of(), RUN, PROJECT)
    assert [command.argv[:6] for command in submission.tasks] == [
        ["python", "-P", "-m", "ai4sdk.worker", "/workspace/runs/20260102-030405-pond-abcd", "train"]
    ]
    assert "script" not in submission.to_json()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("namespace: Fish", "is no namespace"),
        ("claim: my_claim", "is no name of Kubernetes"),
        ("claim: a..b", "is no name of Kubernetes"),
        ("mount_path: workspace", "is no folder that a volume can be mounted at"),
        ("mount_path: /a/../b", "is no folder that a volume can be mounted at"),
        ("gpu_resource: gpu", "is no resource, such as nvidia.com/gpu"),
        ("node_selector: {pool: a b}", "is no label"),
        ("node_selector: {a/b/c: x}", "is no key"),
        ("labels: {app.kubernetes.io/managed-by: me}", "is decided by ai4sdk"),
        ("labels: {kueue.x-k8s.io/queue-name: q}", "is decided by backend.queue"),
        ("secrets: {TOKEN: storage}", "write SECRET/KEY"),
        ("env: {1A: x}", "is no name of an environment variable"),
        ("tolerations: [{value: x}]", "without a key needs operator: Exists"),
        ("tolerations: [{key: a, operator: Exists, value: x}]", "not both"),
        ("ttl_after_finished: 1s", "60"),
    ],
)
def test_what_kubernetes_would_refuse_is_a_mistake_of_the_config(project: Path, option: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_of(f"backend: {{{option}}}")
    assert message in str(caught.value)
    assert "configs/cluster.yaml" in str(caught.value)


def test_a_secret_that_pods_would_not_get_is_refused(project: Path) -> None:
    used = "tracking: {uri: 'https://mlflow.example.org', token: '${secret:MLFLOW}'}"
    with pytest.raises(ConfigError, match=r"pods do not get the secret MLFLOW"):
        plan_of(used)
    assert plan_of(f"{used}\nbackend: {{secrets: {{MLFLOW: mlflow/token}}}}").tasks


def test_a_pod_of_several_may_be_lost_as_often_as_one_alone(project: Path) -> None:
    job = job_of(objects_of("nodes"))["spec"]
    assert (job["backoffLimitPerIndex"], job["maxFailedIndexes"]) == (3, 0)
    assert "backoffLimit" not in job


def test_pod_0_brings_the_others_together(project: Path) -> None:
    submission = KubernetesBackend().render(plan_of(CASES["nodes"]), RUN, PROJECT)
    run = "/workspace/runs/20260102-030405-pond-abcd"
    leader = ["python", "-P", "-m", "ai4sdk.backends.kubernetes.leader", run, "train", "2", "3"]
    assert [command.argv for command in submission.tasks] == [leader]


def test_one_process_needs_no_several_nodes(project: Path) -> None:
    with pytest.raises(ConfigError, match=r"training\.mode single is one process on one node"):
        plan_of("hardware: {nodes: 2}")


def test_what_must_be_given_is_asked_for(project: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        ai4sdk.plan("train", "+backend=kubernetes")
    assert "backend.image" in str(caught.value)
    assert "backend.claim" in str(caught.value)
