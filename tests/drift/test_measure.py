"""What a reference is measured on: samples as people have them, of the training split; the same ones every time."""

import numpy as np
import pyarrow
import pytest
import torch
from PIL import Image
from pyarrow import parquet
from sounds import folders_of_tones
from torch.utils.data import DataLoader, TensorDataset

from ai4sdk.data.module import Data, SplitData, load_data
from ai4sdk.drift import measure as room
from ai4sdk.drift.features import features_of_inputs
from ai4sdk.drift.measure import measure
from ai4sdk.spec import FileDataset, Loader, Storage, TargetDataset
from ai4sdk.worker.prediction import predict_classes


def of_file(project, task="auto", **settings):
    return load_data(
        FileDataset.model_validate(settings), storage=Storage(), project=project, task=task, seed=0, instantiate=str
    )


def of_target(project, made):
    return load_data(
        TargetDataset(target="x.y"), storage=Storage(), project=project, task="auto", seed=0, instantiate=lambda _: made
    )


def measured(data, outputs=None, **options):
    def batches(split):
        return getattr(data.datamodule, f"{split}_dataloader")()

    return measure(data, split="test", batches=batches, outputs=outputs, **options)


def read(outputs):
    return predict_classes(outputs, "probabilities", None)


@pytest.fixture
def table(tmp_path):
    rows = [
        f"{i % 31},{'' if i % 5 == 0 else i % 4},{'red' if i % 3 else ''},{'true' if i % 2 else 'false'},{i % 2}"
        for i in range(200)
    ]
    (tmp_path / "data.csv").write_text("\n".join(["a,b,c,d,y", *rows]) + "\n")
    return of_file(tmp_path, uri="data.csv", label="y", missing="mean")


def test_cells_of_a_table_are_those_of_the_file_and_missing_ones_stay_missing(table):
    made = measured(table).reference(read)
    assert made.form.columns == (("a", "number"), ("b", "number"), ("c", "text"), ("d", "bool"))
    training = len(table.datamodule.parts["train"])
    assert all(sketch.samples + sketch.missing == training for sketch in made.inputs.values())
    assert made.inputs["a"].kind == "bins"
    assert 0 < made.inputs["a"].edges[0] < made.inputs["a"].edges[-1] < 31  # not scaled
    assert made.inputs["b"].values.tolist() == [0, 1, 2, 3]
    assert 0.1 < made.inputs["b"].missing / training < 0.3
    assert made.inputs["c"].texts == ("red",)
    assert made.inputs["c"].missing > 20
    assert made.inputs["d"].values.tolist() == [0, 1]
    assert "y" not in made.inputs


def test_the_same_data_give_the_same_bytes(table, tmp_path):
    again = of_file(tmp_path, uri="data.csv", label="y", missing="mean")
    outputs = np.random.default_rng(0).dirichlet([1, 1], 40)
    assert measured(table, outputs).reference(read).to_text() == measured(again, outputs).reference(read).to_text()


def test_a_column_that_is_text_at_its_end_is_text_as_the_model_takes_it(tmp_path):
    (tmp_path / "data.csv").write_text("a,y\n" + "".join(f"{i % 3 if i < 90 else 'x'},{i % 2}\n" for i in range(100)))
    data = of_file(tmp_path, uri="data.csv", label="y")
    assert measured(data).reference(read).inputs["a"].texts == ("0", "1", "2", "x")


def test_a_word_for_nothing_that_is_a_value_of_the_training_stays_one(tmp_path):
    rows = [{"a": "None" if i % 2 else "some", "y": i % 2} for i in range(100)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "data.parquet")
    data = of_file(tmp_path, uri="data.parquet", label="y")
    made = measured(data).reference(read)
    assert made.inputs["a"].texts == ("None", "some")
    assert features_of_inputs(rows[:2], made.form)["a"] == ["some", "None"]


def test_only_so_many_samples_are_kept_while_training_and_the_rest_is_not_looked_at(tmp_path, monkeypatch):
    import ai4sdk.data.module as loading

    monkeypatch.setattr(loading, "RAW_SAMPLES", 50)
    (tmp_path / "data.csv").write_text("a,y\n" + "".join(f"{i},{i % 2}\n" for i in range(400)))
    data = of_file(tmp_path, uri="data.csv", label="y")
    assert len(data.raw["a"]) == 50
    made = measured(data).reference(read)
    assert made.inputs["a"].samples == 50
    assert "50 of the 280 of the training split" in made.notes[0]


def test_arrays_are_measured_before_they_are_scaled_and_filled(tmp_path):
    x = np.random.default_rng(0).normal(100, 5, (200, 2))
    x[::4, 1] = np.nan
    np.savez(tmp_path / "data.npz", x=x, y=np.arange(200) % 2)
    data = of_file(tmp_path, uri="data.npz", label="y", missing="mean")
    made = measured(data).reference(read)
    assert made.form.shape == (2,)
    assert 80 < made.inputs["x[0]"].edges[0] < 120
    assert made.inputs["x[1]"].missing > 20


def test_pictures_are_read_once_more(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "MOST_FILES", 10)
    for name, grey in (("dark", 20), ("light", 220)):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(20):
            Image.new("L", (9, 7), grey + number).save(tmp_path / "pictures" / name / f"{number}.png")
    data = of_file(tmp_path, uri="pictures", images={"size": [4, 4], "mode": "L"})
    made = measured(data).reference(read)
    assert made.form.images.size == [4, 4]
    assert list(made.inputs) == ["brightness", "contrast", "sharpness"]
    assert made.inputs["brightness"].samples == 10
    assert made.notes[0].startswith("The pictures are 10 of the")


def test_recordings_are_read_once_more(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "MOST_FILES", 10)
    folders_of_tones(tmp_path / "tones", each=20)
    data = of_file(tmp_path, uri="tones", audio={"rate": 8000, "seconds": 0.1})
    made = measured(data).reference(read)
    assert made.form.audio.rate == 8000
    assert list(made.inputs) == ["level", "clipped", "silence", "spectral centre", "spectral width"]
    assert made.inputs["level"].samples == 10
    assert made.notes[0].startswith("The recordings are 10 of the")


def test_arrays_made_by_code_are_measured_as_they_are(tmp_path):
    x = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    made = measured(of_target(tmp_path, (x, np.arange(100) % 2))).reference(read)
    assert list(made.inputs) == ["x[0]", "x[1]", "x[2]"]
    assert made.inputs["x[0]"].samples == 70


def test_of_datasets_made_by_code_the_split_that_is_judged_is_measured(tmp_path):
    parts = [TensorDataset(torch.full((50, 2), value), torch.zeros(50)) for value in (1.0, 2.0, 3.0)]
    made = measured(of_target(tmp_path, tuple(parts))).reference(read)
    assert made.inputs["x[0]"].values.tolist() == [3.0]
    assert "test split, as code of the project makes them" in made.notes[0]


def test_samples_that_are_no_single_array_leave_answers_only(tmp_path):
    rows = [({"a": torch.ones(2)}, 0) for _ in range(10)]
    data = Data(SplitData({"train": rows, "test": DataLoader(rows)}, Loader()), None, "auto", None, None)
    made = measured(data, np.full((20, 2), 0.5)).reference(read)
    assert made.form is None
    assert made.inputs == {}
    assert set(made.outputs) == {"class", "confidence"}
    assert "no single array" in made.notes[0]


def test_answers_alone_where_that_is_asked_for(table):
    made = measured(table, np.full((20, 2), 0.5), with_inputs=False).reference(read)
    assert made.inputs == {}
    assert made.outputs["confidence"].values.tolist() == [0.5]
    assert "answers only" in made.notes[0]
    assert measured(table, with_inputs=False).is_empty
    assert not measured(table).is_empty
    assert "all 20 of the test split" in made.notes[1]


def test_of_large_arrays_only_some_are_kept_while_training(tmp_path, monkeypatch):
    import ai4sdk.data.module as loading

    monkeypatch.setattr(loading, "RAW_BYTES", 1000)
    np.savez(tmp_path / "data.npz", x=np.random.default_rng(0).normal(size=(300, 1, 20, 20)), y=np.arange(300) % 2)
    data = of_file(tmp_path, uri="data.npz", label="y")
    assert len(data.raw) == 100
    made = measured(data).reference(read)
    assert set(made.inputs) == {"mean", "deviation", "smallest", "largest"}
    assert "100 of the 210" in made.notes[0]


def test_of_large_samples_made_by_code_the_first_are_enough(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "MOST_FILES", 20)
    parts = [TensorDataset(torch.rand(100, 1, 20, 20), torch.zeros(100)) for _ in range(3)]
    data = of_target(tmp_path, tuple(parts))
    made = measured(data).reference(read)
    assert 20 <= made.inputs["mean"].samples < 100
