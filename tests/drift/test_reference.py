"""A reference comes back from its file as it was, and tells what is wrong with the file."""

import json

import numpy as np
import pytest

from ai4sdk.drift.reference import REFERENCE, Reference, make_reference, read_reference
from ai4sdk.drift.verdict import judge
from ai4sdk.errors import DataError, NotFound


def written(folder, text):
    (folder / REFERENCE).parent.mkdir(exist_ok=True)
    (folder / REFERENCE).write_text(text)
    return folder


def test_it_comes_back_as_it_was(tmp_path, reference):
    read = read_reference(written(tmp_path, reference.to_text()))
    assert read.to_text() == reference.to_text()
    assert read.form == reference.form


def test_a_package_without_one_says_how_to_get_one(tmp_path):
    with pytest.raises(NotFound) as caught:
        read_reference(tmp_path)
    assert "evaluation.drift=all" in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"kind": "ai4sdk drift reference", "format": 1}',
        '{"kind": "ai4sdk drift reference", "format": 1, "form": null, "inputs": [{}], "outputs": []}',
        '{"kind": "something else", "format": 1}',
    ],
)
def test_a_damaged_file_is_told(tmp_path, text):
    with pytest.raises(DataError):
        read_reference(written(tmp_path, text))


def test_a_later_format_is_told(tmp_path, reference):
    value = json.loads(reference.to_text()) | {"format": 2}
    with pytest.raises(DataError, match="format 2"):
        read_reference(written(tmp_path, json.dumps(value)))


def test_verdicts_tell_what_drifted_and_what_is_missing(reference):
    generator = np.random.default_rng(1)
    inputs = {
        "age": np.where(generator.uniform(size=300) < 0.3, np.nan, generator.normal(50, 10, 300)),
        "smokes": generator.integers(0, 2, 300).astype(float),
        "colour": list(generator.choice(["red", "blue", "green"], 300)),
    }
    verdict = judge(reference, inputs, {}, alpha=0.05)
    drifted = {(finding.name, finding.of) for finding in verdict.findings if finding.drifted}
    assert drifted == {("age", "missing"), ("colour", "values")}
    assert verdict.drifted
    assert json.loads(json.dumps(verdict.to_json(), allow_nan=False))["drift"] is True


def test_nothing_in_common_is_no_verdict(reference):
    with pytest.raises(DataError, match="nothing can be compared"):
        judge(reference, {"other": np.ones(3)}, {}, alpha=0.05)


def test_few_samples_are_said_to_show_little(reference):
    verdict = judge(reference, {"age": np.array([50.0])}, {}, alpha=0.05)
    assert not verdict.drifted
    assert "1 sample shows only large differences" in verdict.notes[-1]


def test_false_alarms_over_many_features_are_as_seldom_as_promised():
    generator = np.random.default_rng(2)
    rounds, alarms = 150, 0
    for _ in range(rounds):
        old = {f"f{place}": generator.normal(size=500) for place in range(20)}
        old |= {f"v{place}": generator.poisson(1.0, 500).astype(float) for place in range(10)}
        new = {f"f{place}": generator.normal(size=100) for place in range(20)}
        new |= {f"v{place}": generator.poisson(1.0, 100).astype(float) for place in range(10)}
        alarms += judge(make_reference(None, old, {}, ()), new, {}, alpha=0.1).drifted
    assert alarms <= 29  # more than that has a chance of 1 in 1000 at 0.1


def test_an_empty_reference_is_written_and_read(tmp_path):
    read = read_reference(written(tmp_path, Reference(notes=("nothing",)).to_text()))
    assert read.notes == ("nothing",)


def test_answers_do_not_vanish_among_many_features():
    generator = np.random.default_rng(0)
    old = {f"f{place}": generator.normal(size=300) for place in range(200)}
    sure = {"confidence": generator.uniform(size=300)}
    known = make_reference(None, old, sure, ())
    same = {name: generator.normal(size=100) for name in old}
    verdict = judge(known, same, {"confidence": generator.uniform(size=100) ** 2.1}, alpha=0.05)
    [answers] = [finding for finding in verdict.findings if finding.part == "output"]
    assert answers.comparison.p > 0.05 / 201
    assert answers.drifted
    assert answers.adjusted == 2 * answers.comparison.p
