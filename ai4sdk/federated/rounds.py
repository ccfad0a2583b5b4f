"""The server's loop over rounds.

Flower's own loop begins at round 1, waits for sites for ever, and ends well when every site failed. This one asks the
same strategies, and in between decides who takes part, which answers are taken, and when there are enough of them;
and it writes each round down before the next begins.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.app.exception import AppExitException
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from ai4sdk.errors import RunFailed
from ai4sdk.federated.answers import BUFFERS, METRICS, Answer, judge, mean_metrics, taken_cost
from ai4sdk.federated.app import CONFIG, ROUND, SINCE
from ai4sdk.federated.availability import available
from ai4sdk.federated.compression import expand, size_of
from ai4sdk.federated.late import LATE, as_if_fresh
from ai4sdk.federated.ledger import Ledger, Round
from ai4sdk.federated.protection import protect_all
from ai4sdk.federated.scaffold import CONTROL
from ai4sdk.federated.strategies import load_strategy_state, strategy_state
from ai4sdk.federated.weights import Arrays, State, average, from_records, to_record
from ai4sdk.spec.federation import Federation
from ai4sdk.worker.randomness import Stream

__all__ = ["Server", "SitesGrid", "choose"]

log = logging.getLogger(__name__)


class SitesGrid(Protocol):
    """A Grid that knows its sites by name."""

    @property
    def nodes(self) -> Mapping[str, int]:
        """Site → node id, of all sites that are known."""
        ...

    def gather(self, count: int) -> list[str]:
        """Return the sites that can be reached now, after waiting for so many of them where sites are real."""
        ...

    @property
    def failures(self) -> Mapping[int, Exception]:
        """What nodes of this process raised, most recently."""
        ...

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Have messages answered; with the error `LATE` for answers that are still to come."""
        ...

    def late(self, now: int) -> Mapping[int, Message]:
        """Return answers that were late and have come since, by node; ``now`` counts the tries of all rounds."""
        ...

    def forget(self, nodes: Iterable[int]) -> None:
        """Wait for no late answer of these nodes any more."""
        ...


def choose(sites: Sequence[str], fraction: float, seed: int) -> list[str]:
    """Choose the sites of a round: a share of them, at least one, in the order given."""
    count = max(1, math.floor(len(sites) * fraction + 1e-9)) if sites else 0
    draw = np.random.Generator(np.random.PCG64(seed)).random(len(sites))
    chosen = set(np.argsort(draw, kind="stable")[:count].tolist())
    return [site for number, site in enumerate(sites) if number in chosen]


class _Chosen(Grid):
    """What a strategy sees of the sites: those that were chosen, and nothing to send with."""

    def __init__(self, nodes: Sequence[int], all_sites: int) -> None:
        self._nodes, self.all_sites = list(nodes), all_sites
        self._looks = 0

    def get_node_ids(self) -> Iterable[int]:
        self._looks += 1
        if self._looks > _MOST_LOOKS:
            raise RunFailed(
                f"the strategy waits for more sites than the {len(self._nodes)} that it is offered",
                hint="federation.min_sites says how many a round needs; leave min_available_nodes and other numbers of "
                "nodes out of federation.strategy",
            )
        return list(self._nodes)

    def set_run(self, run: Any) -> None:
        raise NotImplementedError

    @property
    def run(self) -> Any:
        raise NotImplementedError

    def create_message(
        self, content: Any, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        return Message(content, dst_node_id=dst_node_id, message_type=message_type, group_id=group_id, ttl=ttl)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        raise NotImplementedError(_NOT_TO_SEND)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        raise NotImplementedError(_NOT_TO_SEND)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        raise NotImplementedError(_NOT_TO_SEND)


_MOST_LOOKS = 5
"""Looks at the sites in a round after which a strategy is waiting for more; Flower's look twice, and then every 3 s."""
_NOT_TO_SEND = "a strategy returns its messages; they are sent for it"


@dataclass(frozen=True)
class _Taken:
    """The answers of a round."""

    answers: dict[str, Answer]
    refused: dict[str, str]
    later: list[str] = field(default_factory=list)


class Server:
    """Runs the rounds of a federation.

    Parameters
    ----------
    federation
        How.
    seed
        The job's seed; each round's random numbers follow from it and the round's number.
    strategy
        Aggregates.
    grid
        Reaches the sites.
    ledger
        Where rounds are written down.
    validate
        Judges a state on the server; its metrics begin with ``server/``. ``None`` if nobody asks for it.
    secret
        What the server's noise is drawn with, where it adds any.
    """

    def __init__(
        self,
        federation: Federation,
        seed: int,
        strategy: Strategy,
        grid: SitesGrid,
        ledger: Ledger,
        validate: Callable[[int, State], dict[str, float]] | None = None,
        secret: bytes = b"",
    ) -> None:
        self._secret = secret
        self._federation, self._seed = federation, seed
        self._strategy, self._grid, self._ledger, self._validate = strategy, grid, ledger, validate
        if federation.late is not None:
            ledger.kept += federation.late.rounds
        self._pending: dict[str, list[int]] = {}
        self._arrived: dict[str, Answer] = {}
        self._late: dict[str, int] = {}
        self._spoiled: dict[str, str] = {}
        """Of sites that were late: who is still to answer, answers that have come, in which round those were asked, and
        what is wrong with others."""
        self._state = State({}, {})
        self._traffic: dict[str, list[int]] = {}
        self._costs: dict[str, dict[str, float]] = {}
        self.done: list[Round] = []
        self.since: dict[str, int] = {}
        """Site → the last round in which its answer counted."""

    @property
    def state(self) -> State:
        """The weights after the last round."""
        return self._state

    def begin(self, initial: State) -> None:
        """Go on after the last round that was finished, or begin with the initial weights."""
        self.done = self._ledger.rounds()
        if not self.done:
            record = Round(0)
            self._ledger.write(record, initial, {})
            self.done, self._state = [record], initial
            return
        self.since = {site: record.late.get(site, record.number) for record in self.done for site in record.answered}
        last = self.done[-1]
        self._state, arrays = self._ledger.state(last.number)
        load_strategy_state(self._strategy, last.strategy, arrays)
        self._ask_again(last)

    def round(self) -> Round:
        """Do the next round and write it down.

        Raises
        ------
        RunFailed
            If there were too few answers, however often it was tried, or the strategy cannot use them.
        """
        number = len(self.done)
        self._traffic, self._costs = {}, {}
        for attempt in range(1, self._federation.retries + 2):
            now = sum(record.tries for record in self.done[1:]) + attempt
            up = self._reachable(now)
            self._collect(number, now)
            free = [site for site in up if site not in self._pending and site not in self._arrived]
            chosen = choose(free, self._federation.fraction, self._seed_of(number, attempt))
            taken = _Taken({}, {})
            if len(chosen) + len(self._pending) + len(self._arrived) >= self._federation.min_sites:
                with Stream(self._seed_of(number, attempt)).use():
                    taken = self._train(number, now, chosen)
                if len(taken.answers) >= self._federation.min_sites:
                    break
            log.warning(
                "round %d, try %d: %d of %d sites are up, %d of %d answered %s",
                *(number, attempt, len(up), len(self._grid.nodes), len(taken.answers), len(chosen)),
                _why(taken.refused),
            )
        else:
            raise self._too_few(number, up, taken)
        with Stream(self._seed_of(number, 0)).use():
            self._state = self._aggregate(number, taken)
            metrics = mean_metrics(taken.answers.values())
            site_metrics = {site: answer.metrics for site, answer in taken.answers.items()}
            counted = {site: self._late.get(site, number) for site in taken.answers}
            idle = [site for site in up if site not in self._pending]
            metrics |= self._judged(number, idle, counted, site_metrics)
        plain, arrays = strategy_state(self._strategy)
        record = Round(
            number,
            up,
            chosen,
            {site: answer.samples for site, answer in taken.answers.items()},
            taken.refused,
            metrics,
            site_metrics,
            attempt,
            plain,
            self._traffic,
            {site: asked for site, asked in self._late.items() if site in taken.answers},
            dict(self._pending),
            {site: cost for site, cost in self._costs.items() if cost},
        )
        self._ledger.write(record, self._state, arrays)
        self.done.append(record)
        self.since |= counted
        self._arrived, self._late, self._spoiled = {}, {}, {}
        return record

    def _collect(self, number: int, now: int) -> None:
        """Take answers that were late, and give up those that are too late."""
        late = self._federation.late
        if late is None:
            return
        names = {node: site for site, node in self._grid.nodes.items()}
        for node, reply in self._grid.late(now).items():
            site = names[node]
            if site not in self._pending:
                continue
            asked, _ = self._pending.pop(site)
            self._note(site, reply)
            sent, _ = self._ledger.state(asked - 1)
            answer = self._judge(reply, sent, None)
            if isinstance(answer, str):
                self._spoiled[site] = answer
                continue
            self._arrived[site] = as_if_fresh(answer, sent, self._state, (1 + number - asked) ** -late.exponent)
            self._late[site] = asked
        given_up = [site for site, (asked, _) in self._pending.items() if number - asked > late.rounds]
        for site in given_up:
            log.warning("round %d: %s has not answered since round %d", number, site, self._pending.pop(site)[0])
        self._grid.forget(self._grid.nodes[site] for site in given_up)

    def _ask_again(self, last: Round) -> None:
        """Ask sites again that were late when this process ended, and that are there: in a rehearsal, all."""
        for site, (asked, then) in last.pending.items():
            if site not in self._grid.nodes:
                continue
            sent, _ = self._ledger.state(asked - 1)
            offered, parameters = self._offer([site]), to_record(sent.parameters)
            messages = self._strategy.configure_train(asked, parameters, ConfigRecord(), offered)
            self._grid.late(then)
            self._pending[site] = [asked, then]
            list(self._grid.send_and_receive(self._prepared(asked, messages, sent, self.since)))

    def _reachable(self, now: int) -> list[str]:
        """Return the sites that are up; time goes on with every try, also those of rounds before."""
        there = self._grid.gather(self._federation.min_sites)
        return available(self._federation.availability, there, now, self._seed)

    def _seed_of(self, number: int, attempt: int) -> int:
        return int(np.random.SeedSequence([self._seed, number, attempt, 1]).generate_state(1)[0])

    def _train(self, number: int, now: int, chosen: Sequence[str]) -> _Taken:
        messages: Iterable[Message] = ()
        if chosen:
            offered, parameters = self._offer(chosen), to_record(self._state.parameters)
            messages = self._strategy.configure_train(number, parameters, ConfigRecord(), offered)
        taken = self._ask(number, messages, self._state)
        self._pending |= {site: [number, now] for site in taken.later}
        self._collect(number, now)
        every = {**self._arrived, **taken.answers}  # no site is in both: who is late is asked nothing
        ordered = {site: every[site] for site in self._grid.nodes if site in every}
        return _Taken(ordered, {**self._spoiled, **taken.refused})

    def _offer(self, sites: Sequence[str]) -> _Chosen:
        return _Chosen([self._grid.nodes[site] for site in sites], len(self._grid.nodes))

    def _ask(
        self, number: int, messages: Iterable[Message], sent: State | None, counted: Mapping[str, int] | None = None
    ) -> _Taken:
        """Send messages and judge what comes back, in the order of the sites, whoever was first.

        Parameters
        ----------
        number
            The round.
        messages
            From the strategy.
        sent
            The weights in them, if weights are to come back.
        counted
            Sites whose answers in this round counted already, and the rounds in which those were asked.
        """
        nodes = self._grid.nodes
        prepared = self._prepared(number, messages, self._state, self.since | dict(counted or {}))
        names = {node: site for site, node in nodes.items()}
        controls: dict[int, Arrays] = {}
        for message in prepared:
            node, content = message.metadata.dst_node_id, message.content
            if CONTROL in content.array_records:
                controls[node] = from_records(content.array_records[CONTROL])
            self._count(names[node], size_of(content), 0)
        asked = {message.metadata.dst_node_id for message in prepared}
        got: dict[int, Message] = {}
        for reply in self._grid.send_and_receive(prepared):
            node = reply.metadata.src_node_id
            if node in asked:
                self._note(names[node], reply)
            got.setdefault(node, reply)  # the first answer of a site counts
        taken = _Taken({}, {})
        for site, node in nodes.items():
            if node not in asked:
                continue
            answer: Answer | str = "it did not answer"
            if node in got and self._is_late(got[node]):
                taken.later.append(site)
                continue
            if node in got:
                answer = self._judge(got[node], sent, controls.get(node))
            if isinstance(answer, str):
                taken.refused[site] = answer
                log.warning("round %d: %s: %s", number, site, answer)
            else:
                taken.answers[site] = answer
        return taken

    def _prepared(
        self, number: int, messages: Iterable[Message], state: State, since: Mapping[str, int]
    ) -> list[Message]:
        """Add to a strategy's messages what a site must know beside the weights."""
        nodes, buffers = self._grid.nodes, to_record(state.buffers)
        last = {nodes[site]: round_number for site, round_number in since.items() if site in nodes}
        prepared = list(messages)
        for message in prepared:
            node, content = message.metadata.dst_node_id, message.content
            config = ConfigRecord({**content.config_records.get(CONFIG, {}), ROUND: number, SINCE: last.get(node, 0)})
            # A new one for each: strategies send all sites one object.
            message.content = RecordDict({**content, BUFFERS: buffers, CONFIG: config})
        return prepared

    def _is_late(self, message: Message) -> bool:
        return self._federation.late is not None and message.has_error() and message.error.code == LATE

    def _judge(self, message: Message, sent: State | None, control: Arrays | None) -> Answer | str:
        if sent is not None and (problem := expand(message, sent.parameters, self._federation.compression)):
            return problem
        return judge(message, sent, control=control, max_update_norm=self._federation.max_update_norm)

    def _note(self, site: str, reply: Message) -> None:
        """Count what an answer took."""
        if reply.has_error():
            return
        self._count(site, 0, size_of(reply.content))
        before = self._costs.setdefault(site, {})
        for name, value in taken_cost(reply).items():
            before[name] = round(before.get(name, 0.0) + value, 3)

    def _count(self, site: str, down: int, up: int) -> None:
        before = self._traffic.get(site, [0, 0])
        self._traffic[site] = [before[0] + down, before[1] + up]

    def _aggregate(self, number: int, taken: _Taken) -> State:
        answers = list(taken.answers.values())
        buffers = average(
            [answer.buffers for answer in answers], [answer.weight for answer in answers], self._state.buffers
        )
        _keep_common_metrics(answers)
        privacy = self._federation.privacy
        if privacy is not None and privacy.mode == "central":
            clipped = protect_all(taken.answers, self._state, privacy, self._secret, number)
            log.info("round %d: %d of %d updates were clipped", number, clipped, len(answers))
        try:
            arrays, _ = self._strategy.aggregate_train(number, [answer.message for answer in answers])
        except (AppExitException, ValueError, ZeroDivisionError, KeyError) as error:
            raise RunFailed(
                f"round {number}: {type(self._strategy).__name__} cannot aggregate {len(answers)} answers: {error}",
                hint="see federation.strategy and federation.min_sites",
            ) from error
        if arrays is None:
            raise RunFailed(f"round {number}: {type(self._strategy).__name__} made nothing of {len(answers)} answers")
        return State(self._checked(number, arrays), buffers)

    def _checked(self, number: int, arrays: ArrayRecord) -> Arrays:
        made = from_records(arrays)
        for name, before in self._state.parameters.items():
            if name not in made or made[name].shape != before.shape or not np.isfinite(made[name]).all():
                raise RunFailed(
                    f"round {number}: {type(self._strategy).__name__} made weights of {name} that cannot be used",
                    hint="a smaller learning rate of the server (federation.strategy), or another strategy",
                )
        return {name: made[name].astype(before.dtype) for name, before in self._state.parameters.items()}

    def _judged(
        self, number: int, sites: Sequence[str], counted: Mapping[str, int], site_metrics: dict[str, dict[str, float]]
    ) -> dict[str, float]:
        """Have the new weights validated; metrics of sites are added to theirs. See `_ask` for ``counted``."""
        found: dict[str, float] = {}
        if self._federation.evaluate in ("sites", "both"):
            messages = self._strategy.configure_evaluate(
                number, to_record(self._state.parameters), ConfigRecord(), self._offer(sites)
            )
            taken = self._ask(number, messages, None, counted)
            found |= mean_metrics(taken.answers.values())
            for site, answer in taken.answers.items():
                site_metrics[site] = {**site_metrics.get(site, {}), **answer.metrics}
        if self._validate is not None and self._federation.evaluate in ("server", "both"):
            found |= {f"server/{name}": value for name, value in self._validate(number, self._state).items()}
        return found

    def _too_few(self, number: int, up: Sequence[str], taken: _Taken) -> RunFailed:
        needed, tries = self._federation.min_sites, self._federation.retries + 1
        why = _why(taken.refused) or f"{len(up)} of {len(self._grid.nodes)} sites were up"
        error = RunFailed(
            f"round {number}: {len(taken.answers)} of the {needed} answers that it needs, after {tries} tries: {why}",
            hint="the log says more. A smaller federation.min_sites or more federation.retries bear more; where sites "
            "failed, `ai4sdk resume` goes on with this round when they are mended",
        )
        error.__cause__ = next(iter(self._grid.failures.values()), None)
        return error


def _why(refused: Mapping[str, str]) -> str:
    """Name what was wrong, each cause once."""
    causes: dict[str, list[str]] = {}
    for site, cause in refused.items():
        causes.setdefault(cause, []).append(site)
    return "; ".join(
        f"{', '.join(sites[:3])}{'…' if len(sites) > 3 else ''}: {cause}" for cause, sites in causes.items()
    )


def _keep_common_metrics(answers: Iterable[Answer]) -> None:
    """Leave each message one record of arrays, and of metrics those that all have: strategies refuse others."""
    answers = list(answers)
    common = set.intersection(*(set(answer.metrics) for answer in answers))
    for answer in answers:
        content = answer.message.content
        del content[BUFFERS]
        for name in set(answer.metrics) - common:
            del content.metric_records[METRICS][name]
