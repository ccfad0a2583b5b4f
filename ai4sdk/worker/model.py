"""A trained model as a callable, and how it is loaded. Loading reads safetensors and JSON and unpickles nothing."""

from __future__ import annotations

import html
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ai4sdk.errors import DataError, NotFound
from ai4sdk.worker.calling import as_array, call_module, float_type, main_tensor, moved
from ai4sdk.worker.description import Description, read_description
from ai4sdk.worker.inputs import BATCH_SIZE
from ai4sdk.worker.loading import fill_module, find_package, first_line, make_module
from ai4sdk.worker.prediction import Prediction, predict_classes, predict_values

if TYPE_CHECKING:
    from ai4sdk.data.preprocessing import Preprocessing

__all__ = ["Model", "load_model"]

Array = NDArray[Any]


class Model:
    """A trained module with what it needs to take samples as people have them.

    Calls may come from several threads; they wait for each other while the module computes.

    Parameters
    ----------
    module
        The module, with its weights.
    description
        What it takes and gives.
    preprocessing
        What is done to samples first.
    source
        Where it was loaded from.
    """

    def __init__(
        self,
        module: nn.Module,
        description: Description,
        preprocessing: Preprocessing | None = None,
        source: Path | None = None,
    ) -> None:
        self.module = module.eval()
        self.description = description
        self.preprocessing = preprocessing
        self.source = source
        self._lock = threading.Lock()
        self._writes: bool | None = None  # whether the module was seen to write into its input; not known yet

    @property
    def task(self) -> str:
        """``classification``, ``regression`` or ``other``."""
        return self.description.task

    @property
    def class_names(self) -> list[str] | None:
        """Names by class number."""
        return self.description.class_names

    @property
    def device(self) -> torch.device:
        """Where the module computes."""
        return next((weight.device for weight in self.module.parameters()), torch.device("cpu"))

    def __call__(self, inputs: Any, *, batch_size: int = BATCH_SIZE) -> Prediction:
        """Predict.

        Parameters
        ----------
        inputs
            Samples as the training data has them: records, rows, a DataFrame, an array, pictures or
            recordings or their paths. One record, one path, or one array of a sample's shape counts as one sample.
        batch_size
            Samples that are computed at once.

        Raises
        ------
        DataError
            If a sample is not what the model takes; it is named, with what was expected.
        """
        outputs = [
            self._compute(array[start : start + batch_size])
            for array in self._arrays(inputs, batch_size)
            for start in range(0, len(array), batch_size)
        ]
        if not outputs:
            raise DataError("there is no sample to predict for")
        return self.read(outputs[0] if len(outputs) == 1 else np.concatenate(outputs))

    def prepare(self, inputs: Any) -> Array:
        """Return samples as the module takes them; see `__call__`."""
        return np.concatenate(list(self._arrays(inputs, BATCH_SIZE)))

    def _arrays(self, inputs: Any, batch_size: int) -> Iterator[Array]:
        """Turn raw samples into arrays the module takes; what may be many files, a batch at a time."""
        if isinstance(inputs, Tensor):
            inputs = as_array(inputs)
        elif isinstance(inputs, Iterator):
            inputs = list(inputs)
        if self.preprocessing is None:
            yield self._fitting(_stacked(_several(inputs, self.description), self.description))
        elif self.preprocessing.media is None:
            yield self._fitting(self.preprocessing.transform(inputs))
        else:
            from ai4sdk.data.media import several

            samples = several(inputs, self.preprocessing.media)
            for start in range(0, len(samples), batch_size):
                yield self._fitting(self.preprocessing.transform(samples[start : start + batch_size]))

    def _fitting(self, array: Array) -> Array:
        """Refuse arrays of a shape that the module does not take."""
        expected = tuple(self.description.input_shape)
        if array.shape[1:] != expected:
            raise DataError(f"samples of shape {array.shape[1:]} do not fit: the model takes {_shape_text(expected)}")
        return array

    def ask(self, inputs: Tensor) -> Any:
        """Return what the module answers to what `tensor` makes.

        They stay as they are, although many a module writes into what it is given (``x /= 255``): it gets a copy until
        it is known not to.
        """
        with self._lock, torch.inference_mode(False), torch.no_grad():
            given = inputs if self._writes is False and not inputs.is_inference() else inputs.clone()
            version = given._version  # counts what is written, except of tensors that were made in inference mode
            answer = call_module(self.module, given, self.description.call)
            self._writes = bool(self._writes) or given._version != version
        return answer

    def tensor(self, array: Array) -> Tensor:
        """Return samples as the module takes them as a tensor of its type and on its device, copied only if need be."""
        # what is mapped from a file is not writable, and as such no tensor
        own = torch.from_numpy(np.require(array, requirements=["C", "W"]))
        tensor: Tensor = moved(own, self.device, float_type(self.module))
        return tensor

    def _compute(self, array: Array) -> Array:
        """Return what the module answers to one batch."""
        outputs = as_array(main_tensor(self.ask(self.tensor(array))))
        return outputs[None] if outputs.ndim == 0 else outputs

    def read(self, outputs: Array) -> Prediction:
        """Read what the module answered."""
        known = self.description
        if known.task == "classification" and known.output_kind != "values":
            return predict_classes(outputs, known.output_kind, known.class_names)
        return predict_values(known.task, outputs, known.output_names)

    def _facts(self) -> dict[str, str]:
        known = self.description
        takes = _shape_text(tuple(known.input_shape))
        if known.column_names:
            takes = f"records with {_some(known.column_names)}"
        gives = {"classification": "classes", "regression": "numbers", "other": "arrays"}[known.task]
        if known.class_names:
            gives = f"{len(known.class_names)} classes: {_some(known.class_names)}"
        elif known.task != "classification":
            gives += f" of shape {tuple(known.output_shape)}" if known.output_shape else ""
        weights = sum(weight.numel() for weight in self.module.parameters())
        return {
            "task": known.task,
            "takes": takes,
            "gives": gives,
            "module": f"{known.target['_target_']}, {weights:,} parameters on {self.device}",
            "from": f"run {known.run}",
        }

    def __repr__(self) -> str:
        lines = [f"  {key:<7} {value}" for key, value in self._facts().items()]
        return "\n".join([f"<Model {self.description.name}", *lines, ">"])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{key}</th><td style='text-align:left'>{html.escape(value)}</td></tr>"
            for key, value in self._facts().items()
        )
        return f"<b>{html.escape(self.description.name)}</b><table>{rows}</table>"


def load_model(source: str | Path, *, device: str | torch.device = "cpu", trust_code: bool | None = None) -> Model:
    """Load a model.

    Parameters
    ----------
    source
        A run directory or the folder of a model package.
    device
        Where it shall compute.
    trust_code
        Whether the package's own ``code/`` may be imported. By default only where it is known to be the user's own:
        for a run directory (its own snapshot is used), and for a package whose code is byte for byte what the
        project or the installed packages hold. Else the installed class of that name is used, if there is one.

    Raises
    ------
    NotFound
        If the source is neither, or the module's class is not to be had without trusting the package's code.
    DataError
        If the package is damaged, of a newer format, or its weights do not fit its module.
    RunFailed
        If the module's own code raised.
    """
    folder = Path(source)
    if not folder.is_dir():
        raise NotFound(f"there is no run or model package {source}", hint="`ai4sdk ps` lists the runs")
    place = find_package(folder, trust_code)
    known = read_description(place.package)
    module = make_module(known, place)
    fill_module(module, known, place.package)
    preprocessing = None
    if known.preprocessing is not None:
        from ai4sdk.data.preprocessing import Preprocessing

        preprocessing = Preprocessing.from_json(known.preprocessing)
    try:
        module.to(device)
    except (RuntimeError, AssertionError) as error:
        raise DataError(f"the model cannot be put on {device}: {first_line(error)}", hint="use device='cpu'") from error
    return Model(module, known, preprocessing, folder)


def _several(inputs: Any, known: Description) -> Any:
    """Bring one sample or several, for a module without preprocessing, into a sequence."""
    if hasattr(inputs, "to_dict") and hasattr(inputs, "columns"):  # a DataFrame, told without importing pandas
        return inputs.to_dict("records") if known.column_names else inputs.to_numpy()
    if isinstance(inputs, np.ndarray):
        return inputs[None] if inputs.shape == tuple(known.input_shape) else inputs
    return inputs if isinstance(inputs, Sequence) and not isinstance(inputs, str | bytes) else [inputs]


def _stacked(samples: Any, known: Description) -> Array:
    """Make an array of samples that need no preprocessing, naming the first that does not fit."""
    shape, dtype = tuple(known.input_shape), np.dtype(known.input_dtype)
    if isinstance(samples, np.ndarray) and samples.dtype.kind in "biuf" and samples.shape[1:] == shape:
        may_lose = dtype.kind in "iu" and samples.dtype.kind == "f"
        if not may_lose:
            return _cast(samples, dtype)
    rows = []
    for number, sample in enumerate(samples, start=1):
        values = _values(sample, known, number)
        try:
            array = np.asarray(values)
            if array.dtype.kind not in "biuf":
                raise ValueError(f"it holds {array.dtype} values")
            if dtype.kind in "iu" and array.dtype.kind == "f" and not (array == np.trunc(array)).all():
                raise ValueError("it holds fractions where whole numbers are expected")
            rows.append(_cast(array[None], dtype, first=number)[0])
        except (TypeError, ValueError) as error:
            raise DataError(
                f"sample {number} is no array of numbers: {first_line(error)}",
                hint=f"the model takes {_shape_text(shape)}",
            ) from error
        if rows[-1].shape != shape:
            raise DataError(f"sample {number} has the shape {rows[-1].shape}; the model takes {_shape_text(shape)}")
    return np.stack(rows) if rows else np.empty((0, *shape), dtype)


def _cast(samples: Array, dtype: np.dtype[Any], first: int = 1) -> Array:
    """Bring samples, the first of which has a number, to the type the module takes, if its numbers reach that far."""
    if samples.dtype == dtype:
        return samples
    with np.errstate(over="ignore", invalid="ignore"):  # told below
        cast = samples.astype(dtype)
    lost = np.isfinite(samples) & ~np.isfinite(cast) if dtype.kind == "f" else cast != samples
    if lost.any():
        number = first + int(np.argwhere(lost)[0][0])
        raise DataError(f"sample {number} holds a number too large for {dtype}", hint="rescale it")
    return cast


def _values(sample: Any, known: Description, number: int) -> Any:
    """Bring a record's values into the order of the columns."""
    if isinstance(sample, Tensor):
        return as_array(sample)
    if not isinstance(sample, Mapping):
        if isinstance(sample, str | Path):
            raise DataError(
                f"sample {number} is text ({str(sample)!r}); the model takes {_shape_text(tuple(known.input_shape))}"
            )
        return sample
    if not known.column_names:
        raise DataError(f"sample {number} is a record; the model takes {_shape_text(tuple(known.input_shape))}")
    missing = [name for name in known.column_names if name not in sample]
    if missing:
        raise DataError(
            f"sample {number} lacks {', '.join(map(repr, missing))}",
            hint=f"the columns are {_some(known.column_names)}",
        )
    try:
        return [float(sample[name]) for name in known.column_names]  # a cell of a CSV is text
    except (TypeError, ValueError):
        name = next(name for name in known.column_names if not _is_number(sample[name]))
        raise DataError(
            f"sample {number}, column {name!r}: {sample[name]!r} is no number", hint="give a number"
        ) from None


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _shape_text(shape: tuple[int, ...]) -> str:
    return f"arrays of shape {shape}" if shape else "single numbers"


def _some(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(map(str, names[:most])) + (f", … ({len(names)} in all)" if len(names) > most else "")
