"""Names follow from key and version alone, differ where those differ, and stay where they are put."""

from __future__ import annotations

import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai4sdk.serving.events.names import (
    bare_prefixes,
    copy_name,
    error_name,
    is_wanted,
    may_lead_to_wanted,
    result_name,
    version_mark,
)

KEYS = st.text(st.sampled_from("ab./%~\\\0\n é海"), min_size=1, max_size=30) | st.text(min_size=1, max_size=400)


@given(st.lists(st.tuples(KEYS, st.sampled_from(["1", "2"])), min_size=2, max_size=2, unique=True))
def test_different_versions_have_different_names(pairs):
    (key, version), (other, another) = pairs
    for name in (result_name, copy_name, error_name):
        assert name(key, version) != name(other, another)


@given(KEYS)
def test_names_stay_below_where_they_are_put_and_fit_on_disks(key):
    for name in (result_name(key, "v"), copy_name(key, "v"), error_name(key, "v")):
        assert posixpath.normpath(posixpath.join("/out", name)) == f"/out/{name}"
        assert all(len(f".{part}.12345678.part".encode()) <= 255 for part in name.split("/"))
        assert "\0" not in name
        assert "\n" not in name


def test_names_are_such_as_people_read():
    mark = version_mark("etag")
    assert result_name("scans/7.jpg", "etag") == f"scans/7.jpg.{mark}.json"
    assert copy_name("scans/7.jpg", "etag") == f"scans/7.{mark}.jpg"
    assert copy_name("scans.d/README", "etag") == f"scans.d/README.{mark}"
    assert error_name("scans/7.jpg", "etag") == f"scans/7.{mark}.jpg.error.json"


def test_names_that_are_no_utf8_can_be_written():
    result_name("caf\udce9.jpg", "1").encode()
    assert result_name("caf\udce9.jpg", "1") != result_name("caf\udce8.jpg", "1")


@pytest.mark.parametrize(
    ("key", "wanted"),
    [
        ("in/a.jpg", True),
        ("in/a.JPG", False),
        ("other/a.jpg", False),
        ("in/.a.jpg", False),
        ("in/.part/a.jpg", False),
        ("in/a.jpg/", False),
        ("", False),
    ],
)
def test_what_is_wanted(key, wanted):
    assert is_wanted(key, ["in/"], [".jpg", ".png"]) is wanted


def test_folders_that_lead_nowhere_are_not_looked_into():
    assert may_lead_to_wanted("a/", ["a/b/c"])
    assert may_lead_to_wanted("a/b/c/d/", ["a/b/c"])
    assert not may_lead_to_wanted("b/", ["a/b/c"])
    assert may_lead_to_wanted("b/", [])


@given(st.lists(st.text("ab/", max_size=4)), st.text("ab/", max_size=6))
def test_bare_prefixes_cover_the_same_and_nothing_twice(prefixes, key):
    bare = bare_prefixes(prefixes)
    assert any(map(key.startswith, bare)) == (not prefixes or any(map(key.startswith, prefixes)))
    assert sum(map(key.startswith, bare)) <= 1
