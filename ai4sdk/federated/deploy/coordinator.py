"""The task of a coordinator: the same rounds as in a rehearsal, with sites that join over the network."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from ai4sdk.data.module import SplitData
from ai4sdk.errors import RunFailed
from ai4sdk.federated.accounting import tell_promised
from ai4sdk.federated.deploy.certificates import read_certificate
from ai4sdk.federated.deploy.grid import DeployedGrid
from ai4sdk.federated.deploy.nothing import NoData
from ai4sdk.federated.deploy.superlink import SuperLink
from ai4sdk.federated.deploy.tokens import Registry, federation_folder
from ai4sdk.federated.learner import Learner
from ai4sdk.federated.ledger import Ledger, Round
from ai4sdk.federated.memory import Memory
from ai4sdk.federated.protection import refuse_buffers
from ai4sdk.federated.rounds import Server
from ai4sdk.federated.sharing import Sharing
from ai4sdk.federated.sites import split_data
from ai4sdk.federated.strategies import make_strategy
from ai4sdk.federated.task import ALL, Federated
from ai4sdk.federated.weights import Arrays, State
from ai4sdk.privacy.noise import read_secret
from ai4sdk.runs.files import write_json
from ai4sdk.spec.privacy import Privacy
from ai4sdk.worker.report import write_report
from ai4sdk.worker.train import fit_marker

__all__ = ["Coordinator"]

log = logging.getLogger(__name__)


class Coordinator(Federated):
    """The phases of a federation of real sites."""

    def fit(self) -> None:
        """Do the rounds that are left, with sites that come and go."""
        if fit_marker(self.paths).is_file():
            return
        federation = self.job.federation
        settings = federation.listen
        assert settings is not None
        self.paths.federation.mkdir(exist_ok=True)
        self.sharing = Sharing(self.module, federation.share, federation.batchnorm)
        privacy, secret = federation.privacy, b""
        if privacy is not None:
            refuse_buffers(self.sharing.shared_of(self.module))
            secret = read_secret(self.paths.federation / ".secret")
        certificate = read_certificate(Path(settings.certificate), Path(settings.key))
        registry = Registry(federation_folder(self.paths.root.parent) / "tokens.json")
        link = SuperLink(registry, self._terms(), settings.gone_after)
        later = federation.late.rounds if federation.late is not None else 0
        grid = DeployedGrid(link, settings, self.stop, federation.enough, later, self._tell_who_is_there)
        gc.freeze()  # some of Flower's strategies collect garbage for every array: slow where much is loaded
        server = Server(
            federation,
            self.job.seed,
            make_strategy(federation.strategy),
            grid,
            Ledger(self.paths.federation),
            self._validate(),
            secret,
        )
        port = link.start(settings.address, *certificate)
        log.info("sites are waited for at port %d", port)
        self.records.event("listening", port=port)
        try:
            self._rounds(server, grid)
            link.end("all rounds are made")
        finally:
            link.stop()

    def evaluate(self) -> None:
        """Judge the global module, where the coordinator has samples."""
        if not isinstance(self.data.datamodule, NoData):
            super().evaluate()
            return
        write_report(self.paths)
        log.info("the coordinator has no dataset: the metrics of the sites are the evaluation")

    def package(self) -> None:
        """Write the package of the global module; without samples its ``example_input_array`` says what it takes."""
        if not isinstance(self.data.datamodule, NoData):
            super().package()
            return
        if self.module.example_input_array is None:
            log.warning(
                "there is no package, as nothing says what the module takes: set self.example_input_array in it, or "
                "give the coordinator a dataset; the weights are in %s",
                self.paths.checkpoints,
            )
            self.records.event("not packaged", reason="no example of an input")
            return
        self._load_trained()
        self.write_package(task=self.job.task, example_input=self.module.example_input_array)

    def _terms(self) -> dict[str, object]:
        """Return what sites are told of the federation."""
        job = self.job
        return {
            "run": self.paths.id,
            "name": job.name,
            "description": job.description,
            "terms": self.plan.terms,
            "classes": self._class_names,
            "columns": self.data.column_names,
            "inputs": self.data.input_names,
        }

    def _validate(self) -> Callable[[int, State], dict[str, float]] | None:
        """Return what judges a state by the coordinator's own validation samples, where that is asked for."""
        if self.job.federation.evaluate not in ("server", "both"):
            return None
        splits = None if isinstance(self.data.datamodule, NoData) else split_data(self.data)
        if splits is None or "val" not in splits.parts:
            raise RunFailed(
                "the coordinator is to validate, and has no validation samples", hint="federation.evaluate=sites"
            )
        every = SplitData({"val": splits.parts["val"]}, splits.loader, splits.collate)
        memory = Memory(self.paths.federation / "sites")
        learner = Learner(self.job, self.module, {ALL: every}, self.stop, memory, self.threads)
        return lambda number, state: learner.validate(ALL, number, 0, state).metrics

    def _tell_who_is_there(self, there: list[str], needed: int) -> None:
        waits = {"there": there, "needed": needed} if len(there) < needed else None
        self.records.progress.update(waits_for=waits)

    def _tell(self, record: Round, rounds: int, sites: int) -> None:
        super()._tell(record, rounds, sites)
        self._samples = {**getattr(self, "_samples", {}), **record.answered}
        counts = {site: {"samples": samples} for site, samples in self._samples.items()}
        write_json(self.paths.federation / "partition.json", counts)

    def _tell_spent(self, privacy: Privacy, rounds: Sequence[Round]) -> None:
        tell_promised(self, privacy, len(rounds) - 1)  # whose data it was, is written down at the sites

    def _mean_of_own(self, server: Server) -> Arrays:
        return {}  # it stays at the sites
