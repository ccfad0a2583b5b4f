from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai4sdk.data.trace import parse_trace, read_trace
from ai4sdk.errors import DataError, NotFound
from ai4sdk.federated.availability import available
from ai4sdk.spec.availability import TraceAvailability

spans = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(1, 40), st.integers(0, 9)).map(lambda s: (s[0], s[1], s[1] + s[2])),
    min_size=1,
)


@given(spans)
def test_csv_and_json_say_the_same_and_what_was_written(written: list[tuple[str, int, int]]) -> None:
    rows = "".join(f"{site}, {first} ,{last}\n\n" for site, first, last in written)
    items = [{"site": site, "from": first, "to": last} for site, first, last in written]
    found = parse_trace(f"# recorded in May\nsite,from,to\n{rows}", "t.csv")
    assert parse_trace(json.dumps(items, indent=1), "t.json") == found
    how = TraceAvailability(kind="trace", up=found)
    for site in found:
        for round in range(1, 50):
            up = any(site == name and first <= round <= last for name, first, last in written)
            assert (available(how, [site], round, 0) == [site]) == up


def test_columns_may_stand_in_any_order_among_others() -> None:
    assert parse_trace('to,note,From,site\n5,x,2,"a, b"\n', "t.csv") == {"a, b": [[2, 5]]}


def test_seconds_may_have_fractions() -> None:
    assert parse_trace("site,from,to\na,0,1.5\na,1.5,2\na,3,4\n", "t.csv", in_rounds=False) == {"a": [[0, 2], [3, 4]]}


@pytest.mark.parametrize(
    ("name", "text", "said", "hint"),
    [
        ("t.csv", "", "t.csv:1 holds no spans", "site,from,to"),
        ("t.csv", "# only\n\n", "t.csv:1 holds no spans", "site,from,to"),
        ("t.csv", "site,start,to\na,1,2\n", "t.csv:1 has no column from", "site,from,to"),
        ("t.csv", "a,1,2\n", "t.csv:1 has no column site, from, to", "begin with the line"),
        ("t.csv", "site,from,to\na,1,2\n\nb,x,3\n", "t.csv:4 has 'x' as from", "as a number"),
        ("t.csv", "site,from,to\na,1,nan\n", "t.csv:2 has 'nan' as to", "as a number"),
        ("t.csv", "site,from,to\na,1\n", "t.csv:2 has 2 cells, the header 3", "quotation marks"),
        ("t.csv", "site,from,to\na,1,\n", "t.csv:2 has no to", "in every line"),
        ("t.csv", "site,from,to\na,5,3\n", "t.csv:2 from 5 to 3 ends before", "whole rounds"),
        ("t.csv", "site,from,to\na,0,3\n", "t.csv:2 from 0 to 3 must be whole rounds", "whole rounds"),
        ("t.csv", "site,from,to\na,1,inf\n", "t.csv:2 from 1 to inf must be whole rounds", "whole rounds"),
        ("t.json", "{}", "t.json:1 is no list", "list of objects"),
        ("t.json", "[]", "t.json:1 holds no spans", "site,from,to"),
        ("t.json", '[\n{"site": "a", "from": 1, "to": 2},\n{"site": "a"}]', "t.json:3 has no from and no to", "write"),
        ("t.json", '[\n{"site": "a", "from": 1, "to": 2}\n{}]', "t.json:3 is no JSON: a comma", "list of objects"),
        ("t.json", '[\n\n{"site": "a" "from": 1}]', "t.json:3 is no JSON", "list of objects"),
        ("t.json", "[3]", "t.json:1 has 3 in the list", "list of objects"),
        ("t.json", '[{"site": "a", "from": true, "to": 2}]', "t.json:1 has True as from", "as a number"),
        ("t.json", '[{"site": "a", "from": 1, "to": 2}', "t.json:1 is no JSON", "list of objects"),
    ],
)
def test_a_mistake_is_told_with_its_line_and_what_to_do(name: str, text: str, said: str, hint: str) -> None:
    with pytest.raises(DataError) as caught:
        parse_trace(text, name)
    assert caught.value.message.startswith(said)
    assert hint in str(caught.value.hint)


def test_the_file_is_put_into_the_section(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("\ufeffsite,from,to\r\na,1,2\r\nb,2,2\r\n", encoding="utf-8")
    how = read_trace(TraceAvailability(kind="trace", file="t.csv"), tmp_path, ["a", "b"])
    assert how == TraceAvailability(kind="trace", up={"a": [[1, 2]], "b": [[2, 2]]})
    assert [available(how, ["a", "b"], round, 0) for round in (1, 2, 3)] == [["a"], ["a", "b"], []]


def test_a_missing_file_and_a_missing_site_are_told(tmp_path: Path) -> None:
    how = TraceAvailability(kind="trace", file="t.csv")
    with pytest.raises(NotFound, match=r"no trace .*t\.csv"):
        read_trace(how, tmp_path)
    (tmp_path / "t.csv").write_text("site,from,to\nvalencia,1,2\n")
    with pytest.raises(DataError, match="not tell when Valencia, Karlsruhe can") as caught:
        read_trace(how, tmp_path, ["Valencia", "Karlsruhe"])
    assert "is 'valencia' meant to be 'Valencia'?" in str(caught.value.hint)
    (tmp_path / "t.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot be read"):
        read_trace(how, tmp_path)
