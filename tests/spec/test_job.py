"""A job trains a module on a dataset, or calls a function."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from ai4sdk.spec import Job

FUNCTION = {"_target_": "pond.catch", "boats": 3}
TRAINING = {"module": {"_target_": "net.Net"}, "dataset": {"uri": "data.csv"}}


def mistakes(**values):
    with pytest.raises(ValidationError) as caught:
        Job.model_validate(values)
    return {".".join(map(str, error["loc"])): error["type"] for error in caught.value.errors()}


def test_a_function_needs_neither_module_nor_dataset():
    job = Job.model_validate({"function": FUNCTION})
    assert job.function is not None
    assert job.function.arguments == {"boats": 3}
    with pytest.raises(ValueError, match="calls a function"):
        _ = job.learner


def test_a_training_has_both():
    job = Job.model_validate(TRAINING)
    assert (job.learner.module, job.learner.dataset) == (job.module, job.dataset)


@pytest.mark.parametrize("key", ["module", "dataset"])
def test_a_training_without_one_of_them_is_refused(key):
    assert mistakes(**{**TRAINING, key: None}) == {key: "missing"}


def test_a_job_with_nothing_to_do_is_refused():
    assert mistakes() == {"module": "missing", "dataset": "missing"}


def test_a_job_does_not_do_both():
    assert mistakes(function=FUNCTION, **TRAINING) == {"module": "value_error", "dataset": "value_error"}


def test_a_function_that_is_wrong_itself_hides_nothing_else():
    assert mistakes(function={"boats": 3}) == {"function._target_": "missing"}
