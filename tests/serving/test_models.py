"""Versions get the share of requests that their weights say."""

from collections import Counter
from types import SimpleNamespace

import pytest

from ai4sdk.serving.models import Models


@pytest.mark.parametrize("weights", [(1, 1), (9, 1), (0.7, 0.2, 0.1), (3, 0), (1,)])
def test_shares_are_exact_and_even(weights):
    models = Models()
    for number, weight in enumerate(weights):
        models.add("fish", str(number), number, weight)
    name = models.get("fish")
    every = round(sum(weights) * 10)
    for _ in range(3):  # of each ten times the sum, each gets exactly its share
        found = Counter(name.version(None) for _ in range(every))
        assert [found[number] for number in range(len(weights))] == [round(weight * 10) for weight in weights]


def test_a_version_is_had_by_name_whatever_its_weight():
    models = Models()
    models.add("fish", "old", "old", 1)
    models.add("fish", "new", "new", 0)
    assert models.get("fish").version("new") == "new"
    assert {models.get("fish").version(None) for _ in range(10)} == {"old"}
    assert models.get("fish").version("newer") is None
    assert models.get("bird") is None


def test_models_are_ready_once_all_that_shall_be_served_are():
    models = Models()
    assert not models.ready
    models.complete = False
    models.add("fish", "1", SimpleNamespace(ready=True), 1)
    assert not models.ready, "another is still loading"
    models.complete = True
    assert models.ready
    models.add("bird", "1", SimpleNamespace(ready=False), 1)
    assert not models.ready


def test_a_version_takes_the_place_of_the_one_before():
    models = Models()
    assert models.add("fish", "1", "before", 1) is None
    assert models.add("fish", "1", "after", 1) == "before"
    assert models.get("fish").version(None) == "after"
    assert models.remove("fish", "1") == "after"
    assert models.names == []
