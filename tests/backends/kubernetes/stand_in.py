"""A FAKE of Kubernetes for tests: an API server with a Job controller and a kubelet that starts pods as processes.

It is no Kubernetes. It answers as the API describes itself, for the few calls that are made here: create, get, list,
patch and delete of Jobs, Pods, ConfigMaps and Services, and logs; with 201, 400, 401, 403, 404, 409, 422 and 429 in the
API's words. Objects are checked against the published schemas. Its controller follows `backoffLimit`, `podFailurePolicy` and indexes;
a TrainJob becomes the Job that Kubeflow Trainer's JobSet of the runtime ``torch-distributed`` would have, with new pods
where containers would be started again there, and without its webhooks;
its kubelet starts a container's command as a process of this machine, with paths of volumes replaced by folders here.
"""

from __future__ import annotations

import copy
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml
from backends.kubernetes.crds import complaints
from kubernetes_validate import ValidationError, validate

Object = dict[str, Any]
KINDS = {"jobs": "Job", "pods": "Pod", "configmaps": "ConfigMap", "services": "Service", "trainjobs": "TrainJob"}
VERSION = "1.33"
NAMESPACES = ("default", "pond")
JOB_OF = "batch.kubernetes.io/job-name"
INDEX = "batch.kubernetes.io/job-completion-index"
SET_OF = "jobset.sigs.k8s.io/jobset-name"


GROUPS = {"jobs": "batch", "trainjobs": "trainer.kubeflow.org"}


class Refused(Exception):
    """An answer that is a ``Status``, as the API server makes it (k8s.io/apimachinery, pkg/api/errors)."""

    def __init__(self, code: int, reason: str, message: str, **details: Any) -> None:
        super().__init__(message)
        self.code = code
        self.status: Object = {
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message, "reason": reason, "details": details, "code": code,
        }  # fmt: skip
        if not details:
            del self.status["details"]


def about(resource: str, name: str = "", **more: Any) -> Object:
    """Return the details of a ``Status`` about an object; parts that are empty are left out there."""
    found = {"name": name, "group": GROUPS.get(resource, ""), "kind": resource, **more}
    return {key: value for key, value in found.items() if value}


def called(resource: str, name: str = "") -> str:
    """Return what messages call an object: ``jobs.batch "pond"``."""
    group = GROUPS.get(resource)
    return (f"{resource}.{group}" if group else resource) + (f' "{name}"' if name else "")


def not_found(resource: str, name: str) -> Refused:
    return Refused(404, "NotFound", f"{called(resource, name)} not found", **about(resource, name))


def already_exists(resource: str, name: str) -> Refused:
    return Refused(409, "AlreadyExists", f"{called(resource, name)} already exists", **about(resource, name))


def forbidden(resource: str, name: str, why: str) -> Refused:
    return Refused(403, "Forbidden", f"{called(resource, name)} is forbidden: {why}", **about(resource, name))


def invalid(resource: str, name: str, field: str, message: str) -> Refused:
    kind, group = KINDS[resource], GROUPS.get(resource, "")
    cause = {"reason": "FieldValueInvalid", "message": message, "field": field}
    text = f'{kind}{"." * bool(group)}{group} "{name}" is invalid: {field}: {message}'
    return Refused(422, "Invalid", text, **about(resource, name, kind=kind, causes=[cause]))


class StandIn:
    """The cluster.

    Parameters
    ----------
    folder
        For its pods' files.
    claims
        Claim → the folder that it is here.
    """

    def __init__(self, folder: Path, claims: dict[str, Path]) -> None:
        self.folder, self.claims = folder, claims
        self.server = ""
        self.kubeconfig = folder / "kubeconfig"
        self.secrets: dict[str, dict[str, str]] = {}
        self.settings: dict[str, dict[str, str]] = {}
        """ConfigMaps that are there already."""
        self.forbidden: set[tuple[str, str]] = set()
        """Pairs of verb and resource, such as ("create", "jobs")."""
        self.refusals: list[tuple[tuple[str, str], Refused]] = []
        """What the next such call is answered with, once each."""
        self.schedulable = threading.Event()
        self.schedulable.set()
        self.lost: set[str] = set()
        """Resources whose next creation is done, but not answered."""
        self.objects: dict[tuple[str, str, str], Object] = {}
        self.lock = threading.RLock()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.ports: dict[str, int] = {}
        self.closing = False
        self.calls: list[tuple[str, str]] = []

    # ------------------------------------------------------------ what tests do to it

    def get(self, kind: str) -> list[Object]:
        with self.lock:
            return [copy.deepcopy(one) for key, one in self.objects.items() if key[0] == kind]

    def evict(self, pod: str, *, hard: bool = False) -> None:
        """Disrupt a pod as a drained node does, or ``hard`` as a lost one."""
        with self.lock:
            status = self._pod(pod)["status"]
            reason = "DeletionByTaintManager" if hard else "EvictionByEvictionAPI"
            status["conditions"].append({"type": "DisruptionTarget", "status": "True", "reason": reason})
        self._signal(pod, signal.SIGKILL if hard else signal.SIGTERM)

    def admit(self, name: str) -> None:
        """Let a suspended Job begin, as Kueue does."""
        with self.lock:
            kind, job = next(
                (key[0], one) for key, one in self.objects.items() if key[0] in ("jobs", "trainjobs") and key[2] == name
            )
            assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"]
            job["spec"]["suspend"] = False
        (self._begin if kind == "jobs" else self._train)(job["metadata"]["namespace"], name)

    def refuse(self, verb: str, resource: str, code: int, reason: str, message: str, **details: Any) -> None:
        """Answer the next such call with a ``Status``."""
        self.refusals.append(((verb, resource), Refused(code, reason, message, **details)))

    def remove_job(self, namespace: str, name: str) -> None:
        """Delete a Job as somebody else would."""
        self.delete("jobs", namespace, name, {})

    def close(self) -> None:
        self.closing = True
        self.schedulable.set()
        for process in list(self.processes.values()):
            if process.poll() is None:
                _signal_group(process, signal.SIGKILL)
                process.wait()

    # ------------------------------------------------------------ API

    def create(self, resource: str, namespace: str, object_: Object) -> Object:
        self._allowed("create", resource, namespace)
        name = object_["metadata"]["name"]
        if resource == "trainjobs":
            for place, message in complaints(object_):
                raise invalid(resource, name, place, message)
        try:
            if resource != "trainjobs":
                validate(copy.deepcopy(object_), VERSION, strict=True)
        except ValidationError as error:
            raise invalid(resource, name, ".".join(map(str, error.absolute_path)) or "<nil>", error.message) from None
        with self.lock:
            if (resource, namespace, name) in self.objects:
                raise already_exists(resource, name)
            made = self._made(object_, namespace)
            if resource in ("jobs", "trainjobs"):
                made["status"] = {}
            self.objects[resource, namespace, name] = made
        if resource == "jobs" and not object_["spec"].get("suspend"):
            self._begin(namespace, name)
        if resource == "trainjobs" and not object_["spec"].get("suspend"):
            self._train(namespace, name)
        return made

    def read(self, resource: str, namespace: str, name: str) -> Object:
        self._allowed("get", resource, namespace)
        with self.lock:
            if (resource, namespace, name) not in self.objects:
                raise not_found(resource, name)
            return copy.deepcopy(self.objects[resource, namespace, name])

    def list(self, resource: str, namespace: str, query: dict[str, str]) -> Object:
        self._allowed("list", resource, namespace)
        labels = dict(part.split("=", 1) for part in query.get("labelSelector", "").split(",") if part)
        fields = dict(part.split("=", 1) for part in query.get("fieldSelector", "").split(",") if part)
        with self.lock:
            items = [
                copy.deepcopy(one)
                for (kind, place, name), one in self.objects.items()
                if (kind, place) == (resource, namespace)
                and labels.items() <= one["metadata"].get("labels", {}).items()
                and fields.get("metadata.name", name) == name
            ]
        if resource == "trainjobs":  # as of all custom resources each item says what it is
            return {
                "kind": "TrainJobList",
                "apiVersion": "trainer.kubeflow.org/v1alpha1",
                "metadata": {},
                "items": items,
            }
        group = "batch/v1" if resource == "jobs" else "v1"
        return {"kind": f"{KINDS[resource]}List", "apiVersion": group, "metadata": {}, "items": items}

    def patch(self, resource: str, namespace: str, name: str, change: Object) -> Object:
        self._allowed("patch", resource, namespace)
        with self.lock:
            self.read(resource, namespace, name)
            self.objects[resource, namespace, name]["metadata"].update(change["metadata"])
            return self.read(resource, namespace, name)

    def delete(self, resource: str, namespace: str, name: str, query: dict[str, str]) -> Object:
        self._allowed("delete", resource, namespace)
        object_ = self.read(resource, namespace, name)
        if resource == "pods":
            assert query.get("gracePeriodSeconds") == "0", "nobody deletes pods otherwise here"
            self._signal(name, signal.SIGKILL)
            with self.lock:
                self.objects.pop((resource, namespace, name), None)
        elif resource in ("jobs", "trainjobs"):
            with self.lock:
                self.objects[resource, namespace, name]["metadata"]["deletionTimestamp"] = _now()
            threading.Thread(target=self._collect, args=(resource, namespace, name), daemon=True).start()
        else:
            with self.lock:
                del self.objects[resource, namespace, name]
        return object_

    def log(self, namespace: str, name: str, container: str) -> bytes:
        self._allowed("get", "pods/log", namespace)
        pod = self.read("pods", namespace, name)
        if container != pod["spec"]["containers"][0]["name"]:
            raise Refused(400, "BadRequest", f"container {container} is not valid for pod {name}")
        if pod["status"]["phase"] == "Pending":
            raise Refused(
                400,
                "BadRequest",
                f'container "{pod["spec"]["containers"][0]["name"]}" in pod "{name}" is waiting to start: ContainerCreating',
            )
        return (self.folder / name / "log").read_bytes()

    # ------------------------------------------------------------ controller

    def _begin(self, namespace: str, name: str) -> None:
        spec = self.objects["jobs", namespace, name]["spec"]
        indices: list[int | None] = list(range(spec["completions"])) if "completions" in spec else [None]
        for index in indices:
            threading.Thread(target=self._control, args=(namespace, name, index), daemon=True).start()

    def _train(self, namespace: str, name: str) -> None:
        """Make the Job of a TrainJob, as its runtime and JobSet do, and end the TrainJob with it."""
        owner = self.objects["trainjobs", namespace, name]
        assert owner["spec"]["runtimeRef"]["name"] == "torch-distributed"
        trainer = owner["spec"]["trainer"]
        ((part,),) = (
            patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
            for patch in owner["spec"]["runtimePatches"]
        )
        template = copy.deepcopy(part["template"]["spec"]["template"])
        assert (part["name"], [one["name"] for one in template["spec"]["containers"]]) == ("node", ["node"])
        template["metadata"]["labels"][SET_OF] = name
        torchrun = {"PET_NNODES": trainer["numNodes"], "PET_NPROC_PER_NODE": trainer["numProcPerNode"]}
        template["spec"]["containers"][0] |= {
            **{key: trainer[key] for key in ("image", "command", "args")},
            "env": [*trainer["env"], *({"name": key, "value": str(value)} for key, value in torchrun.items())],
            "resources": trainer["resourcesPerNode"],
            "terminationMessagePath": "/dev/termination-log",
        }
        about = {"apiVersion": "trainer.kubeflow.org/v1alpha1", "kind": "TrainJob", "name": name}
        meta = {"name": f"{name}-node-0", "ownerReferences": [{**about, "uid": owner["metadata"]["uid"]}]}
        count = trainer["numNodes"]
        spec = {"completions": count, "parallelism": count, "completionMode": "Indexed", "backoffLimit": 6}
        job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": {**spec, "template": template}}
        with self.lock:
            self.objects["jobs", namespace, meta["name"]] = {**self._made(job, namespace), "status": {}}
        self._begin(namespace, meta["name"])

    def _control(self, namespace: str, name: str, index: int | None) -> None:
        """Keep one pod of a Job alive until it has done its work."""
        failures = 0
        while not self.closing:
            with self.lock:
                if (job := self._goes_on(namespace, name)) is None:
                    return
                pod = self._new_pod(job, namespace, index)
                job["status"]["active"] = job["status"].get("active", 0) + 1
            self._run(namespace, pod)
            with self.lock:
                job = self._goes_on(namespace, name)
                ended = self.objects.get(("pods", namespace, pod))
                if job is None or ended is None:
                    return
                job["status"]["active"] -= 1
                if ended["status"]["phase"] == "Succeeded":
                    job["status"]["succeeded"] = job["status"].get("succeeded", 0) + 1
                    if job["status"]["succeeded"] == job["spec"].get("completions", 1):
                        self._conclude(job, "Complete")
                    return
                failures += 1
                job["status"]["failed"] = job["status"].get("failed", 0) + 1
                if "containerStatuses" not in ended["status"]:
                    return
                reason, message = self._judged(job, ended, failures, index)
            if reason:
                self._end_others(namespace, name)
                with self.lock:
                    return self._conclude(job, "Failed", reason, message)

    def _judged(self, job: Object, pod: Object, failures: int, index: int | None) -> tuple[str, str]:
        """Return why a Job fails as one of its pods has, nothing if there is to be another one."""
        if self._policy(job, pod) == "FailJob":
            name = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
            return "PodFailurePolicy", f"Container worker for pod {name} failed: matching FailJob rule"
        if "backoffLimit" in job["spec"] and failures > job["spec"]["backoffLimit"]:
            return "BackoffLimitExceeded", "Job has reached the specified backoff limit"
        if "backoffLimitPerIndex" in job["spec"] and failures > job["spec"]["backoffLimitPerIndex"]:
            assert job["spec"]["maxFailedIndexes"] == 0, "nobody lets others go on here"
            return "MaxFailedIndexesExceeded", "Job has exceeded the specified maximal number of failed indexes"
        return "", ""

    def _goes_on(self, namespace: str, name: str) -> Object | None:
        job = self.objects.get(("jobs", namespace, name))
        return None if job is None or _is_over(job) else job

    def _end_others(self, namespace: str, name: str) -> None:
        """Delete the pods that still work for a Job that has failed."""
        with self.lock:
            self.objects["jobs", namespace, name]["status"]["conditions"] = [
                {"type": "FailureTarget", "status": "True"}
            ]
            phases = ("Pending", "Running")
            pods = [
                key[2]
                for key, one in self.objects.items()
                if key[0] == "pods" and one["metadata"]["labels"][JOB_OF] == name and one["status"]["phase"] in phases
            ]
        self._end(pods)
        with self.lock:
            for pod in pods:
                self.objects.pop(("pods", namespace, pod), None)

    def _policy(self, job: Object, pod: Object) -> str:
        code = pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"]
        for rule in job["spec"].get("podFailurePolicy", {}).get("rules", []):
            wanted = [one["type"] for one in rule.get("onPodConditions", [])]
            if any(one["type"] in wanted and one["status"] == "True" for one in pod["status"]["conditions"]):
                return str(rule["action"])
            codes = rule.get("onExitCodes")
            if codes and code and (code in codes["values"]) == (codes["operator"] == "In"):
                return str(rule["action"])
        return "Count"

    def _conclude(self, job: Object, kind: str, reason: str = "", message: str = "") -> None:
        job["status"]["conditions"] = [
            {"type": kind, "status": "True", "lastTransitionTime": _now(), "reason": reason, "message": message}
        ]
        for key, one in self.objects.items():
            if key[0] == "trainjobs" and one["metadata"]["uid"] == _owner(job):
                self._conclude(one, kind, "JobsFailed" if reason else "JobsCompleted", message)

    def _collect(self, resource: str, namespace: str, job: str) -> None:
        """Delete a Job in the foreground: its pods first, then what it owns, and it."""
        with self.lock:
            uid = self.objects[resource, namespace, job]["metadata"]["uid"]
            inner = [key for key, one in self.objects.items() if key[0] == "jobs" and _owner(one) == uid]
            for key in inner:
                self.objects[key]["metadata"]["deletionTimestamp"] = _now()
        for _, _, name in inner:
            self._collect("jobs", namespace, name)
        with self.lock:
            pods = [key[2] for key, one in self.objects.items() if key[0] == "pods" and _owner(one) == uid]
        self._end(pods)
        with self.lock:
            for key, one in list(self.objects.items()):
                if _owner(one) == uid or key == (resource, namespace, job):
                    del self.objects[key]

    def _end(self, pods: list[str]) -> None:
        """Terminate the containers of pods, and wait until all have ended."""
        for pod in pods:
            self._signal(pod, signal.SIGTERM)
        for pod in pods:
            if process := self.processes.get(pod):
                process.wait()

    # ------------------------------------------------------------ kubelet

    def _new_pod(self, job: Object, namespace: str, index: int | None) -> str:
        template = job["spec"]["template"]
        place = "" if index is None else f"{index}-"
        name = f"{job['metadata']['name']}-{place}{uuid.uuid4().hex[:5]}"
        labels = {**template["metadata"]["labels"], JOB_OF: job["metadata"]["name"]}
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": job["metadata"]["name"]}
        meta = {"name": name, "labels": labels, "ownerReferences": [{**owner, "uid": job["metadata"]["uid"]}]}
        if index is not None:
            meta["annotations"] = {INDEX: str(index)}
        pod = self._made({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": template["spec"]}, namespace)
        unscheduled = {
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
        }  # fmt: skip
        pod["status"] = {"phase": "Pending", "conditions": [] if self.schedulable.is_set() else [unscheduled]}
        self.objects["pods", namespace, name] = pod
        return name

    def _run(self, namespace: str, name: str) -> None:
        self.schedulable.wait()
        with self.lock:
            process = self._started(namespace, name)
        if process is None:
            return self._wait_for_the_end(namespace, name)
        code = process.wait()
        word = self.folder / name / "termination-log"
        ended = {
            "exitCode": code if code >= 0 else 128 - code,
            "reason": "Completed" if code == 0 else "Error",
            "message": word.read_text()[:4096] if word.exists() else "",
        }
        with self.lock:
            pod = self.objects.get(("pods", namespace, name), {"spec": {"containers": [{"image": ""}]}, "status": {}})
            pod["status"] |= {
                "phase": "Failed" if code else "Succeeded",
                "containerStatuses": [_container(pod, {"terminated": ended})],
            }

    def _started(self, namespace: str, name: str) -> subprocess.Popen[bytes] | None:
        pod = self.objects.get(("pods", namespace, name))
        if pod is None or self.closing or self._job_goes(pod, namespace):
            return None
        folder = self.folder / name
        folder.mkdir()
        container = pod["spec"]["containers"][0]
        places = self._places(pod, namespace, folder)
        try:
            env = self._env(container, pod)
        except KeyError as error:
            waiting = {"reason": "CreateContainerConfigError", "message": str(error)}
            pod["status"]["containerStatuses"] = [_container(pod, {"waiting": waiting})]
            return None
        argv = [_placed(word, places) for word in [*container["command"], *container["args"]]]
        with open(folder / "log", "wb") as log:
            process = subprocess.Popen(
                [sys.executable if word == "python" else word for word in argv],
                cwd=_placed(container.get("workingDir", "/"), places),
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes[name] = process
        pod["status"] |= {"phase": "Running", "containerStatuses": [_container(pod, {"running": {}})]}
        return process

    def _wait_for_the_end(self, namespace: str, name: str) -> None:
        while not self.closing and ("pods", namespace, name) in self.objects:
            time.sleep(0.05)

    def _job_goes(self, pod: Object, namespace: str) -> bool:
        job = self.objects.get(("jobs", namespace, pod["metadata"]["labels"][JOB_OF]))
        return job is None or _is_over(job)

    def _places(self, pod: Object, namespace: str, folder: Path) -> dict[str, Path]:
        """Write a pod's files, and return path in the pod → path here."""
        container = pod["spec"]["containers"][0]
        places = {container["terminationMessagePath"]: folder / "termination-log"}
        volumes = {one["name"]: one for one in pod["spec"]["volumes"]}
        for mount in container["volumeMounts"]:
            volume = volumes[mount["name"]]
            if "configMap" in volume:
                place = folder / "config"
                place.mkdir()
                data = self.objects["configmaps", namespace, volume["configMap"]["name"]]["data"]
                for file, text in data.items():
                    (place / file).write_text(text)
            elif "persistentVolumeClaim" in volume:
                place = self.claims[volume["persistentVolumeClaim"]["claimName"]]
            else:
                continue
            places[mount["mountPath"]] = place
        return places

    def _env(self, container: Object, pod: Object) -> dict[str, str]:
        env = {name: value for name, value in os.environ.items() if not name.startswith("KUBE")}
        for entry in container["env"]:
            source = entry.get("valueFrom", {})
            if secret := source.get("secretKeyRef"):
                if secret["key"] not in self.secrets.get(secret["name"], {}):
                    raise KeyError(f"secret {secret['name']} has no key {secret['key']}")
                env[entry["name"]] = self.secrets[secret["name"]][secret["key"]]
            elif place := source.get("configMapKeyRef"):
                env[entry["name"]] = self.settings[place["name"]][place["key"]]
            elif field := source.get("fieldRef"):
                env[entry["name"]] = pod["metadata"][field["fieldPath"].removeprefix("metadata.")]
            else:
                env[entry["name"]] = entry["value"]
        if (index := pod["metadata"].get("annotations", {}).get(INDEX)) is not None:
            env["JOB_COMPLETION_INDEX"] = index
            # Pods have addresses of their own there. Here they differ by their ports.
            if "AI4SDK_LEADER" in env:
                env["AI4SDK_LEADER"] = f"127.0.0.1:{self._port(env['AI4SDK_LEADER'])}"
        return env

    def _port(self, address: str) -> int:
        """Return a port here for one of a pod, free when it is first asked for."""
        if address not in self.ports:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                self.ports[address] = free.getsockname()[1]
        return self.ports[address]

    # ------------------------------------------------------------ small things

    def _allowed(self, verb: str, resource: str, namespace: str) -> None:
        self.calls.append((verb, resource))
        for number, (of, refusal) in enumerate(self.refusals):
            if of == (verb, resource):
                del self.refusals[number]
                raise refusal
        if (verb, resource) in self.forbidden:
            group = GROUPS.get(resource, "")
            who = f'User "ana" cannot {verb} resource "{resource}" in API group "{group}"'
            raise forbidden(resource.partition("/")[0], "", f'{who} in the namespace "{namespace}"')
        if namespace not in NAMESPACES and verb == "create":
            raise not_found("namespaces", namespace)

    def _made(self, object_: Object, namespace: str) -> Object:
        made = copy.deepcopy(object_)
        made["metadata"] |= {"namespace": namespace, "uid": str(uuid.uuid4()), "creationTimestamp": _now()}
        return made

    def _pod(self, name: str) -> Object:
        return next(one for key, one in self.objects.items() if key[0] == "pods" and key[2] == name)

    def _signal(self, pod: str, number: signal.Signals) -> None:
        process = self.processes.get(pod)
        if process is not None and process.poll() is None:
            if number == signal.SIGKILL:
                _signal_group(process, number)
            else:
                process.send_signal(number)


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # the thread that waits for it may just have seen its end
        os.killpg(process.pid, number)


def _is_over(job: Object) -> bool:
    return bool(job["metadata"].get("deletionTimestamp") or job["status"].get("conditions"))


def _owner(object_: Object) -> str | None:
    owners = object_["metadata"].get("ownerReferences") or [{}]
    uid: str | None = owners[0].get("uid")
    return uid


def _container(pod: Object, state: Object) -> Object:
    image = pod["spec"]["containers"][0]["image"]
    name = pod["spec"]["containers"][0].get("name")
    return {"name": name, "image": image, "imageID": "", "ready": False, "restartCount": 0, "state": state}


def _placed(word: str, places: dict[str, Path]) -> str:
    for inside, here in places.items():
        if word == inside or word.startswith(inside + "/"):
            return str(here) + word[len(inside) :]
    return word


def _now() -> str:
    moment = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment)) + f".{int(moment % 1 * 1e6):06d}Z"


class _Handler(BaseHTTPRequestHandler):
    cluster: StandIn
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, call: Callable[[], Any], code: int = 200) -> None:
        try:
            value = call()
        except Refused as error:
            value, code = error.status, error.code
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "text/plain" if isinstance(value, bytes) else "application/json")
        self.send_header("Content-Length", str(len(body)))
        if isinstance(value, dict) and "retryAfterSeconds" in value.get("details", {}):
            self.send_header("Retry-After", str(value["details"]["retryAfterSeconds"]))
        self.end_headers()
        self.wfile.write(body)

    def _asked(self) -> tuple[str, str, list[str], dict[str, str], Any]:
        url = urlsplit(self.path)
        parts = url.path.strip("/").split("/")
        namespace, resource, *rest = parts[parts.index("namespaces") + 1 :]
        query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        size = int(self.headers.get("Content-Length") or 0)
        return resource, namespace, rest, query, json.loads(self.rfile.read(size) or b"{}")

    def do_POST(self) -> None:
        resource, namespace, _, _, body = self._asked()
        if resource in self.cluster.lost:
            self.cluster.lost.remove(resource)
            self.cluster.create(resource, namespace, body)
            self.close_connection = True
            return
        self._answer(lambda: self.cluster.create(resource, namespace, body), 201)

    def do_GET(self) -> None:
        resource, namespace, rest, query, _ = self._asked()
        if rest[1:] == ["log"]:
            self._answer(lambda: self.cluster.log(namespace, rest[0], query["container"]))
        elif rest:
            self._answer(lambda: self.cluster.read(resource, namespace, rest[0]))
        else:
            self._answer(lambda: self.cluster.list(resource, namespace, query))

    def do_PATCH(self) -> None:
        resource, namespace, rest, _, body = self._asked()
        assert isinstance(body, dict) == ("merge-patch" in self.headers["Content-Type"]), "the API answers 415"
        self._answer(lambda: self.cluster.patch(resource, namespace, rest[0], body))

    def do_DELETE(self) -> None:
        resource, namespace, rest, query, body = self._asked()
        options = {**query, **{key: str(value) for key, value in body.items()}}
        self._answer(lambda: self.cluster.delete(resource, namespace, rest[0], options))


@contextmanager
def stand_in(folder: Path, claims: dict[str, Path]) -> Iterator[StandIn]:
    """Start one; its kubeconfig leads to it."""
    cluster = StandIn(folder, claims)
    handler = type("Handler", (_Handler,), {"cluster": cluster})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    cluster.server = f"http://127.0.0.1:{server.server_port}"
    cluster.kubeconfig.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": {"server": cluster.server}}],
                "users": [{"name": "ana", "user": {"token": "x"}}],
                "contexts": [{"name": "test", "context": {"cluster": "c", "user": "ana", "namespace": "pond"}}],
                "current-context": "test",
            }
        )
    )
    try:
        yield cluster
    finally:
        cluster.close()
        server.shutdown()
        server.server_close()
