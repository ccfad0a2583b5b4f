"""A federation that cannot be held as said is refused before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from ai4sdk.config.load import load_job
from ai4sdk.errors import ConfigError
from ai4sdk.planning.build import make_plan
from ai4sdk.planning.plan import Plan
from ai4sdk.planning.terms import differences, what_leaves
from ai4sdk.privacy.budget import Entry, PrivacyLedger

SITES = "++federation.partition.sites=3"


def plan(*overrides: str) -> Plan:
    return make_plan(load_job("train", ["training.mode=federated", *overrides]))


def problem(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        plan(*overrides)
    return str(caught.value)


def test_rounds_are_the_length_of_the_training_in_parts(project: Path) -> None:
    assert plan(SITES).job["federation"]["rounds"] == 2
    assert plan(SITES, "training.max_epochs=6", "++federation.local_epochs=3").job["federation"]["rounds"] == 2
    steps = ("training.max_epochs=null", "++training.max_steps=40")
    steps += ("++federation.local_epochs=null", "++federation.local_steps=4")
    assert plan(SITES, *steps).job["federation"]["rounds"] == 10


def test_two_ways_to_say_the_rounds_are_one_plan(project: Path) -> None:
    assert plan(SITES).digest == plan(SITES, "++federation.rounds=2").digest


def test_its_task_says_that_it_federates_and_its_packages_name_flower(project: Path) -> None:
    made = plan(SITES)
    assert [task.kind for task in made.tasks] == ["federate"]
    assert "flwr" in made.packages


def test_another_mode_neither_needs_nor_names_flower_and_no_setting_changes_its_digest(project: Path) -> None:
    alone = make_plan(load_job("train", []))
    assert "flwr" not in alone.packages
    assert alone.digest == make_plan(load_job("train", ["++federation.fraction=0.5"])).digest


def test_processes_of_a_rehearsal_change_no_result(project: Path) -> None:
    assert plan(SITES).digest == plan(SITES, "++federation.processes=2").digest


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ((), "federation.partition.sites=4"),
        ((SITES, "++federation.local_epochs=5"), "cannot be divided into rounds of 5"),
        ((SITES, "++federation.min_sites=4"), "a round needs 4 sites, and there are 3"),
        ((SITES, "++federation.strategy=fedprocks"), "did you mean fedprox"),
        ((SITES, "++federation.strategy={_target_: fedprox, proximal_nu: 1}"), "proximal_nu"),
        ((SITES, "++federation.strategy=flwr.serverapp.strategy.FedNone"), "FedNone"),
        ((SITES, "++training.max_time=1h"), "a federation ends after its rounds"),
        ((SITES, "++hardware.gpus=2"), "share one GPU"),
        ((SITES, "++federation.local_steps=4"), "either local_epochs or local_steps"),
        ((SITES, "++training.checkpoint.monitor=server/val_loss"), "nobody measures server/val_loss"),
        (("++federation.partition={method: column, column: hospital}",), "no column 'hospital'"),
        ((SITES, "++federation.availability={kind: trace, file: gone.csv}"), "there is no trace"),
        ((SITES, "++federation.availability={kind: sometimes}"), "sometimes"),
    ],
)
def test_mistakes_are_named_with_what_to_do(overrides: tuple[str, ...], expected: str, project: Path) -> None:
    assert expected in problem(*overrides)


def test_a_trace_is_in_the_plan_so_that_it_can_be_run_again_without_the_file(project: Path) -> None:
    (project / "up.csv").write_text("site,from,to\nsite-1,1,2\nsite-2,1,1\nsite-3,2,2\n")
    made = plan(SITES, "++federation.availability={kind: trace, file: up.csv}")
    assert made.job["federation"]["availability"]["up"]["site-1"] == [[1, 2]]
    assert made.job["federation"]["availability"]["file"] is None


PRIVATE = "++federation.privacy={mode: central, epsilon: 5, delta: 1e-5}"


def test_the_noise_that_an_epsilon_needs_is_in_the_plan(project: Path) -> None:
    privacy = plan(SITES, PRIVATE).job["federation"]["privacy"]
    assert privacy["noise_multiplier"] == pytest.approx(
        1.258, rel=0.01
    )  # of two rounds; the analytic Gaussian mechanism
    more = plan(SITES, PRIVATE, "training.max_epochs=8").job["federation"]["privacy"]
    assert more["noise_multiplier"] == pytest.approx(2 * privacy["noise_multiplier"], rel=0.01)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (("++federation.privacy={mode: central, epsilon: 1, noise_multiplier: 0.5}",), "more than 1"),
        (("++federation.privacy={mode: central}",), "give noise_multiplier, or epsilon"),
        (("++federation.privacy={mode: record, epsilon: 1, sampling: fixed}",), "with the same chance"),
        (("++federation.privacy={mode: central, epsilon: 1, sampling: poisson}",), "federation.privacy.sampling=none"),
        ((PRIVATE, "++federation.strategy=fedmedian"), "how much noise FedMedian needs is not known"),
        (("++federation.privacy={mode: central, epsilon: 3, budget: 2}",), "budget"),
    ],
)
def test_a_promise_that_cannot_be_kept_is_refused(overrides: tuple[str, ...], expected: str, project: Path) -> None:
    assert expected in problem(SITES, *overrides)


def test_a_plan_beyond_what_is_left_of_a_budget_is_refused(project: Path) -> None:
    made = plan(SITES, "++federation.privacy={mode: central, epsilon: 5, budget: 8}")
    spent = Entry("before", "site", {}, 2, 5.0, 1e-5, True)
    PrivacyLedger(project / "runs" / "privacy").write(made.data["dataset"]["fingerprint"], spent)
    told = problem(SITES, "++federation.privacy={mode: central, epsilon: 5, budget: 8}")
    assert "of the budget of 8 only 3 is left" in told


LISTEN = "++federation.listen={address: '0.0.0.0:9443', certificate: server.pem, key: server.key}"
JOIN = (
    "++federation.join={address: 'host:9443', site: north, ca: ca.pem, key: north.key, approved: 'sha256:"
    + "0" * 64
    + "'}"
)


def test_coordinator_and_site_have_the_same_terms_whatever_is_their_own(project: Path) -> None:
    theirs = plan(LISTEN).terms
    ours = plan(JOIN, "dataset.loader.batch_size=5", "hardware.cpus=1", "name=ours")
    assert ours.terms == theirs
    assert plan(SITES).terms == {}
    for changed in ("optimizer.lr=0.5", "seed=3", "module.width=9", "++federation.share=[layers.0.*]"):
        assert plan(JOIN, changed).terms["digest"] != theirs["digest"]
    (project / "net.py").write_text((project / "net.py").read_text() + "\n# changed\n")
    assert differences(theirs, plan(JOIN).terms) == [
        f"code: the coordinator has {theirs['code']!r}, this site {plan(JOIN).terms['code']!r}"
    ]


def test_what_leaves_a_site_is_said(project: Path) -> None:
    private = "++federation.privacy={mode: local, noise_multiplier: 2.0, budget: 500}"
    terms = plan(LISTEN, private, "++federation.share=[layers.0.*]").terms
    assert "budget" not in terms["federation"]["privacy"]
    told = "\n".join(what_leaves(terms))
    assert "the module's weights (layers.0.*)" in told
    assert "added by this site, before it sends" in told
    assert "no noise is added" in "\n".join(what_leaves(plan(LISTEN).terms))


def test_a_federation_is_rehearsed_or_led_or_joined(project: Path) -> None:
    assert "one of them" in problem(SITES, LISTEN)
    assert "one of them" in problem(JOIN, LISTEN)
    assert "in rehearsals only" in problem(LISTEN, "++federation.availability={kind: dropout, probability: 0.1}")
