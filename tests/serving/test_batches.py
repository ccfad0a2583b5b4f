"""Which requests are computed together, and when they are handed over."""

import asyncio
from types import SimpleNamespace

import pytest

from ai4sdk.serving.messages import JSON, Request, Response
from ai4sdk.serving.pool import Pool, PoolSettings, _Member

REQUEST = Request("natural", "infer", JSON, b"{}")


class Line:
    """Stands for the line to a process, and notes what it is asked."""

    def __init__(self):
        self.asked = {}

    def ask(self, number, requests):
        self.asked[number] = len(requests)


def batches(*steps, rows=None):
    """Ask so many at a time, ``"done"`` between them for the oldest batch; return the batches as they were handed over."""

    async def run():
        pool = Pool(PoolSettings("t", "1", None, batch_size=16), SimpleNamespace(batch=lambda *_: None))
        line = Line()
        member = _Member("cpu", line, watches=False)
        member.ready = True
        pool._members.append(member)
        pool.facts = {"engine": {"rows": rows}}
        waiting = set()
        for step in steps:
            if step == "done":
                number = next(iter(member.batches))
                answers = [Response(200, JSON, b"{}")] * len(member.batches[number])
                pool._answered(line, number, answers, {})
            else:
                waiting |= {asyncio.ensure_future(pool.ask(REQUEST)) for _ in range(step)}
            for _ in range(3):
                await asyncio.sleep(0)
        for each in waiting:
            each.cancel()
        return list(line.asked.values())

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("steps", "handed"),
    [
        ((1,), [1]),
        ((8,), [8]),
        ((40,), [16, 16]),
        ((8, 7), [8]),
        ((8, 7, "done"), [8, 7]),
        ((8, 3, 5), [8, 8]),
        ((8, 8, 20), [8, 8]),
        ((8, 8, 20, "done"), [8, 8, 16]),
        ((1, 1, 14, "done"), [1, 1, 14]),
    ],
)
def test_as_many_as_are_computed_lie_ready(steps, handed):
    assert batches(*steps) == handed


@pytest.mark.parametrize(("steps", "handed"), [((8, 2), [8, 2]), ((8, 1), [8])])
def test_fewer_do_where_more_at_once_are_no_faster(steps, handed):
    assert batches(*steps, rows=2) == handed
