"""What can be written under ``serving.events``."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from ai4sdk.spec.serving import Serving
from ai4sdk.spec.serving_events import ServingEvents

GIVEN = {"input": "in", "output": "out", "dead_letter": "dead"}


def test_three_addresses_are_enough():
    events = ServingEvents.model_validate(GIVEN)
    assert (events.every, events.retries, events.max_object) == (10.0, 3, 64 * 2**20)
    assert events.listen is None


def test_spans_and_sizes_have_units():
    events = ServingEvents.model_validate({**GIVEN, "every": "1m", "lease": "90s", "max_object": "2GiB", "grace": 0})
    assert (events.every, events.lease, events.max_object) == (60.0, 90.0, 2 * 2**30)


@pytest.mark.parametrize(
    "wrong",
    [
        {"input": ""},
        {"dead_letter": None},
        {"every": 0},
        {"concurrency": 0},
        {"retries": -1},
        {"lease": 0.5},
        {"suffixes": ".jpg"},
        {"max_object": 0},
        {"listen": {"address": "nowhere"}},
        {"listen": {"address": "host:port"}},
        {"sufixes": [".jpg"]},
    ],
)
def test_mistakes_are_refused(wrong):
    with pytest.raises(ValidationError):
        ServingEvents.model_validate({**GIVEN, **wrong})


def test_without_it_nothing_is_watched():
    assert Serving().events is None


def test_the_model_that_is_asked_is_one_that_is_served():
    models = {"a": "x", "b": "y"}
    assert Serving.model_validate({"models": models, "events": {**GIVEN, "model": "b"}}).events.model == "b"
    with pytest.raises(ValidationError, match="models has a, b"):
        Serving.model_validate({"models": models, "events": {**GIVEN, "model": "c"}})


def test_without_http_something_else_is_served():
    assert Serving.model_validate({"port": None, "events": GIVEN}).port is None
    with pytest.raises(ValidationError, match="nothing would be served"):
        Serving.model_validate({"port": None})
