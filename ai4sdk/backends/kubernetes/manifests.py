"""Plan → what Kubernetes is given. Pure: it can be read, kept, applied by hand, and compared with one that is right."""

from __future__ import annotations

import json
import math
import posixpath
import re
from pathlib import Path
from typing import Any

import yaml

from ai4sdk.backends.kubernetes import security
from ai4sdk.backends.kubernetes.names import ROOM_IN_A_SET, label_value, object_name
from ai4sdk.backends.kubernetes.trainjob import host_of_first, train_job
from ai4sdk.backends.kubernetes.volumes import PLAN_FOLDER, mounts_of, volumes_of
from ai4sdk.errors import UsageError
from ai4sdk.planning.plan import Plan, TaskPlan
from ai4sdk.runs.layout import RunPaths
from ai4sdk.spec.units import format_size

__all__ = ["CONTAINER", "LAST_WORD", "MANAGED", "manifests", "pod_project", "pod_run", "to_yaml"]

MANAGED = {"app.kubernetes.io/managed-by": "ai4sdk"}
"""Label of everything of ours in a cluster."""
CONTAINER = "worker"
"""Name of the container that works."""
LAST_WORD = "/dev/termination-log"
"""File whose text Kubernetes keeps of a container that has ended."""
AGAIN = (5, 137, 143)
"""Exit statuses that say nothing against the job: interrupted, killed, told to stop."""
MOST = 2**20
"""Bytes that fit into a ConfigMap."""

_LEADER_PORT = 29500
_LAST_SECONDS = 30
"""For what is written after a task has had its grace."""


def manifests(plan: Plan, run: RunPaths, project: Path, *, attempt: int = 1) -> list[dict[str, Any]]:
    """Return what a run is in Kubernetes: a ConfigMap with its plan, a Job and, for several nodes, a Service.

    With ``backend.workload=trainjob`` there is a TrainJob instead of the Job and the Service.

    Parameters
    ----------
    plan
        What runs.
    run, project
        Files of the run and the project's folder, as they are called here.
    attempt
        1, and more for each resume; each has objects of its own.

    Raises
    ------
    UsageError
        If the plan does not fit into a ConfigMap.
    """
    options = plan.job["backend"]
    in_a_set = options.get("workload") == "trainjob"
    name = object_name(run.id, attempt, ROOM_IN_A_SET) if in_a_set else object_name(run.id, attempt)
    labels = {
        **options["labels"],
        "app.kubernetes.io/name": label_value(plan.name),
        **MANAGED,
        "ai4sdk/run": label_value(run.id),
    }
    annotations = {**options["annotations"], "ai4sdk/run": run.id, "ai4sdk/plan": plan.digest}
    nodes = max(task.nodes for task in plan.tasks)

    def meta(extra: dict[str, str] | None = None) -> dict[str, Any]:
        place = {"namespace": options["namespace"]} if options["namespace"] else {}
        return {"name": name, **place, "labels": {**labels, **(extra or {})}, "annotations": annotations}

    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta(), "immutable": True, "data": _data(plan)}
    queued = meta({"kueue.x-k8s.io/queue-name": options["queue"]} if options["queue"] else None)
    suspend = {"suspend": True} if options["queue"] else {}  # Kueue starts it once there is room for all of its pods
    pod = _pod(plan, run, project, name, attempt)
    if in_a_set:
        processes = max(task.processes for task in plan.tasks)
        made = train_job(queued, pod, labels, runtime=options["runtime"], nodes=nodes, processes=processes)
        return [config, {**made, "spec": {**suspend, **made["spec"]}}]
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": queued,
        "spec": {
            **suspend,
            **_tries(nodes, options["backoff_limit"]),
            "ttlSecondsAfterFinished": math.ceil(options["ttl_after_finished"]),
            "podFailurePolicy": {"rules": _rules()},
            "template": {
                "metadata": {"labels": labels, "annotations": annotations},
                "spec": pod,
            },
        },
    }
    if nodes == 1:
        return [config, job]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": meta(),
        "spec": {
            "clusterIP": "None",
            "selector": {"batch.kubernetes.io/job-name": name},
            "publishNotReadyAddresses": True,
            "ports": [{"name": "leader", "port": _LEADER_PORT}],
        },
    }
    return [config, service, job]


def pod_project(plan: Plan, project: Path) -> str:
    """Return the folder that relative addresses start at in a pod."""
    mount = str(plan.job["backend"]["mount_path"])
    return str(project) if _below(str(project), mount) else mount


def pod_run(plan: Plan, run: RunPaths) -> str:
    """Return the run directory as a pod sees it: the same one if it is on the claim here, too."""
    mount = str(plan.job["backend"]["mount_path"])
    if _below(str(run.root), mount):
        return str(run.root)
    runs = posixpath.normpath(plan.job["runs"])
    legal = not runs.startswith(("/", "..")) and runs != "."
    return posixpath.join(mount, runs if legal else "runs", run.root.name)


def to_yaml(objects: list[dict[str, Any]]) -> str:
    """Return objects as YAML that kubectl takes."""
    return yaml.dump_all(objects, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=2**20, explicit_start=True)


def _data(plan: Plan) -> dict[str, str]:
    text = json.dumps(plan.model_dump(mode="json"), ensure_ascii=False, separators=(",", ":")) + "\n"
    size = len(text.encode())
    if size > MOST:
        raise UsageError(
            f"the plan has {format_size(size)} with its code, and a ConfigMap of Kubernetes takes {format_size(MOST)}",
            hint="move what is no code out of the packages of the job, or install them in backend.image",
        )
    return {"plan.json": text}


def _tries(nodes: int, limit: int) -> dict[str, Any]:
    """Say how many pods there are, and how often there is another one.

    Of several pods each ends when one is lost, so each is counted by itself; one that is lost too often ends the Job.
    """
    if nodes == 1:
        return {"backoffLimit": limit}
    indexed = {"completionMode": "Indexed", "completions": nodes, "parallelism": nodes}
    return {"backoffLimitPerIndex": limit, "maxFailedIndexes": 0, **indexed}


def _rules() -> list[dict[str, Any]]:
    """Say which ends of a pod are worth another one; the first rule that fits counts."""
    return [
        {"action": "Count", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {
            "action": "FailJob",
            "onExitCodes": {"containerName": CONTAINER, "operator": "NotIn", "values": list(AGAIN)},
        },
    ]


def _pod(plan: Plan, run: RunPaths, project: Path, name: str, attempt: int) -> dict[str, Any]:
    options = plan.job["backend"]
    nodes = max(task.nodes for task in plan.tasks)
    limit = sum(task.wall_time for task in plan.tasks if task.wall_time)
    model = plan.job["hardware"]["gpu_model"]
    gpus = max(task.gpus for task in plan.tasks)
    product = {f"{options['gpu_resource']}.product": label_value(model.replace(" ", "-"))} if gpus and model else {}
    pod = {
        "restartPolicy": "Never",
        "activeDeadlineSeconds": math.ceil(limit) if limit else None,
        "terminationGracePeriodSeconds": math.ceil(options["grace"]) + _LAST_SECONDS,
        "subdomain": name if nodes > 1 else None,
        "serviceAccountName": options["service_account"],
        "automountServiceAccountToken": None if options["service_account"] else False,
        "enableServiceLinks": False,
        "imagePullSecrets": [{"name": secret} for secret in options["image_pull_secrets"]],
        "nodeSelector": {**options["node_selector"], **product},
        "tolerations": [_given(toleration) for toleration in options["tolerations"]],
        "securityContext": security.of_pod(options),
        "containers": [
            {
                "name": CONTAINER,
                "image": options["image"],
                **_given({"imagePullPolicy": options["image_pull_policy"]}),
                "command": ["python", "-P", "-m", "ai4sdk.backends.kubernetes"],
                "args": [f"{PLAN_FOLDER}/plan.json", pod_run(plan, run), str(attempt), LAST_WORD],
                "workingDir": pod_project(plan, project),
                "env": _environment(options, name, nodes),
                **_given({"securityContext": security.of_container(options)}),
                "resources": _resources(plan.tasks, options["gpu_resource"]),
                "terminationMessagePath": LAST_WORD,
                "volumeMounts": mounts_of(options),
            }
        ],
        "volumes": volumes_of(options, name),
    }
    return {key: value for key, value in pod.items() if value not in (None, [], {})}


def _environment(options: dict[str, Any], name: str, nodes: int) -> list[dict[str, Any]]:
    texts = {**(security.HOME if options["security"] == "restricted" else {}), **options["env"]}
    variables: dict[str, Any] = {key: {"value": value} for key, value in texts.items()}
    for source, places in (("configMapKeyRef", options["config_maps"]), ("secretKeyRef", options["secrets"])):
        for key, place in places.items():
            holder, _, entry = place.partition("/")
            variables[key] = {"valueFrom": {source: {"name": holder, "key": entry}}}
    variables |= {
        "AI4SDK_JOB": {"value": name},
        "AI4SDK_NAMESPACE": _field("metadata.namespace"),
        "AI4SDK_POD": _field("metadata.uid"),
    }
    if nodes > 1:
        # Which pod it is Kubernetes tells by itself, as JOB_COMPLETION_INDEX.
        first = host_of_first(name) if options.get("workload") == "trainjob" else f"{name}-0.{name}"
        variables["AI4SDK_LEADER"] = {"value": f"{first}:{_LEADER_PORT}"}
    return [{"name": key, **source} for key, source in variables.items()]


def _field(path: str) -> dict[str, Any]:
    return {"valueFrom": {"fieldRef": {"fieldPath": path}}}


def _resources(tasks: list[TaskPlan], gpu_resource: str) -> dict[str, Any]:
    """Return what a pod gets, neither less nor more: enough for each of its tasks, which run one after the other."""
    wanted = {
        "cpu": max(task.cpus for task in tasks),
        "memory": max(task.memory or 0 for task in tasks),
        "ephemeral-storage": max(task.disk or 0 for task in tasks),
        gpu_resource: max(task.gpus for task in tasks),
    }
    amounts = {name: str(amount) for name, amount in wanted.items() if amount}
    return {"requests": amounts, "limits": dict(amounts)}


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder + "/")


class _Dumper(yaml.SafeDumper):
    """Writes text so that every reader of YAML takes it for text: they differ in what is a number or a truth."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


_NO_TEXT = ("y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf")


def _text(dumper: _Dumper, text: str) -> yaml.Node:
    style = None
    if "\n" in text:
        style = "|"
    elif not re.fullmatch(r"[A-Za-z/][\w./-]*", text, re.ASCII) or text.lower() in _NO_TEXT:
        style = '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)
