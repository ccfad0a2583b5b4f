"""Plans of several processes: what they say, and which numbers are refused."""

from __future__ import annotations

import pytest

import ai4sdk
from ai4sdk.cli.plan import plan_lines
from ai4sdk.errors import ConfigError

TWO = ("training=ddp", "training.processes=2", "training.max_epochs=2")


@pytest.fixture
def plan(project):
    def make(*overrides):
        text = (project / "configs" / "train.yaml").read_text()
        (project / "configs" / "train.yaml").write_text(text.replace("  - training: short\n", "  - training: single\n"))
        return ai4sdk.plan("train", *overrides)

    return make


def problems(plan, *overrides):
    with pytest.raises(ConfigError) as caught:
        plan(*overrides)
    return {problem.key: problem for problem in caught.value.problems}


def test_a_plan_says_how_many_processes_there_are_and_what_each_does(plan, project):
    made = plan(*TWO, "training.scale_learning_rate=linear")
    assert [(task.processes, task.nodes, task.world_size, task.threads) for task in made.tasks] == [(2, 1, 2, 1)]
    text = "\n".join(plan_lines(made, project))
    assert "train: 2 processes, 2 CPUs" in text
    assert "world size 2, 32 samples a batch and process, 64 samples a step" in text
    assert "learning rate 0.002 (linear: 0.001 for 1/2 of the samples)" in text
    assert "ai4sdk.backends.agent" in text


def test_a_plan_of_one_process_is_shown_as_before(plan, project):
    assert not [line for line in plan_lines(plan(), project) if line.startswith("scale")]


def test_world_size_changes_results_and_so_the_digest(plan):
    one, two = plan(), plan(*TWO)
    four = plan("training=ddp", "training.processes=4", "hardware.cpus=4")
    assert len({one.digest, two.digest, four.digest}) == 3


def test_dividing_parameters_is_another_plan_of_the_same_scale(plan, project):
    copied, divided = plan(*TWO), plan("training=fsdp", *TWO[1:])
    assert divided.digest != copied.digest
    assert divided.tasks == copied.tasks
    assert "world size 2, 32 samples a batch and process" in "\n".join(plan_lines(divided, project))


def test_one_process_a_gpu_is_the_same_plan_whether_written_out_or_not(plan):
    told = plan("training=ddp", "hardware.gpus=2", "training.processes=2")
    assert told.tasks[0].processes == 2
    assert plan("training=ddp", "hardware.gpus=2").digest == told.digest


@pytest.mark.parametrize(
    ("overrides", "key", "numbers", "fix"),
    [
        (("training=ddp",), "training.processes", "is not said", "training.processes=2"),
        ((*TWO, "training.processes=3"), "training.processes", "3 processes on 2 CPU cores", "hardware.cpus=3"),
        (
            ("training=ddp", "hardware.gpus=2", "training.processes=3"),
            "training.processes",
            "3 processes do not fit 2 GPUs",
            "hardware.gpus=3",
        ),
        (
            (*TWO, "training.global_batch_size=33"),
            "training.global_batch_size",
            "33 samples cannot be divided evenly among 2 processes",
            "training.global_batch_size=32",
        ),
        (
            (*TWO, "training.global_batch_size=34", "training.accumulate_grad_batches=4"),
            "training.global_batch_size",
            "34 samples cannot be divided evenly among 2 processes of 4 accumulated batches",
            "training.global_batch_size=32",
        ),
        (("hardware.gpus=2",), "hardware.gpus", "at most one GPU, not 2", "training=ddp"),
        (("+training.processes=2",), "training.processes", "several processes", "training=ddp"),
        ((*TWO, "hardware.nodes=2"), "hardware.nodes", "one machine, not 2", "hardware.nodes=1"),
        (
            ("training=fsdp", "training.processes=2", "training.precision=16-mixed"),
            "training.precision",
            "16-mixed",
            "bf16-mixed",
        ),
        ((*TWO, "training.sync_batchnorm=true"), "training.sync_batchnorm", "GPUs only", "false"),
        (
            (*TWO, "training.scale_learning_rate=sqrt", "~optimizer"),
            "training.scale_learning_rate",
            "not known",
            "optimizer=adam",
        ),
        (
            (*TWO, "training.trainer={overfit_batches: 2}"),
            "training.trainer.overfit_batches",
            "cannot divide",
            "limit_train_batches",
        ),
        ((*TWO, "training.trainer={strategy: ddp}"), "training.trainer.strategy", "training.mode", "training.mode"),
    ],
)
def test_numbers_that_do_not_fit_are_refused_with_the_numbers(plan, overrides, key, numbers, fix):
    problem = problems(plan, *overrides)[key]
    assert numbers in problem.message
    assert fix in problem.fix


def test_points_of_a_study_are_single_processes(project):
    from ai4sdk.studies.plan import make_study

    with pytest.raises(ConfigError, match=r"(?s)single processes.*training=single"):
        make_study("train", ["training=ddp", "training.processes=2", "optimizer.lr=1e-2,1e-3"])
