"""Several processes together see what one process would see: nothing twice, nothing of one rank's own choosing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, IterableDataset, RandomSampler, TensorDataset

from ai4sdk.errors import DataError, RunFailed
from ai4sdk.worker.group import Group
from ai4sdk.worker.ranks import Rank
from ai4sdk.worker.sharding import Divided, TrainingBatches, ValidationBatches


class Said(Group):
    """A group whose rank 0 has said its numbers before."""

    def __init__(self, rank: int, size: int, order: list[int]) -> None:
        super().__init__(Rank(rank, size, rank, size))
        self.order = order

    def numbers(self, values: list[int] | None) -> list[int]:
        assert (values is not None) == (self.rank.rank == 0), "only rank 0 draws"
        return self.order


def loader(rows: int, **options: Any) -> DataLoader[Any]:
    return DataLoader(TensorDataset(torch.arange(rows)), **{"batch_size": 4, **options})


def parts(kind: Any, rows: int, size: int, *arguments: Any) -> list[list[list[int]]]:
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(1)).tolist()
    made = [kind(range(rows), *arguments, Said(rank, size, order)) for rank in range(size)]
    drawn = [list(batches) for batches in made]
    assert [len(batches) for batches in made] == [len(batches) for batches in drawn], "len() tells the truth"
    return drawn


@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("rows", [24, 25, 29, 47, 48])
@pytest.mark.parametrize("drop_last", [False, True])
def test_batches_are_those_of_one_process_cut_into_equal_parts(size, rows, drop_last):
    drawn = parts(TrainingBatches, rows, size, 4, drop_last)
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(1)).tolist()
    alone = list(BatchSampler(order, 4 * size, drop_last))
    for index, batch in enumerate(alone):
        together = [number for rank in range(size) for number in drawn[rank][index : index + 1] for number in number]
        assert together == batch[: len(batch) // size * size]
    assert len({tuple(len(batch) for batch in batches) for batches in drawn}) == 1, "all ranks weigh the same"
    left_out = rows - sum(len(batch) for batches in drawn for batch in batches)
    assert left_out < (4 * size if drop_last else size)


@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("rows", [4, 5, 23, 24, 25, 47])
@pytest.mark.parametrize("batch_size", [1, 2, 4, 100])
def test_validation_sees_each_sample_once_in_as_many_batches_everywhere(size, rows, batch_size):
    drawn = parts(ValidationBatches, rows, size, batch_size)
    assert sorted(number for batches in drawn for batch in batches for number in batch) == list(range(rows))
    assert len({len(batches) for batches in drawn}) == 1
    assert all(1 <= len(batch) <= batch_size + 1 for batches in drawn for batch in batches)


def test_loaders_are_given_back_as_they_were():
    training, validation = loader(16, shuffle=True), loader(16)
    before = training.batch_sampler, validation.batch_sampler
    divided = Divided(Said(0, 2, list(range(16))))
    divided.training(training)
    divided.training(training)  # a loader that is asked for again
    divided.validation(validation)
    assert [x.tolist() for (x,) in training] == [[0, 1, 2, 3], [8, 9, 10, 11]]
    assert isinstance(validation.batch_sampler, ValidationBatches)
    divided.undo()
    assert (training.batch_sampler, validation.batch_sampler) == before


def test_what_cannot_be_divided_is_refused_for_training_and_seen_whole_in_validation():
    class Stream(IterableDataset[int]):
        def __iter__(self) -> Any:
            return iter(range(8))

    class Pairs(BatchSampler):
        pass

    divided = Divided(Said(0, 2, []))
    stream = DataLoader(Stream(), batch_size=2)
    with pytest.raises(RunFailed, match="Stream gives samples one after the other; 2 processes"):
        divided.training(stream)
    divided.validation(stream)
    assert list(map(len, stream)) == [2, 2, 2, 2]
    dataset = TensorDataset(torch.arange(8))
    own = DataLoader(dataset, batch_sampler=Pairs(RandomSampler(dataset), 2, False))
    with pytest.raises(RunFailed, match="Pairs cannot be divided among 2 processes"):
        divided.training(own)
    few = loader(1)
    divided.validation(few)
    assert len(few) == 1


def test_a_loader_that_divides_itself_is_left_alone():
    dataset = TensorDataset(torch.arange(16))
    own = DataLoader(dataset, batch_size=4, sampler=DistributedSampler(dataset, num_replicas=2, rank=1))
    Divided(Said(1, 2, [])).training(own)
    assert type(own.batch_sampler) is BatchSampler


def test_a_training_without_batches_is_refused_with_the_numbers():
    with pytest.raises(DataError, match="7 samples leave no training batch for 2 processes with 4 samples each"):
        Divided(Said(0, 2, [])).training(loader(7, drop_last=True))


def test_a_loaders_own_batches_must_fit_the_global_batch_size():
    with pytest.raises(RunFailed, match=r"is 16, but the loader gives batches of 4: with 2 processes .* has 8 samples"):
        Divided(Said(0, 2, []), 16).training(loader(32))
    Divided(Said(0, 2, []), 16, accumulate=2).training(loader(32))
