"""Large bodies lie in memory that two processes share, one batch in each half; the others go through the socket."""

import os

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ai4sdk.serving import shared as room
from ai4sdk.serving.messages import HEADER_LENGTH, Frames, Request, pack_requests, requests_of
from ai4sdk.serving.shared import HALF, Slab


def request(body, head=None):
    return Request("v2", "infer", "", body, {} if head is None else {HEADER_LENGTH: head})


def through(slab, view, batch):
    """The bodies as the other process sees them, after their way."""
    packed = b"".join(map(bytes, pack_requests(1, batch, slab.put(batch))))
    ((head, body),) = Frames().feed(packed)
    return packed, [each.body for each in requests_of(head[2], body, view)]


def open_both():
    slab = Slab()
    return slab, Slab(os.dup(slab.descriptor)).view()


def test_large_bodies_do_not_go_through_the_socket():
    slab, view = open_both()
    large, small = os.urandom(300_000), b"small"
    packed, bodies = through(slab, view, [request(large), request(small), request(large[::-1])])
    assert [bytes(body) for body in bodies] == [large, small, large[::-1]]
    assert len(packed) < 1000


def test_a_batch_stays_while_the_next_one_is_put_beside_it():
    slab, view = open_both()
    _, (first,) = through(slab, view, [request(b"1" * 100_000)])
    _, (second,) = through(slab, view, [request(b"2" * 100_000)])
    assert (bytes(first), bytes(second)) == (b"1" * 100_000, b"2" * 100_000)
    through(slab, view, [request(b"3" * 100_000)])  # the first is answered now
    assert bytes(second) == b"2" * 100_000


def test_what_finds_no_place_goes_through_the_socket():
    slab, view = open_both()
    batch = [request(b"a" * (HALF - 100_000)), request(b"b" * 200_000), request(b"c" * 90_000)]
    packed, bodies = through(slab, view, batch)
    assert [bytes(body) for body in bodies] == [each.body for each in batch]
    assert 200_000 < len(packed) < 201_000
    _, (whole,) = through(slab, view, [request(b"d" * (HALF + 1))])
    assert bytes(whole) == b"d" * (HALF + 1)


def test_tensors_begin_where_processors_like_them():
    slab, view = open_both()
    _, bodies = through(slab, view, [request(b"x" * 77_777, head) for head in ("150", "7", "0")])
    for body, head in zip(bodies, (150, 7, 0), strict=True):
        assert np.frombuffer(body[head:], np.uint8).ctypes.data % 64 == 0


heads = st.none() | st.sampled_from(["", "-1", "٣", "1e3", "99999999999999999999", "99999999999", "500"])
sizes = st.integers(0, 5000)


@given(st.lists(st.lists(st.tuples(sizes, heads), max_size=6), max_size=6))
def test_whatever_is_asked_comes_out_as_it_went_in(batches):
    half, large = room.HALF, room._LARGE
    room.HALF, room._LARGE = 8192, 100
    try:
        slab, view = open_both()
        before, asked = [], []
        for number, sizes in enumerate(batches):
            batch = [request(bytes([number * 16 + at]) * size, head) for at, (size, head) in enumerate(sizes)]
            _, bodies = through(slab, view, batch)
            assert [bytes(body) for body in bodies] == [each.body for each in batch]
            assert [bytes(body) for body in before] == [each.body for each in asked]
            before, asked = bodies, batch
    finally:
        room.HALF, room._LARGE = half, large
