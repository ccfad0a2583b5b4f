"""Where a plan runs: a cluster that Kubernetes schedules."""

from __future__ import annotations

import posixpath
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from ai4sdk.spec.base import Section
from ai4sdk.spec.units import Size, Span

__all__ = ["KubernetesBackend", "Toleration", "Volume"]

_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_SUBDOMAIN = rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*"
_PREFIX = _SUBDOMAIN.replace("$", "/") + "/"
_WORD = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
OWNED_LABELS = {
    "kueue.x-k8s.io/queue-name": "backend.queue",
    "app.kubernetes.io/managed-by": "ai4sdk",
}
"""Labels that ai4sdk sets, and what decides them."""


_NOT_IN_A_TRAINJOB = ("image_pull_policy", "ttl_after_finished")
_OF_TORCHRUN = {f"PET_{name}" for name in ("NNODES", "NPROC_PER_NODE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT")}
"""Variables that Trainer's webhook refuses, as it sets them."""


def _like(pattern: str, what: str) -> AfterValidator:
    compiled = re.compile(pattern)

    def check(text: str) -> str:
        if not compiled.fullmatch(text):
            raise ValueError(f"{text!r} is no {what}")
        return text

    return AfterValidator(check)


_ENDS = "a letter or digit at both ends"
Name = Annotated[str, _like(_SUBDOMAIN, f"name of Kubernetes: small letters, digits, '-' and '.', {_ENDS}")]
Namespace = Annotated[str, _like(_LABEL, f"namespace: at most 63 small letters, digits and '-', {_ENDS}")]
Key = Annotated[str, _like(f"({_PREFIX})?{_WORD}", "key; write NAME or DOMAIN/NAME")]
LabelValue = Annotated[str, _like(f"({_WORD})?", f"label: at most 63 letters, digits, '-', '_' and '.', {_ENDS}")]
Resource = Annotated[str, _like(_PREFIX + _WORD, "resource, such as nvidia.com/gpu")]
Variable = Annotated[str, _like(r"[A-Za-z_][A-Za-z0-9_.-]*", "name of an environment variable")]
SecretKey = Annotated[str, _like(_PREFIX + r"[-._a-zA-Z0-9]{1,253}", "key of a Secret; write SECRET/KEY")]
MapKey = Annotated[str, _like(_PREFIX + r"[-._a-zA-Z0-9]{1,253}", "key of a ConfigMap; write CONFIGMAP/KEY")]


def _folder(path: str) -> str:
    if not path.startswith("/") or posixpath.normpath(path) != path or path == "/" or ":" in path:
        raise ValueError(f"{path!r} is no folder that a volume can be mounted at; write a path such as /workspace")
    return path


def _not_owned(labels: dict[str, str]) -> dict[str, str]:
    for name in labels:
        if name in OWNED_LABELS or name.startswith("ai4sdk/"):
            raise ValueError(f"the label {name} is decided by {OWNED_LABELS.get(name, 'ai4sdk')}")
    return labels


class Toleration(Section):
    """A taint of nodes that pods put up with."""

    key: Key | None = None
    """Key of the taint; without one all taints are meant, and ``operator`` must be ``Exists``."""

    operator: Literal["Equal", "Exists"] = "Equal"
    """Whether the taint must have the ``value``, or any."""

    value: LabelValue | None = None
    """Value of the taint."""

    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """What the taint does; without one all of them are meant."""

    @model_validator(mode="after")
    def _fits_together(self) -> Toleration:
        if self.key is None and self.operator != "Exists":
            raise ValueError("a toleration without a key needs operator: Exists")
        if self.operator == "Exists" and self.value:
            raise ValueError("a toleration has a value or operator: Exists, not both")
        return self


Folder = Annotated[str, AfterValidator(_folder)]
_TAKEN = ("/etc/ai4sdk", "/dev/shm", "/dev")
"""Where pods have something of their own."""


class Volume(Section):
    """Files that pods see beside the runs, such as data: of a claim, or of the node that a pod is on."""

    path: Folder
    """Where pods see them."""

    claim: Name | None = None
    """Volume claim they are on."""

    host_path: Folder | None = None
    """Folder of the node; ``backend.host_paths`` must name it, or one above it."""

    sub_path: (
        Annotated[str, _like(r"(?!\.\.?(/|$))[^/\s:]+(/(?!\.\.?(/|$))[^/\s:]+)*", "folder of a volume")] | None
    ) = None
    """Folder of the volume that is meant; by default all of it."""

    read_only: bool = True
    """Whether pods may not write there."""

    @model_validator(mode="after")
    def _is_one_thing(self) -> Volume:
        if (self.claim is None) == (self.host_path is None):
            raise ValueError("a volume is of a claim or of a host_path: give one of them")
        return self


class KubernetesBackend(Section):
    """A cluster that Kubernetes schedules: one Job a run. What its pods ask for is under ``hardware``."""

    kind: Literal["kubernetes"] = "kubernetes"
    """Name of the backend."""

    image: Annotated[str, Field(pattern=r"^[^\s@:][^\s]*$")]
    """Container image with ai4sdk and the packages that the job imports; ``python`` must start there."""

    workload: Literal["job", "trainjob"] = "job"
    """What a run becomes: a Job, which every cluster has, or a TrainJob of Kubeflow Trainer (2.3 or newer), whose
    administrators decide by a runtime how its pods are restarted and reach each other."""

    runtime: Annotated[str, _like(_SUBDOMAIN, "name of a ClusterTrainingRuntime")] = "torch-distributed"
    """ClusterTrainingRuntime of a TrainJob; its part that trains, and the container there, must be called ``node``."""

    claim: Name
    """Volume claim (PersistentVolumeClaim) that runs are kept on."""

    mount_path: Folder = "/workspace"
    """Where pods see the claim; relative addresses of data and the runs folder start there. If the claim is mounted
    here, too, give its path here: then runs are seen while they run."""

    results: Annotated[str, _like(r"[a-z][a-z0-9+.-]*://\S+", "address, such as s3://bucket/runs")] | None = None
    """Address that pods copy what a run leaves to once it has ended, such as ``s3://bucket/runs`` or
    ``storage://runs``, for ``ai4sdk fetch``; ``storage`` says how to be let in. Without one it stays on the claim."""

    volumes: list[Volume] = Field(default_factory=list)
    """Further files, such as ``[{claim: catches, path: /data}]``."""

    host_paths: list[Folder] = Field(default_factory=list)
    """Folders of nodes that ``volumes`` may be of. Clusters that enforce a Pod Security Standard refuse them all."""

    shared_memory: Size | None = None
    """Most that ``/dev/shm`` may take, by which loaders hand batches over; it counts as memory of the pod. Without it
    as much as the pod has."""

    namespace: Namespace | None = None
    """Namespace; by default that of the kubeconfig's context, else ``default``."""

    context: str | None = None
    """Context of the kubeconfig; by default its current one."""

    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    """When nodes pull the image; by default as Kubernetes chooses by the image's tag."""

    image_pull_secrets: list[Name] = Field(default_factory=list)
    """Secrets with the credentials of the image's registry."""

    service_account: Name | None = None
    """Account that pods run as; without one they get no token for the API."""

    security: Literal["restricted", "none"] = "restricted"
    """Whether pods keep to what the *restricted* Pod Security Standard asks for: a user that is not root, no further
    privileges, no system call that containers need not. With ``none`` the cluster decides."""

    user: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = 1000
    """Number of the user and group that restricted pods run as, to whom claims belong. Without one it is the image's,
    or, as on OpenShift, the cluster's to give."""

    node_selector: dict[Key, LabelValue] = Field(default_factory=dict)
    """Labels a node must have, such as ``{disk: ssd}``."""

    tolerations: list[Toleration] = Field(default_factory=list)
    """Taints of nodes that pods put up with."""

    gpu_resource: Resource = "nvidia.com/gpu"
    """Name of the resource that GPUs are. With ``hardware.gpu_model`` a node must have it as the label
    ``GPU_RESOURCE.product``, as NVIDIA's feature discovery sets it."""

    queue: LabelValue | None = None
    """Local queue of Kueue that admits the job, all of its pods at once; until then it is suspended, for ever where
    there is no Kueue. Without a queue its pods are scheduled one by one."""

    backoff_limit: int = Field(default=3, ge=0, le=1000)
    """How often a run goes on in a new pod after pre-emption, the loss of a node, or its time limit; each time it may
    take the whole ``hardware.wall_time``. What its own code does wrong is not tried again."""

    ttl_after_finished: Annotated[Span, Field(ge=60, le=2**31 - 1)] = 7 * 86400.0
    """Time after its end until Kubernetes deletes the job, its pods and their logs; the run stays on the claim."""

    grace: Annotated[Span, Field(le=2**31 - 100)] = 60.0
    """Time a task has to write a checkpoint after it is told to stop; then it is killed."""

    env: dict[Variable, str] = Field(default_factory=dict)
    """Environment variables for the tasks."""

    secrets: dict[Variable, SecretKey] = Field(default_factory=dict)
    """Where pods get what ``${secret:NAME}`` stands for: names, and SECRET/KEY of Secrets in the namespace."""

    config_maps: dict[Variable, MapKey] = Field(default_factory=dict)
    """Further environment variables: names, and CONFIGMAP/KEY of ConfigMaps in the namespace."""

    labels: Annotated[dict[Key, LabelValue], AfterValidator(_not_owned)] = Field(default_factory=dict)
    """Further labels of everything that is made in the cluster."""

    annotations: dict[Key, str] = Field(default_factory=dict)
    """Further annotations of the job and its pods."""

    @model_validator(mode="after")
    def _workload_can_say_it(self) -> KubernetesBackend:
        fields = type(self).model_fields
        if self.workload == "job" and self.runtime != fields["runtime"].default:
            raise ValueError("a Job has no runtime; write workload: trainjob with it")
        for name in _NOT_IN_A_TRAINJOB if self.workload == "trainjob" else ():
            if getattr(self, name) != fields[name].default:
                raise ValueError(f"a TrainJob cannot say {name}, as its runtime does; leave it out, or workload: job")
        for source in (self.env, self.secrets, self.config_maps) if self.workload == "trainjob" else ():
            if taken := sorted(_OF_TORCHRUN & source.keys()):
                raise ValueError(f"Kubeflow Trainer sets {taken[0]} itself; give the variable another name")
        return self

    @model_validator(mode="after")
    def _volumes_have_room(self) -> KubernetesBackend:
        taken = {self.mount_path, *_TAKEN}
        for volume in self.volumes:
            if volume.path in taken:
                raise ValueError(f"something else is at {volume.path}; give the volume another path")
            taken.add(volume.path)
            host = volume.host_path
            if host and not any(host == named or host.startswith(named + "/") for named in self.host_paths):
                raise ValueError(f"pods may not see {host} of their nodes, unless host_paths: [{host}] says so")
        return self

    @model_validator(mode="after")
    def _variables_have_one_source(self) -> KubernetesBackend:
        sources = (self.env, self.secrets, self.config_maps)
        for name in sources[0].keys() | sources[1].keys() | sources[2].keys():
            if sum(name in source for source in sources) > 1:
                raise ValueError(f"{name} is set twice: in env, secrets and config_maps each name may be once")
        return self
