"""The task of a site: train its own copy of the module on its own data, as often as the coordinator asks."""

from __future__ import annotations

import copy
import gc
import logging

from flwr.app import Context, Message

from ai4sdk.federated.accounting import Spending
from ai4sdk.federated.app import CONFIG, ROUND, SINCE, make_app, state_in
from ai4sdk.federated.deploy.agreement import names_of, require_agreed, require_names_alike
from ai4sdk.federated.deploy.connection import connect
from ai4sdk.federated.deploy.questions import Questions
from ai4sdk.federated.deploy.serving import serve
from ai4sdk.federated.learner import Learner, own_part
from ai4sdk.federated.memory import Memory
from ai4sdk.federated.protection import refuse_buffers
from ai4sdk.federated.sharing import Sharing
from ai4sdk.federated.sites import own_part_of, require_alike, split_data
from ai4sdk.federated.weights import State, load_state
from ai4sdk.privacy.noise import read_secret
from ai4sdk.worker.checkpoint import write_checkpoint
from ai4sdk.worker.phases import Work

__all__ = ["Site"]

log = logging.getLogger(__name__)


class Site(Work):
    """Takes part in a federation; what it was sent last is its model in the end, judged by its own samples."""

    def fit(self) -> None:
        """Train and validate as the coordinator asks."""
        job, federation = self.job, self.job.federation
        join = federation.join
        assert join is not None
        data = own_part_of(self.data, "this site")
        self.records.progress.update(round=0, rounds=federation.rounds, sites=1, of_sites=1)
        self.paths.federation.mkdir(exist_ok=True)
        sharing = Sharing(self.module, federation.share, federation.batchnorm)
        privacy, secret, private, spending = federation.privacy, b"", None, None
        if privacy is not None:
            refuse_buffers(sharing.shared_of(self.module))
            secret = read_secret(self.paths.federation / ".secret")
            spending = Spending(self, privacy, {join.site: data})
            spending.reserve(federation.rounds or 0)
            private = spending.private_records(secret)
        numbers: dict[str, int] = {}  # the coordinator tells it
        memory = Memory(self.paths.federation / "sites")
        learner = Learner(job, self.module, {join.site: data}, self.stop, memory, self.threads, private, numbers)
        once = privacy is not None and privacy.mode != "central"
        questions = Questions(self.paths.federation / "questions.json", federation.rounds or 0, once=once)
        app = make_app(learner, privacy, secret, federation.compression, job.hardware.core_watts)
        gc.freeze()
        latest: Message | None = None

        def answer(message: Message, context: Context) -> Message:
            nonlocal latest
            questions.take(message)
            if message.metadata.message_type == "evaluate":  # with the weights that the round came to
                latest = message
                if message.content.config_records[CONFIG][ROUND] == federation.rounds:
                    self._keep(message, memory)  # nothing comes after it, and the end may find this process killed
                    latest = None
            return app(message, context)

        def agree() -> None:
            told = client.terms()
            require_agreed(told, self.plan.terms, join)
            require_alike("classes", told.get("classes"), self._class_names)
            require_alike("columns", told.get("columns"), self.data.column_names)
            require_alike("inputs", told.get("inputs"), self.data.input_names)
            names = names_of(self._class_names, self.data.input_names)
            require_names_alike(client.terms(names).get("names", {}), names)
            numbers[join.site] = int(told["number"])

        def tell(kind: str, number: int, seconds: float) -> None:
            self.records.event("answered", message=kind, round=number, seconds=round(seconds, 3))
            self.records.progress.update(round=number, rounds=federation.rounds, sites=1, of_sites=1)

        with connect(join.address, join.ca, join.token_file, join.key) as client:
            reason = serve(
                client,
                answer,
                join.site,
                agree=agree,
                check=self.stop.check,
                patience=join.patience,
                tell=tell,
            )
        if spending is not None:
            spending.settle(questions.last)
        if latest is not None:
            self._keep(latest, memory)
        self.records.event("fit ended", reason=reason)
        log.info("the federation has ended: %s", reason)

    def evaluate(self) -> None:
        """Judge the global module by the site's own test samples."""
        if self._has_model and split_data(self.data).parts.get(self.job.evaluation.split) is not None:
            super().evaluate()

    def package(self) -> None:
        """Write a package of the global module, with the site's own parts and what prepares its samples."""
        if not self._has_model:
            log.warning(
                "there is no package: this site was sent no weights to validate, which federation.evaluate=sites does"
            )
            self.records.event("not packaged", reason="no weights came to validate")
        elif self.paths.scores.is_file():
            super().package()
        else:  # it has no samples to judge it by
            self._load_trained()
            self.package_with(task=self.data.task)

    @property
    def _has_model(self) -> bool:
        return self.paths.last_checkpoint.is_file()

    def _keep(self, message: Message, memory: Memory) -> None:
        """Write down the weights in a message, with the parts that are this site's own."""
        join, order = self.job.federation.join, message.content.config_records[CONFIG]
        assert join is not None
        module = copy.deepcopy(self.module)
        load_state(module, state_in(message))
        load_state(module, State(own_part(memory.load(join.site, int(order[SINCE]))), {}))  # type: ignore[arg-type] # a number
        write_checkpoint({"state_dict": module.state_dict(), "round": order[ROUND]}, self.paths.last_checkpoint)
