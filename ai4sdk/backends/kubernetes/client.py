"""The API of Kubernetes, through its official client. A thin edge: nothing is decided here."""

from __future__ import annotations

import importlib
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ai4sdk.backends.kubernetes.manifests import CONTAINER, MANAGED
from ai4sdk.backends.kubernetes.observed import Job, observe
from ai4sdk.errors import Ai4Error, EnvironmentFault, UsageError

__all__ = ["Cluster", "Exists", "NotAnswering"]

_ANSWER = (5, 20)
"""Longest times, in seconds, until a connection is made and until an answer comes."""
_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_JOB_OF = "batch.kubernetes.io/job-name"


class NotAnswering(EnvironmentFault):
    """The API server cannot be asked: there is no way to it, or it does not answer."""


class Exists(UsageError):
    """There is an object of that name already."""


class Cluster:
    """One namespace of a cluster.

    Parameters
    ----------
    context
        Context of the kubeconfig; ``None`` is its current one or, inside a pod, the cluster that the pod is in.
    namespace
        The namespace; ``None`` is that of the context.

    Raises
    ------
    EnvironmentFault
        If the client is not installed, or there is no kubeconfig.
    """

    def __init__(self, context: str | None, namespace: str | None) -> None:
        kubernetes = _package()
        configuration = kubernetes.client.Configuration()
        found = _configure(kubernetes, configuration, context)
        configuration.retries = 1
        self.namespace: str = namespace or found or "default"
        self.server: str = configuration.host
        self._api = kubernetes.client.ApiClient(configuration)
        self._core = kubernetes.client.CoreV1Api(self._api)
        self._batch = kubernetes.client.BatchV1Api(self._api)
        self._refusals = kubernetes.client.exceptions.ApiException

    def create(self, object_: dict[str, Any]) -> str:
        """Create an object and return its UID.

        Raises
        ------
        Exists
            If there is one of that name.
        """
        kind = object_["kind"]
        name = object_["metadata"]["name"]
        with self._asking(f"create the {kind} {name}", f"create {kind.lower()}s"):
            return str(self._call(f"create_namespaced_{_snake(kind)}", body=object_)["metadata"]["uid"])

    def read(self, kind: str, name: str) -> dict[str, Any] | None:
        """Return an object, ``None`` if there is no such one."""
        try:
            with self._asking(f"look at the {kind} {name}", f"get {kind.lower()}s"):
                return self._call(f"read_namespaced_{_snake(kind)}", name=name)
        except _Missing:
            return None

    def own(self, kind: str, name: str, job: str, uid: str) -> None:
        """Have an object deleted together with a Job."""
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": job, "uid": uid}
        with self._asking(f"hand the {kind} {name} to its Job", f"patch {kind.lower()}s"):
            body = {"metadata": {"ownerReferences": [owner]}}
            self._call(f"patch_namespaced_{_snake(kind)}", name=name, body=body)

    def delete(self, kind: str, name: str, **options: Any) -> None:
        """Delete an object, if it is there."""
        try:
            with self._asking(f"delete the {kind} {name}", f"delete {kind.lower()}s"):
                self._call(f"delete_namespaced_{_snake(kind)}", name=name, **options)
        except _Missing:
            pass

    def jobs(self, name: str | None = None) -> dict[str, Job]:
        """Return the Jobs of ours that there are, or one of them, by name; two calls for all of them."""
        ours = ",".join(f"{key}={value}" for key, value in MANAGED.items())
        pods_of = f"{ours},{_JOB_OF}={name}" if name else ours
        selection = {"field_selector": f"metadata.name={name}"} if name else {}
        with self._asking("list its jobs", "list jobs"):
            found = self._call("list_namespaced_job", label_selector=ours, **selection)["items"]
        with self._asking("list its pods", "list pods"):
            pods = self._call("list_namespaced_pod", label_selector=pods_of)["items"]
        return {
            job["metadata"]["name"]: observe(
                job, [pod for pod in pods if pod["metadata"]["labels"].get(_JOB_OF) == job["metadata"]["name"]]
            )
            for job in found
        }

    def log(self, pod: str) -> str:
        """Return what a pod has printed; nothing before it has begun, and after Kubernetes has forgotten it."""
        try:
            with self._asking(f"read the log of {pod}", "get pods/log"):
                answer = self._core.read_namespaced_pod_log(
                    pod, self.namespace, container=CONTAINER, _preload_content=False, _request_timeout=_ANSWER
                )
                return bytes(answer.data).decode(errors="replace")
        except (_Missing, _NotYet):
            return ""

    def _call(self, method: str, **arguments: Any) -> dict[str, Any]:
        api = self._core if hasattr(self._core, method) else self._batch
        answer = getattr(api, method)(namespace=self.namespace, _request_timeout=_ANSWER, **arguments)
        return dict(self._api.sanitize_for_serialization(answer))

    @contextmanager
    def _asking(self, doing: str, verb: str) -> Iterator[None]:
        from urllib3.exceptions import HTTPError

        try:
            yield
        except self._refusals as error:
            raise self._meaning(error, doing, verb) from error
        except (HTTPError, OSError) as error:
            reason = re.sub(r"^(.*: )?(\[Errno -?\d+\] )?", "", str(getattr(error, "reason", None) or error))
            raise NotAnswering(
                f"the API server {self.server} does not answer: {reason}", hint="kubectl cluster-info; a VPN may be off"
            ) from error
        except ValueError as error:
            raise NotAnswering(
                f"{self.server} does not answer as Kubernetes does", hint="kubectl cluster-info"
            ) from error

    def _meaning(self, error: Any, doing: str, verb: str) -> Ai4Error:
        said = _message(error.body) or str(error.reason or f"status {error.status}")
        if error.status == 401:
            return EnvironmentFault(
                f"{self.server} does not accept your credentials", hint="log in to the cluster again"
            )
        if error.status == 403:
            place = f"-n {self.namespace}"
            hint = f"kubectl auth can-i {verb} {place}; if it is a quota: kubectl describe quota {place}"
            return EnvironmentFault(f"{self.server} does not let you {doing}: {said}", hint=hint)
        if error.status == 404 and f'namespaces "{self.namespace}" not found' in said:
            return UsageError(f"there is no namespace {self.namespace} in {self.server}", hint="backend.namespace=NAME")
        if error.status == 404:
            return _Missing(said)
        if error.status == 409:
            return Exists(said)
        if error.status == 400 and ("waiting to start" in said or "not available" in said):
            return _NotYet(said)
        if error.status in (400, 413, 422):
            return UsageError(f"Kubernetes refuses to {doing}: {said}", hint="see backend and hardware in the config")
        return NotAnswering(f"{self.server} could not {doing}: {said}", hint="try again later")


class _Missing(UsageError):
    """There is no such object."""


class _NotYet(UsageError):
    """A container has not begun."""


def _package() -> Any:
    try:
        module: Any = importlib.import_module("kubernetes")
    except ModuleNotFoundError as error:
        raise EnvironmentFault(
            f"backend kubernetes needs the package {error.name}", hint="pip install 'ai4sdk[kubernetes]'"
        ) from error
    return module


def _configure(kubernetes: Any, configuration: Any, context: str | None) -> str | None:
    """Read the way to a cluster into a configuration, and return the namespace that comes with it."""
    missing: type[Exception] = kubernetes.config.ConfigException
    load: Callable[..., None] = kubernetes.config.load_kube_config
    files = os.environ.get("KUBECONFIG") or None  # the package has looked when it was imported
    try:
        contexts, current = kubernetes.config.list_kube_config_contexts(config_file=files)
        load(config_file=files, client_configuration=configuration, context=context)
    except missing as error:
        if context is None and os.environ.get("KUBERNETES_SERVICE_HOST"):
            try:
                kubernetes.config.load_incluster_config(client_configuration=configuration)
                return _NAMESPACE.read_text(encoding="utf-8").strip()
            except (missing, OSError):
                pass
        what = f"the context {context!r} of the kubeconfig" if context else "a cluster"
        raise EnvironmentFault(
            f"there is no way to {what}: {error}",
            hint="kubectl config get-contexts; export KUBECONFIG=FILE, or backend.context=NAME",
        ) from error
    chosen = current if context is None else next(one for one in contexts if one["name"] == context)
    namespace: str | None = chosen["context"].get("namespace")
    return namespace


def _message(body: Any) -> str:
    """Return what an answer says for people: the API wraps it into a Status."""
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return ""


def _snake(kind: str) -> str:
    return {"ConfigMap": "config_map"}.get(kind, kind.lower())
