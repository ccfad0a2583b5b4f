"""The API of Kubernetes, through its official client. A thin edge: nothing is decided here."""

from __future__ import annotations

import importlib
import os
import re
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ai4sdk.backends.kubernetes import trainjob
from ai4sdk.backends.kubernetes.manifests import CONTAINER, MANAGED
from ai4sdk.backends.kubernetes.observed import Job, observe
from ai4sdk.backends.kubernetes.refusals import Asked, Missing, NotAnswering, NotYet, TooBusy, meaning
from ai4sdk.errors import EnvironmentFault

__all__ = ["Cluster"]

_ANSWER = (5, 20)
"""Longest times, in seconds, until a connection is made and until an answer comes."""
_TRIES, _WAIT = 4, 10.0
"""Times that a busy server is asked, and most seconds that it is waited for between them."""
_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_JOB_OF = "batch.kubernetes.io/job-name"
_SET_OF = "jobset.sigs.k8s.io/jobset-name"
"""Label of pods with the name of their JobSet, which is that of its TrainJob."""


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
        from urllib3 import Retry

        kubernetes = _package()
        configuration = kubernetes.client.Configuration()
        found = _configure(kubernetes, configuration, context)
        configuration.retries = Retry(1, respect_retry_after_header=False)  # a busy server is waited for here
        self.namespace: str = namespace or found or "default"
        self.server: str = configuration.host
        self._api = kubernetes.client.ApiClient(configuration)
        self._core = kubernetes.client.CoreV1Api(self._api)
        self._batch = kubernetes.client.BatchV1Api(self._api)
        self._custom = kubernetes.client.CustomObjectsApi(self._api)
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
        made = self._ask(
            f"create the {kind} {name}", f"create {kind.lower()}s", f"create_namespaced_{_snake(kind)}", body=object_
        )
        return str(made["metadata"]["uid"])

    def read(self, kind: str, name: str) -> dict[str, Any] | None:
        """Return an object, ``None`` if there is no such one."""
        try:
            return self._ask(
                f"look at the {kind} {name}", f"get {kind.lower()}s", f"read_namespaced_{_snake(kind)}", name=name
            )
        except Missing:
            return None

    def own(self, kind: str, name: str, job: dict[str, Any], uid: str) -> None:
        """Have an object deleted together with a Job or TrainJob."""
        owner = {"apiVersion": job["apiVersion"], "kind": job["kind"], "name": job["metadata"]["name"], "uid": uid}
        body = {"metadata": {"ownerReferences": [owner]}}
        doing, verb = f"hand the {kind} {name} to its Job", f"patch {kind.lower()}s"
        self._ask(doing, verb, f"patch_namespaced_{_snake(kind)}", name=name, body=body)

    def delete(self, kind: str, name: str, **options: Any) -> None:
        """Delete an object, if it is there."""
        try:
            doing, verb = f"delete the {kind} {name}", f"delete {kind.lower()}s"
            self._ask(doing, verb, f"delete_namespaced_{_snake(kind)}", name=name, **options)
        except Missing:
            pass

    def jobs(self, name: str | None = None, kinds: Collection[str] = ("Job",)) -> dict[str, Job]:
        """Return the Jobs of ours that there are, or one of them, by name; one call for each kind, and one for pods.

        Parameters
        ----------
        name
            The only one that is meant; ``kinds`` has its kind alone then.
        kinds
            ``Job`` and ``TrainJob``.
        """
        ours = ",".join(f"{key}={value}" for key, value in MANAGED.items())
        selection = {"field_selector": f"metadata.name={name}"} if name else {}
        found = []
        for kind in kinds:
            plural = f"{kind.lower()}s"
            method = f"list_namespaced_{_snake(kind)}"
            found += self._ask("list its jobs", f"list {plural}", method, label_selector=ours, **selection)["items"]
        pods_of = f"{ours},{_SET_OF if 'TrainJob' in kinds else _JOB_OF}={name}" if name else ours
        pods = self._ask("list its pods", "list pods", "list_namespaced_pod", label_selector=pods_of)["items"]
        of: dict[str, list[dict[str, Any]]] = {}
        for pod in pods:
            labels = pod["metadata"]["labels"]
            of.setdefault(labels.get(_SET_OF) or labels.get(_JOB_OF), []).append(pod)
        return {job["metadata"]["name"]: observe(job, of.get(job["metadata"]["name"], [])) for job in found}

    def log(self, pod: str, kind: str = "Job") -> str:
        """Return what a pod has printed; nothing before it has begun, and after Kubernetes has forgotten it."""
        container = trainjob.CONTAINER if kind == "TrainJob" else CONTAINER
        try:
            with self._asking(f"read the log of {pod}", "get pods/log"):
                answer = self._core.read_namespaced_pod_log(
                    pod, self.namespace, container=container, _preload_content=False, _request_timeout=_ANSWER
                )
                return bytes(answer.data).decode(errors="replace")
        except (Missing, NotYet):
            return ""

    def _call(self, method: str, **arguments: Any) -> dict[str, Any]:
        if method.endswith("_train_job"):
            verb = method.partition("_")[0].replace("read", "get")
            api, method, arguments = self._custom, f"{verb}_namespaced_custom_object", {**arguments, **trainjob.TRAINER}
        else:
            api = self._core if hasattr(self._core, method) else self._batch
        answer = getattr(api, method)(namespace=self.namespace, _request_timeout=_ANSWER, **arguments)
        return dict(self._api.sanitize_for_serialization(answer))

    def _ask(self, doing: str, verb: str, method: str, **arguments: Any) -> dict[str, Any]:
        """Call a method of the API, again if the server asks for that."""
        tries = 1
        while True:
            try:
                with self._asking(doing, verb):
                    return self._call(method, **arguments)
            except TooBusy as error:
                if tries == _TRIES or error.after > _WAIT:
                    raise
                after = error.after
            tries += 1
            time.sleep(after)

    @contextmanager
    def _asking(self, doing: str, verb: str) -> Iterator[None]:
        from urllib3.exceptions import HTTPError

        try:
            yield
        except self._refusals as error:
            asked = Asked(self.server, self.namespace, doing, verb)
            raise meaning(asked, error.status, error.body or error.reason, error.headers) from error
        except (HTTPError, OSError) as error:
            reason = re.sub(r"^(.*: )?(\[Errno -?\d+\] )?", "", str(getattr(error, "reason", None) or error))
            raise NotAnswering(
                f"the API server {self.server} does not answer: {reason}", hint="kubectl cluster-info; a VPN may be off"
            ) from error
        except ValueError as error:
            raise NotAnswering(
                f"{self.server} does not answer as Kubernetes does", hint="kubectl cluster-info"
            ) from error


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


def _snake(kind: str) -> str:
    return {"ConfigMap": "config_map", "TrainJob": "train_job"}.get(kind, kind.lower())
