"""How trained models are served."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from ai4sdk.spec.base import Section
from ai4sdk.spec.drift import DriftWatching
from ai4sdk.spec.serving_events import ServingEvents
from ai4sdk.spec.units import Size, Span

__all__ = ["MODEL_NAME", "Batch", "Module", "Oidc", "ServedModel", "Serving", "ServingLimits", "Tls", "Version"]

MODEL_NAME = r"^[A-Za-z0-9][\w.-]*$"
"""Pattern of the names of models and of their versions: they are part of addresses."""


class Version(Section):
    """One version of a model."""

    source: str = Field(min_length=1)
    """Where it comes from: a run (id, prefix, name, ``latest``), the folder of a model package, or an address in
    MLflow, such as ``models:/digits@champion``."""

    weight: float = Field(default=1.0, ge=0)
    """Share of the requests that name no version, in relation to the weights of the others. 0: only by name."""

    trust_code: bool = False
    """Whether code inside a package that is not installed here may be run. Runs of this project need no trust."""


class ServedModel(Section):
    """A model under one name: a ``source``, or several ``versions`` side by side."""

    source: str | None = Field(default=None, min_length=1)
    """Where it comes from; see ``versions``. Its version is ``1``."""

    trust_code: bool = False
    """Whether code inside the package of ``source`` may be run if it is not installed here."""

    versions: dict[Annotated[str, Field(pattern=MODEL_NAME, max_length=64)], Version] = Field(default_factory=dict)
    """Version → where it comes from, and its share of the requests."""

    @model_validator(mode="after")
    def _one_of_the_two(self) -> ServedModel:
        if (self.source is None) == (not self.versions):
            raise ValueError("give a source, or versions")
        if self.versions and not any(version.weight for version in self.versions.values()):
            raise ValueError("every version has weight 0; give one of them a share of the requests")
        return self

    @property
    def every(self) -> dict[str, Version]:
        """Version → where it comes from, also where there is one only."""
        if self.source is not None:
            return {"1": Version(source=self.source, trust_code=self.trust_code)}
        return self.versions


def _as_model(value: Any) -> Any:
    return {"source": value} if isinstance(value, str) else value


class Batch(Section):
    """How requests are computed together."""

    size: int = Field(default=64, ge=1, le=4096)
    """Most requests in a batch. 1: no batches."""

    wait: Span = Field(default=0.0, le=1.0)
    """How long a request may wait for others while the model is idle. What comes while it computes is the next batch
    in any case, so 0 suits CPUs; some milliseconds may suit accelerators."""


class ServingLimits(Section):
    """What one request and all of them together may take."""

    body: Size = Field(default=64 * 2**20, ge=1)
    """Most bytes of a request's body; more is answered 413."""

    requests: int = Field(default=1024, ge=1)
    """Most requests that are waiting or being computed; more are answered 503."""

    connections: int = Field(default=4096, ge=1)
    """Most connections; more are answered 503."""

    timeout: Span = Field(default=30.0, gt=0)
    """How long a request may wait and compute; then it is answered 504, and a model that hangs is started anew."""

    pixels: int = Field(default=50_000_000, ge=1)
    """Most pixels of a picture, however few bytes it has; more are answered 400."""

    slow: Span = Field(default=15.0, gt=0)
    """How long a client may take to send a request; then it is answered 408."""


class Module(Section):
    """A module written for DEEPaaS, served as it is: by its own Python, in processes of its own."""

    environment: str | None = Field(default=None, min_length=1)
    """The virtual environment it is installed in (its folder), or an interpreter. Relative paths of modules start at
    the project."""

    source: str | None = Field(default=None, min_length=1)
    """Or what to install: a folder with ``pyproject.toml`` or ``setup.py``, or a file of requirements. The environment
    is made once, in ``~/.cache/ai4sdk/environments``, and again when the source changes."""

    python: str | None = Field(default=None, min_length=1)
    """Interpreter to make the environment with; by default that of ai4sdk."""

    requirements: list[str] = Field(default_factory=list)
    """What else to install, such as ``numpy<1.24``."""

    module: str | None = Field(default=None, min_length=1)
    """Name of its entry point in the group ``deepaas.v2.model``; by default the name it is served as."""

    workers: int = Field(default=1, ge=1, le=256)
    """Processes, each of which answers one request after the other; and how many trainings run at once."""

    timeout: Span = Field(default=600.0, gt=0)
    """How long a prediction may wait for a process, and how long it may compute; then it is answered 503 or 504, and a
    process that hangs is started anew. Modules may be slower than what ``limits.timeout`` is for."""

    warm: bool = True
    """Whether each process calls the module's ``warm()`` first."""

    @model_validator(mode="after")
    def _one_of_the_two(self) -> Module:
        if (self.environment is None) == (self.source is None):
            raise ValueError("give an environment, or a source to make one of")
        if self.source is None and (self.python or self.requirements):
            raise ValueError("python and requirements are for a source; an environment has its own")
        return self


class Tls(Section):
    """What proves to clients who the server is."""

    certificate: str = Field(min_length=1)
    """File with the certificate and those of who signed it, in PEM."""

    key: str = Field(min_length=1)
    """File with its private key, in PEM."""


class Oidc(Section):
    """An OpenID provider whose access tokens (signed JWTs) are accepted."""

    issuer: str = Field(pattern=r"^https?://\S+$")
    """Address of the provider, as its tokens have it in ``iss``."""

    audience: str = Field(min_length=1)
    """What its tokens must have in ``aud``, so that those for other services are of no use here."""

    require: dict[str, str | list[str]] = Field(default_factory=dict)
    """Claim → what it has to be; of a list, any; of a claim that is a list or words in a text, one of them. Dots lead
    into claims, as in ``realm_access.roles``."""


class Serving(Section):
    """How trained models are served. `ai4sdk serve RUN` fills in ``models``."""

    models: dict[
        Annotated[str, Field(pattern=MODEL_NAME, max_length=64)],
        Annotated[ServedModel, BeforeValidator(_as_model, json_schema_input_type=str | ServedModel)],
    ] = Field(default_factory=dict)
    """Name → model; a text is a ``source``. Without any, the latest run of the job is served."""

    modules: dict[Annotated[str, Field(pattern=MODEL_NAME, max_length=64)], Module] = Field(default_factory=dict)
    """Name → module written for DEEPaaS. With modules and no ``models``, these alone are served."""

    trainings: str = Field(default="trainings", min_length=1)
    """Where trainings of modules are kept, a folder each module."""

    trainable: bool = True
    """Whether whoever may ask may also have modules trained; else that is answered 402."""

    protocols: list[Literal["v2", "mlflow", "natural", "deepaas"]] = Field(
        default=["v2", "mlflow", "natural", "deepaas"], min_length=1
    )
    """What is spoken: ``v2`` (Open Inference Protocol), ``mlflow`` (``/invocations``), ``natural`` (pictures,
    recordings, CSV and JSON as they are) and ``deepaas`` (DEEPaaS V2; a slash at the end of a path tells it from
    ``v2``)."""

    host: str = Field(default="127.0.0.1", min_length=1)
    """Address to listen at. Others than this machine reach ``0.0.0.0``."""

    port: int | None = Field(default=8080, ge=0, le=65535)
    """Port to listen at; 0 for a free one. With ``events`` null for none: then nothing is answered over HTTP."""

    grpc_port: int | None = Field(default=None, ge=0, le=65535)
    """Port for the Open Inference Protocol over gRPC (``pip install 'ai4sdk[grpc]'``); 0 for a free one, null for
    none."""

    device: str = Field(default="cpu", pattern=r"^(cpu|cuda(:\d+)?|auto)$")
    """Where models compute; ``auto`` is one process a GPU where there are some."""

    workers: int = Field(default=1, ge=1, le=256)
    """Processes a version. CPUs are divided among them."""

    threads: int | None = Field(default=None, ge=1)
    """Most threads of a process; by default its share of the CPUs. One is used where that is found to be faster."""

    engine: Literal["torch", "onnx", "auto"] = "torch"
    """What computes: ``onnx`` exports the module for ONNX Runtime (``pip install 'ai4sdk[onnx]'``), which takes seconds
    at the start and often is faster for small ones; its answers are compared with torch's first. ``auto`` measures
    both."""

    batch: Batch = Field(default_factory=Batch)
    """How requests are computed together."""

    limits: ServingLimits = Field(default_factory=ServingLimits)
    """What requests may take."""

    start: Span = Field(default=300.0, gt=0)
    """How long a model may take to load."""

    events: ServingEvents | None = None
    """Beside answering over HTTP, process objects as they arrive in a folder or bucket."""

    drift: DriftWatching | None = Field(default_factory=DriftWatching)
    """Detectors that look at what is asked and answered, beside the answering, where the package has a drift reference;
    null for none. One of the processes of a version watches what all of them answer."""

    drift_events: str | None = Field(default=None, min_length=1)
    """File that each change of a detector's state is appended to, as a line of JSON."""

    grace: Span = Field(default=30.0, ge=0)
    """How long requests may go on when the server is asked to stop."""

    reload: Span | None = Field(default=None, ge=1)
    """How often to look whether a source (``latest``, an alias in MLflow) means another model now, which then takes the
    place of the one that is served. By default only when the server gets SIGHUP."""

    tls: Tls | None = None
    """Certificate for HTTPS; nothing for HTTP."""

    tokens: list[str] = Field(default_factory=list)
    """Bearer tokens that may ask, each best as ``${secret:NAME}``. Without tokens and ``oidc`` anybody may who reaches
    the port. Health is told to all."""

    oidc: Oidc | None = None
    """An identity provider whose access tokens may ask, too."""

    origins: list[str] = Field(default_factory=list)
    """Web pages that may ask from a browser (CORS), such as ``https://portal.example.org``; ``*`` for all."""

    access_log: bool = True
    """Whether a line of JSON is written for each request."""

    @model_validator(mode="after")
    def _parts_fit(self) -> Serving:
        if twice := sorted(set(self.models) & set(self.modules)):
            raise ValueError(f"{twice[0]!r} is the name of a model and of a module")
        if self.modules and "deepaas" not in self.protocols:
            raise ValueError("modules are served by the protocol deepaas; add it to protocols")
        if self.port is None and self.events is None:
            raise ValueError("port is null, and there are no events: nothing would be served")
        asked = self.events.model if self.events is not None else None
        if asked is not None and self.models and asked not in self.models:
            raise ValueError(f"events.model is {asked!r}, and models has {', '.join(self.models)}")
        return self
