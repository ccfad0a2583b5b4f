"""However many samples there are, so many features are kept; and the sample that is wrong is the one that is named."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ai4sdk.drift import check as room
from ai4sdk.drift.check import _answers, _Measured
from ai4sdk.drift.features import Form, joined
from ai4sdk.errors import DataError
from ai4sdk.spec import Images
from ai4sdk.worker.inputs import Batch
from ai4sdk.worker.prediction import Prediction


class Doubling:
    """A model that has nothing to fill gaps with."""

    preprocessing = type("Rules", (), {"kind": "array", "fill": None, "media": None})()

    def __call__(self, samples):
        return Prediction("regression", 2 * np.asarray(samples, np.float64))


def test_of_many_samples_a_random_part_is_kept_with_its_answers(monkeypatch):
    monkeypatch.setattr(room, "MOST_SAMPLES", 1000)
    found, most = _Measured(), 0
    for start in range(0, 20_000, 100):
        samples = np.arange(start, start + 100, dtype=np.float64)[:, None]
        samples[::10] = np.nan
        found.add(Batch(samples, "rows.npy", start), Form("array", shape=(1,)), Doubling())
        most = max(most, found.kept)
    inputs, outputs = joined(found.inputs.features)["x[0]"], joined(found.outputs.features)["output"]
    assert found.total == 20_000
    assert most <= 1000
    assert 400 < found.kept == len(inputs) <= 1000
    assert np.isfinite(inputs).sum() == len(outputs)
    assert (outputs == 2 * inputs[np.isfinite(inputs)]).all()
    assert abs(np.nanmean(inputs) - 10_000) < 1200  # of the beginning and of the end alike
    assert 0.05 < np.isnan(inputs).mean() < 0.16


def test_few_samples_are_all_kept_in_their_order():
    found = _Measured()
    rows = [{"t": str(number), "n": number} for number in range(50)]
    found.add(Batch(rows, "rows.csv"), Form("table", (("t", "text"), ("n", "number"))), None)
    made = joined(found.inputs.features)
    assert made["t"] == [row["t"] for row in rows]
    assert made["n"].tolist() == list(range(50))


def test_the_sample_that_a_model_refuses_is_named_and_none_that_it_was_not_given():
    def model(samples):
        for place, (cell,) in enumerate(samples, start=1):
            if cell == "" or cell > 100:
                raise DataError(f"sample {place} {'is empty' if cell == '' else 'is too large'}")

    batch = Batch([[""], [1], [""], [500]], "rows.csv", 10)
    with pytest.raises(DataError, match=r"^rows\.csv, record 14: is too large"):
        _answers(model, batch, np.array([1, 3]))


def test_a_picture_that_cannot_be_read_is_named_alone(tmp_path):
    names = [str(tmp_path / f"{number}.png") for number in range(3)]
    for name in names:
        Image.new("L", (4, 4)).save(name)
    Path(names[1]).write_bytes(b"no picture")
    with pytest.raises(DataError) as caught:
        _Measured().add(Batch(names, names[0], 0, names), Form("images", images=Images(size=[4, 4])), None)
    assert "1.png" in caught.value.message
    assert "0.png" not in caught.value.message
