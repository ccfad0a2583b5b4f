"""What a model package takes and gives, as named tensors: the one contract that every protocol is made from."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from ai4sdk.worker.description import Description

__all__ = ["LABEL", "MEDIA", "PROBABILITIES", "Contract", "Form", "TensorSpec", "contract_of"]

LABEL = "label"
PROBABILITIES = "probabilities"
MEDIA: dict[str, str] = {"images": "image", "audio": "audio"}
"""Forms whose samples are a file each, and the name of their tensor."""

Form = Literal["table", "array", "images", "audio"]

_DATATYPES = {
    "bool": "BOOL", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64", "int8": "INT8",
    "int16": "INT16", "int32": "INT32", "int64": "INT64", "float16": "FP16", "float32": "FP32", "float64": "FP64",
}  # fmt: skip
"""numpy's name → the Open Inference Protocol's."""

_CELLS = {"number": "FP64", "bool": "BOOL", "text": "BYTES"}


@dataclass(frozen=True)
class TensorSpec:
    """A tensor by name.

    Parameters
    ----------
    name
        Its name.
    datatype
        Type in the words of the Open Inference Protocol, such as ``FP32`` or ``BYTES``.
    shape
        Shape with samples along the first axis; -1 where any length goes.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Contract:
    """What a model takes and gives.

    Parameters
    ----------
    name
        Name of the job that made it.
    task
        ``classification``, ``regression`` or ``other``.
    form
        ``table``: a tensor a column, one value a sample; ``array``: one tensor; ``images``: encoded pictures.
        ``audio``: encoded recordings.
    inputs, outputs
        The tensors.
    sample_shape
        Shape of one sample of an array.
    class_names
        Names of a classifier's classes, in the order of the columns of its probabilities.
    rate
        Samples a second of recordings, which those that come as numbers must have.
    """

    name: str
    task: str
    form: Form
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    sample_shape: tuple[int, ...] = ()
    class_names: tuple[str, ...] = ()
    rate: int = 0

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of a table."""
        return tuple(spec.name for spec in self.inputs) if self.form == "table" else ()

    def to_json(self) -> dict[str, Any]:
        """Return it as a mapping for JSON."""
        return asdict(self)


def contract_of(known: Description) -> Contract:
    """Make the contract of a package."""
    form, inputs = _inputs_of(known)
    return Contract(
        name=known.name,
        task=known.task,
        form=form,
        inputs=inputs,
        outputs=_outputs_of(known),
        sample_shape=tuple(known.input_shape) if form == "array" else (),
        class_names=tuple(known.class_names or ()),
        rate=int((known.preprocessing or {}).get("audio", {}).get("rate", 0)),
    )


def _inputs_of(known: Description) -> tuple[Form, tuple[TensorSpec, ...]]:
    steps = known.preprocessing or {}
    if steps.get("kind") in MEDIA:
        return steps["kind"], (TensorSpec(MEDIA[steps["kind"]], "BYTES", (-1,)),)
    if steps.get("kind") == "table":
        columns = {str(column["name"]): str(column["kind"]) for column in steps["columns"]}
        return "table", tuple(TensorSpec(name, _CELLS[kind], (-1,)) for name, kind in columns.items())
    if known.column_names:
        return "table", tuple(TensorSpec(name, "FP64", (-1,)) for name in known.column_names)
    datatype = _DATATYPES.get(known.input_dtype, "FP32")
    return "array", (TensorSpec("input", datatype, (-1, *known.input_shape)),)


def _outputs_of(known: Description) -> tuple[TensorSpec, ...]:
    if known.task == "classification" and known.output_kind != "values":
        label = TensorSpec(LABEL, "BYTES", (-1,))
        if known.output_kind == "labels":
            return (label,)
        return label, TensorSpec(PROBABILITIES, "FP64", (-1, len(known.class_names or ()) or -1))
    # a regressor's only output is a number a sample
    alone = known.task == "regression" and tuple(known.output_shape) in ((), (1,))
    return (TensorSpec("output", "FP32", (-1, *(() if alone else known.output_shape))),)
