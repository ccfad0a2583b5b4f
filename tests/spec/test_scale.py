"""How many processes a job is, what each takes of a batch, and the learning rate that follows."""

from __future__ import annotations

from typing import Any

import pytest

from ai4sdk.spec import Job
from ai4sdk.spec.scale import scale_of


def job(*, training: dict[str, Any], hardware: dict[str, Any] | None = None, **sections: Any) -> Job:
    base = {
        "module": {"_target_": "net.Net"},
        "dataset": {"uri": "data.csv", "loader": {"batch_size": 8}},
        "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1},
    }
    return Job.model_validate({**base, "training": training, "hardware": hardware or {}, **sections})


def test_one_process_is_left_as_it_is():
    scale = scale_of(job(training={}))
    assert (scale.world_size, scale.batch_size, scale.global_batch_size, scale.learning_rate) == (1, 8, 8, 0.1)


def test_without_a_global_batch_size_more_processes_make_larger_steps():
    scale = scale_of(job(training={"mode": "ddp", "processes": 4, "accumulate_grad_batches": 2}))
    assert (scale.world_size, scale.batch_size, scale.global_batch_size, scale.growth) == (4, 8, 64, 4.0)


def test_a_global_batch_size_is_shared_out():
    scale = scale_of(job(training={"mode": "ddp", "processes": 2, "global_batch_size": 8}))
    assert (scale.batch_size, scale.global_batch_size, scale.growth) == (4, 8, 1.0)


def test_a_process_a_gpu_on_every_node():
    scale = scale_of(job(training={"mode": "ddp"}, hardware={"gpus": 4, "nodes": 2}))
    assert (scale.processes, scale.nodes, scale.world_size) == (4, 2, 8)


@pytest.mark.parametrize(("how", "rate"), [("none", 0.1), ("linear", 0.4), ("sqrt", 0.2)])
def test_the_learning_rate_grows_with_the_samples_of_a_step(how, rate):
    training = {"mode": "ddp", "processes": 4, "scale_learning_rate": how}
    assert scale_of(job(training=training)).learning_rate == pytest.approx(rate)
    same_step = {**training, "global_batch_size": 8}
    assert scale_of(job(training=same_step)).learning_rate == pytest.approx(0.1)


def test_a_loader_of_the_users_has_a_size_that_nobody_knows():
    scale = scale_of(job(training={"mode": "ddp", "processes": 2}, dataset={"_target_": "net.Data"}))
    assert (scale.batch_size, scale.global_batch_size, scale.growth) == (None, None, 2.0)
