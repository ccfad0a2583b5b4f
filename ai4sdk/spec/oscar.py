"""Where a trained model serves: a cluster that OSCAR manages. Keys keep OSCAR's own names."""

from __future__ import annotations

import posixpath
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from ai4sdk.spec.base import Section
from ai4sdk.spec.units import Size, Span

__all__ = [
    "EnvironmentOfService",
    "Expose",
    "Mount",
    "OscarBackend",
    "Provider",
    "StorageIO",
    "Synchronous",
    "Volume",
    "is_service_name",
]

LONGEST_NAME = 39
"""Characters that OSCAR lets a service's name have."""
RESULTS, ERRORS, LOGS = "results", "errors", "logs"
"""Folders that the script of a service writes to."""
TAKEN = (
    *("AI4SDK_PACKAGE", "AI4SDK_PORT", "EVENT", "EVENT_TIME", "INPUT_FILE_PATH", "SCRIPT", "FUNCTION_CONFIG"),
    *("STORAGE_OBJECT_KEY", "TMP_INPUT_DIR", "TMP_OUTPUT_DIR", "JOB_UUID", "RESOURCE_ID"),
)
"""Variables that the script, ai4sdk or OSCAR's supervisor sets."""

_SERVICE = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_LABEL = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_SECRET = re.compile(r"\$\{secret:[A-Za-z_][\w.-]*\}")


def is_service_name(text: str) -> bool:
    """Tell whether OSCAR, and Kubernetes below it, take a name."""
    return len(text) <= LONGEST_NAME and _SERVICE.fullmatch(text) is not None


def _service(text: str) -> str:
    if not is_service_name(text):
        raise ValueError(
            f"{text!r} is no name of a service: at most {LONGEST_NAME} small letters, digits and '-', a letter at first"
        )
    return text


def _cluster(text: str) -> str:
    if text == "local" or re.fullmatch(r"https?://[^\s/?#]+[^\s?#]*", text):
        return text.rstrip("/")
    raise ValueError(f"{text!r} is no cluster; write local, or an address such as https://inference.cloud.ai4eosc.eu")


def _path(text: str) -> str:
    plain = text.strip("/")
    if not plain or posixpath.normpath(plain) != plain or plain.startswith("..") or re.search(r"[\s\\]", plain):
        raise ValueError(f"{text!r} is no place in a storage; write BUCKET or BUCKET/FOLDER")
    return plain


def _only_secrets(values: dict[str, str]) -> dict[str, str]:
    for name, value in values.items():
        if not _SECRET.fullmatch(value):
            raise ValueError(f"{name} must be a reference to a secret: ${{secret:{name}}}")
    return values


def _variables(values: dict[str, str]) -> dict[str, str]:
    for name in values:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ValueError(f"{name!r} is no name of an environment variable")
        if name in TAKEN or name.startswith("OSCAR_"):
            raise ValueError(f"{name} is set by ai4sdk or OSCAR; give the variable another name")
    return values


def _keys(values: dict[str, str]) -> dict[str, str]:
    for name in values:
        if not _KEY.fullmatch(name):
            raise ValueError(f"{name!r} is no name that Kubernetes takes for a label or an annotation")
    return values


def _labels(values: dict[str, str]) -> dict[str, str]:
    for name, value in _keys(values).items():
        if not _LABEL.fullmatch(value):
            raise ValueError(f"{name}: {value!r} is no value of a label: at most 63 letters, digits, '-', '_' and '.'")
    return values


def _outside_of_oscar(path: str) -> str:
    plain = posixpath.normpath(path)
    if any(f"{plain}/".startswith(f"{taken}/") for taken in ("/oscar/config", "/oscar/bin")):
        raise ValueError(f"{path} is OSCAR's own; mount the volume elsewhere, such as at /data")
    return path


ServiceName = Annotated[str, AfterValidator(_service)]
Path = Annotated[str, AfterValidator(_path)]
ProviderName = Annotated[str, Field(pattern=r"^(minio|s3|onedata|webdav|rucio)\.[A-Za-z0-9_-]+$")]
Secret = Annotated[str, Field(pattern=r"^\$\{secret:[A-Za-z_][\w.-]*\}$")]


class StorageIO(Section):
    """A place in a storage that inputs appear at, or results are put to."""

    path: Path
    """Bucket and a folder in it, such as ``fish/in``."""

    storage_provider: ProviderName = "minio.default"
    """Kind and name of the storage: ``minio.default`` is the cluster's own, others are in ``storage_providers``."""

    prefix: list[str] = Field(default_factory=list)
    """Beginnings of file names that are meant; by default all. Outputs begin with ``results/``, ``errors/`` or
    ``logs/``. OSCAR starts a service for every file in an input; for those that are not meant the service does
    nothing."""

    suffix: list[str] = Field(default_factory=list)
    """Ends of file names that are meant, such as ``[.csv]``; by default all."""

    @model_validator(mode="after")
    def _is_a_folder(self) -> StorageIO:
        if "/" not in self.path and self.storage_provider.startswith(("minio.", "s3.")):
            # OSCAR 4 takes a lone name for a folder in a bucket called like the service, earlier ones for a bucket.
            raise ValueError(f"{self.path!r} is a bucket or a folder; write BUCKET/FOLDER")
        return self

    def takes(self, folder: str, ending: str) -> bool:
        """Tell whether it takes every file that the script writes into a folder with such an ending."""
        begins = not self.prefix or any(f"{folder}/".startswith(one) for one in self.prefix)
        return begins and (not self.suffix or any(ending.endswith(one) for one in self.suffix))


class Synchronous(Section):
    """How many copies answer synchronous calls."""

    min_scale: int = Field(default=0, ge=0)
    """Copies that are always there; with 0 the first call waits for one to start."""

    max_scale: int = Field(default=0, ge=0)
    """Most copies; 0 is without limit."""

    @model_validator(mode="after")
    def _in_order(self) -> Synchronous:
        if self.max_scale and self.max_scale < self.min_scale:
            raise ValueError(f"max_scale is {self.max_scale}, below min_scale, {self.min_scale}")
        return self


class Expose(Section):
    """A server that stays up, with the model loaded, at an address of the cluster: ``ai4sdk serve`` there."""

    api_port: int = Field(default=8080, ge=1024, le=65535)
    """Port it listens at in its container."""

    min_scale: int = Field(default=1, ge=1)
    """Copies that are always there."""

    max_scale: int = Field(default=10, ge=1)
    """Most copies."""

    cpu_threshold: int = Field(default=80, ge=1, le=100)
    """Load, in percent, beyond which there is another copy."""

    set_auth: bool = True
    """Whether callers need the service's name and token."""

    health_path: str = Field(default="/health/ready", pattern=r"^/\S*$")
    """Where it says whether it is well."""

    @model_validator(mode="after")
    def _in_order(self) -> Expose:
        if self.max_scale < self.min_scale:
            raise ValueError(f"max_scale is {self.max_scale}, below min_scale, {self.min_scale}")
        return self


class EnvironmentOfService(Section):
    """Environment variables of a service."""

    variables: Annotated[dict[str, str], AfterValidator(_variables)] = Field(default_factory=dict)
    """Those that everybody may read."""

    secrets: Annotated[dict[str, str], AfterValidator(_variables), AfterValidator(_only_secrets)] = Field(
        default_factory=dict
    )
    """Those that the cluster keeps as secrets: name → ``${secret:NAME}``."""


class Provider(Section):
    """A storage of one's own. What its kind needs must be there; keys of access are references to secrets."""

    endpoint: str | None = None
    """Address of a MinIO."""

    region: str | None = None
    """Region of a MinIO or S3."""

    verify: bool | None = None
    """Whether the certificate of a MinIO is checked."""

    access_key: Secret | None = None
    """Access key of a MinIO or S3, such as ``${secret:S3_KEY}``."""

    secret_key: Secret | None = None
    """Secret key of a MinIO or S3."""

    hostname: str | None = None
    """Address of a WebDAV server, such as a Nextcloud."""

    login: str | None = None
    """User of a WebDAV server."""

    password: Secret | None = None
    """Password of a WebDAV server."""

    oneprovider_host: str | None = None
    """Address of a Oneprovider."""

    token: Secret | None = None
    """Token of a Oneprovider."""

    space: str | None = None
    """Space of Onedata."""


_NEEDS = {
    "minio": ("endpoint", "access_key", "secret_key"),
    "s3": ("access_key", "secret_key"),
    "webdav": ("hostname", "login", "password"),
    "onedata": ("oneprovider_host", "token", "space"),
}
_MAY = {"minio": ("region", "verify"), "s3": ("region",), "webdav": (), "onedata": ()}


class Mount(Section):
    """A place in a storage that containers of an exposed service see as a folder, ``/mnt/PATH``."""

    storage_provider: ProviderName = "minio.default"
    """Kind and name of the storage."""

    path: Path
    """Bucket, and folder in it."""


class Volume(Section):
    """A volume of the cluster that containers see."""

    mount_path: Annotated[str, Field(pattern=r"^/\S+$"), AfterValidator(_outside_of_oscar)]
    """Folder that they see it at."""

    size: Size | None = None
    """How much fits on it, for one that is to be made."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")] | None = None
    """Name of one that there is, or that is to be made."""

    lifecycle_policy: Literal["delete", "retain"] | None = None
    """Whether one that was made goes with the service."""

    @model_validator(mode="after")
    def _is_made_or_there(self) -> Volume:
        if self.size is None and self.name is None:
            raise ValueError("a volume needs a size, if it is to be made, or the name of one that there is")
        if self.size is None and self.lifecycle_policy is not None:
            raise ValueError("lifecycle_policy is of a volume that is made, by its size")
        return self


class OscarBackend(Section):
    """A cluster that OSCAR manages, for services: trained models that answer. Used by `ai4sdk oscar`."""

    kind: Literal["oscar"] = "oscar"
    """Name of the backend."""

    cluster: Annotated[str, AfterValidator(_cluster)] = "local"
    """Address of the cluster, such as ``https://inference.cloud.ai4eosc.eu``; ``local`` is the stand-in for one that
    `ai4sdk oscar cluster` starts on this machine."""

    cluster_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*$")] = "oscar-cluster"
    """What the cluster is called in FDL files."""

    token: Secret | None = None
    """Bearer token of an OIDC provider that the cluster trusts, as ``${secret:NAME}``; the token of a service is enough
    to call it."""

    username: str | None = None
    """User for basic authentication."""

    password: Secret | None = None
    """Password for basic authentication, as ``${secret:NAME}``."""

    ssl_verify: bool = True
    """Whether the cluster's certificate is checked."""

    service: ServiceName | None = None
    """Name of the service; by default that of the job, with '-' for what OSCAR refuses."""

    image: Annotated[str, Field(pattern=r"^[^\s@:][^\s]*$")] | None = None
    """Container image with ai4sdk and, at ``package``, the model package; the stand-in needs none."""

    package: Annotated[str, Field(pattern=r"^/[^\s'\"$`\\]+$")] = "/srv/model"
    """Folder of the model package in containers: in the image, on ``mount`` or on ``volume``."""

    trust_code: bool = False
    """Whether code inside a package folder may be run that the image has not installed. Runs of this project need no
    trust."""

    cpu: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """Processors of a container."""

    memory: Size = 2 * 2**30
    """Memory of a container."""

    enable_gpu: bool = False
    """Whether a container gets a GPU. What is exposed computes with it; a job, or a call of its own, does not."""

    total_cpu: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Most processors that all jobs of the service have at once."""

    total_memory: Size | None = None
    """Most memory that all jobs of the service have at once."""

    input: list[StorageIO] = Field(default_factory=list)
    """Where files appear that the service is started for."""

    output: list[StorageIO] = Field(default_factory=list)
    """Where its results go: ``results/NAME.json``, ``errors/NAME.error.json`` and ``logs/NAME.log`` below each."""

    storage_providers: dict[str, dict[str, Provider]] = Field(default_factory=dict)
    """Storages of one's own, such as ``{s3: {ours: {access_key: …, secret_key: …}}}``."""

    mount: Mount | None = None
    """A storage that containers see as a folder. With ``expose`` and without ``input`` only: OSCAR mounts nothing for
    synchronous calls, and its jobs with a mount do not end as the prediction does."""

    volume: Volume | None = None
    """A volume that containers see."""

    synchronous: Synchronous = Field(default_factory=Synchronous)
    """How many copies answer synchronous calls."""

    expose: Expose | None = None
    """A server that stays up, and answers calls; without it each call loads the model. Files load it in any case."""

    environment: EnvironmentOfService = Field(default_factory=EnvironmentOfService)
    """Environment variables."""

    visibility: Literal["private", "restricted", "public"] = "private"
    """Who may use the service: its owner, ``allowed_users`` too, or everybody whom the cluster knows."""

    allowed_users: list[str] = Field(default_factory=list)
    """Users of a ``restricted`` service, by their identifiers."""

    isolation_level: Literal["SERVICE", "USER"] = "SERVICE"
    """Whether users share the buckets of the service, or each has one."""

    vo: str | None = None
    """Virtual organisation it belongs to."""

    image_pull_secrets: list[str] = Field(default_factory=list)
    """Secrets of the cluster to pull the image with."""

    image_prefetch: bool = False
    """Whether all nodes pull the image before the first call."""

    alpine: bool = False
    """Whether the image is made of Alpine."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "INFO"
    """How much OSCAR's supervisor says in a job's log."""

    labels: Annotated[dict[str, str], AfterValidator(_labels)] = Field(default_factory=dict)
    """Labels of its pods."""

    annotations: Annotated[dict[str, str], AfterValidator(_keys)] = Field(default_factory=dict)
    """Annotations of its pods."""

    timeout: Span = 300.0
    """How long a synchronous call is waited for."""

    @model_validator(mode="after")
    def _has_an_image(self) -> OscarBackend:
        if self.image is None and self.cluster != "local":
            raise ValueError("a service needs an image; only the local stand-in does without")
        return self

    @model_validator(mode="after")
    def _knows_who_asks(self) -> OscarBackend:
        if (self.username is None) != (self.password is None):
            raise ValueError("username and password go together")
        if self.username is not None and self.token is not None:
            raise ValueError("give a token, or username and password, not both")
        return self

    @model_validator(mode="after")
    def _has_its_users(self) -> OscarBackend:
        if self.allowed_users and self.visibility != "restricted":
            raise ValueError("allowed_users say something with visibility: restricted only")
        return self

    @model_validator(mode="after")
    def _results_go_somewhere(self) -> OscarBackend:
        if self.input and not self.output:
            raise ValueError("a service with an input needs an output, else its results are lost")
        if self.output and not any(one.takes(RESULTS, ".json") for one in self.output):
            raise ValueError("no output takes results: they are results/NAME.json")
        return self

    @model_validator(mode="after")
    def _makes_each_bucket_once(self) -> OscarBackend:
        buckets = [one.path.partition("/")[0] for one in self.input if one.storage_provider.startswith("minio.")]
        for bucket in buckets:
            if buckets.count(bucket) > 1:
                raise ValueError(f"two inputs are in the bucket {bucket}: OSCAR makes a bucket for each, and fails")
        return self

    @model_validator(mode="after")
    def _mounts_where_oscar_does(self) -> OscarBackend:
        if self.mount is None:
            return self
        if self.expose is None or self.input:
            raise ValueError(
                "OSCAR mounts nothing for synchronous calls, and its jobs with a mount end well whatever happened; "
                "give expose and no input, or have the package in the image or on a volume"
            )
        if self.mount.storage_provider.startswith("onedata."):
            raise ValueError("OSCAR mounts MinIO, S3 and WebDAV only")
        return self

    @model_validator(mode="after")
    def _does_not_start_itself(self) -> OscarBackend:
        for source in self.input:
            for target in self.output:
                same = source.storage_provider == target.storage_provider
                if same and f"{target.path}/".startswith(f"{source.path}/"):
                    raise ValueError(f"the output {target.path} is in the input {source.path}: results would be inputs")
        return self

    @model_validator(mode="after")
    def _knows_its_storages(self) -> OscarBackend:
        for kind, named in self.storage_providers.items():
            if kind not in _NEEDS:
                raise ValueError(f"storage_providers has no kind {kind!r}; there are {', '.join(_NEEDS)}")
            for name, provider in named.items():
                given = {field for field, value in provider if value is not None}
                if lacking := [field for field in _NEEDS[kind] if field not in given]:
                    raise ValueError(f"storage_providers.{kind}.{name} needs {', '.join(lacking)}")
                if more := sorted(given - {*_NEEDS[kind], *_MAY[kind]}):
                    raise ValueError(
                        f"storage_providers.{kind}.{name} has no {', '.join(more)}: that is of another kind"
                    )
        used = [place.storage_provider for place in (*self.input, *self.output)]
        for full in [*used, *([self.mount.storage_provider] if self.mount else [])]:
            kind, _, name = full.partition(".")
            if full != "minio.default" and name not in self.storage_providers.get(kind, {}):
                raise ValueError(f"{full} is not among storage_providers")
        if any(one.storage_provider.partition(".")[0] not in ("minio", "webdav") for one in self.input):
            raise ValueError("OSCAR starts services for files in MinIO, or in dCache by WebDAV, only")
        return self
