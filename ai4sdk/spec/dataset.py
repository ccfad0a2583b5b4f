"""What a job learns from: files at an address, or a dataset of the user's own code."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from ai4sdk.spec.base import Section, field_that_changes_nothing
from ai4sdk.spec.target import Target

Format = Literal["csv", "parquet", "npy", "npz", "images", "audio"]
SplitMethod = Literal["fraction", "stratified", "group", "time", "given"]


class Splits(Section):
    """How samples are divided into training, validation and test."""

    method: SplitMethod = "fraction"
    """``fraction`` at random; ``stratified`` keeps the share of each class; ``group`` keeps the rows of one
    value of ``column`` together; ``time`` trains on the earliest rows of ``column`` and tests on the latest;
    ``given`` takes ``train``, ``val`` and ``test`` as names."""

    train: float | str | None = 0.7
    """Share of the samples, or with ``given`` a file or folder under the address, or a value of ``column``."""

    val: float | str | None = 0.15
    """As ``train``; nothing for no validation."""

    test: float | str | None = 0.15
    """As ``train``; nothing for no test."""

    column: str | None = None
    """Column that ``group``, ``time`` and ``given`` read; ``stratified`` reads the label without it."""

    seed: int = Field(default=0, ge=0)
    """Seed of the shuffle, apart from the job's so that repeated trainings see the same split."""

    @model_validator(mode="before")
    @classmethod
    def _given_parts_have_no_default(cls, data: Any) -> Any:
        """With ``given``, a part that is not named does not exist; the default shares are for the other methods."""
        if isinstance(data, dict) and data.get("method") == "given":
            return {"val": None, "test": None, **data}
        return data

    @model_validator(mode="after")
    def _shares_fit_the_method(self) -> Self:
        parts = {name: getattr(self, name) for name in ("train", "val", "test")}
        named = {name: part for name, part in parts.items() if part is not None}
        if self.method == "given":
            if wrong := [name for name, part in named.items() if not isinstance(part, str)]:
                raise ValueError(f"with method: given, {', '.join(wrong)} must be a name (or nothing), not a number")
        else:
            if wrong := [name for name, part in named.items() if isinstance(part, str)]:
                raise ValueError(f"with method: {self.method}, {', '.join(wrong)} must be a share between 0 and 1")
            shares = [float(part) for part in named.values()]
            if any(not 0 <= share <= 1 for share in shares) or abs(sum(shares) - 1) > 1e-6:
                raise ValueError(f"the shares of train, val and test must add up to 1, not {sum(shares):g}")
        if not parts["train"]:
            raise ValueError("train must not be empty")
        if self.method in ("group", "time") and self.column is None:
            raise ValueError(f"method: {self.method} needs column")
        return self


class Loader(Section):
    """How samples are gathered into batches."""

    batch_size: int = Field(default=32, ge=1)
    """Samples in a batch."""

    shuffle: bool = True
    """Whether training samples are drawn in a new order each epoch."""

    drop_last: bool = False
    """Whether a last, smaller training batch is left out."""

    num_workers: int = Field(default=0, ge=0)
    """Processes that load data beside the training process; 0 loads in it."""

    pin_memory: bool | None = field_that_changes_nothing(default=None)
    """Page-locked memory for faster copies to a GPU; by default where GPUs are used."""


class Images(Section):
    """How pictures are turned into arrays of shape (channels, height, width), float32 in 0..1."""

    size: list[Annotated[int, Field(ge=1)]] = Field(default=[64, 64], min_length=2, max_length=2)
    """Height and width in pixels that every picture is scaled to."""

    mode: Literal["RGB", "L"] = "RGB"
    """``RGB`` for colour (3 channels), ``L`` for grey (1 channel)."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of a picture as modules take it."""
        height, width = self.size
        return 3 if self.mode == "RGB" else 1, height, width


class Audio(Section):
    """How recordings are turned into arrays of shape (1, rate times seconds), float32 in -1..1."""

    rate: int = Field(default=16_000, ge=100, le=768_000)
    """Samples a second that every recording is brought to. Several channels become their mean."""

    seconds: float = Field(default=1.0, gt=0, le=3600)
    """Length; of longer recordings the beginning is taken, shorter ones are filled up with silence."""

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of a recording as modules take it."""
        return 1, round(self.rate * self.seconds)

    @model_validator(mode="after")
    def _something_is_heard(self) -> Self:
        if self.shape[1] < 1:
            raise ValueError(f"{self.seconds} seconds at {self.rate} samples a second are not a single sample")
        return self


class CsvOptions(Section):
    """How a CSV file is written. Blanks around a cell never count."""

    sep: str | None = Field(default=None, min_length=1, max_length=1)
    """Character between cells; by default ``,``, or a tab where the name ends in ``.tsv``."""

    decimal: str = Field(default=".", min_length=1, max_length=1)
    """Character before the fraction of a number."""

    quotechar: str = Field(default='"', min_length=1, max_length=1)
    """Character around cells that hold a separator or a line end."""

    encoding: str = "utf-8"
    """Character encoding, such as ``latin-1`` or ``cp1252``."""

    skiprows: int = Field(default=0, ge=0)
    """Lines before the header that are passed over."""

    header: bool = True
    """Whether the first line names the columns; without it and ``names`` they are called ``0``, ``1``, ..."""

    names: list[str] | None = Field(default=None, min_length=1)
    """Names of the columns, instead of those in the file."""

    comment: str | None = Field(default=None, min_length=1, max_length=1)
    """Character that starts a line to pass over."""

    na_values: list[str] = []
    """Texts that stand for an empty cell, beside the empty text, ``NA``, ``N/A``, ``NaN``, ``NULL``, ``None``."""


class FileDataset(Section):
    """Files at an address."""

    uri: str = field_that_changes_nothing(min_length=1)
    """Address of a file or folder: a path, or ``http://``, ``https://``, ``s3://``, ``webdav://``, ``webdavs://``,
    or ``storage://`` for a path under the job's ``storage``. A relative path starts at the project. Files of one
    format in a folder are read one after another, by name."""

    format: Format | None = None
    """``csv``, ``parquet``, ``npy``, ``npz``, ``images`` or ``audio``; by default told from the name."""

    label: str | None = None
    """Column or array to predict; by default ``y`` in an npz. Folders of pictures or recordings
    are named after their class."""

    features: list[str] | None = None
    """Columns or array to learn from; by default all but the label and the split column (``x`` in an npz).
    Columns of text become one column a category."""

    drop: list[str] = []
    """Columns to leave out."""

    standardize: bool = True
    """Whether numeric columns are scaled to mean 0 and deviation 1, measured on the training split. Pictures,
    recordings, and arrays of more than one axis a sample are left as they are."""

    missing: Literal["refuse", "mean", "drop"] = "refuse"
    """What an empty cell does: end the run with its place, become the column's training mean (or the most
    frequent category), or drop its row."""

    images: Images = Field(default_factory=Images)
    """How pictures are read; for ``format: images``."""

    audio: Audio = Field(default_factory=Audio)
    """How recordings are read; for ``format: audio``."""

    options: CsvOptions = Field(default_factory=CsvOptions)
    """How the file is written, such as ``sep: ';'``; for ``format: csv``."""

    fingerprint: str | None = field_that_changes_nothing(default=None)
    """Fingerprint that the data must have, as ``ai4sdk plan`` shows it; other data is refused."""

    splits: Splits = Field(default_factory=Splits)
    """Division into training, validation and test."""

    loader: Loader = Field(default_factory=Loader)
    """Batches."""


class TargetDataset(Target):
    """A dataset made by code: a LightningDataModule, a torch Dataset, loaders, or arrays.

    Every key but ``splits`` and ``loader`` is an argument of the target. Arguments that name existing files or
    folders are fingerprinted with the plan.
    """

    splits: Splits | None = None
    """Division of what the target returns; not for a LightningDataModule, which divides its own."""

    loader: Loader | None = None
    """Batches; not for a LightningDataModule, which makes its own."""


def _kind(value: Any) -> str:
    keys = value if isinstance(value, dict) else getattr(value, "model_fields_set", {})
    return "target" if "_target_" in keys or isinstance(value, TargetDataset) else "files"


Dataset = Annotated[
    Annotated[FileDataset, Tag("files")] | Annotated[TargetDataset, Tag("target")],
    Discriminator(_kind),
]
"""Files at an address, or with ``_target_`` the user's own code."""
