"""An object is processed once, whoever fails: the object, the model, a store, this server, another one."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ai4sdk.errors import DataError
from ai4sdk.serving.events.claims import Claims
from ai4sdk.serving.events.counters import Counters
from ai4sdk.serving.events.ledger import Ledger
from ai4sdk.serving.events.loop import Loop
from ai4sdk.serving.events.names import copy_name, error_name, result_name
from ai4sdk.serving.events.pruning import Pruning
from ai4sdk.serving.events.stores.base import Item, Refused
from ai4sdk.serving.events.work import Ask, Outcome, Work, pause
from ai4sdk.serving.messages import JSON, Request, Response
from ai4sdk.spec.serving_events import ServingEvents
from tests.serving.events.memory import Killed, MemoryStore, Pause, Power


def answer(body: Any, status: int = 200) -> Response:
    return Response(status, JSON, json.dumps(body).encode())


async def length(request: Request) -> Response:
    return answer({"length": len(request.body)})


class World:
    """Three buckets that outlive servers, and the folder of each server."""

    def __init__(self, folder: Path, *, moves: bool = False) -> None:
        self.folder, self.moves = folder, moves
        self.input: dict[str, bytes] = {}
        self.output: dict[str, bytes] = {}
        self.dead: dict[str, bytes] = {}
        self.asked: list[Request] = []
        self.time = 0.0

    def server(
        self, ask: Ask = length, name: str = "one", power: Power | None = None, once: bool = False, **settings: Any
    ) -> Server:
        return Server(self, ask, name, power or Power(), once, settings)

    def results(self) -> dict[str, Any]:
        return {name: json.loads(data) for name, data in self.output.items() if not name.startswith(".")}

    def letters(self) -> dict[str, Any]:
        return {name: json.loads(data) for name, data in self.dead.items() if name.endswith(".error.json")}


class Server:
    """One life of a server."""

    def __init__(self, world: World, ask: Ask, name: str, power: Power, once: bool, settings: dict[str, Any]) -> None:
        given = {"every": 0.01, "settle": 0, "backoff": 0.001, "longest_backoff": 0.002, "lease": 10, **settings}
        self.events = ServingEvents(input="in", output="out", dead_letter="dead", **given)
        self.world, self.power, self.once = world, power, once
        self.source = MemoryStore(world.input, power)
        self.output = MemoryStore(world.output, power, moves=world.moves)
        self.dead = MemoryStore(world.dead, power, moves=world.moves)
        self.counters = Counters()

        async def asked(request: Request) -> Response:
            world.asked.append(request)
            power.step(lambda: None)
            return await ask(request)

        self.ask = asked
        self.name = name

    async def __aenter__(self) -> Server:
        self.ledger = Ledger(self.world.folder / self.name, "in", "out")
        claims = Claims(self.output, self.name, self.events.lease, clock=lambda: self.world.time)
        self.work = Work(
            self.events,
            self.source,
            self.output,
            self.dead,
            self.ledger,
            claims,
            self.ask,
            self.counters,
            once=self.once,
        )
        pruning = Pruning(
            self.source, self.output, self.dead, self.name, self.events.prefixes, self.events.keep,
            now=lambda: self.world.time, clock=lambda: self.world.time,
        )  # fmt: skip
        self.loop = Loop(self.events, self.source, self.work, self.ledger, pruning)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.work.close()
        self.ledger.close()

    def run(self) -> Counters:
        """Process what is there."""

        async def run() -> None:
            async with self:
                await self.loop.run(once=True)

        asyncio.run(run())
        return self.counters

    def process(self, item: Item) -> Outcome:
        async def process() -> Outcome:
            async with self:
                return await self.work.process(item)

        return asyncio.run(process())

    def watch(self, until: Callable[[], bool]) -> Counters:
        """Watch until something is so, then stop."""

        async def run() -> None:
            async with self:
                task = asyncio.ensure_future(self.loop.run())
                while not until() and not task.done():
                    await asyncio.sleep(0.001)
                self.loop.stop()
                await task

        asyncio.run(asyncio.wait_for(run(), 60))
        return self.counters


@pytest.fixture(params=["moves", "no moves"])
def world(request, tmp_path):
    return World(tmp_path, moves=request.param == "moves")


def item_of(world: World, key: str) -> Item:
    return MemoryStore(world.input).item(key)


def test_each_object_gets_its_result(world):
    world.input.update({"a/1.jpg": b"one", "b.bin": b"three"})
    counters = world.server().run()
    one, two = item_of(world, "a/1.jpg"), item_of(world, "b.bin")
    assert world.results() == {
        result_name("a/1.jpg", one.version): {"length": 3},
        result_name("b.bin", two.version): {"length": 5},
    }
    assert counters.done == 2
    assert {(each.protocol, each.content_type, each.parameters["name"]) for each in world.asked} == {
        ("natural", "image/jpeg", "a/1.jpg"),
        ("natural", "application/octet-stream", "b.bin"),
    }


def test_what_is_done_stays_done_also_when_its_result_was_taken_away(world):
    world.input["a"] = b"x"
    world.server().run()
    for name in [*world.results()]:
        del world.output[name]
    world.server().run()
    assert len(world.asked) == 1
    assert world.results() == {}


def test_a_new_version_is_processed_beside_the_old_one(world):
    world.input["a"] = b"x"
    world.server().run()
    world.input["a"] = b"xy"
    world.server().run()
    assert sorted(each["length"] for each in world.results().values()) == [1, 2]


def test_without_its_ledger_a_server_knows_from_the_claims(world):
    world.input["a"] = b"x"
    world.server().run()
    world.output.pop(*world.results())
    counters = world.server(name="another").run()
    assert (len(world.asked), counters.recognised, counters.done) == (1, 1, 0)
    assert world.results() == {}


def test_the_objects_fault_is_a_dead_letter_at_once(world):
    async def refuse(request):
        return answer({"error": "no picture"}, 422)

    world.input["a/b.jpg"] = b"x"
    counters = world.server(refuse).run()
    item = item_of(world, "a/b.jpg")
    letter = world.letters()[error_name("a/b.jpg", item.version)]
    assert {"reason": "no picture", "status": 422, "attempts": 1, "key": "a/b.jpg"}.items() <= letter.items()
    assert letter["request"]
    assert world.dead[letter["copy"]] == b"x"
    assert letter["copy"] == copy_name("a/b.jpg", item.version)
    assert (counters.dead, len(world.asked)) == (1, 1)
    world.server().run()
    assert len(world.asked) == 1


@pytest.mark.parametrize("trouble", ["status", "error", "timeout"])
def test_our_fault_is_tried_again_and_then_a_dead_letter(world, trouble):
    async def fail(request):
        if trouble == "status":
            return answer({"error": "out of memory"}, 500)
        if trouble == "error":
            raise RuntimeError("out of memory")
        await asyncio.sleep(60)

    world.input["a"] = b"x"
    counters = world.server(fail, retries=2, timeout=0.01 if trouble == "timeout" else 60).run()
    (letter,) = world.letters().values()
    assert letter["attempts"] == len(world.asked) == 3
    assert ("no answer" if trouble == "timeout" else "out of memory") in letter["reason"]
    assert counters.retries == 2


def test_a_retry_that_succeeds_leaves_no_letter(world):
    tries = itertools.count()

    async def third_time(request):
        return answer({}) if next(tries) == 2 else answer({}, 500)

    world.input["a"] = b"x"
    world.server(third_time).run()
    assert len(world.results()) == 1
    assert world.dead == {}


def test_a_model_that_is_busy_is_waited_for_and_nothing_is_counted_against_the_object(world):
    tries = itertools.count()

    async def busy(request):
        return answer({}) if next(tries) == 20 else answer({}, 503)

    world.input["a"] = b"x"
    counters = world.server(busy, retries=0).watch(lambda: bool(world.results()))
    assert (counters.unavailable, counters.dead, counters.done) == (20, 0, 1)


def test_once_does_not_wait_for_ever_and_the_next_time_is_a_fresh_one(world):
    async def busy(request):
        return answer({}, 503)

    world.input["a"] = b"x"
    with pytest.raises(DataError, match="could not be asked"):
        world.server(busy, once=True).run()
    assert world.dead == {}
    assert world.server().run().done == 1


def test_a_waiting_retry_leaves_its_place_to_others(world):
    async def some(request):
        return answer({}, 500) if request.parameters["name"] == "a" and not world.results() else answer({})

    world.input.update({"a": b"x", "b": b"y"})
    world.server(some, concurrency=1, retries=100, backoff=0.01, longest_backoff=0.01).run()
    assert len(world.results()) == 2


def test_objects_that_are_too_large_are_not_read(world):
    world.input["a"] = bytes(101)
    server = world.server(max_object=100)
    server.run()
    (letter,) = world.letters().values()
    assert letter["copy"] is None
    assert "101 B" in letter["reason"]
    assert not any(step.startswith("read") for step in server.source.log)


def test_an_object_of_unknown_size_is_read_no_further_than_allowed(world):
    world.input["a"] = bytes(101)
    item = item_of(world, "a")
    assert world.server(max_object=100).process(Item("a", item.version, -1)) == Outcome.DEAD
    assert world.asked == []
    assert len(world.letters()) == 1


def test_an_answer_that_is_no_json_is_a_dead_letter(world):
    async def picture(request):
        return Response(200, "image/png", b"x")

    world.input["a"] = b"x"
    world.server(picture).run()
    (letter,) = world.letters().values()
    assert "image/png" in letter["reason"]


def test_a_store_that_is_away_is_waited_for(world):
    world.input["a"] = b"x"
    server = world.server(retries=0)
    server.output.away = 7
    server.source.away = 2
    counters = server.watch(lambda: bool(world.results()) and not server.loop._busy)
    assert (counters.done, counters.dead) == (1, 0)
    assert counters.store_errors >= 9


def test_objects_that_cannot_be_read_for_now_keep_no_others_waiting(world):
    """As on a disk with bad sectors; they are no dead letters, as the store may just be ill."""
    world.input.update({f"bad {number}": b"x" for number in range(20)} | {"good": b"xy"})
    server = world.server(concurrency=1)
    read, ill = server.source.read, True

    def damaged(item, most):
        if ill and item.key.startswith("bad"):
            raise DataError(f"cannot read {item.key}: Input/output error")
        return read(item, most)

    server.source.read = damaged
    server.watch(lambda: bool(world.results()))
    assert [each["length"] for each in world.results().values()] == [2]
    ill = False
    server = world.server()
    server.watch(lambda: len(world.results()) == 21)
    assert world.dead == {}


def test_once_says_that_a_store_is_away(world):
    world.input["a"] = b"x"
    server = world.server(once=True)
    server.output.away = 1000
    with pytest.raises(DataError, match="away"):
        server.run()
    assert world.server(once=True).run().done == 1


def test_an_object_that_the_store_refuses_to_give_is_a_dead_letter_without_copy(world):
    world.input["a"] = b"x"
    server = world.server(retries=1)

    def refuse(item, most):
        raise Refused("cannot read a: the server refuses access")

    server.source.read = refuse
    server.run()
    (letter,) = world.letters().values()
    assert letter["copy"] is None
    assert "refuses" in letter["reason"]


def test_a_result_that_the_store_refuses_to_take_is_a_dead_letter(world):
    world.input["a"] = b"x"
    server = world.server(retries=1)

    def refuse(*_):
        raise Refused("cannot write to out: there is a folder of that name")

    server.output.move = refuse
    if not world.moves:
        create = server.output.create
        server.output.create = lambda name, data: create(name, data) if name.startswith(".") else refuse()
    server.run()
    (letter,) = world.letters().values()
    assert "there is a folder" in letter["reason"]
    assert world.results() == {}


def test_a_result_that_waits_for_its_store_is_published_in_the_next_life_without_its_object(tmp_path):
    world = World(tmp_path, moves=True)
    world.input["a"] = b"x"
    item = item_of(world, "a")
    server = world.server(grace=0.01)

    def away(*_):
        raise DataError("cannot reach out: it is away")

    server.output.move = away
    server.watch(lambda: server.counters.store_errors > 0)
    assert world.results() == {}
    del world.input["a"]
    counters = world.server().run()
    assert list(world.results()) == [result_name("a", item.version)]
    assert (counters.done, len(world.asked)) == (1, 1)


def test_an_object_that_changes_before_it_is_read_is_processed_as_what_it_is_then(world):
    world.input["a"] = b"x"
    server = world.server()
    old = item_of(world, "a")
    world.input["a"] = b"xyz"
    assert server.process(old) == Outcome.GONE
    world.server().run()
    assert [each["length"] for each in world.results().values()] == [3]


def test_one_that_was_gone_and_comes_back_is_processed(world):
    world.input["a"] = b"x"
    item = item_of(world, "a")
    del world.input["a"]
    assert world.server().process(item) == Outcome.GONE
    world.input["a"] = b"x"
    world.server().run()
    assert len(world.results()) == 1


def test_filters(world):
    world.input.update({"in/a.jpg": b"", "in/b.png": b"", "c.jpg": b"", "in/.d.jpg": b""})
    world.server(prefixes=["in/"], suffixes=[".jpg"]).run()
    assert [each.parameters["name"] for each in world.asked] == ["in/a.jpg"]


def test_no_more_is_listed_or_begun_than_can_be_handled(world):
    world.input.update({f"{number:03d}": b"" for number in range(100)})
    running, most, listed = 0, 0, []

    async def slow(request):
        nonlocal running, most
        running += 1
        most = max(most, running)
        listed.append((len(server.source.log), len(world.asked)))
        while most < 3:  # that so many are at once
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.001)
        running -= 1
        return answer({})

    server = world.server(slow, concurrency=3)
    server.run()
    assert most == 3
    assert len(world.results()) == 100
    pages = [sum(step.startswith("list") for step in server.source.log[:log]) for log, _ in listed]
    for page, (_, asked) in zip(pages, listed, strict=True):
        assert page * 3 <= asked + 4 * 3 + 3  # what is begun or waits, and the page at hand


def test_two_servers_share_the_work_and_do_nothing_twice(world):
    world.input.update({f"{number}": b"" for number in range(60)})

    async def slow(request):
        await asyncio.sleep(0.002)
        return answer({})

    async def both() -> list[Counters]:
        async with world.server(slow, "one") as one, world.server(slow, "two") as two:
            await asyncio.gather(one.loop.run(once=True), two.loop.run(once=True))
            return [one.counters, two.counters]

    counters = asyncio.run(both())
    assert len(world.asked) == len(world.results()) == 60
    assert sum(each.done for each in counters) == 60
    assert all(each.done for each in counters)


def test_what_a_silent_server_holds_is_taken_over_after_its_lease_and_not_before(world):
    world.input["a"] = b"x"
    item = item_of(world, "a")
    with pytest.raises(Killed):
        world.server(name="one", power=Power(2)).process(item)
    assert world.server(name="two").process(item) == Outcome.HELD

    async def patient() -> list[Outcome]:
        found = []
        async with world.server(name="two") as two:
            for world.time in (0, 9.9, 10.0):
                found.append(await two.work.process(item))
        return found

    assert asyncio.run(patient()) == [Outcome.HELD, Outcome.HELD, Outcome.DONE]


def test_a_server_that_was_asleep_does_not_publish_what_another_has_taken_over(world):
    world.input["a"] = b"x"
    item = item_of(world, "a")

    async def slept(request):
        if len(world.asked) > 1:
            return answer("two")
        async with world.server(slept, name="two") as two:
            for world.time in (0, 100):
                await two.work.process(item)
        for name in [*world.results()]:
            del world.output[name]  # a reader takes it away
        return answer("one")

    assert world.server(slept, name="one").process(item) == Outcome.RELEASED
    assert world.results() == {}


def test_a_claim_is_kept_warm_while_it_takes_long(world):
    world.input["a"] = b"x"
    item = item_of(world, "a")

    async def long(request):
        async with world.server(name="two", lease=1) as two:
            for world.time in range(0, 4):
                assert await two.work.process(item) == Outcome.HELD
                await asyncio.sleep(0.4)
        return answer({})

    assert world.server(long, name="one", lease=1).process(item) == Outcome.DONE
    assert len(world.asked) == 1


def test_stopping_lets_objects_end(world):
    world.input.update({"a": b"", "b": b""})
    begun = asyncio.Event()

    async def slow(request):
        begun.set()
        await asyncio.sleep(0.05)
        return answer({})

    counters = world.server(slow, concurrency=1).watch(begun.is_set)
    assert counters.done == 1
    assert counters.released == 0


def test_what_does_not_end_in_time_is_given_back_and_counts_as_no_death(world):
    world.input["a"] = b""
    for _ in range(6):
        begun = asyncio.Event()

        async def hang(request, begun=begun):
            begun.set()
            await asyncio.sleep(3600)

        counters = world.server(hang, grace=0.01, retries=1).watch(begun.is_set)
        assert counters.released == 1
    assert world.server(name="another").run().done == 1


def test_an_object_that_ends_the_server_each_time_becomes_a_dead_letter_and_others_do_not(world):
    world.input.update({name: name.encode() for name in "abcdef"})

    async def deadly(request):
        if request.parameters["name"] == "c":
            raise Killed
        await asyncio.sleep(0)
        return answer({})

    for _ in range(20):
        try:
            asyncio.run(run_to_the_end(world.server(deadly, deaths=3)))
            break
        except Killed:
            continue
    else:
        pytest.fail("it never ends")
    (letter,) = world.letters().values()
    assert letter["key"] == "c"
    assert letter["deaths"] == 3
    assert len(world.results()) == 5


async def run_to_the_end(server: Server) -> None:
    """As a process: the first thing that kills ends all of it."""
    async with server:
        for item in server.ledger.unfinished():
            await server.work.process(item)
        for page in server.source.pages([]):
            for item in page:
                if not server.ledger.is_finished(item):
                    await server.work.process(item)


@pytest.mark.parametrize("what", ["result", "error"])
def test_a_kill_before_or_after_any_step_neither_loses_nor_doubles_an_object(tmp_path, what):
    """A reader takes what is published away at once, so that a second one would be seen."""

    async def ask(request):
        return answer({"length": len(request.body)}, 200 if what == "result" else 422)

    steps = 0
    for number in itertools.count():
        world = World(tmp_path / str(number), moves=True)
        world.input["a"] = b"x"
        seen: list[str] = []

        def take_away(world: World = world, seen: list[str] = seen) -> None:
            for store in (world.output, world.dead):
                for name in [name for name in store if not name.startswith(".") and name.endswith(".json")]:
                    seen.append(name)
                    del store[name]

        try:
            asyncio.run(run_to_the_end(world.server(ask, power=Power(number / 2))))
        except Killed:
            steps += 1
        take_away()
        # The next life may end, too.
        with contextlib.suppress(Killed):
            asyncio.run(run_to_the_end(world.server(ask, power=Power(number % 7))))
        take_away()
        asyncio.run(run_to_the_end(world.server(ask)))
        take_away()
        version = item_of(world, "a").version
        assert seen == [result_name("a", version) if what == "result" else error_name("a", version)], number
        if number / 2 > steps + 2:
            break
    assert steps >= 15


class Reader:
    """Takes what is published away at once, so that a second one would be seen."""

    def __init__(self, world: World) -> None:
        self.world, self.seen = world, []

    def take_away(self) -> None:
        for store in (self.world.output, self.world.dead):
            for name in [name for name in store if not name.startswith(".") and name.endswith(".json")]:
                self.seen.append((name, store.pop(name)))


@pytest.mark.parametrize("status", [200, 422])
def test_a_server_that_sleeps_at_any_step_longer_than_its_lease_and_others_do_nothing_twice(tmp_path, status):
    """Another takes over meanwhile, and may be killed at any step itself, so that a third one does."""

    async def ask(request):
        return answer({"length": len(request.body)}, status)

    steps = 0
    for after, killed_at in itertools.product(range(1, 14), [*range(1, 16), 1000]):
        if (after + killed_at) % 2:  # half of them show as much
            continue
        world = World(tmp_path / f"{after}-{killed_at}", moves=True)
        world.input["a"] = b"x"
        item, reader = item_of(world, "a"), Reader(world)

        def others(
            world: World = world, item: Item = item, reader: Reader = reader, killed_at: int = killed_at
        ) -> None:
            nonlocal steps
            steps += 1
            for name, power in (("two", Power(killed_at)), ("three", Power())):
                asyncio.run(patient(world.server(ask, name, power), item))
                reader.take_away()

        assert world.server(ask, "one", Pause(after, others)).process(item) in Outcome
        reader.take_away()
        asyncio.run(patient(world.server(ask, "four"), item))
        reader.take_away()
        make = result_name if status == 200 else error_name
        assert [name for name, _ in reader.seen] == [make("a", item.version)], (after, killed_at)
    assert steps > 50


async def patient(server: Server, item: Item) -> None:
    """Process a version also if a silent server has it; the power may fail."""
    async with server:
        with contextlib.suppress(Killed):
            for _ in range(2):
                await server.work.process(item)
                server.world.time += 100


def test_a_kill_before_or_after_any_step_on_s3_leaves_one_result(tmp_path):
    for number in range(40):
        world = World(tmp_path / str(number))
        world.input["a"] = b"x"
        with contextlib.suppress(Killed):
            asyncio.run(run_to_the_end(world.server(power=Power(number / 2))))
        asyncio.run(run_to_the_end(world.server()))
        assert len(world.results()) == 1, number
        assert world.dead == {}


def test_what_was_begun_and_cannot_be_ended_does_not_keep_others_waiting(world):
    world.input["a"] = b"x"
    with pytest.raises(Killed):
        world.server(power=Power(3)).process(item_of(world, "a"))
    world.input["b"] = b"y"
    server = world.server(timeout=0.05)
    create = server.output.create

    def refuse(name, data):
        if name.endswith(".2"):  # the claim that would take it over
            raise Refused("cannot write to out")
        return create(name, data)

    server.output.create = refuse
    server.watch(lambda: len(world.results()) == 1)
    assert list(world.results()) == [result_name("b", item_of(world, "b").version)]


def test_notifications_are_looked_up_and_forged_ones_do_nothing(world):
    async def run() -> Counters:
        async with world.server(every=3600) as server:
            task = asyncio.ensure_future(server.loop.run())
            while not server.counters.listings:
                await asyncio.sleep(0.001)
            world.input["a"] = b"x"
            assert server.loop.offer(["a", "a", "not there", ".hidden", "a"]) == 4
            while not world.results():
                await asyncio.sleep(0.001)
            server.loop.offer(["a"])
            await asyncio.sleep(0.02)
            server.loop.stop()
            await task
            return server.counters

    counters = asyncio.run(asyncio.wait_for(run(), 60))
    assert (counters.done, len(world.asked), counters.dead) == (1, 1, 0)


def test_more_notifications_than_can_be_kept_bring_the_listing_forward(world, monkeypatch):
    monkeypatch.setattr("ai4sdk.serving.events.loop._HINTS", 2)

    async def run() -> None:
        async with world.server(every=3600) as server:
            task = asyncio.ensure_future(server.loop.run())
            while not server.counters.listings:
                await asyncio.sleep(0.001)
            world.input.update(dict.fromkeys("abcdef", b""))
            server.loop.offer([*"abcdef"])
            while len(world.results()) < 6:
                await asyncio.sleep(0.001)
            server.loop.stop()
            await task

    asyncio.run(asyncio.wait_for(run(), 60))


def test_pauses_grow_and_are_bounded():
    assert [pause(number, 1, 60, lambda: 1.0) for number in (1, 2, 3, 7, 1000)] == [1, 2, 4, 60, 60]
    assert all(0 <= pause(5, 1, 60) <= 16 for _ in range(100))
