"""The task of a site: train its own copy of the module on its own data, as often as the coordinator asks."""

from __future__ import annotations

import gc
import logging

from flwr.app import Context, Message

from ai4sdk.federated.accounting import Spending
from ai4sdk.federated.app import make_app
from ai4sdk.federated.deploy.agreement import require_agreed
from ai4sdk.federated.deploy.connection import connect
from ai4sdk.federated.deploy.questions import Questions
from ai4sdk.federated.deploy.serving import serve
from ai4sdk.federated.learner import Learner
from ai4sdk.federated.memory import Memory
from ai4sdk.federated.protection import refuse_buffers
from ai4sdk.federated.sharing import Sharing
from ai4sdk.federated.sites import own_part_of, require_alike
from ai4sdk.privacy.noise import read_secret
from ai4sdk.worker.phases import Work

__all__ = ["Site"]

log = logging.getLogger(__name__)


class Site(Work):
    """Takes part in a federation; there is no evaluation and no package of its own."""

    def do(self) -> None:
        """Prepare data and module, then answer until the federation ends."""
        progress = self.records.progress
        if "fit" in progress.finished:
            progress.enter("done")
            return
        progress.enter("start")
        self.prepare()
        self.stop.orderly()
        self.stop.check()
        progress.enter("fit")
        self.records.event("phase", phase="fit")
        self.fit()
        progress.finish("fit")
        progress.enter("done")

    def fit(self) -> None:
        """Train and validate as the coordinator asks."""
        job, federation = self.job, self.job.federation
        join = federation.join
        assert join is not None
        data = own_part_of(self.data, "this site")
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
        app = make_app(learner, privacy, secret, federation.compression)
        gc.freeze()

        def answer(message: Message, context: Context) -> Message:
            questions.take(message)
            return app(message, context)

        def agree() -> None:
            told = client.terms()
            require_agreed(told, self.plan.terms, join)
            require_alike("classes", told.get("classes"), self._class_names)
            require_alike("columns", told.get("columns"), self.data.column_names)
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
        self.records.event("fit ended", reason=reason)
        log.info("the federation has ended: %s", reason)
