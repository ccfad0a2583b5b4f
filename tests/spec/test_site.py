"""A site has of its own what it says, and everything else of the job."""

from __future__ import annotations

from typing import Any

import pytest

from ai4sdk.spec import Job
from ai4sdk.spec.site import written_out

JOB: dict[str, Any] = {
    "module": {"_target_": "net.Net"},
    "dataset": {"uri": "data.csv", "label": "ill", "loader": {"batch_size": 8}, "fingerprint": "sha256:1"},
    "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1, "momentum": 0.9},
    "training": {"mode": "federated"},
}


def job(**sites: Any) -> Job:
    return Job.model_validate({**JOB, "federation": {"sites": sites}})


def test_what_a_site_leaves_out_is_that_of_the_job() -> None:
    own = job(north={"dataset": {"uri": "north.csv", "loader": {"shuffle": False}}, "optimizer": {"lr": 0.5}})
    site = own.federation.sites["north"].model_dump(mode="json", by_alias=True)
    assert (site["dataset"]["uri"], site["dataset"]["label"]) == ("north.csv", "ill")
    assert (site["dataset"]["loader"]["batch_size"], site["dataset"]["loader"]["shuffle"]) == (8, False)
    assert site["optimizer"] == {"_target_": "torch.optim.SGD", "lr": 0.5, "momentum": 0.9}


@pytest.mark.parametrize("empty", [None, {}])
def test_a_site_that_says_nothing_has_all_of_it(empty: Any) -> None:
    made = job(north=empty)
    assert made.federation.sites["north"].dataset == made.dataset
    assert made.at("north").learner == made.learner


def test_a_fingerprint_is_not_that_of_other_files() -> None:
    assert job(north={"dataset": {"uri": "north.csv"}}).datasets["federation.sites.north.dataset"].fingerprint is None  # type: ignore[union-attr]


def test_what_calls_something_else_has_its_own_arguments_alone() -> None:
    site = job(north={"dataset": {"_target_": "own.data", "x": 1}, "optimizer": {"_target_": "torch.optim.Adam"}})
    at = site.at("north")
    assert at.dataset is not None
    assert at.dataset.model_dump(by_alias=True)["_target_"] == "own.data"
    assert at.optimizer is not None
    assert at.optimizer.as_config() == {"_target_": "torch.optim.Adam"}


def test_a_job_whose_data_lie_nowhere_has_the_first_sites() -> None:
    values = {
        **JOB,
        "dataset": {"label": "ill", "uri": "???"},
        "federation": {"sites": {"a": {"dataset": {"uri": "a"}}}},
    }
    made = Job.model_validate(values)
    assert made.dataset == made.federation.sites["a"].dataset


def test_writing_out_twice_is_writing_out_once() -> None:
    made = job(north={"dataset": {"uri": "north.csv"}, "hardware": {"cpus": 2}}, south=None)
    values = made.model_dump(mode="json", by_alias=True)
    assert written_out(values) == values
    assert Job.model_validate(values) == made


@pytest.mark.parametrize("wrong", [3, "x", [1], {"north": 3}, {"north": {"dataset": 3}}, {"north": {"dataset": [1]}}])
def test_what_is_wrong_is_left_for_the_validator(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"federation\.sites"):
        Job.model_validate({**JOB, "federation": {"sites": wrong}})


def test_a_site_differs_by_length_optimizer_and_data_alone() -> None:
    made = job(north={"local_epochs": 3, "optimizer": {"lr": 0.5}}, south={})
    assert made.at("north").federation.local_epochs == 3
    assert made.at("south").federation.local_epochs == 1
    assert made.at("elsewhere") == made
