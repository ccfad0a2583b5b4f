"""Names follow from key and version alone, differ where those differ, and stay where they are put."""

from __future__ import annotations

import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai4sdk.serving.events.names import (
    bare_prefixes,
    content_type,
    copy_name,
    error_name,
    is_wanted,
    may_lead_to_wanted,
    result_name,
    version_mark,
)

KEYS = st.text(st.sampled_from("ab./%~\\\0\n é海"), min_size=1, max_size=30) | st.text(min_size=1, max_size=400)
LONG_KEYS = st.lists(KEYS, min_size=1, max_size=8).map("/".join)


@given(st.lists(st.tuples(KEYS, st.sampled_from(["1", "2"])), min_size=2, max_size=2, unique=True))
def test_different_versions_have_different_names(pairs):
    (key, version), (other, another) = pairs
    for name in (result_name, copy_name, error_name):
        assert name(key, version) != name(other, another)


@given(KEYS | LONG_KEYS)
def test_names_stay_below_where_they_are_put_and_fit_on_disks(key):
    for name in (result_name(key, "v"), copy_name(key, "v"), error_name(key, "v")):
        assert posixpath.normpath(posixpath.join("/out", name)) == f"/out/{name}"
        assert all(len(f".{part}.12345678.part".encode()) <= 255 for part in name.split("/"))
        assert len(name.encode()) <= 800  # of the 1024 that a bucket allows
        assert "\0" not in name
        assert "\n" not in name


def test_names_are_such_as_people_read():
    mark = version_mark("etag")
    assert result_name("scans/7.jpg", "etag") == f"scans/7.jpg.{mark}.json"
    assert copy_name("scans/7.jpg", "etag") == f"scans/7.{mark}.jpg"
    assert copy_name("scans.d/README", "etag") == f"scans.d/README.{mark}"
    assert error_name("scans/7.jpg", "etag") == f"scans/7.{mark}.jpg.error.json"


@pytest.mark.parametrize("make", [result_name, copy_name, error_name])
def test_nobody_can_put_a_folder_where_the_name_of_another_version_will_be(make):
    name = make("a.jpg", "etag")
    for own in (result_name, copy_name, error_name):
        assert not own(f"{name}/b.jpg", "etag").startswith(f"{name}/")
    assert result_name(f"{name}/b.jpg", "1") != result_name(f"{name.replace('.', '%2E', 1)}/b.jpg", "1")


def test_long_keys_that_begin_alike_stay_different():
    keys = ["/".join(["x" * 100] * 20) + end for end in ("/a.jpg", "/b.jpg", "/a.png")]
    names = {result_name(key, "1") for key in keys}
    assert len(names) == 3
    assert all(name.split("~")[1][16:].startswith((".jpg.", ".png.")) for name in names)


def test_names_that_are_no_utf8_can_be_written():
    result_name("caf\udce9.jpg", "1").encode()
    assert result_name("caf\udce9.jpg", "1") != result_name("caf\udce8.jpg", "1")


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("a/b.JPG", "image/jpeg"),
        ("b.csv", "text/csv"),
        ("b.csv.gz", "application/octet-stream"),
        ("data:text/csv,x", "application/octet-stream"),
        ("http://x/a?b.png", "image/png"),
        ("caf\udce9.png", "image/png"),
        ("README", "application/octet-stream"),
    ],
)
def test_a_suffix_tells_what_an_object_is(key, kind):
    assert content_type(key) == kind


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
