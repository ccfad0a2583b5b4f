"""Metrics in the middle of an epoch: what was logged so far, and what torchmetrics have gathered.

Lightning's checkpoints leave both out. Without them the mean of a half-finished epoch would cover only its second
half, and whatever looks at that mean (a plateau scheduler, early stopping, the choice of the best) would decide
differently after a resume.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.connectors.logger_connector.result import _Metadata, _ResultMetric, _Sync
from torch import Tensor, nn
from torchmetrics import Metric

__all__ = ["logged_state", "metric_states", "set_logged_state", "set_metric_states"]

_PLAIN = ("fx", "name", "prog_bar", "logger", "on_step", "on_epoch", "enable_graph", "add_dataloader_idx")
_OPTIONAL = ("dataloader_idx", "metric_attribute")


def metric_states(module: nn.Module) -> dict[str, dict[str, Any]]:
    """Return what the torchmetrics inside a module have gathered since they were last reset, by their name in it."""
    return {
        name: {
            "count": part._update_count,
            "states": {key: _copied(value) for key, value in part.metric_state.items()},
        }
        for name, part in module.named_modules()
        if isinstance(part, Metric) and part._update_count
    }


def set_metric_states(module: nn.Module, states: Mapping[str, Mapping[str, Any]]) -> None:
    """Put back what `metric_states` returned; metrics that it does not name are reset."""
    for name, part in module.named_modules():
        if not isinstance(part, Metric):
            continue
        part.reset()
        if name not in states:
            continue
        for key, value in states[name]["states"].items():
            setattr(part, key, _moved(value, part.device))
        part._update_count = states[name]["count"]


def logged_state(trainer: pl.Trainer) -> dict[str, Any]:
    """Return what was logged so far in this epoch, and the latest values that callbacks read."""
    connector = trainer._logger_connector
    return {
        "results": {
            key: _result_state(metric)
            for key, metric in trainer.fit_loop.epoch_loop._results.items()
            if not metric.has_reset
        },
        "first_batch": connector._first_loop_iter,
        "hook": connector._current_fx,
        "callback": _copied(connector._callback_metrics),
        "logged": _copied(connector._logged_metrics),
        "bar": dict(connector._progress_bar_metrics),
    }


def set_logged_state(trainer: pl.Trainer, state: Mapping[str, Any]) -> None:
    """Put back what `logged_state` returned."""
    connector, results = trainer._logger_connector, trainer.fit_loop.epoch_loop._results
    results.clear()
    for key, saved in state["results"].items():
        results[key] = _result(trainer, saved)
    device = trainer.strategy.root_device
    connector._first_loop_iter = state["first_batch"]
    connector._current_fx = state["hook"]
    connector._callback_metrics = _moved(state["callback"], device)
    connector._logged_metrics = _moved(state["logged"], device)
    connector._progress_bar_metrics = dict(state["bar"])


def _result_state(metric: _ResultMetric) -> dict[str, Any]:
    meta = metric.meta
    saved = {name: getattr(meta, name) for name in (*_PLAIN, *_OPTIONAL)}
    saved |= {"reduce": meta.reduce_fx.__name__, "sync": meta.sync.should, "rank_zero_only": meta.sync.rank_zero_only}
    saved |= {"is_tensor": metric.is_tensor, "count": metric._update_count}
    saved["cache"] = _copied(metric._forward_cache)
    if metric.is_tensor:
        saved["value"] = _copied(metric.value)
        if meta.is_mean_reduction:
            saved["batches"] = _copied(metric.cumulated_batch_size)
    return saved


def _result(trainer: pl.Trainer, saved: Mapping[str, Any]) -> _ResultMetric:
    meta = _Metadata(
        **{name: saved[name] for name in (*_PLAIN, *_OPTIONAL)}, reduce_fx=getattr(torch, str(saved["reduce"]))
    )
    meta.sync = _Sync(
        _should=saved["sync"], fn=trainer.strategy.reduce, _group=None, rank_zero_only=saved["rank_zero_only"]
    )
    metric = _ResultMetric(meta, saved["is_tensor"])
    device = trainer.strategy.root_device
    if metric.is_tensor:
        metric.value = _moved(saved["value"], device)
        if meta.is_mean_reduction:
            metric.cumulated_batch_size = _moved(saved["batches"], device)
    else:
        metric.value = trainer.lightning_module.get_submodule(saved["metric_attribute"])
    metric._forward_cache = _moved(saved["cache"], device)
    metric._update_count = saved["count"]
    return metric


def _copied(value: Any) -> Any:
    """Return a value whose tensors later updates cannot change."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, Mapping):
        return {key: _copied(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_copied(part) for part in value]
    return value


def _moved(value: Any, device: torch.device) -> Any:
    """Return a copy on a device."""
    if isinstance(value, Tensor):
        return value.detach().clone().to(device)
    if isinstance(value, Mapping):
        return {key: _moved(part, device) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_moved(part, device) for part in value]
    return value
