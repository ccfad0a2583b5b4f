"""What a model package holds of its data, to hold new data against."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from ai4sdk.drift.features import Features, Form
from ai4sdk.drift.sketch import Sketch, sketch
from ai4sdk.errors import DataError, NotFound
from ai4sdk.runs.files import read_json

__all__ = ["REFERENCE", "Reference", "make_reference", "read_reference"]

REFERENCE = "drift/reference.json"
"""Where it is in a package."""

KIND = "ai4sdk drift reference"
FORMAT = 1


@dataclass(frozen=True, eq=False)
class Reference:
    """Summaries of what a model was trained on and of what it answers.

    Parameters
    ----------
    form
        How features are read from samples; nothing where only answers were summarised.
    inputs, outputs
        Summaries by name of the feature.
    notes
        What a reader must know, in sentences: which samples these are of, and what is left out and why.
    """

    form: Form | None = None
    inputs: Mapping[str, Sketch] = field(default_factory=dict)
    outputs: Mapping[str, Sketch] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_text(self) -> str:
        """Return it as JSON; `from_json` reads what this is the text of."""
        value = {
            "kind": KIND,
            "format": FORMAT,
            "notes": list(self.notes),
            "form": None if self.form is None else self.form.to_json(),
            "inputs": [{"name": name, **made.to_json()} for name, made in self.inputs.items()],
            "outputs": [{"name": name, **made.to_json()} for name, made in self.outputs.items()],
        }
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n"

    @classmethod
    def from_json(cls, value: Any, where: str = "the drift reference") -> Self:
        """Read a reference.

        Raises
        ------
        DataError
            If it is damaged or of a later format.
        """
        if not isinstance(value, Mapping) or value.get("kind") != KIND:
            raise DataError(f"{where} is no drift reference")
        if value.get("format") != FORMAT:
            raise DataError(
                f"{where} has format {value.get('format')!r}, this ai4sdk reads {FORMAT}",
                hint="use the ai4sdk that made it, or a later one",
            )
        try:
            parts = [
                {str(entry["name"]): Sketch.from_json(entry) for entry in value[part]} for part in ("inputs", "outputs")
            ]
            form = None if value["form"] is None else Form.from_json(value["form"])
            return cls(form, parts[0], parts[1], tuple(map(str, value.get("notes", ()))))
        except (KeyError, TypeError) as error:
            raise DataError(f"{where} is damaged: {error}", hint="copy the package again") from error


def make_reference(form: Form | None, inputs: Features, outputs: Features, notes: tuple[str, ...]) -> Reference:
    """Summarise features."""
    return Reference(
        form,
        {name: sketch(values) for name, values in inputs.items()},
        {name: sketch(values) for name, values in outputs.items()},
        notes,
    )


def read_reference(package: Path) -> Reference:
    """Read the reference of a model package.

    Raises
    ------
    NotFound
        If there is none.
    DataError
        If it is damaged.
    """
    path = package / REFERENCE
    try:
        value = read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(
            f"{package} has no drift reference",
            hint="train again with evaluation.drift=all; federations have one of answers only, with privacy none",
        ) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise DataError(f"{path} is damaged: {error}", hint="copy the package again") from error
    return Reference.from_json(value, str(path))
