"""Flower's strategies: made from the YAML, and their state kept over a restart."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
from flwr.app import ArrayRecord
from flwr.serverapp.strategy import Strategy
from hydra.utils import get_object

from ai4sdk.errors import RunFailed
from ai4sdk.federated.weights import Arrays, from_records, to_record
from ai4sdk.spec import Target
from ai4sdk.worker.instantiate import instantiate

__all__ = ["WEIGHT_KEY", "load_strategy_state", "make_strategy", "strategy_state"]

WEIGHT_KEY = "num-examples"
"""Metric by which Flower's strategies weight what sites send."""

_OURS: dict[str, Any] = {
    "fraction_train": 1.0,
    "fraction_evaluate": 1.0,
    "min_train_nodes": 1,
    "min_evaluate_nodes": 1,
    "min_available_nodes": 1,
    "weighted_by_key": WEIGHT_KEY,
}
"""Arguments of Flower's strategies that leave the choice of sites to us."""

_ARRAY = np.ndarray | np.generic
"""Sums of arrays without dimensions are NumPy's scalars."""


def make_strategy(target: Target) -> Strategy:
    """Make the strategy of a federation.

    Which sites take part is decided before a strategy is asked, so one that would choose among them takes all.

    Raises
    ------
    RunFailed
        If it is no strategy of Flower's Message API, or refuses its arguments.
    """
    config = target.as_config()
    kind = get_object(target.target)
    if not (isinstance(kind, type) and issubclass(kind, Strategy)):
        raise RunFailed(
            f"federation.strategy: {target.target} is no strategy of Flower's Message API",
            hint="derive it from flwr.serverapp.strategy.Strategy, or name one such as fedavg",
        )
    takes = inspect.signature(kind).parameters
    made = instantiate({**{k: v for k, v in _OURS.items() if k in takes}, **config}, key="federation.strategy")
    assert isinstance(made, Strategy)
    for name in _OURS.keys() & vars(made).keys() - takes.keys() - config.keys():  # a class of the user's passes them on
        setattr(made, name, _OURS[name])
    return made


def strategy_state(strategy: Strategy) -> tuple[dict[str, Any], Arrays]:
    """Return what a strategy remembers from round to round: plain values, and arrays by dotted name.

    These are its attributes that hold numbers, text, arrays, or lists and mappings of arrays, such as an optimizer's
    moments. A strategy that remembers other things has ``state_dict() -> dict`` and ``load_state_dict(dict)`` of such.
    """
    values = strategy.state_dict() if hasattr(strategy, "state_dict") else vars(strategy)
    plain: dict[str, Any] = {}
    arrays: Arrays = {}
    for name, value in values.items():
        if value is None or isinstance(value, bool | int | float | str):
            plain[name] = {"value": value}
        elif isinstance(value, _ARRAY):
            plain[name] = {"array": True}
            arrays[name] = np.asarray(value)
        elif isinstance(value, ArrayRecord):
            plain[name] = {"record": list(value)}
            arrays |= {f"{name}.{key}": array for key, array in from_records(value).items()}
        elif isinstance(value, Mapping) and value and all(isinstance(part, _ARRAY) for part in value.values()):
            plain[name] = {"mapping": list(value)}
            arrays |= {f"{name}.{key}": np.asarray(array) for key, array in value.items()}
        elif isinstance(value, list) and value and all(isinstance(part, _ARRAY) for part in value):
            plain[name] = {"list": len(value)}
            arrays |= {f"{name}.{index}": np.asarray(array) for index, array in enumerate(value)}
    return plain, arrays


def load_strategy_state(strategy: Strategy, plain: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
    """Put back what `strategy_state` returned."""
    values: dict[str, Any] = {}
    for name, how in plain.items():
        if "value" in how:
            values[name] = how["value"]
        elif "array" in how:
            values[name] = arrays[name]
        elif "record" in how:
            values[name] = to_record({key: arrays[f"{name}.{key}"] for key in how["record"]})
        elif "mapping" in how:
            values[name] = {key: arrays[f"{name}.{key}"] for key in how["mapping"]}
        else:
            values[name] = [arrays[f"{name}.{index}"] for index in range(how["list"])]
    if hasattr(strategy, "load_state_dict"):
        strategy.load_state_dict(values)
    else:
        vars(strategy).update(values)
