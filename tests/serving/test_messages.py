"""Frames carry what was packed, however the stream is cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai4sdk.serving.messages import Frames, Request, Response, pack_requests, pack_responses, requests_of, responses_of

texts = st.text(max_size=20)
requests = st.builds(Request, texts, texts, texts, st.binary(max_size=300), st.dictionaries(texts, texts, max_size=3))
heads = st.dictionaries(texts, texts, max_size=3)
responses = st.builds(Response, st.integers(100, 599), texts, st.binary(max_size=300), heads, st.just({}))


def cut(data, sizes):
    at = 0
    for size in sizes:
        yield data[at : at + size]
        at += size
    yield data[at:]


@given(st.lists(st.lists(requests, max_size=4), max_size=4), st.lists(st.integers(1, 50), max_size=30))
def test_requests_come_out_as_they_went_in(batches, sizes):
    stream = b"".join(bytes(piece) for number, batch in enumerate(batches) for piece in pack_requests(number, batch))
    frames = Frames()
    found = [frame for part in cut(stream, sizes) for frame in frames.feed(part)]
    assert [head[1] for head, _ in found] == list(range(len(batches)))
    assert [
        [
            (each.protocol, each.operation, each.content_type, bytes(each.body), each.parameters)
            for each in requests_of(head[2], body)
        ]
        for head, body in found
    ] == [[(r.protocol, r.operation, r.content_type, r.body, dict(r.parameters)) for r in batch] for batch in batches]


@given(st.lists(responses, max_size=4))
def test_responses_come_out_as_they_went_in(batch):
    ((head, body),) = Frames().feed(b"".join(bytes(piece) for piece in pack_responses(7, batch, {"samples": 3})))
    assert head[1] == 7
    assert head[3] == {"samples": 3}
    assert list(responses_of(head[2], body)) == batch


def test_what_is_no_frame_is_refused():
    with pytest.raises(ValueError, match="no frame"):
        list(Frames().feed(b"\xff" * 64))
