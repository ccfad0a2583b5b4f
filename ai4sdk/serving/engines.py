"""What computes: torch or ONNX Runtime, and with how many threads. Chosen by measurement, after both gave the same."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ai4sdk.errors import Ai4Error, EnvironmentFault, RunFailed
from ai4sdk.serving.exports import keep_export, kept_export
from ai4sdk.serving.layout import lay_out
from ai4sdk.worker.calling import as_array, call_module, main_tensor
from ai4sdk.worker.model import Model

__all__ = ["Chosen", "Engine", "choose"]

log = logging.getLogger(__name__)

Engine = Literal["torch", "onnx", "auto"]

_TOLERANCE = 1e-3
_ROWS = 8
"""Samples of the batch that is measured."""
_SIZES = (1, 2, 4, 8, 16, 32)
_AS_GOOD = 1.05
_WORTH = 0.002
"""Seconds of a batch from which on several threads may help."""
_MOST = 0.1
"""Seconds that measuring one way may take; a module that is slower than that is measured once."""


@dataclass(frozen=True)
class Chosen:
    """What computes.

    Parameters
    ----------
    engine
        ``torch`` or ``onnx``.
    threads
        Threads of a computation.
    seconds
        Time of a batch of eight, by way and threads.
    why_not
        Why ONNX Runtime does not, where it was asked for.
    """

    engine: str
    threads: int
    seconds: dict[str, float]
    why_not: str | None = None
    rows: int | None = None
    """Samples that are best computed at once; nothing where the more, the better."""
    channels_last: bool = False
    """Whether torch has the weights of convolutions with the channels last; see `ai4sdk.serving.layout`."""


def choose(model: Model, samples: Any, wanted: Engine, threads: int) -> Chosen:
    """Choose what computes, and make the model compute with it.

    Parameters
    ----------
    model
        The model; its module is exchanged where ONNX Runtime is chosen.
    samples
        Examples of what it is asked.
    wanted
        ``onnx`` fails where it cannot be had; ``auto`` takes the faster one.
    threads
        Most threads.

    Raises
    ------
    EnvironmentFault
        If ONNX Runtime is wanted and not installed, or cannot compute where the model is.
    RunFailed
        If the module cannot be exported, or answers otherwise when it is.
    """
    array = np.resize(model.prepare(samples), (_ROWS, *model.description.input_shape))
    ways: dict[tuple[str, int], Callable[[], object]] = {}
    modules: dict[int, _OnnxModule] = {}
    seconds: dict[tuple[str, int], float] = {}
    why_not = None
    channels_last = False
    torch.set_num_threads(1)
    if wanted != "onnx":
        channels_last = _laid_out(model, array)
        inputs = model.tensor(array)
        ways["torch", 1] = lambda: main_tensor(model.ask(inputs))
    if wanted != "torch":
        try:
            graph, modules[1] = _exported(model, array)
            ways["onnx", 1] = lambda: modules[1].run(array)
        except Ai4Error as error:
            if wanted == "onnx":
                raise
            why_not = error.message
    for way, compute in ways.items():
        seconds[way] = _timed(compute)
    engine, count = min(seconds, key=lambda way: seconds[way])
    if threads > 1 and seconds[engine, 1] > _WORTH:
        # Only now are there threads: those of torch look for work without a pause, also when there is none.
        torch.set_num_threads(threads)
        if engine == "onnx":
            modules[threads] = _computed(model, graph, array, threads)
            ways[engine, threads] = lambda: modules[threads].run(array)
        else:
            ways[engine, threads] = ways[engine, 1]
        seconds[engine, threads] = _timed(ways[engine, threads])
        count = threads if seconds[engine, threads] < seconds[engine, 1] else 1
        torch.set_num_threads(count)
    if engine == "onnx":
        model.module = modules[count]
        model.description = model.description.model_copy(update={"call": "forward"})
    told = {f"{name} {of}": round(took, 6) for (name, of), took in seconds.items()}
    rows = _rows(model, array) if seconds[engine, count] > _WORTH else None
    return Chosen(engine, count, told, why_not, rows, channels_last and engine == "torch")


class _OnnxModule(nn.Module):
    """A module that ONNX Runtime computes."""

    def __init__(self, session: Any, dtype: np.dtype[Any]) -> None:
        super().__init__()
        self._session, self._dtype = session, dtype

    def run(self, array: NDArray[Any]) -> NDArray[Any]:
        """Compute a batch."""
        answer: NDArray[Any] = self._session.run(None, {"input": array.astype(self._dtype, copy=False)})[0]
        return answer

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute a batch of tensors."""
        return torch.from_numpy(self.run(inputs.numpy()))


class _Forward(nn.Module):
    """The module as a plain function of its inputs, whatever it is called by."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.module, self._call = model.module, model.description.call

    def forward(self, inputs: Tensor) -> Tensor:
        """Return what counts of the answer."""
        return main_tensor(call_module(self.module, inputs, self._call))


def _laid_out(model: Model, array: NDArray[Any]) -> bool:
    if model.device.type != "cpu":
        return False
    parts = [model.tensor(part) for part in (array[:1], array)]
    return lay_out(
        model.module,
        lambda: [main_tensor(model.ask(part)) for part in parts],
        lambda found, exact: _alike(as_array(found), as_array(exact)),
        lambda: _timed(lambda: model.ask(parts[1])),
    )


def _alike(found: NDArray[Any], exact: NDArray[Any]) -> bool:
    return found.shape == exact.shape and np.allclose(found, exact, rtol=_TOLERANCE, atol=_TOLERANCE)


def _rows(model: Model, array: NDArray[Any]) -> int:
    """Return how many samples at once take least time each: large ones leave the processor's caches together."""
    took: dict[int, float] = {}
    for rows in _SIZES:
        inputs = model.tensor(np.resize(array, (rows, *array.shape[1:])))
        took[rows] = _timed(lambda inputs=inputs: model.ask(inputs)) / rows  # type: ignore[misc]
    best = min(took.values())
    return max(rows for rows, seconds in took.items() if seconds <= best * _AS_GOOD)


def _exported(model: Model, array: NDArray[Any]) -> tuple[bytes, _OnnxModule]:
    """Return the module as ONNX and as ONNX Runtime computes it: as it was kept, or exported now."""
    _check(model)
    if (kept := kept_export(model.description)) is not None:
        try:
            return kept, _computed(model, kept, array, 1)
        except RunFailed as error:
            log.info("the kept export is of no use, so it is made again: %s", error.message)
    graph = _graph(model, array)
    module = _computed(model, graph, array, 1)
    keep_export(model.description, graph)
    return graph, module


def _computed(model: Model, graph: bytes, array: NDArray[Any], threads: int) -> _OnnxModule:
    """Have ONNX Runtime compute a graph, and hold its answers against torch's for one sample and for several."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        made = _OnnxModule(session, model.tensor(array[:1]).numpy().dtype)
        answers = [(made.run(part), model.ask(model.tensor(part))) for part in (array[:1], array)]
    except Exception as error:
        raise _not_computed(error) from error
    for found, expected in answers:
        if not _alike(found, as_array(main_tensor(expected))):
            raise RunFailed("the module answers otherwise when ONNX Runtime computes it", hint="serving.engine=torch")
    return made


def _not_computed(error: Exception) -> RunFailed:
    return RunFailed(
        f"the module cannot be computed by ONNX Runtime: {type(error).__name__}: {str(error).splitlines()[0]}",
        hint="serving.engine=torch",
    )


def _check(model: Model) -> None:
    """Refuse what cannot be: ONNX Runtime that is not installed, or a device it does not compute on here."""
    try:
        import onnxruntime  # noqa: F401 - what computes it afterwards
        import onnxscript  # noqa: F401 - what exports needs it
    except ImportError as error:
        raise EnvironmentFault(
            f"ONNX Runtime is not here: {error}", hint="pip install 'ai4sdk[onnx]', or serving.engine=torch"
        ) from error
    if model.device.type != "cpu":
        raise EnvironmentFault("ONNX Runtime computes on CPUs here", hint="serving.device=cpu, or serving.engine=torch")


def _graph(model: Model, array: NDArray[Any]) -> bytes:
    """Return the module as ONNX, for any number of samples."""
    logger = logging.getLogger("torch.onnx")
    before, logger.disabled = logger.level, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                _Forward(model).eval(),
                (model.tensor(array),),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("samples", min=1)},),
                input_names=["input"],
                output_names=["output"],
                verbose=False,
            )
    except Exception as error:
        raise _not_computed(error) from error
    finally:
        logger.disabled = False
        logger.setLevel(before)
    assert program is not None
    graph: bytes = program.model_proto.SerializeToString()
    return graph


def _timed(compute: Callable[[], object]) -> float:
    """Return the median time of a call, of as many as there is time for."""
    began = time.perf_counter()
    compute()
    first = time.perf_counter() - began
    times: list[float] = []
    while not times or (time.perf_counter() - began < max(_MOST, first) and len(times) < 50):
        start = time.perf_counter()
        compute()
        times.append(time.perf_counter() - start)
    return float(np.median(times))
