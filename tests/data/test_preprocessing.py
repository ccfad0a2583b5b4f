from __future__ import annotations

import io
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ai4sdk.data.notation import Notation
from ai4sdk.data.preprocessing import ColumnRule, Preprocessing
from ai4sdk.errors import DataError
from ai4sdk.spec import Images

RULES = Preprocessing(
    "table",
    (4,),
    "classification",
    (
        ColumnRule("length", "number", mean=2.0, std=4.0),
        ColumnRule("colour", "text", categories=("blue", "red")),
        ColumnRule("wild", "bool"),
    ),
    class_names=("lily", "rose"),
)
RECORD = {"length": 4, "colour": "red", "wild": True}
ENCODED = [0.5, 0.0, 1.0, 1.0]

finite = st.floats(allow_nan=False, allow_infinity=False, width=64)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)


@st.composite
def rules(draw: st.DrawFn) -> ColumnRule:
    kind = draw(st.sampled_from(["number", "bool", "text"]))
    if kind == "text":
        found = tuple(sorted(draw(st.sets(names, max_size=4))))
        return ColumnRule(draw(names), "text", categories=found, fill=draw(st.sampled_from([None, *found])))
    if kind == "bool":
        return ColumnRule(draw(names), "bool", fill=draw(st.sampled_from([None, 0.0, 1.0])))
    return ColumnRule(draw(names), "number", draw(finite), draw(finite), fill=draw(st.none() | finite))


@st.composite
def preprocessings(draw: st.DrawFn) -> Preprocessing:
    kind = draw(st.sampled_from(["table", "array", "images"]))
    task = draw(st.sampled_from(["classification", "regression", "other"]))
    classes = draw(st.none() | st.lists(names, min_size=1, max_size=4).map(tuple))
    if kind == "table":
        columns = tuple(draw(st.lists(rules(), min_size=1, max_size=5)))
        notation = Notation(draw(st.sampled_from([".", ","])), tuple(draw(st.lists(names, max_size=2))))
        label = draw(names)
        return Preprocessing(
            "table", (len(columns),), task, columns, label=label, class_names=classes, notation=notation
        )
    if kind == "array":
        width = draw(st.integers(1, 5))
        some = st.lists(finite, min_size=width, max_size=width).map(tuple)
        mean, std, fill = draw(st.none() | some), draw(st.none() | some), draw(st.none() | some)
        return Preprocessing("array", (width,), task, mean=mean, std=std, fill=fill, class_names=classes)
    size = [draw(st.integers(1, 99)), draw(st.integers(1, 99))]
    return Preprocessing("images", (3, *size), task, images=Images(size=size), class_names=classes)


@given(preprocessings())
def test_json_keeps_everything(made: Preprocessing) -> None:
    text = json.dumps(made.to_json(), allow_nan=False)
    found = Preprocessing.from_json(json.loads(text))
    assert (found, found.notation) == (made, made.notation)


@pytest.mark.parametrize("damage", [{"format": 99}, {"kind": None, "shape": None}, {"columns": [{"nme": "x"}]}])
def test_damaged_json_is_refused(damage: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="preprocessing"):
        Preprocessing.from_json({**RULES.to_json(), **damage})


class Frame:
    """What a DataFrame has; the real one is tried where pandas is imported anyway."""

    columns = list(RECORD)

    def __getitem__(self, name: str) -> Any:
        return np.array([RECORD[name]] * 2)

    def to_dict(self) -> None: ...


@pytest.mark.parametrize(
    ("inputs", "rows"),
    [
        ([RECORD, RECORD], 2),
        (RECORD, 1),
        ({name: [cell, cell] for name, cell in RECORD.items()}, 2),
        ({**RECORD, "more": 1}, 1),
        ([[4, "red", True]], 1),
        ([4, "red", True], 1),
        (np.array([[4, "red", True]] * 3, dtype=object), 3),
        ([{"length": " 4.0 ", "colour": " red", "wild": "TRUE"}], 1),
        ([{"length": np.float32(4), "colour": np.str_("red"), "wild": np.bool_(True)}], 1),
        (Frame(), 2),
        ([], 0),
    ],
)
def test_samples_as_users_give_them(inputs: Any, rows: int) -> None:
    array = RULES.transform(inputs)
    assert array.dtype == np.float32
    assert array.tolist() == [ENCODED] * rows


def test_a_pandas_frame() -> None:
    import pandas as pd

    assert RULES.transform(pd.DataFrame([RECORD, RECORD])).tolist() == [ENCODED] * 2


@pytest.mark.parametrize(
    ("inputs", "message", "hint"),
    [
        (
            [{**RECORD, "wild": 1}, {"lenght": 4, "colour": "red", "wild": True}],
            "sample 2 has no column 'length'",
            "lenght",
        ),
        ([{"length": 4, "colour": "red"}], "sample 1 has no column 'wild'", "all of 3 columns"),
        ({"length": [1], "colour": ["red"]}, "have no column 'wild'", ""),
        ({"length": [1], "colour": ["red"], "wild": [1, 0]}, "not of one length", ""),
        ([[1, "red"]], "sample 1 has 2 cells, but the model takes 3 columns", "length, colour, wild"),
        ([{**RECORD, "length": "long"}], "sample 1, column 'length': 'long' is no number", "give a number"),
        ([{**RECORD, "length": "1_0"}], "'1_0' is no number", ""),
        ([RECORD, {**RECORD, "length": float("inf")}], "sample 2, column 'length': inf is no number", ""),
        ([{**RECORD, "wild": "maybe"}], "column 'wild': 'maybe' is no number", "true or false"),
        ([{**RECORD, "length": None}], "sample 1, column 'length': an empty cell", "dataset.missing: mean"),
        ([{**RECORD, "length": float("nan")}], "an empty cell", ""),
        ([RECORD, {**RECORD, "colour": ""}], "sample 2, column 'colour': an empty cell", ""),
        ([{**RECORD, "length": 1e300}], "too large for float32", "rescale"),
        ("text", "samples of type str are no table", "records"),
        (7, "samples of type int are no table", "records"),
    ],
)
def test_samples_that_do_not_fit(inputs: Any, message: str, hint: str) -> None:
    with pytest.raises(DataError) as caught:
        RULES.transform(inputs)
    assert message in caught.value.message.replace("the samples has", "the samples have")
    assert hint in (caught.value.hint or "")


def test_an_unknown_category_is_all_zeros_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    made = Preprocessing.from_json(RULES.to_json())
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert made.transform([{**RECORD, "colour": "green"}]).tolist() == [[0.5, 0.0, 0.0, 1.0]]
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["column 'colour'"]
    assert "'green'" in caplog.text


def test_empty_cells_become_what_training_measured() -> None:
    made = Preprocessing(
        "table",
        (3,),
        columns=(
            ColumnRule("a", "number", mean=2.0, std=2.0, fill=4.0),
            ColumnRule("b", "text", categories=("x", "y"), fill="y"),
        ),
    )
    assert made.transform([{"a": None, "b": None}, {"a": "NA", "b": ""}]).tolist() == [[1.0, 0.0, 1.0]] * 2


def test_cells_are_read_as_the_files_of_the_training_were_written() -> None:
    made = Preprocessing(
        "table",
        (3,),
        columns=(
            ColumnRule("a", "number", fill=4.0),
            ColumnRule("b", "text", categories=("x", "y"), fill="y"),
        ),
        notation=Notation(",", ("-9,5", "none yet")),
    )
    empty = [["-9,5", "none yet"], [" -9,50 ", None], [-9.5, "-9,5"], [None, ""]]
    assert made.transform(empty).tolist() == [[4.0, 0.0, 1.0]] * 4
    assert made.transform([["1,5", "x"], [1.5, "x"]]).tolist() == [[1.5, 1.0, 0.0]] * 2
    with pytest.raises(DataError, match=r"'1\.5' is no number") as told:
        made.transform([["1.5", "x"]])
    assert "with ',' before the fraction" in str(told.value)


def test_a_category_that_looks_empty_stays_a_category() -> None:
    made = Preprocessing("table", (2,), columns=(ColumnRule("b", "text", categories=("None", "x")),))
    assert made.transform([{"b": "None"}]).tolist() == [[1.0, 0.0]]


def test_numbers_where_text_was_learnt() -> None:
    made = Preprocessing("table", (2,), columns=(ColumnRule("site", "text", categories=("1", "2")),))
    assert made.transform([{"site": 2}, {"site": 2.0}, {"site": "2"}]).tolist() == [[0.0, 1.0]] * 3


def test_arrays() -> None:
    made = Preprocessing("array", (2,), mean=(1.0, 2.0), std=(2.0, 4.0), fill=(3.0, 2.0))
    assert made.transform([[1, 2], [np.nan, 6]]).tolist() == [[0, 0], [1, 1]]
    assert made.transform([3, 2]).tolist() == [[1, 0]]
    for wrong in ([[1, 2, 3]], [["a", "b"]], [[1], [2, 3]], "text"):
        with pytest.raises(DataError):
            made.transform(wrong)
    plain = Preprocessing("array", (2, 2))
    assert plain.transform(np.ones((3, 2, 2), np.uint8)).dtype == np.float32
    with pytest.raises(DataError, match="sample 2 holds a value that is no number"):
        plain.transform(np.array([np.ones((2, 2)), np.full((2, 2), np.nan)]))


# Pictures ----------------------------------------------------------------------------------------------------------


def picture_file(folder: Path, image: Image.Image, name: str = "a.png", **settings: Any) -> Path:
    image.save(folder / name, **settings)
    return folder / name


def pictures(mode: Any = "RGB", size: tuple[int, int] = (4, 6)) -> Preprocessing:
    return Preprocessing("images", (3 if mode == "RGB" else 1, *size), images=Images(size=list(size), mode=mode))


def test_pictures_however_they_come(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    path = picture_file(tmp_path, image)
    expected = pixels.transpose(2, 0, 1)[None].astype(np.float32) / np.float32(255)
    made = pictures()
    for given_ in (path, str(path), path.read_bytes(), image, [pixels], [path], pixels[None], [expected[0]]):
        array = made.transform(given_)
        assert array.shape == (1, 3, 4, 6)
        assert array.dtype == np.float32
        np.testing.assert_allclose(array, expected, atol=1e-6)


def test_nested_lists_are_pictures_too() -> None:
    assert pictures("L", (2, 2)).transform([[[0, 255], [51, 0]]]).tolist() == [
        [[[0.0, 1.0], [pytest.approx(0.2), 0.0]]]
    ]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F"])
@pytest.mark.parametrize("wanted", ["RGB", "L"])
def test_every_mode_of_pictures(mode: str, wanted: str) -> None:
    array = pictures(wanted).transform([Image.new(mode, (9, 5))])
    assert array.shape == (1, 3 if wanted == "RGB" else 1, 4, 6)
    assert 0 <= array.min() <= array.max() <= 1


def test_sixteen_bits_keep_their_shades(tmp_path: Path) -> None:
    pixels = np.linspace(0, 65535, 24).reshape(4, 6).astype(np.uint16)
    path = picture_file(tmp_path, Image.fromarray(pixels))
    np.testing.assert_allclose(pictures("L").transform(path)[0, 0], pixels / 65535, atol=0.003)


def test_a_camera_held_askew(tmp_path: Path) -> None:
    image = Image.new("RGB", (8, 4), "black")
    image.paste("white", (0, 0, 4, 4))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    path = picture_file(tmp_path, image, "a.jpg", exif=exif, quality=100)
    array = pictures("L", (8, 4)).transform(path)[0, 0]
    assert array[:3].min() > 0.9
    assert array[5:].max() < 0.1


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n"])
def test_bytes_that_are_no_picture(content: bytes) -> None:
    with pytest.raises(DataError, match="picture 1"):
        pictures().transform([content])


def test_pictures_cut_short(tmp_path: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    for name in ("a.png", "a.jpg", "a.bmp", "a.gif", "a.tiff", "a.webp"):
        path = picture_file(tmp_path, noise, name)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(DataError, match=name):
            pictures().transform(path)


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((2, 3, 4, 5)), np.full((4, 6), 2.0), np.full((4, 6), np.nan), np.full((4, 6), 300), np.zeros((4, 6, 7))],
)
def test_arrays_that_are_no_picture(wrong: Any) -> None:
    with pytest.raises(DataError):
        pictures().transform([wrong])


def test_a_missing_picture_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no picture .*gone\.png"):
        pictures().transform(tmp_path / "gone.png")


def test_a_picture_in_memory_is_not_closed() -> None:
    image = Image.open(io.BytesIO(_png()))
    made = pictures()
    assert made.transform([image]).shape == made.transform([image]).shape


def _png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (5, 5)).save(file, "PNG")
    return file.getvalue()
