"""From what a job says about its data to what Lightning trains on."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from ai4sdk.data.columns import Column
from ai4sdk.data.fetch import local_source
from ai4sdk.data.fingerprint import fingerprint_source, require
from ai4sdk.data.loaders import RAW_BYTES, RAW_SAMPLES, Data, SplitData, check_batches, label_tensor, prepared
from ai4sdk.data.notation import Notation
from ai4sdk.data.preprocessing import Preprocessing, files_rules, fit_array, fit_table
from ai4sdk.data.readers import Files, Samples, chosen, encoded, read_arrays, some_cells
from ai4sdk.data.source import Source, find_source
from ai4sdk.data.study import ArrayStudy, FilesStudy, Study, TableStudy, study
from ai4sdk.data.targets import from_target
from ai4sdk.spec import FileDataset, Storage, TargetDataset

__all__ = ["Data", "SplitData", "load_data"]


def load_data(
    dataset: FileDataset | TargetDataset,
    *,
    storage: Storage,
    project: Path,
    task: str,
    seed: int,
    instantiate: Callable[[dict[str, Any]], Any],
    site: str | None = None,
    preprocessing: Preprocessing | None = None,
) -> Data:
    """Make what a module trains on.

    Parameters
    ----------
    dataset
        Files, or a target of the user's.
    storage
        The job's storage.
    project
        Folder that relative paths start from.
    task
        ``auto``, ``classification``, ``regression`` or ``other``.
    seed
        Seed while a target makes its data, so that it makes the same whatever ran before. The random state is
        afterwards as it was. The division into splits has its own seed.
    instantiate
        Calls a target, as ``hydra.utils.instantiate`` does.
    site
        Column of files that says which site of a federation a sample is of.
    preprocessing
        What prepares samples of files; by default it is measured on the training split.

    Returns
    -------
    Data
        Datasets are read on this machine; pictures and recordings when they are asked for.

    Raises
    ------
    DataError
        If the data cannot be reached, read, or learnt from as the job says; or a target makes something that is no
        data.
    """
    if isinstance(dataset, FileDataset):
        return _from_files(dataset, storage, project, task, site, preprocessing)
    with _seeded(seed):
        made = instantiate(dataset.as_config())
    return from_target(made, dataset, task)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would also touch GPUs, which need not be woken yet
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)


def _from_files(
    dataset: FileDataset,
    storage: Storage,
    project: Path,
    task: str,
    site: str | None,
    preprocessing: Preprocessing | None,
) -> Data:
    source = find_source(dataset, storage, project)
    if dataset.fingerprint is not None:
        require(fingerprint_source(source), dataset.fingerprint, source)
    source = local_source(source, storage)
    found = study(source, dataset, task, site=site)
    raw: Mapping[str, Column] | NDArray[Any] | None = None
    decided = _decided(task, found)
    if isinstance(found, FilesStudy):
        preprocessing, inputs = preprocessing or files_rules(found.how, decided, found.files.names), None
    elif isinstance(found, TableStudy):
        preprocessing = preprocessing or fit_table(
            found,
            standardize=dataset.standardize,
            missing=dataset.missing,
            task=decided,
            label=dataset.label,
            notation=Notation.of(dataset.options),
        )
        inputs, raw = encoded(found, preprocessing), some_cells(found, RAW_SAMPLES)
    else:
        assert isinstance(found, ArrayStudy)
        preprocessing, inputs, raw = _arrays(source, dataset, found, decided, preprocessing)
    targets = _targets(source, found)
    assert found.splits is not None
    parts: dict[str, TorchDataset[Any]] = {}
    for name, positions in found.splits.items():
        chosen = torch.tensor(positions)
        picked = None if targets is None else targets[chosen]
        if isinstance(found, FilesStudy):
            names = [found.files.entries[position].name for position in positions]
            parts[name] = Files(Path(source.location.path), names, picked, found.how)
        else:
            assert inputs is not None
            parts[name] = Samples(inputs[chosen], picked)
    check_batches(parts, dataset.loader)
    made = replace(prepared(parts, dataset.loader, preprocessing, decided), raw=raw)
    if found.sites is None:
        return made
    of_rows = found.sites
    return replace(
        made, sites={name: [of_rows[position] for position in chosen] for name, chosen in found.splits.items()}
    )


def _decided(task: str, found: Study) -> str:
    if task != "auto":
        return task
    if not found.is_labelled:
        return "other"
    return "classification" if found.labels is not None and found.labels.kind == "class" else "regression"


def _arrays(
    source: Source, dataset: FileDataset, found: ArrayStudy, task: str, preprocessing: Preprocessing | None
) -> tuple[Preprocessing, Tensor, NDArray[Any]]:
    assert found.splits is not None
    values = read_arrays(source, found.inputs)
    if values.ndim == 1:
        values = values[:, None]
    values = values[np.asarray(found.rows)] if len(found.rows) < len(values) else values
    preprocessing = preprocessing or fit_array(
        values[found.splits["train"]],
        standardize=dataset.standardize,
        missing=dataset.missing,
        task=task,
        label=dataset.label,
        names=found.labels.names if found.labels else None,
    )
    training = np.asarray(found.splits["train"])
    size = values.nbytes // max(len(values), 1)
    most = min(RAW_SAMPLES, max(100, RAW_BYTES // max(size, 1)))
    raw = np.asarray(values[training[chosen(len(training), most)]])
    return preprocessing, torch.from_numpy(preprocessing.transform(values)), raw


def _targets(source: Source, found: Study) -> Tensor | None:
    """Return what is to be predicted for the usable rows: int64 classes or float32 numbers."""
    if isinstance(found, ArrayStudy) and found.targets is not None:
        values = read_arrays(source, found.targets)
        return torch.from_numpy(np.ascontiguousarray(values[np.asarray(found.rows)], dtype=np.float32))
    return label_tensor(found.labels) if found.labels is not None else None
