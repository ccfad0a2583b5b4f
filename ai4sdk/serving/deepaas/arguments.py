"""What a module's functions take and answer, as its agent describes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

__all__ = ["Answer", "Argument", "Description"]


@dataclass(frozen=True)
class Argument:
    """One argument.

    Parameters
    ----------
    name
        Its name in requests.
    schema
        Its values, as JSON schema; ``{"type": "file"}`` is a file.
    required
        Whether a request must have it.
    location
        Where alone a request has it: ``form``, ``json``, ``query`` and so on; without it, in any of these.
    many
        Whether it is a list, so that a query or form may repeat it.
    """

    name: str
    schema: Mapping[str, Any] = field(default_factory=dict)
    required: bool = False
    location: str | None = None
    many: bool = False

    @property
    def is_file(self) -> bool:
        """Whether it is a file, or several."""
        return "file" in (self.schema.get("type"), self.schema.get("items", {}).get("type"))

    @property
    def item(self) -> Mapping[str, Any]:
        """What one value of it is."""
        items: Mapping[str, Any] = self.schema.get("items", {}) if self.many else self.schema
        return items


@dataclass(frozen=True)
class Answer:
    """The schema that a module declares for its answers."""

    name: str
    properties: Mapping[str, Any]


@dataclass(frozen=True)
class Description:
    """What a module is, has, takes and answers.

    Parameters
    ----------
    metadata
        What its ``get_metadata()`` says.
    functions
        Those it has of ``predict``, ``train`` and ``warm``.
    predict, train
        What these take.
    produces
        Types it answers ``predict`` in.
    answer
        Schema of its answers, if it declares one.
    python, versions
        What runs it.
    """

    metadata: Mapping[str, Any]
    functions: frozenset[str]
    predict: Sequence[Argument] = ()
    train: Sequence[Argument] = ()
    produces: Sequence[str] = ("application/json",)
    answer: Answer | None = None
    python: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Read what an agent says."""
        metadata = values["metadata"]
        return cls(
            metadata if isinstance(metadata, dict) else {"description": str(metadata)},
            frozenset(values["functions"]),
            tuple(Argument(**argument) for argument in values["predict"]),
            tuple(Argument(**argument) for argument in values["train"]),
            tuple(values["produces"]),
            Answer(**values["answer"]) if values["answer"] else None,
            values["python"],
            values["versions"],
        )
