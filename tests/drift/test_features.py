"""Features are read from whatever a model takes; what the model would refuse counts as missing."""

import io

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sounds import sound_file, tone

from ai4sdk.data.notation import Notation
from ai4sdk.drift.compare import compare
from ai4sdk.drift.features import MOST_PLACES, Form, features_of_inputs, features_of_outputs, joined
from ai4sdk.drift.sketch import sketch
from ai4sdk.errors import DataError
from ai4sdk.spec import Audio, Images
from ai4sdk.worker.prediction import Prediction, predict_classes, predict_values

TABLE = Form("table", (("age", "number"), ("smokes", "bool"), ("colour", "text")))
RECORDS = [
    {"age": "41", "smokes": "true", "colour": " red", "more": 1},
    {"age": "", "smokes": False, "colour": None},
    {"age": "old", "smokes": 1, "colour": 3.0},
]


def test_cells_that_are_empty_or_no_numbers_are_missing():
    made = features_of_inputs(RECORDS, TABLE)
    assert made["age"][0] == 41
    assert np.isnan(made["age"][1:]).all()
    assert made["smokes"].tolist() == [1, 0, 1]
    assert made["colour"] == ["red", None, "3"]


def test_cells_of_pandas_numpy_and_strangers_are_values_or_missing():
    frame = pd.DataFrame(
        {
            "age": pd.array([1, None, 3], dtype="Int64"),
            "smokes": pd.array([True, None, False], dtype="boolean"),
            "colour": pd.array(["red", None, "blue"], dtype="string[python]"),
        }
    )
    made = features_of_inputs(frame, TABLE)
    assert np.isnan(made["age"]).tolist() == np.isnan(made["smokes"]).tolist() == [False, True, False]
    assert made["colour"] == ["red", None, "blue"]
    strange = [np.array([1, 2]), 10**5000, np.float32(3), np.int8(3), float("inf"), b"red"]
    made = features_of_inputs([{"age": cell, "smokes": cell, "colour": cell} for cell in strange], TABLE)
    assert made["colour"] == [None, None, "3", "3", "inf", "b'red'"]
    assert np.isfinite(made["age"]).tolist() == [False, False, True, True, False, False]


def test_words_that_are_values_of_the_training_are_no_empty_cells():
    assert features_of_inputs([{"colour": "None"}], Form("table", (("colour", "text"),)))["colour"] == [None]
    written = Form("table", (("age", "number"), ("colour", "text")), notation=Notation(",", ("-999",)))
    read = features_of_inputs([{"age": "4,5", "colour": "-999"}, {"age": -999, "colour": "x"}], written)
    assert (read["age"][0], np.isnan(read["age"][1]), read["colour"]) == (4.5, True, [None, "x"])
    known = Form("table", (("colour", "text"),), words=("None",))
    assert features_of_inputs([{"colour": "None"}, {"colour": ""}], known)["colour"] == ["None", None]


def test_no_sample_has_no_values():
    for shape in ((2,), (3, 10, 10)):
        made = features_of_inputs(np.zeros((0, *shape)), Form("array", shape=shape))
        assert {len(values) for values in made.values()} == {0}
    assert len(features_of_outputs(Prediction("other", np.zeros((0, 2))))["output[0]"]) == 0


def test_records_rows_columns_and_frames_are_read_alike():
    columns = {"colour": ["red", "blue"], "age": [41.0, 52.0], "smokes": [True, False]}
    records = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    rows = [[41, 1, "red"], [52, 0, "blue"]]
    for samples in (columns, records, rows, pd.DataFrame(columns)):
        made = features_of_inputs(samples, TABLE)
        assert made["age"].tolist() == [41, 52]
        assert made["smokes"].tolist() == [1, 0]
        assert made["colour"] == ["red", "blue"]
    assert features_of_inputs(records[0], TABLE)["age"].tolist() == [41]


@pytest.mark.parametrize(
    ("samples", "told"),
    [
        ([{"age": 1, "smokes": 1, "color": "red"}], "no column 'colour'"),
        ({"age": [1], "colour": ["red"]}, "no column 'smokes'"),
        ({"age": [1, 2], "smokes": [1], "colour": ["red"]}, "not of one length"),
        ([[1, 2]], "3 cells"),
        ("text", "no table"),
    ],
)
def test_a_table_of_another_form_is_told(samples, told):
    with pytest.raises(DataError, match=told):
        features_of_inputs(samples, TABLE)


def test_each_place_of_a_small_array_is_a_feature():
    made = features_of_inputs(np.arange(12).reshape(2, 2, 3), Form("array", shape=(2, 3)))
    assert list(made) == ["x[0,0]", "x[0,1]", "x[0,2]", "x[1,0]", "x[1,1]", "x[1,2]"]
    assert made["x[1,2]"].tolist() == [5, 11]
    assert list(features_of_inputs([[1.0, 2.0]], Form("array", shape=(2,), names=("low", "high")))) == ["low", "high"]
    named = Form("array", shape=(2,), names=("low", "high"))
    assert features_of_inputs([{"high": "2", "low": 1}], named)["high"].tolist() == [2]


def test_a_large_array_is_described_by_statistics():
    values = np.random.default_rng(0).uniform(size=(5, 3, 10, 10))
    made = features_of_inputs(values, Form("array", shape=(3, 10, 10)))
    assert np.prod(values.shape[1:]) > MOST_PLACES
    assert made["mean"] == pytest.approx(values.mean(axis=(1, 2, 3)))
    assert made["mean of channel 2"] == pytest.approx(values[:, 2].mean(axis=(1, 2)))


@pytest.mark.parametrize(
    ("samples", "told"),
    [
        (np.zeros((2, 3)), r"shape \(3,\) do not fit"),
        ([["a", "b"]], "no array of numbers"),
        ([[1], [1, 2]], "no array of numbers"),
        ([{"a": 1, "b": 2}], "records, the reference is of arrays"),
        (["picture.png"], "texts or pictures, the reference is of arrays"),
    ],
)
def test_an_array_of_another_form_is_told(samples, told):
    with pytest.raises(DataError, match=told):
        features_of_inputs(samples, Form("array", shape=(2,)))


def picture(colour, size=(12, 8)):
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


def test_pictures_are_described_by_brightness_contrast_and_colour(tmp_path):
    form = Form("images", images=Images(size=[4, 6], mode="RGB"))
    (tmp_path / "red.png").write_bytes(picture((255, 0, 0)))
    made = features_of_inputs([picture((255, 255, 255)), str(tmp_path / "red.png")], form)
    assert made["brightness"].tolist() == pytest.approx([1, 1 / 3])
    assert made["contrast"].tolist() == pytest.approx([0, 0], abs=1e-6)
    assert made["red"].tolist() == [1, 1]
    assert made["blue"].tolist() == [1, 0]
    assert made["colourfulness"][0] == 0 < made["colourfulness"][1]
    stripes = np.zeros((1, 3, 4, 6), np.float32)
    stripes[..., ::2] = 1  # as the module takes it
    assert features_of_inputs(stripes, form)["sharpness"].tolist() == [1]
    assert len(features_of_inputs(picture((0, 0, 0)), form)["brightness"]) == 1


def test_recordings_are_described_by_loudness_and_tone(tmp_path):
    form = Form("audio", audio=Audio(rate=8000, seconds=0.1))
    (tmp_path / "low.wav").write_bytes(sound_file(tone(300, loud=0.5)))
    loud = sound_file(np.clip(tone(1000, loud=2.0), -1, 1))
    made = features_of_inputs([str(tmp_path / "low.wav"), loud, sound_file(np.zeros(800)), tone(seconds=0.05)], form)
    assert list(made) == ["level", "clipped", "silence", "spectral centre", "spectral width"]
    assert made["level"].tolist() == pytest.approx([-9.03, -1.25, -100, -12.04], abs=0.01)
    assert made["clipped"].tolist() == pytest.approx([0, 0.75, 0, 0], abs=0.01)
    assert made["silence"].tolist() == pytest.approx([0, 0, 1, 0.5])
    assert made["spectral centre"][0] == pytest.approx(300, abs=1)
    assert made["spectral width"][0] < 5 < made["spectral width"][1]
    assert np.isnan([made["spectral centre"][2], made["spectral width"][2]]).all()
    ready = np.stack([tone(300), tone(600)])[:, None].astype(np.float32)  # as the module takes it
    assert features_of_inputs(ready, form)["spectral centre"].tolist() == pytest.approx([300, 600], abs=1)
    assert len(features_of_inputs(loud, form)["level"]) == 1


def test_answers_of_a_classifier_are_its_class_and_confidence():
    prediction = predict_classes(np.array([[0.2, 0.8], [0.9, 0.1], [np.nan, 1]]), "probabilities", ["no", "yes"])
    made = features_of_outputs(prediction)
    assert made["class"] == ["yes", "no", None]
    assert made["confidence"][:2].tolist() == [0.8, 0.9]
    assert np.isnan(made["confidence"][2])
    assert list(features_of_outputs(predict_classes(np.array([1, 0]), "labels", None))) == ["class"]


def test_other_answers_are_their_numbers_or_statistics_of_them():
    assert features_of_outputs(predict_values("regression", np.array([[1.0], [2.0]]), None))["output"].tolist() == [
        1,
        2,
    ]
    assert list(features_of_outputs(predict_values("regression", np.ones((2, 2)), ["a", "b"]))) == ["a", "b"]
    assert list(features_of_outputs(Prediction("other", np.ones((2, 2))))) == ["output[0]", "output[1]"]
    assert "output mean" in features_of_outputs(Prediction("other", np.ones((2, 5, 5))))


def test_batches_are_put_together():
    parts = [{"n": np.array([1.0]), "t": ["a", None]}, {"n": np.array([2.0]), "t": ["b"]}]
    whole = joined(parts)
    assert whole["n"].tolist() == [1, 2]
    assert whole["t"] == ["a", None, "b"]
    assert joined([]) == {}


@pytest.mark.parametrize(
    "form",
    [
        TABLE,
        Form("array", shape=(2, 3)),
        Form("images", images=Images(size=[4, 6], mode="L")),
        Form("audio", audio=Audio(rate=8000, seconds=0.1)),
        Form("table", (("a", "text"),), words=("NA",)),
        Form("table", (("a", "number"),), notation=Notation(",", ("-999",))),
    ],
)
def test_json_gives_a_form_back(form):
    assert Form.from_json(form.to_json()) == form


@pytest.mark.parametrize(
    "broken", [{}, {"kind": "sound"}, {"kind": "images"}, {"kind": "audio"}, {"kind": "table", "columns": [1]}]
)
def test_a_damaged_form_is_told(broken):
    with pytest.raises(DataError, match="damaged"):
        Form.from_json(broken)


CELLS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.lists(st.integers(), max_size=2)
)


@given(st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=20))
def test_whatever_is_in_a_cell_becomes_a_value_or_is_missing(cells):
    made = features_of_inputs([dict(zip(("age", "smokes", "colour"), row, strict=True)) for row in cells], TABLE)
    assert made["age"].dtype == np.float64
    assert len(made["age"]) == len(made["smokes"]) == len(made["colour"]) == len(cells)
    assert all(text is None or isinstance(text, str) for text in made["colour"])
    known = sketch(made["age"]), sketch(made["colour"])
    assert compare(known[0], made["age"]).p > 0.99
    assert compare(known[1], made["colour"]).p > 0.99
