"""How a trained module is judged."""

from __future__ import annotations

from typing import Literal

from ai4sdk.spec.base import Section


class Evaluation(Section):
    """Which weights are tested on which samples."""

    split: Literal["test", "val", "train"] = "test"
    """Samples to judge by."""

    weights: Literal["best", "last"] = "best"
    """The weights of the best checkpoint (where ``training.checkpoint.monitor`` is set) or of the last."""

    drift: Literal["all", "outputs", "none"] = "all"
    """What the model package tells of the data, to hold later data against: summaries of each feature of the training
    samples and of the answers to those of ``split``, of the answers only, or nothing. Federations: of the answers at
    most, with privacy nothing."""

    class_names: list[str] | None = None
    """Names of the classes in the order of their numbers; by default those found in the data."""
