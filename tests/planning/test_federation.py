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
LISTEN = "++federation.listen={address: '0.0.0.0:9443', certificate: server.pem, key: server.key}"


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
        ((LISTEN, "++federation.slow={north: 1}"), "slow sites are simulated in rehearsals only"),
    ],
)
def test_mistakes_are_named_with_what_to_do(overrides: tuple[str, ...], expected: str, project: Path) -> None:
    assert expected in problem(*overrides)


OWN = "++federation.sites={north: {dataset: {uri: north.csv}}, south: {dataset: {uri: south.csv}}}"


@pytest.fixture
def hospitals(project: Path) -> Path:
    """Return a project with a file of each of two hospitals, and none of its own."""
    for name in ("north", "south"):
        (project / f"{name}.csv").write_text((project / "data.csv").read_text() + f"{ord(name[0])},3,no\n" * 3)
    (project / "data.csv").unlink()
    return project


def test_sites_have_data_of_their_own_and_all_else_of_the_job(hospitals: Path) -> None:
    made = plan(OWN, "dataset.loader.batch_size=5")
    assert [entry["uri"] for entry in made.data.values()] == ["north.csv", "south.csv"]
    assert all(site["dataset"]["label"] == "y" for site in made.job["federation"]["sites"].values())
    assert made.job["federation"]["sites"]["south"]["dataset"]["loader"]["batch_size"] == 5
    assert plan(OWN, "dataset.loader.batch_size=5").digest == made.digest


def test_where_a_sites_files_lie_changes_nothing_and_what_they_hold_or_how_it_trains_does(hospitals: Path) -> None:
    before = plan(OWN).digest
    (hospitals / "north.csv").rename(hospitals / "moved.csv")
    moved = "federation.sites.north.dataset.uri=moved.csv"
    assert plan(OWN, moved, "++federation.sites.north.hardware.gpus=1").digest == before
    assert plan(OWN, moved, "++federation.sites.north.optimizer.lr=0.5").digest != before
    assert plan(OWN, moved, "++federation.sites.north.local_epochs=2").digest != before
    with (hospitals / "moved.csv").open("a") as file:
        file.write("1,1,no\n")
    assert plan(OWN, moved).digest != before


def test_the_code_of_each_sites_dataset_is_taken_along(hospitals: Path) -> None:
    (hospitals / "west.py").write_text("def patients():\n    return {}\n")
    made = plan(OWN, "++federation.sites.west={dataset: {_target_: west.patients}}")
    assert "west.py" in {file["path"] for file in made.code["files"]}
    assert "west.py" not in {file["path"] for file in plan(OWN).code["files"]}


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (("federation.sites.north.dataset.urii=x",), "→ federation.sites.north.dataset.uri=x"),
        (("federation.sites.north.dataset.uri=gone.csv",), "federation.sites.north.dataset.uri"),
        (("++federation.sites.north.dataset.label=z",), "'z'"),
        (("++federation.sites.north.local_steps=3",), "→ federation.sites.north.local_epochs"),
        (("++federation.sites.north.optimizer.lrr=3",), "lrr"),
        (("++federation.sites.north.optimizer._target_=torch.optim.Adan",), "Adan"),
        (("++federation.sites.north.dataset=3",), "federation.sites.north.dataset"),
        (("++federation.sites.north=3",), "federation.sites.north"),
        (("++federation.sites={'no name': {}}",), "no name"),
        ((SITES,), "either divide one dataset (partition) or have data of their own"),
        (("federation.min_sites=3",), "a round needs 3 sites, and there are 2"),
        (("++federation.slow={west: 1}",), "there is no site west"),
        (("++federation.slow={north: 0}",), "federation.slow.north"),
        (("++federation.enough=1", "federation.min_sites=2"), "a round needs 2 answers, and ends with 1"),
        (("++federation.late={}", "++federation.strategy=scaffold"), "federation.late=null"),
        (("++federation.late={}", "++federation.privacy={mode: central, epsilon: 9}"), "late ones count less"),
        (("dataset.lable=y",), "→ dataset.label=y"),
    ],
)
def test_mistakes_at_sites_are_named_with_what_to_do(
    overrides: tuple[str, ...], expected: str, hospitals: Path
) -> None:
    told = problem(OWN, *overrides)
    assert expected in told
    assert "1 problem" in told


def test_a_budget_is_that_of_each_sites_data(hospitals: Path) -> None:
    private = "++federation.privacy={mode: central, epsilon: 5, budget: 8}"
    made = plan(OWN, private)
    spent = Entry("before", "site", {}, 2, 5.0, 1e-5, True)
    south = made.data["federation.sites.south.dataset"]["fingerprint"]
    PrivacyLedger(hospitals / "runs" / "privacy").write(south, spent)
    told = problem(OWN, private)
    assert told.startswith("1 problem")
    assert "federation.sites.south.dataset: the run would spend" in told
    assert "of the budget of 8 only 3 is left" in told


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
    own = "++federation.sites={north: {dataset: {uri: data.csv}, hardware: {cpus: 1}}}"
    assert plan(JOIN, own).terms == plan(LISTEN, own).terms == theirs
    faster = "++federation.sites={north: {optimizer: {lr: 0.5}}}"
    assert plan(JOIN, faster).terms == plan(LISTEN, faster).terms != theirs
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
