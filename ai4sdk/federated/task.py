"""A federation's task: rounds, then evaluation and package of the global module, as after any training."""

from __future__ import annotations

import gc
import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path

import torch
from flwr.clientapp import ClientApp

from ai4sdk.data.module import Data, SplitData
from ai4sdk.errors import RunFailed
from ai4sdk.federated.accounting import Spending
from ai4sdk.federated.app import make_app
from ai4sdk.federated.inline import InlineGrid
from ai4sdk.federated.late import Slow
from ai4sdk.federated.learner import Learner, own_part
from ai4sdk.federated.ledger import Ledger, Round
from ai4sdk.federated.memory import Memory
from ai4sdk.federated.participation import participation
from ai4sdk.federated.pool import PoolGrid
from ai4sdk.federated.protection import refuse_buffers
from ai4sdk.federated.rounds import Server, SitesGrid
from ai4sdk.federated.sharing import Sharing
from ai4sdk.federated.sites import divided, gathered, own_part_of, prepared_alike, samples_of, split_data
from ai4sdk.federated.strategies import make_strategy
from ai4sdk.federated.weights import Arrays, State, average, load_state
from ai4sdk.planning.plan import Plan
from ai4sdk.privacy.noise import read_secret
from ai4sdk.runs.files import read_json_lines, write_json
from ai4sdk.runs.layout import RunPaths
from ai4sdk.spec import FileDataset
from ai4sdk.spec.privacy import Privacy
from ai4sdk.spec.training import Checkpoint, EarlyStopping
from ai4sdk.worker.callbacks import require_logged
from ai4sdk.worker.checkpoint import write_checkpoint
from ai4sdk.worker.phases import Work
from ai4sdk.worker.signals import StopRequest
from ai4sdk.worker.task import open_task
from ai4sdk.worker.train import fit_marker, quiet_lightning, watched_metrics

__all__ = ["ALL", "Federated", "execute"]

log = logging.getLogger(__name__)

ALL = "server"
"""Stands among the sites for the server's own validation, on the samples of all."""


def execute(plan: Plan, paths: RunPaths, task: str, stop: StopRequest) -> None:
    """Execute the task of a federation; see `ai4sdk.worker.phases.execute`."""
    quiet_lightning()
    logging.getLogger("flwr").setLevel(logging.WARNING)
    with open_task(plan, paths, task, stop) as opened:
        federation = opened.job.federation
        if federation.join is not None:
            from ai4sdk.federated.deploy.site import Site

            Site(opened).do()
        elif federation.listen is not None:
            from ai4sdk.federated.deploy.coordinator import Coordinator

            Coordinator(opened).do()
        else:
            Federated(opened).do()


class Federated(Work):
    """The phases of a federation that is rehearsed on this machine."""

    spending: Spending | None = None
    """Accounts for what the sites' data spend, where there is noise."""

    def fit(self) -> None:
        """Do the rounds that are left."""
        if fit_marker(self.paths).is_file():
            return
        job, federation = self.job, self.job.federation
        sites, counts = self.divide()
        if unknown := sorted(set(federation.slow) - set(sites)):
            raise RunFailed(f"federation.slow: there is no site {unknown[0]}", hint=f"sites are {', '.join(sites)}")
        splits = split_data(self.data)
        every = SplitData(
            {key: splits.parts[key] for key in splits.parts if key == "val"}, splits.loader, splits.collate
        )
        self._tell_of_sites(counts)
        gc.freeze()  # some of Flower's strategies collect garbage for every array: slow where much is loaded
        app = self.app(sites)
        if self.spending is not None:
            self.spending.reserve(federation.rounds or 0)
        server = Learner(job, self.module, {ALL: every}, self.stop, self.memory, self.threads if len(sites) == 1 else 1)
        with self._grid(app, list(sites)) as reached:
            grid: SitesGrid = Slow(reached, federation.slow) if federation.slow else reached
            self._rounds(
                Server(
                    federation,
                    job.seed,
                    make_strategy(federation.strategy),
                    grid,
                    Ledger(self.paths.federation),
                    lambda number, state: server.validate(ALL, number, 0, state).metrics,
                    self.secret,
                ),
                grid,
            )

    def divide(self) -> tuple[dict[str, SplitData], dict[str, dict[str, int]]]:
        """Return what each site has, and how many samples of which class that is."""
        partition = self.job.federation.partition
        if partition is not None:
            return divided(self.data, partition)
        sites = {site: own_part_of(data, site) for site, data in self.own.items()}
        return sites, samples_of(sites)

    def app(self, sites: Mapping[str, SplitData]) -> ClientApp:
        """Return what answers for all sites, wherever it is called."""
        federation, privacy = self.job.federation, self.job.federation.privacy
        self.memory = Memory(self.paths.federation / "sites")
        self.sharing = Sharing(self.module, federation.share, federation.batchnorm)
        self.secret, private = b"", None
        if privacy is not None:
            refuse_buffers(self.sharing.shared_of(self.module))
            self.secret = read_secret(self.paths.federation / ".secret")
            self.spending = Spending(self, privacy, sites)
            private = self.spending.private_records(self.secret)
        threads = max(1, self.threads // len(sites))
        learner = Learner(self.job, self.module, sites, self.stop, self.memory, threads, private)
        return make_app(learner, privacy, self.secret, federation.compression, self.job.hardware.core_watts)

    def prepare(self) -> None:
        """Make data and module, on one thread: processes that are forked later could not use more."""
        self.records.progress.update(round=0, rounds=self.job.federation.rounds)
        threads, self.threads = self.threads, 1
        super().prepare()
        self.threads = threads

    def _data(self) -> Data:
        """Read the one dataset that is divided, or that of each site."""
        sites = self.job.federation.rehearsed
        if not sites:
            return super()._data()
        datasets = dict(zip(sites, self.job.datasets.items(), strict=True))
        self.own = {site: self.read(key, dataset) for site, (key, dataset) in datasets.items()}
        if all(isinstance(dataset, FileDataset) for _, dataset in datasets.values()):
            common = prepared_alike(self.own)  # which is known only now that all are read; refuses what is not alike
            if self.job.federation.scaling == "together":
                for site, (key, dataset) in datasets.items():
                    if self.own[site].preprocessing != common:
                        self.own[site] = self.read(key, dataset, common)
        return gathered(self.own)

    def evaluate(self) -> None:
        """Judge the global module."""
        torch.set_num_threads(self.threads)
        super().evaluate()

    def _grid(self, app: ClientApp, sites: Sequence[str]) -> AbstractContextManager[InlineGrid]:
        hardware, federation = self.job.hardware, self.job.federation
        processes = min(len(sites), federation.processes or (1 if hardware.gpus else hardware.cpus))
        if federation.engine == "ray":
            from ai4sdk.federated.ray_engine import RayGrid

            each = max(1, hardware.cpus // processes)
            how = {"cpus": hardware.cpus, "gpus": hardware.gpus, "each": each}
            return RayGrid(self.paths, sites, **how, stop=self.stop)
        if processes == 1:
            return nullcontext(InlineGrid(app, sites))
        return PoolGrid(app, sites, processes, self.stop)

    def _rounds(self, server: Server, grid: SitesGrid) -> None:
        """Do what is left of the rounds, and keep the best and the last weights."""
        job, rounds = self.job, self.job.federation.rounds
        assert rounds is not None  # planning writes it out
        server.begin(self.sharing.shared_of(self.module))
        if len(server.done) > 1:
            last = server.done[-1]
            self.records.event("resumed", round=last.number)
            self._show(last, rounds, len(grid.nodes))
            told = {event["number"] for event in read_json_lines(self.paths.events) if event["event"] == "round"}
            for record in server.done[1:]:
                if record.number not in told:  # it was killed between the two
                    self._tell(record, rounds, len(grid.nodes))
        best = _Best(job.training.checkpoint)
        reason = "all rounds made"
        for record in server.done:
            newest_is_best = best.consider(record)
        if newest_is_best:  # it may have been written down, and its weights not
            self._save(self.paths.best_checkpoint, server)
        while len(server.done) <= rounds:
            if job.training.early_stopping and stopped_early(server.done, job.training.early_stopping):
                reason = "early stopping"
                break
            self.stop.check()
            record = server.round()
            self._tell(record, rounds, len(grid.nodes))
            require_logged(watched_metrics(job), {name for known in server.done for name in known.metrics})
            if best.consider(record):
                self._save(self.paths.best_checkpoint, server)
        self._save(self.paths.last_checkpoint, server)
        took_part = participation((record.answered for record in server.done[1:]), list(grid.nodes))
        write_json(self.paths.federation / "participation.json", asdict(took_part))
        if job.federation.privacy is not None:
            self._tell_spent(job.federation.privacy, server.done)
        ended = {"reason": reason, "rounds": len(server.done) - 1, "best": best.value, "monitor": best.monitor}
        write_json(fit_marker(self.paths), {"finished": True, **ended})
        self.records.event("fit ended", **ended)

    def _tell_spent(self, privacy: Privacy, rounds: Sequence[Round]) -> None:
        """Write down what the rounds have spent."""
        assert self.spending is not None  # as privacy is accounted for
        self.spending.settle(len(rounds) - 1)

    def _tell_of_sites(self, sites: Mapping[str, Mapping[str, int]]) -> None:
        """Write down how many samples of which class are where, which the picture is drawn from."""
        if len(sites) < self.job.federation.min_sites:
            raise RunFailed(
                f"a round needs {self.job.federation.min_sites} sites, and there are {len(sites)}",
                hint=f"federation.min_sites={len(sites)} or fewer",
            )
        self.paths.federation.mkdir(exist_ok=True)
        write_json(self.paths.federation / "partition.json", sites)

    def _tell(self, record: Round, rounds: int, sites: int) -> None:
        down, up = (sum(parts) for parts in zip(*record.traffic.values(), strict=True)) if record.traffic else (0, 0)
        traffic = {"traffic/down_bytes": float(down), "traffic/up_bytes": float(up)}
        self.records.metrics({**record.metrics, **traffic}, step=record.number, epoch=record.number)
        self.records.event("round", number=record.number, sites=len(record.answered), refused=record.refused)
        self._show(record, rounds, sites)

    def _show(self, record: Round, rounds: int, sites: int) -> None:
        self.records.progress.update(
            round=record.number, rounds=rounds, sites=len(record.answered), of_sites=sites, metrics=record.metrics
        )

    def _save(self, path: Path, server: Server) -> None:
        load_state(self.module, server.state)
        load_state(self.module, State(self._mean_of_own(server), {}))
        write_checkpoint({"state_dict": self.module.state_dict(), "round": server.done[-1].number}, path)

    def _mean_of_own(self, server: Server) -> Arrays:
        """Return the mean of what sites have of parts that do not travel: what a new site would begin with."""
        if not self.sharing.own:
            return {}
        samples = {site: count for record in server.done for site, count in record.answered.items()}
        kept = {site: own_part(self.memory.load(site, since)) for site, since in server.since.items()}
        parts = {site: own for site, own in kept.items() if own}
        return average(list(parts.values()), [samples[site] for site in parts], self.sharing.own_of(self.module))


class _Best:
    """The best value of ``training.checkpoint.monitor`` over the rounds."""

    def __init__(self, settings: Checkpoint) -> None:
        self.monitor, self._settings = settings.monitor, settings
        self.value: float | None = None

    def consider(self, record: Round) -> bool:
        """Tell whether a round is the best so far."""
        value = record.metrics.get(self.monitor) if self.monitor else None
        if value is None or not self._settings.better(value, self.value):
            return False
        self.value = value
        return True


def stopped_early(rounds: Sequence[Round], how: EarlyStopping) -> bool:
    """Tell whether the metric has not become better for as many rounds as there is patience for."""
    best: float | None = None
    waited = 0
    for record in rounds:
        value = record.metrics.get(how.monitor)
        if value is None:
            continue
        best, waited = (value, 0) if how.better(value, best) else (best, waited + 1)
    return waited > 0 and waited >= how.patience
