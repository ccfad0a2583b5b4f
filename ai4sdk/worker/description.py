"""``model.json``: what a model package holds and how its module is made and asked, without any code of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ai4sdk.errors import DataError, NotFound
from ai4sdk.runs.files import read_json
from ai4sdk.worker.calling import Call
from ai4sdk.worker.scores import OutputKind

__all__ = ["FORMAT", "WEIGHTS", "Description", "PackageTask", "read_description"]

FORMAT = 1
WEIGHTS = "weights.safetensors"
MODEL_FILE = "model.json"
CODE = "code"

PackageTask = Literal["classification", "regression", "other"]


class Description(BaseModel):
    """What ``model.json`` says.

    Shapes are those of one sample: the first axis, samples, is left out.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    kind: Literal["ai4sdk model package"] = "ai4sdk model package"
    format: int = FORMAT
    """Version of this format; readers refuse a higher one than they know."""
    name: str
    """Name of the job that made it."""
    task: PackageTask
    target: dict[str, Any]
    """The module: ``_target_`` and its arguments, as ``hydra.utils.instantiate`` takes them."""
    call: Call = "forward"
    """Which method of the module gives predictions."""
    input_shape: list[int]
    """What the module takes, after preprocessing."""
    input_dtype: str
    weights_dtype: str | None = None
    """Type of the floating-point weights; nothing where there are none."""
    output_shape: list[int]
    """What the module answers."""
    output_kind: OutputKind | Literal["values"]
    class_names: list[str] | None = None
    output_names: list[str] | None = None
    column_names: list[str] | None = None
    """Columns a sample has, where samples are records."""
    preprocessing: dict[str, Any] | None = None
    """What is done to samples first, as ``ai4sdk.data.preprocessing`` writes it."""
    weights_sha256: str
    shared_weights: dict[str, str] = Field(default_factory=dict)
    """Weights that are stored under another name, as they are one tensor in the module."""
    extra_state: dict[str, Any] = Field(default_factory=dict)
    """State of the module that is no tensor."""
    code_paths: list[str] = Field(default_factory=list)
    """Folders under ``code/`` that its modules are imported from."""
    code_sha256: str | None = None
    plan: str
    """Digest of the plan that made it."""
    run: str
    """The run that made it."""
    packages: dict[str, str] = Field(default_factory=dict)
    scores: dict[str, Any] = Field(default_factory=dict)
    """Headline figures of its evaluation."""

    @property
    def takes_arrays(self) -> bool:
        """Whether samples are arrays of numbers, and have no columns with names."""
        return not self.column_names and (self.preprocessing or {}).get("kind", "array") == "array"

    @classmethod
    def of(cls, values: Any, where: Path) -> Self:
        """Read a description.

        Raises
        ------
        DataError
            If the values are no description, or one of a newer format.
        """
        version = values.get("format") if isinstance(values, dict) else None
        if isinstance(version, int) and version > FORMAT:
            raise DataError(
                f"{where} has format {version}; this ai4sdk knows formats up to {FORMAT}",
                hint="install a newer ai4sdk to load this package",
            )
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(str(part) for part in first["loc"]) or "its content"
            raise DataError(f"{where} describes no model: {place}: {first['msg']}") from None


def read_description(package: Path) -> Description:
    """Read the description of a package.

    Raises
    ------
    NotFound
        If the folder is no package.
    DataError
        If the description is damaged, or of a newer format.
    """
    path = package / MODEL_FILE
    try:
        values = read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(
            f"{package} is no model package: it has no {MODEL_FILE}",
            hint="name a run that has succeeded, or the folder `package` of one",
        ) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise DataError(f"{path} is damaged: {error}", hint="copy the package again") from error
    return Description.of(values, path)
