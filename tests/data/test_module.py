from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning import LightningDataModule, LightningModule, Trainer
from sounds import folders_of_tones
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from ai4sdk.data.fingerprint import fingerprint
from ai4sdk.data.module import Data, load_data
from ai4sdk.data.readers import UnreadableSample
from ai4sdk.errors import DataError, EnvironmentFault
from ai4sdk.spec import FileDataset, Storage, TargetDataset

Write = Callable[..., FileDataset]

FLOWERS = "length,colour,wild,kind\n" + "".join(
    f"{index},{'red' if index % 3 else 'blue'},{'true' if index % 2 else 'false'},{'rose' if index % 2 else 'lily'}\n"
    for index in range(40)
)


def load(dataset: Any, project: Path, task: str = "auto", instantiate: Any = None, seed: int = 0) -> Data:
    return load_data(dataset, storage=Storage(), project=project, task=task, seed=seed, instantiate=instantiate)


def made_by_code(make: Callable[[], Any], project: Path, task: str = "auto", **settings: Any) -> Data:
    dataset = TargetDataset.model_validate({"_target_": "user.make", **settings})
    return load(dataset, project, task, lambda config: make())


def batches(data: Data, split: str = "train") -> list[Any]:
    return list(getattr(data.datamodule, f"{split}_dataloader")())


# Files -------------------------------------------------------------------------------------------------------------


def test_a_table(table: Write, tmp_path: Path) -> None:
    data = load(table(FLOWERS, label="kind", loader={"batch_size": 8}), tmp_path)
    assert (data.task, data.class_names) == ("classification", ["lily", "rose"])
    assert data.column_names == ["length", "colour", "wild"]
    x, y = batches(data)[0]
    assert (x.shape, x.dtype, y.dtype) == ((8, 4), torch.float32, torch.int64)
    whole = torch.cat([x for x, _ in batches(data)])
    assert whole[:, 0].mean().abs() < 1e-6
    assert whole[:, 0].std(correction=0) == pytest.approx(1, abs=1e-5)


def test_the_model_reads_texts_as_the_table_is_written(table: Write, tmp_path: Path) -> None:
    lengths = [("n/k", "-9,0")[index // 4 % 2] if index % 4 == 0 else f"{index},5" for index in range(40)]
    rows = "".join(f"{length};{'ab'[index % 2]}\n" for index, length in enumerate(lengths))
    options = {"sep": ";", "decimal": ",", "na_values": ["n/k", "-9"]}
    data = load(table("length;kind\n" + rows, label="kind", missing="mean", options=options), tmp_path)
    assert data.preprocessing is not None
    prepared = data.preprocessing.transform([{"length": length} for length in lengths])
    seen = torch.cat([x for split in ("train", "val", "test") for x, _ in batches(data, split)])
    assert sorted(seen.flatten().tolist()) == sorted(prepared.flatten().tolist())
    empty = data.preprocessing.transform([{"length": None}, {"length": -9}])
    assert prepared[0] == prepared[4] == empty[0] == empty[1]


def test_batches_hold_what_transform_makes_of_the_records(table: Write, tmp_path: Path) -> None:
    still = {"shuffle": False}
    by_time = {"method": "time", "column": "length"}
    data = load(table(FLOWERS, label="kind", splits=by_time, loader=still), tmp_path)
    data2 = load(table(FLOWERS, label="kind", loader=still), tmp_path)
    lines = [
        dict(zip(("length", "colour", "wild", "kind"), line.split(","), strict=True)) for line in FLOWERS.split()[1:]
    ]
    assert data.preprocessing is not None
    assert data.column_names == ["colour", "wild"]
    assert np.array_equal(torch.cat([x for x, _ in batches(data)]), data.preprocessing.transform(lines[:28]))
    assert data2.preprocessing is not None
    rows = {tuple(row) for row in data2.preprocessing.transform(lines).tolist()}
    for split in ("train", "val", "test"):
        for x, y in batches(data2, split):
            assert {tuple(row) for row in x.tolist()} <= rows
            lengths = x[:, 0] * data2.preprocessing.columns[0].std + data2.preprocessing.columns[0].mean
            assert torch.equal(lengths.round().long() % 2, y)


def test_mean_and_categories_come_from_the_training_split_alone(table: Write, tmp_path: Path) -> None:
    text = "when,x,c,y\n" + "".join(f"{row},{row if row < 7 else 1e6},{'ab'[row < 7]},{row / 7}\n" for row in range(10))
    data = load(table(text, label="y", splits={"method": "time", "column": "when"}), tmp_path)
    assert data.preprocessing is not None
    assert data.preprocessing.columns[0].mean == 3.0
    assert data.preprocessing.columns[1].categories == ("b",)
    (x, y), *_ = batches(data, "test")
    assert x[:, 1].tolist() == [0.0] * len(x)
    assert (data.task, y.dtype, y.ndim) == ("regression", torch.float32, 1)


def test_training_is_shuffled_by_torchs_own_generator_and_the_rest_is_not(table: Write, tmp_path: Path) -> None:
    data = load(table(FLOWERS, label="kind", loader={"batch_size": 100}), tmp_path)

    def order(split: str, seed: int) -> list[float]:
        torch.manual_seed(seed)
        return [float(value) for value in batches(data, split)[0][0][:, 0]]

    assert order("train", 1) == order("train", 1) != order("train", 2)
    assert order("val", 1) == order("val", 2) == sorted(order("val", 1))
    still = load(table(FLOWERS, label="kind", loader={"batch_size": 100, "shuffle": False}), tmp_path)
    data = still
    assert order("train", 1) == order("train", 2)


def test_splits_do_not_depend_on_the_job_seed(table: Write, tmp_path: Path) -> None:
    dataset = table(FLOWERS, label="kind")
    tests = [torch.cat([x for x, _ in batches(load(dataset, tmp_path, seed=seed), "test")]) for seed in (1, 2)]
    assert torch.equal(*tests)


def test_loader_options_are_applied(table: Write, tmp_path: Path) -> None:
    settings = {"batch_size": 5, "drop_last": True, "num_workers": 2, "pin_memory": False}
    loader = load(table(FLOWERS, label="kind", loader=settings), tmp_path).datamodule.train_dataloader()
    assert (loader.batch_size, loader.drop_last, loader.num_workers, loader.pin_memory) == (5, True, 2, False)
    assert len(list(loader)) == 5
    with pytest.raises(DataError, match="drop_last leaves no training batch"):
        load(table(FLOWERS, label="kind", loader={"batch_size": 99, "drop_last": True}), tmp_path)


def test_without_label_a_batch_is_the_inputs(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((20, 3)))
    data = load(FileDataset(uri="a.npy"), tmp_path)
    assert data.task == "other"
    assert batches(data)[0].shape == (14, 3)


def test_several_numbers_to_predict(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.arange(40.0).reshape(20, 2), y=np.arange(60.0).reshape(20, 3))
    data = load(
        FileDataset.model_validate({"uri": "a.npz", "standardize": False, "loader": {"shuffle": False}}), tmp_path
    )
    x, y = batches(data)[0]
    assert torch.equal(y[:, 0], x[:, 0] / 2 * 3)


def test_the_task_decides_what_whole_numbers_are(table: Write, tmp_path: Path) -> None:
    dataset = table("x,y\n" + "".join(f"{row},{row % 3 + 4}\n" for row in range(30)), label="y")
    assert batches(load(dataset, tmp_path))[0][1].dtype == torch.float32
    data = load(dataset, tmp_path, "classification")
    assert data.class_names == ["4", "5", "6"]
    assert set(batches(data)[0][1].tolist()) == {0, 1, 2}


def test_a_fingerprint_in_the_config_is_held_to(table: Write, tmp_path: Path) -> None:
    dataset = table(FLOWERS, label="kind")
    known = fingerprint(dataset, Storage(), tmp_path).value
    load(dataset.model_copy(update={"fingerprint": known}), tmp_path)
    (tmp_path / "data.csv").write_text(FLOWERS[:-1])
    with pytest.raises(DataError, match="data changed"):
        load(dataset.model_copy(update={"fingerprint": known}), tmp_path)


@pytest.fixture
def pictures(tmp_path: Path) -> FileDataset:
    for index in range(20):
        folder = tmp_path / "pictures" / ("dark" if index % 2 else "light")
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (10, 10), "black" if index % 2 else "white").save(folder / f"{index}.png")
    return FileDataset.model_validate(
        {"uri": "pictures", "images": {"size": [6, 8]}, "splits": {"method": "stratified"}, "loader": {"batch_size": 7}}
    )


def test_pictures(pictures: FileDataset, tmp_path: Path) -> None:
    data = load(pictures, tmp_path)
    assert (data.task, data.class_names, data.column_names) == ("classification", ["dark", "light"], None)
    x, y = batches(data)[0]
    assert (x.shape, x.dtype, y.dtype) == ((7, 3, 6, 8), torch.float32, torch.int64)
    assert torch.equal(x[:, 0, 0, 0].long(), y)


def test_pictures_are_read_only_when_needed(
    pictures: FileDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    from ai4sdk.data import readers

    whole = readers.read_sample
    monkeypatch.setattr(readers, "read_sample", lambda path, how: read.append(path) or whole(path, how))
    data = load(pictures, tmp_path)
    assert read == []
    (x, _), *_ = batches(data, "val")
    assert len(read) == len(x) == 3


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_picture_is_named_without_a_traceback(pictures: FileDataset, tmp_path: Path, workers: int) -> None:
    whole = pictures.model_copy(update={"loader": pictures.loader.model_copy(update={"num_workers": workers})})
    data = load(whole, tmp_path)
    for path in (tmp_path / "pictures" / "dark").iterdir():
        path.write_bytes(path.read_bytes()[:45])
    with pytest.raises(UnreadableSample) as caught:
        batches(data)
    assert caught.value.message.startswith(str(tmp_path / "pictures" / "dark"))
    assert "Traceback" not in str(caught.value)
    assert caught.value.hint == "fetch it again, or delete it"


@pytest.fixture
def recordings(tmp_path: Path) -> FileDataset:
    folders_of_tones(tmp_path / "tones", each=10)
    how = {"rate": 8000, "seconds": 0.1}
    return FileDataset.model_validate(
        {"uri": "tones", "audio": how, "splits": {"method": "stratified"}, "loader": {"batch_size": 7}}
    )


def test_recordings(recordings: FileDataset, tmp_path: Path) -> None:
    data = load(recordings, tmp_path)
    assert (data.task, data.class_names, data.column_names) == ("classification", ["high", "low"], None)
    x, y = batches(data)[0]
    assert (x.shape, x.dtype, y.dtype) == ((7, 1, 800), torch.float32, torch.int64)
    crossings = (x[:, 0, 1:].sign() != x[:, 0, :-1].sign()).sum(dim=1)
    assert torch.equal((crossings < 150).long(), y)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_recording_that_is_none_is_named_without_a_traceback(
    recordings: FileDataset, tmp_path: Path, workers: int
) -> None:
    data = load(
        recordings.model_copy(update={"loader": recordings.loader.model_copy(update={"num_workers": workers})}),
        tmp_path,
    )
    for path in (tmp_path / "tones" / "low").iterdir():
        path.write_text("notes")
    with pytest.raises(UnreadableSample) as caught:
        batches(data)
    assert str(caught.value).startswith(str(tmp_path / "tones" / "low"))
    assert "is no recording" in str(caught.value)
    assert caught.value.hint == "give a WAV, FLAC, OGG or MP3 file"


def test_without_the_decoder_no_training_starts(
    recordings: FileDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(EnvironmentFault) as caught:
        load(recordings, tmp_path)
    assert caught.value.hint == "pip install 'ai4sdk[audio]'"


class Net(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 2)
        self.seen: set[str] = set()

    def training_step(self, batch: Any, _: int) -> Any:
        self.seen.add("train")
        return torch.nn.functional.cross_entropy(self.layer(batch[0]), batch[1])

    def validation_step(self, batch: Any, _: int) -> None:
        self.seen.add("val")

    def test_step(self, batch: Any) -> None:
        self.seen.add("test")

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize(
    ("splits", "seen"), [({}, {"train", "val", "test"}), ({"train": 1.0, "val": None, "test": None}, {"train"})]
)
@pytest.mark.filterwarnings("ignore")
def test_lightning_trains_on_it(table: Write, tmp_path: Path, splits: Any, seen: set[str]) -> None:
    data = load(table(FLOWERS, label="kind", splits=splits), tmp_path)
    module = Net()
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(module, datamodule=data.datamodule)
    if "test" in seen:
        trainer.test(module, datamodule=data.datamodule, verbose=False)
    assert module.seen == seen


# Code of the user's ------------------------------------------------------------------------------------------------


class Squares(Dataset[Any]):
    classes = ("even", "odd")

    def __len__(self) -> int:
        return 30

    def __getitem__(self, index: int) -> Any:
        return torch.tensor([float(index)]), index % 2


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter((torch.ones(2), 1) for _ in range(10))


class Own(LightningDataModule):
    class_names = ["a", "b"]

    def train_dataloader(self) -> Any:
        return DataLoader(Squares())


def tensors(count: int = 10) -> TensorDataset:
    return TensorDataset(torch.ones(count, 2), torch.zeros(count))


def test_a_datamodule_is_taken_as_it_is(tmp_path: Path) -> None:
    own = Own()
    data = made_by_code(lambda: own, tmp_path)
    assert data.datamodule is own
    assert (data.class_names, data.preprocessing) == (["a", "b"], None)
    for settings in ({"splits": {}}, {"loader": {}}):
        with pytest.raises(DataError, match="has no effect"):
            made_by_code(lambda: own, tmp_path, **settings)


def test_a_dataset_is_divided(tmp_path: Path) -> None:
    data = made_by_code(Squares, tmp_path, splits={"method": "stratified"}, loader={"batch_size": 50})
    assert (data.task, data.class_names) == ("classification", ["even", "odd"])
    sizes = {split: len(batches(data, split)[0][0]) for split in ("train", "val", "test")}
    assert sum(sizes.values()) == 30
    x, y = batches(data)[0]
    assert abs(int(y.sum()) - len(y) / 2) <= 1
    assert torch.equal(x[:, 0].long() % 2, y)


def test_only_the_arguments_reach_the_target(tmp_path: Path) -> None:
    got: dict[str, Any] = {}
    dataset = TargetDataset.model_validate({"_target_": "user.make", "size": 3, "splits": {}, "loader": {}})
    load(dataset, tmp_path, "auto", lambda config: got.update(config) or Squares())
    assert got == {"_target_": "user.make", "size": 3}


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (Stream, {"train": 10}),
        (lambda: DataLoader(tensors()), {"train": 10}),
        (lambda: (DataLoader(tensors(4)), DataLoader(tensors(5))), {"train": 4, "val": 5}),
        (
            lambda: [DataLoader(tensors(4)), DataLoader(tensors(5)), DataLoader(tensors(6))],
            {"train": 4, "val": 5, "test": 6},
        ),
        (lambda: {"train": tensors(4), "test": tensors(6)}, {"train": 4, "test": 6}),
        (lambda: {"train": DataLoader(tensors(4)), "val": tensors(6), "test": None}, {"train": 4, "val": 6}),
        (lambda: (tensors(4), tensors(5)), {"train": 4, "val": 5}),
    ],
)
def test_what_a_target_may_make(tmp_path: Path, make: Callable[[], Any], expected: dict[str, int]) -> None:
    data = made_by_code(make, tmp_path)
    sizes = {split: sum(len(x) for x, _ in batches(data, split)) for split in ("train", "val", "test")}
    assert {split: size for split, size in sizes.items() if size} == expected
    with pytest.raises(DataError, match=r"dataset\.splits has no effect"):
        made_by_code(make, tmp_path, splits={})


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (lambda: None, {}, "made a NoneType, which is no data to train on"),
        (lambda: 7, {}, "made a int"),
        (lambda: {"training": tensors()}, {}, "made a dict"),
        (lambda: {"train": 7}, {}, "made a int for train"),
        (lambda: "text", {}, "made a str"),
        (lambda: DataLoader(tensors()), {"loader": {}}, "dataset.loader has no effect"),
        (Squares, {"splits": {"method": "time", "column": "t"}}, "reads a column"),
        (
            lambda: TensorDataset(torch.ones(30, 2), torch.rand(30)),
            {"splits": {"method": "stratified"}},
            "needs classes",
        ),
        (lambda: TensorDataset(torch.ones(30, 2)), {"splits": {"method": "stratified"}}, "needs"),
        (lambda: (np.ones((3, 2)), np.ones(4)), {}, "shapes (3, 2) and (4,)"),
        (lambda: (np.array([["a", "b"]] * 9), np.ones(9)), {}, "inputs that are no numbers"),
        (lambda: (np.full((9, 2), np.nan), np.ones(9)), {}, "sample 1 holds a value that is no finite number"),
        (lambda: (np.ones((9, 2)), np.arange(9) / 7), {"splits": {"method": "stratified"}}, "needs classes"),
        (lambda: (np.ones((9, 2)), np.ones(9)), {"splits": {"method": "group", "column": "g"}}, "reads a column"),
        (lambda: tensors(2), {}, "2 samples cannot be divided"),
        (Squares, {"loader": {"batch_size": 500, "drop_last": True}}, "leaves no training batch"),
    ],
)
def test_what_a_target_may_not_make(tmp_path: Path, make: Any, settings: Any, message: str) -> None:
    with pytest.raises(DataError) as caught:
        made_by_code(make, tmp_path, **settings)
    assert message in caught.value.message
    assert caught.value.hint


def test_arrays_keep_their_values(tmp_path: Path) -> None:
    x = np.arange(60).reshape(30, 2)
    data = made_by_code(lambda: (x, np.arange(30) % 3), tmp_path, loader={"shuffle": False})
    assert (data.task, data.class_names) == ("classification", ["0", "1", "2"])
    inputs, classes = batches(data)[0]
    assert (inputs.dtype, classes.dtype) == (torch.float32, torch.int64)
    assert torch.equal(inputs[:, 0] / 2 % 3, classes.float())
    assert data.preprocessing is not None
    assert np.array_equal(data.preprocessing.transform(x), x.astype(np.float32))


def test_a_scikit_learn_bunch(tmp_path: Path) -> None:
    from sklearn.datasets import load_iris

    for as_frame in (False, True):
        data = made_by_code(lambda: load_iris(as_frame=as_frame), tmp_path, splits={"method": "stratified"})  # noqa: B023
        assert data.class_names == ["setosa", "versicolor", "virginica"]
        assert batches(data)[0][0].shape == (32, 4)


@pytest.mark.parametrize(
    ("y", "task", "decided"),
    [
        (np.arange(30) / 7, "auto", "regression"),
        (np.arange(30) % 2, "regression", "regression"),
        (np.arange(30) % 25, "auto", "classification"),
        (np.arange(30) * 3, "auto", "regression"),
        (np.arange(30) * 3, "classification", "classification"),
        (np.array(["a", "b", "c"] * 10), "auto", "classification"),
        (np.array(["a", "b", "c"] * 10, dtype=object), "auto", "classification"),
        (np.array([True, False, True] * 10), "auto", "classification"),
        (np.ones((30, 2)), "auto", "regression"),
        (np.ones((30, 1)) / 2, "auto", "regression"),
        (torch.arange(30) % 2, "auto", "classification"),
    ],
)
def test_what_targets_are(tmp_path: Path, y: Any, task: str, decided: str) -> None:
    data = made_by_code(lambda: (np.ones((30, 2)), y), tmp_path, task)
    assert data.task == decided
    target = batches(data)[0][1]
    assert target.dtype == (torch.int64 if decided == "classification" else torch.float32)
    assert target.shape[1:] == ((2,) if np.asarray(y).shape[1:] == (2,) else ())


def test_random_data_depends_on_the_seed_alone(tmp_path: Path) -> None:
    def make() -> Any:
        return np.random.rand(10, 2), torch.rand(10).numpy()

    dataset = TargetDataset.model_validate({"_target_": "user.make", "loader": {"shuffle": False}})
    torch.manual_seed(5)
    first = batches(load(dataset, tmp_path, instantiate=lambda _: make(), seed=1))[0]
    np.random.rand(3)
    torch.rand(3)
    second = batches(load(dataset, tmp_path, instantiate=lambda _: make(), seed=1))[0]
    other = batches(load(dataset, tmp_path, instantiate=lambda _: make(), seed=2))[0]
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[0], other[0])


def test_the_random_state_is_left_as_it_was(tmp_path: Path) -> None:
    dataset = TargetDataset.model_validate({"_target_": "user.make"})
    torch.manual_seed(5)
    np.random.seed(5)
    expected = torch.rand(1), np.random.rand()
    torch.manual_seed(5)
    np.random.seed(5)
    load(dataset, tmp_path, instantiate=lambda _: (np.random.rand(10, 2), torch.rand(10).numpy()))
    assert (torch.rand(1), np.random.rand()) == expected


def test_an_error_in_the_users_code_is_the_users(tmp_path: Path) -> None:
    def broken() -> Any:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        made_by_code(broken, tmp_path)
