"""Any sweeper plugin of Hydra chooses the points, and nothing of Hydra's is left behind."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobStatus
from hydra.plugins.sweeper import Sweeper

from ai4sdk.errors import ConfigError, EnvironmentFault, NotFound, RunCancelled, RunFailed
from ai4sdk.studies.hydra_sweeper import check_sweeper, installed_sweepers, run_sweeper

Batch = list[list[str]]


class HalvingSweeper(Sweeper):  # type: ignore[misc]
    """Halves an interval where the objective is smaller; written as plugins on PyPI are."""

    def __init__(
        self, rounds: int, max_failure_rate: float, inner: Any, complain: str | None, direction: Any, optim: Any
    ) -> None:
        self.rounds = rounds
        self.directions = (direction, optim.maximize)
        self.max_failure_rate = max_failure_rate
        self.inner = inner
        self.complain = complain
        self.seen: list[Any] = []

    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
        self.config = config
        self.hydra_context = hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        if self.complain:
            raise ValueError(self.complain)
        parsed = OverridesParser.create().parse_overrides(arguments)
        (axis,) = [override for override in parsed if override.is_sweep_override()]
        fixed = [override.input_line for override in parsed if not override.is_sweep_override()]
        low, high = axis.value().start, axis.value().end
        job = 0
        for _ in range(self.rounds):
            third = (high - low) / 3
            batch = [(*fixed, f"{axis.key_or_group}={low + third * turn}") for turn in (1, 2)]
            self.validate_batch_is_legal(batch)
            returns = self.launcher.launch(batch, initial_job_idx=job)
            job += len(batch)
            self.seen.append([one.return_value if one.status is JobStatus.COMPLETED else None for one in returns])
            failed = sum(one.status is JobStatus.FAILED for one in returns)
            if failed / len(returns) > self.max_failure_rate:
                _ = [one.return_value for one in returns]
            left, right = ((one if one is not None else float("inf")) for one in self.seen[-1])
            low, high = (low, high - third) if left <= right else (low + third, high)
        Path(self.config.hydra.sweep.dir, "result.txt").write_text(f"{HydraConfig.get().sweep.dir}\n{low}\n{high}")


@dataclass
class Inner:
    depth: int = 1


@dataclass
class HalvingConf:
    _target_: str = "hydra_plugins.halving.HalvingSweeper"
    rounds: int = 12
    max_failure_rate: float = 0.0
    inner: Inner = field(default_factory=Inner)
    complain: str | None = None
    direction: Any = "minimize"
    optim: Optim = field(default_factory=lambda: Optim())


@dataclass
class Optim:
    maximize: bool = False


@pytest.fixture(autouse=True)
def halving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Register the plugin, work in an empty folder, and find Hydra as it was afterwards."""
    # As an installed package would be found: Hydra takes plugins from this namespace only.
    namespace, module = ModuleType("hydra_plugins"), ModuleType("hydra_plugins.halving")
    namespace.__path__ = []
    vars(namespace)["halving"] = module
    vars(module)["HalvingSweeper"] = HalvingSweeper
    monkeypatch.setitem(sys.modules, namespace.__name__, namespace)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(HalvingSweeper, "__module__", module.__name__)
    ConfigStore.instance().store(group="hydra/sweeper", name="halving", node=HalvingConf, provider="tests")
    Plugins.instance().register(HalvingSweeper)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "sweeper"
    before = (GlobalHydra.instance().hydra, HydraConfig.instance().cfg)
    yield folder
    assert (GlobalHydra.instance().hydra, HydraConfig.instance().cfg) == before
    assert "instantiate_launcher" not in vars(Plugins.instance())
    assert [path.name for path in tmp_path.iterdir()] in ([], ["sweeper"]), "nothing is written outside the folder"
    Plugins.instance().plugin_type_to_subclass_list[Sweeper].remove(HalvingSweeper)
    del ConfigStore.instance().repo["hydra"]["sweeper"]["halving.yaml"]


def squared(batch: Batch) -> list[float | tuple[float, ...] | None]:
    return [(float(overrides[-1].partition("=")[2]) - 0.3) ** 2 for overrides in batch]


def test_hydras_own_sweeper_runs_a_grid_in_batches(halving: Path) -> None:
    batches: list[Batch] = []

    def launch(batch: Batch) -> list[float | tuple[float, ...] | None]:
        batches.append(batch)
        return [0.0] * len(batch)

    run_sweeper("basic", {"max_batch_size": 2}, ["lr=1,2,3", "optimizer=adam", "kind=choice(a,b)"], launch, halving)
    assert [len(batch) for batch in batches] == [2, 2, 2]
    expected = [[f"lr={lr}", "optimizer=adam", f"kind={kind}"] for lr in (1, 2, 3) for kind in "ab"]
    assert [overrides for batch in batches for overrides in batch] == expected


def test_a_plugin_learns_what_became_of_its_points(halving: Path) -> None:
    run_sweeper("halving", {"rounds": 30}, ["seed=1", "x=interval(0,1)"], squared, halving)
    where, low, high = (halving / "result.txt").read_text().split("\n")
    assert Path(where) == halving
    assert float(low) == pytest.approx(0.3, abs=1e-4)
    assert float(high) == pytest.approx(0.3, abs=1e-4)


def test_every_point_gets_what_all_points_share(halving: Path) -> None:
    seen: Batch = []
    run_sweeper(
        "halving",
        {"rounds": 1},
        ["seed=1", "x=interval(0,3)"],
        lambda batch: seen.extend(batch) or squared(batch),
        halving,
    )
    assert seen == [["seed=1", "x=1.0"], ["seed=1", "x=2.0"]]


def test_failed_points_do_not_end_a_search(halving: Path) -> None:
    turns: list[int] = []

    def launch(batch: Batch) -> list[float | tuple[float, ...] | None]:
        turns.append(len(batch))
        return [None, *squared(batch)[1:]] if len(turns) % 2 else [None, None]

    run_sweeper("halving", {"rounds": 4}, ["x=interval(0,1)"], launch, halving)
    assert turns == [2, 2, 2, 2]


def test_a_sweeper_told_to_stop_at_failures_names_the_point(halving: Path) -> None:
    with pytest.raises(RunFailed, match=r"halving ended the search: the point seed=1 x=1.0 failed"):
        run_sweeper(
            "halving", {"max_failure_rate": 0.0}, ["seed=1", "x=interval(0,3)"], lambda batch: [None, 1.0], halving
        )


def test_several_objectives_reach_the_plugin_as_they_are(halving: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(
        HalvingSweeper, "sweep", lambda self, arguments: seen.extend(self.launcher.launch([["x=1"]], 0))
    )
    run_sweeper("halving", {}, ["x=interval(0,1)"], lambda batch: [(1.0, 2.0)], halving)
    assert seen[0].return_value == (1.0, 2.0)
    assert seen[0].overrides == ["x=1"]


def test_options_may_be_nested_or_dotted(halving: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    depths: list[int] = []
    monkeypatch.setattr(HalvingSweeper, "sweep", lambda self, arguments: depths.append(self.inner.depth))
    for options in ({"inner": {"depth": 2}}, {"inner.depth": 3}, {}):
        run_sweeper("halving", options, [], squared, halving)
    assert depths == [2, 3, 1]


@pytest.mark.parametrize(
    ("options", "key", "message", "fix"),
    [
        ({"round": 3}, "sweep.options.round", "halving has no option 'round'", "rounds"),
        ({"inner.dept": 3}, "sweep.options.inner.dept", "has no option 'inner.dept'", "inner.depth"),
        ({"zzz": 3}, "sweep.options.zzz", "has no option", "one of rounds, max_failure_rate"),
        ({"rounds": "many"}, "sweep.options.rounds", "could not be converted to Integer", "leave it out"),
    ],
)
def test_wrong_options_are_told(halving: Path, options: dict[str, Any], key: str, message: str, fix: str) -> None:
    with pytest.raises(ConfigError) as raised:
        run_sweeper("halving", options, ["x=interval(0,1)"], squared, halving)
    (problem,) = raised.value.problems
    assert problem.key == key
    assert message in problem.message
    assert fix in (problem.fix or "")


def test_an_unknown_sweeper_gets_the_nearest_one(halving: Path) -> None:
    assert {"basic", "halving"} <= set(installed_sweepers())
    with pytest.raises(NotFound, match="installed are basic, halving") as raised:
        run_sweeper("halvin", {}, [], squared, halving)
    assert raised.value.hint == "sweep.search=hydra:halving"


def test_a_plugin_that_raises_is_told_in_its_own_words(halving: Path) -> None:
    with pytest.raises(RunFailed, match="halving failed: ValueError: no budget"):
        run_sweeper("halving", {"complain": "no budget"}, [], squared, halving)
    with pytest.raises(RunFailed, match="BasicSweeper does not support sweep type"):
        run_sweeper("basic", {}, ["x=interval(0,1)"], squared, halving)


def test_a_cancelled_study_is_no_fault_of_the_plugin(halving: Path) -> None:
    def launch(batch: Batch) -> list[float | tuple[float, ...] | None]:
        raise RunCancelled("stopped on request")

    with pytest.raises(RunCancelled):
        run_sweeper("halving", {}, ["x=interval(0,1)"], launch, halving)


def test_a_plugin_that_cannot_be_loaded_is_told(halving: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def scan(_: None) -> None:
        raise ValueError("mutable default for field optim is not allowed")

    monkeypatch.setattr("ai4sdk.studies.hydra_sweeper.create_config_search_path", scan)
    with pytest.raises(EnvironmentFault, match="cannot be loaded: ValueError: mutable default") as raised:
        run_sweeper("basic", {}, ["x=1,2"], squared, halving)
    assert "pip list" in (raised.value.hint or "")


@pytest.mark.parametrize(
    ("directions", "told"),
    [
        ((), ("minimize", False)),
        (("min",), ("minimize", False)),
        (("max",), ("maximize", True)),
        (("min", "max"), (["minimize", "maximize"], False)),
    ],
)
def test_a_plugin_is_told_which_way_is_better(
    halving: Path, monkeypatch: pytest.MonkeyPatch, directions: Any, told: Any
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(HalvingSweeper, "sweep", lambda self, _: seen.append(self.directions))
    run_sweeper("halving", {}, ["x=interval(0, 1)"], squared, halving, directions)
    assert seen == [told]


@pytest.mark.parametrize(
    ("options", "key"),
    [({"direction": "maximize"}, "direction"), ({"optim": {"maximize": True}}, "optim.maximize")],
)
def test_an_option_that_contradicts_the_study_is_refused_before_anything_runs(
    halving: Path, options: dict[str, Any], key: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        check_sweeper("halving", options, ["min"])
    (problem,) = raised.value.problems
    assert problem.key == f"sweep.options.{key}"
    assert "sweep.direction" in str(problem.fix)
    check_sweeper("halving", options, ["max"])
    check_sweeper("halving", options)  # nobody knows the objective


def test_wrong_options_are_found_without_running_anything(halving: Path) -> None:
    with pytest.raises(ConfigError, match="1 problem"):
        check_sweeper("halving", {"runds": 3})
