"""How a module is trained. Field names are those of Lightning's Trainer where it has them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from ai4sdk.spec.base import Section, field_that_changes_nothing
from ai4sdk.spec.target import Target
from ai4sdk.spec.units import Span

Precision = Annotated[
    Literal["16-mixed", "bf16-mixed", "32-true", "64-true", "16-true", "bf16-true", "32", "64"],
    BeforeValidator(lambda value: str(value) if isinstance(value, int) and not isinstance(value, bool) else value),
]


class EarlyStopping(Section):
    """Stop when a metric no longer gets better."""

    monitor: str
    """Metric to watch, by the name the module logs it under."""

    mode: Literal["min", "max"] = "min"
    """Whether smaller or larger is better."""

    patience: int = Field(default=3, ge=0)
    """Checks without improvement before stopping."""

    min_delta: float = Field(default=0.0, ge=0)
    """Smallest change that counts as an improvement."""

    def better(self, value: float, best: float | None) -> bool:
        """Tell whether a value of the metric is an improvement; one that is not a number never is."""
        if value != value:
            return False
        return best is None or (value < best - self.min_delta if self.mode == "min" else value > best + self.min_delta)


class Checkpoint(Section):
    """What is kept while training, so that nothing is lost and the best is found again."""

    monitor: str | None = None
    """Metric by which the best weights are chosen; without it the last ones are used."""

    mode: Literal["min", "max"] = "min"
    """Whether smaller or larger is better."""

    every: Span = field_that_changes_nothing(default=300.0)
    """Longest time between two checkpoints. Between epochs one is made before that, too, where it costs less than a
    two-hundredth of the time."""

    def better(self, value: float, best: float | None) -> bool:
        """Tell whether a value of the metric is better than the best so far; one that is not a number never is."""
        if value != value:
            return False
        return best is None or (value < best if self.mode == "min" else value > best)


class Training(Section):
    """Length, arithmetic and safety of a training."""

    mode: Literal["single", "ddp", "fsdp", "federated"] = "single"
    """``single``: one process. ``ddp``: several processes, each with a copy of the module and a share of every batch;
    gradients are averaged over them before each step. ``fsdp``: the same, but each process keeps only its slice of the
    parameters and of what the optimizer remembers. ``federated``: sites that share no data each train a copy, whose
    weights are aggregated in rounds; see ``federation``."""

    processes: int | None = Field(default=None, ge=1)
    """With ``ddp`` and ``fsdp``, processes per node; nothing for one a GPU. On CPU it has to be given."""

    global_batch_size: int | None = Field(default=None, ge=1)
    """Samples in an optimizer step, over all processes and accumulated batches; the batches of a process follow from
    it. Nothing takes ``dataset.loader.batch_size`` for each process, so that more processes make larger steps."""

    scale_learning_rate: Literal["none", "linear", "sqrt"] = "none"
    """What larger steps do to ``optimizer.lr``, which is meant for one process with ``dataset.loader.batch_size``:
    with k times as many samples in a step it is multiplied by k (``linear``), by its root (``sqrt``), or left alone."""

    sync_batchnorm: bool = False
    """With ``ddp`` and ``fsdp`` on GPUs, whether batch normalisation sees the batches of all processes as one."""

    find_unused_parameters: bool | None = None
    """With ``ddp``, whether every step looks for parameters that its loss does not depend on. Nothing looks in the
    first step, and in all others if there were some; if there are some only later, training fails and names them."""

    max_epochs: int | None = Field(default=10, ge=1)
    """Passes over the training data; nothing for no limit but ``max_steps`` or ``max_time``."""

    max_steps: int | None = Field(default=None, ge=1)
    """Optimizer steps after which training ends."""

    max_time: Span | None = None
    """Time after which training ends, such as ``2h``. It makes a result depend on the machine's speed."""

    precision: Precision = "32-true"
    """Arithmetic, as Lightning names it."""

    accumulate_grad_batches: int = Field(default=1, ge=1)
    """Batches whose gradients are added up before a step."""

    gradient_clip_val: float | None = Field(default=None, gt=0)
    """Largest gradient norm (or value); larger ones are clipped."""

    gradient_clip_algorithm: Literal["norm", "value"] = "norm"
    """Whether the norm or each value is clipped."""

    deterministic: bool | Literal["warn"] = True
    """Refuse operations that have no deterministic form; ``warn`` allows them with a warning."""

    log_every_n_steps: int = field_that_changes_nothing(default=10, ge=1)
    """Steps between two records of the metrics logged per step."""

    early_stopping: EarlyStopping | None = None
    """When to stop before ``max_epochs``."""

    checkpoint: Checkpoint = Field(default_factory=Checkpoint)
    """What is kept while training."""

    init_from: str | None = field_that_changes_nothing(default=None)
    """Weights to start from: a run (id, prefix, name or ``latest``) or the folder of a model package."""

    freeze: list[str] = []
    """Parameters that are not trained, as shell patterns of their names, such as ``backbone.*``."""

    callbacks: list[Target] = []
    """Lightning callbacks to add."""

    trainer: dict[str, Any] = {}
    """Any further option of ``pytorch_lightning.Trainer``, passed as it is."""

    @property
    def is_shared(self) -> bool:
        """Whether several processes train together."""
        return self.mode in ("ddp", "fsdp")

    @model_validator(mode="after")
    def _ends_some_time(self) -> Self:
        if self.max_epochs is None and self.max_steps is None and self.max_time is None:
            raise ValueError("training has no end: give max_epochs, max_steps or max_time")
        return self
