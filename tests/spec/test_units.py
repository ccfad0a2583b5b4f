"""Sizes and spans are read from what people write, and refused with what would do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai4sdk.spec.units import format_size, format_span, parse_size, parse_span


@pytest.mark.parametrize(
    ("text", "size"),
    [("16GiB", 16 * 2**30), ("500 MB", 500_000_000), ("1.5kB", 1500), (7, 7), ("0", 0), ("2tib", 2 * 2**40), (8.0, 8)],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2h", 7200),
        ("1h30m", 5400),
        ("90s", 90),
        ("250ms", 0.25),
        ("1-00:00:00", 86400),
        ("00:10:00", 600),
        (3, 3),
        ("2d", 172800),
    ],
)
def test_spans(text, seconds):
    assert parse_span(text) == seconds


@pytest.mark.parametrize("text", ["12 elephants", "-1", -1, "GiB", "", True, None, [1], 1.5])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError, match="size"):
        parse_size(text)


@pytest.mark.parametrize(
    "text", ["soon", "5 parsecs", "-3s", -1, "", True, None, float("nan"), float("inf"), "2h soon"]
)
def test_what_is_no_span_is_refused(text):
    with pytest.raises(ValueError, match="span"):
        parse_span(text)


@given(st.integers(0, 2**50))
def test_a_size_written_is_near_the_size_read(size):
    assert abs(parse_size(format_size(size)) - size) <= size * 0.06


@given(st.floats(0, 1e7))
def test_a_span_is_always_written(seconds):
    assert format_span(seconds)


@pytest.mark.parametrize("huge", [10**400, 1e300, float("inf"), "9" * 400 + "GB", "9" * 400 + "h"])
def test_what_no_machine_has_is_refused(huge):
    with pytest.raises(ValueError, match="size"):
        parse_size(huge)
    with pytest.raises(ValueError, match="span"):
        parse_span(huge)
