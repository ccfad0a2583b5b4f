"""What a study prints for programs to read, programs other than Python's can read."""

from __future__ import annotations

import json

from ai4sdk.cli.study import _strict


def test_numbers_that_json_has_no_word_for_are_written_as_text():
    facts = {"points": [{"loss": float("nan"), "params": {"lr": float("-inf")}, "values": (1.5, None)}], "total": 2}
    written = json.dumps(_strict(facts), allow_nan=False)
    assert json.loads(written) == {
        "points": [{"loss": "nan", "params": {"lr": "-inf"}, "values": [1.5, None]}],
        "total": 2,
    }
