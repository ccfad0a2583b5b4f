"""What is gone from the input for long is forgotten, and nothing is done twice for it."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai4sdk.serving.events.names import claim_name, digest_of, mark_name, result_name
from ai4sdk.serving.events.pruning import Traces, judge, traces_of
from ai4sdk.serving.events.stores.base import Refused
from ai4sdk.serving.events.work import Outcome
from tests.serving.events.memory import Killed, Power
from tests.serving.events.test_work import Server, World, item_of

DAY = 86400.0


@pytest.fixture(params=["moves", "no moves"])
def world(request, tmp_path, monkeypatch):
    monkeypatch.setattr("random.randrange", lambda _: 0x2B)  # the folder of the claims of every object below
    monkeypatch.setattr("ai4sdk.serving.events.pruning.digest_of", in_one_folder)
    monkeypatch.setattr("ai4sdk.serving.events.names.digest_of", in_one_folder)
    world = World(tmp_path, moves=request.param == "moves")
    world.time = 1000 * DAY
    return world


def in_one_folder(key: str, version: str) -> str:
    return f"2b{digest_of(key, version)[2:]}"


def traces(world: World) -> list[str]:
    return [name for name in world.output if name.startswith(".ai4sdk/claims/")]


def later(world: World, days: float, **settings: object) -> None:
    world.time += days * DAY
    world.server(**settings).run()


# What is to be done


def test_names_in_a_folder_of_claims_are_read_and_others_left_out():
    one, two = digest_of("a", "1"), digest_of("b", "1")
    names = [
        claim_name("a", "1", 2), claim_name("a", "1", 10), claim_name("a", "1", 1),
        mark_name(one, 7, "s2"), mark_name(one, 5, "s9"), mark_name(two, 3, "s1"),
    ]  # fmt: skip
    others = ["", "README", f"{one}.x", f"{one}.missed-", f"{one}.missed-1-", "1.1", f"{one}.1.part"]
    assert traces_of([*(name.rpartition("/")[2] for name in names), *others]) == {
        one: Traces((1, 2, 10), ((5, "s9"), (7, "s2"))),
        two: Traces((), ((3, "s1"),)),
    }


@given(st.lists(st.text("0123456789abcdef.missed-s", max_size=60)))
def test_no_name_makes_it_fail(names):
    traces_of(names)


@pytest.mark.parametrize(
    ("traces", "listed", "now", "what"),
    [
        (Traces((1,)), True, 0, "leave"),
        (Traces((1,)), False, 0, "mark"),
        (Traces((1,), ((0, "me"),)), True, 1000, "unmark"),
        (Traces((1,), ((0, "me"),)), False, 9, "leave"),
        (Traces((1,), ((0, "me"),)), False, 10, "forget"),
        (Traces((1,), ((0, "other"),)), False, 19, "leave"),
        (Traces((1,), ((0, "other"),)), False, 20, "forget"),
        (Traces((1,), ((0, "other"), (1, "me"))), False, 19, "leave"),
        (Traces((1,), ((1000, "me"),)), False, 0, "leave"),  # a clock that was set back
        (Traces((), ((0, "other"),)), False, 1, "unmark"),  # what a kill left
    ],
)
def test_what_is_done_about_a_version(traces, listed, now, what):
    assert judge(traces, listed=listed, now=now, keep=10, server="me") == what


# What becomes of it


def test_a_service_that_runs_for_years_keeps_no_more_than_is_in_its_input(world, monkeypatch):
    monkeypatch.setattr("ai4sdk.serving.events.ledger._SLACK", 10)
    sizes = []
    for day in range(80):
        world.input.update({f"{day}-{number}": b"x" for number in range(5)})
        later(world, 1)
        for key in [*world.input]:
            if int(key.partition("-")[0]) <= day - 3:  # somebody tidies up
                del world.input[key]
        sizes.append((len(traces(world)), (world.folder / "one" / "ledger.jsonl").stat().st_size))
    assert len(world.results()) == len(world.asked) == 400
    assert max(count for count, _ in sizes) < 5 * 40 * 2  # days, and a mark each
    assert max(size for _, size in sizes) < 20_000
    assert sizes[-1][0] <= sizes[50][0] + 10


def test_what_is_put_back_before_it_is_forgotten_is_not_done_again(world):
    world.input["a"] = b"x"
    world.server().run()
    world.output.pop(*world.results())
    for _ in range(10):
        del world.input["a"]  # not mounted
        later(world, 1)
        later(world, 28)
        world.input["a"] = b"x"
        later(world, 1)
        assert len(traces(world)) == 1
    assert len(world.asked) == 1


def test_what_is_put_back_after_it_was_forgotten_is_done_once_more(world):
    world.input["a"] = b"x"
    world.server().run()
    world.output.pop(*world.results())
    del world.input["a"]
    later(world, 1)
    later(world, 31)
    assert traces(world) == []
    world.input["a"] = b"x"
    for name in ("one", "two", "one"):
        world.server(name=name).run()
    assert len(world.asked) == 2
    assert len(world.results()) == 1


def test_what_other_servers_see_is_left_to_them(world):
    """One that lists a part knows nothing of the rest, and a listing may not show what is there."""
    world.input.update({"a/1": b"x", "b/1": b"x"})
    world.server().run()
    for _ in range(4):
        later(world, 31, prefixes=["a/"])
    assert len(traces(world)) == 2
    server = world.server()
    listed = server.source.pages
    server.source.pages = lambda prefixes: ([item for item in page if item.key == "a/1"] for page in listed(prefixes))
    world.time += 31 * DAY
    server.run()
    later(world, 0)
    assert len(world.asked) == 2


def test_claims_of_a_server_that_is_no_more_are_removed_by_another(world):
    world.input["a"] = b"x"
    world.server(name="one").run()
    del world.input["a"]
    later(world, 1, name="one")
    for days, count in ((31, 2), (28, 2), (2, 0)):
        later(world, days, name="two")
        assert len(traces(world)) == count


def test_what_was_given_back_and_is_gone_is_forgotten_too(world):
    world.input["a"] = b"x"
    item = item_of(world, "a")
    del world.input["a"]
    assert world.server().process(item) == Outcome.GONE
    later(world, 1)
    later(world, 31)
    assert traces(world) == []


def test_what_a_server_that_is_no_more_had_staged_is_published_although_its_object_is_gone(tmp_path, world):
    if not world.moves:
        pytest.skip("nothing is staged")
    world.input["a"] = b"x"
    item = item_of(world, "a")
    with pytest.raises(Killed):
        world.server(name="one", power=Power(6)).process(item)
    assert [json.loads(world.output[name])["state"] for name in traces(world)] == ["staged"]
    assert world.results() == {}
    del world.input["a"]

    async def watch() -> None:
        async with world.server(name="two") as two:
            for _ in range(3):
                world.time += 61
                await two.loop._list()
                await two.loop._settle()

    asyncio.run(watch())
    assert list(world.results()) == [result_name("a", item.version)]


def test_a_kill_at_any_step_loses_and_doubles_nothing(world):
    folder, moves, start = world.folder, world.moves, world.time
    for ends_at in range(1, 25):
        world = World(folder / str(ends_at), moves=moves)
        world.time = start
        world.input["a"] = b"x"
        world.server().run()
        world.output.pop(*world.results())
        del world.input["a"]
        later(world, 1)
        world.time += 31 * DAY
        server = world.server(power=Power(ends_at / 2))
        with contextlib.suppress(Killed):
            asyncio.run(one_listing(server))
        world.input["a"] = b"x"
        for _ in range(2):
            later(world, 0)
        assert len(world.asked) <= 2, ends_at
        assert len(world.results()) == len(world.asked) - 1, ends_at
        del world.input["a"]
        later(world, 1)
        later(world, 31)
        assert traces(world) == [], ends_at


async def one_listing(server: Server) -> None:
    async with server:
        await server.loop._list()


def test_a_store_that_lets_nothing_be_removed_does_not_end_the_service(world):
    world.input["a"] = b"x"
    world.server().run()
    del world.input["a"]
    later(world, 1)
    world.time += 31 * DAY
    world.input["b"] = b"x"
    server = world.server()

    def refuse(name: str) -> None:
        raise Refused("cannot write to out: the server refuses access")

    server.output.remove = refuse
    counters = server.run()
    assert (counters.done, counters.store_errors, counters.forgotten) == (1, 1, 0)


def test_damaged_claims_are_left_alone(world):
    name = f".ai4sdk/claims/2b/2b{'0' * 38}.1"
    for data in (b"", b"[]", b"{}", b'{"key": "a", "version": "1"}', b"\0"):
        world.output[name] = data
        later(world, 1)
        later(world, 100)
        assert traces(world) == [name]


def test_what_is_left_over_is_done_after_the_next_listing(world, monkeypatch):
    monkeypatch.setattr("ai4sdk.serving.events.pruning._AT_ONCE", 2)
    world.input.update({f"{number}": b"x" for number in range(7)})
    world.server().run()
    world.input.clear()

    async def watch() -> list[int]:
        counts = []
        async with world.server() as server:
            for number in range(9):
                world.time += 1 if number != 4 else 31 * DAY
                await server.loop._list()
                counts.append(len(traces(world)))
        return counts

    assert asyncio.run(watch()) == [9, 11, 13, 14, 10, 6, 2, 0, 0]


def test_it_costs_a_listing_of_one_folder_a_minute_at_most(world):
    world.input["a"] = b"x"

    async def watch() -> int:
        async with world.server() as server:
            for _ in range(20):
                world.time += 10
                await server.loop._list()
                await server.loop._settle()
            return sum(step.startswith("names") for step in server.output.log)

    assert asyncio.run(watch()) == 4
