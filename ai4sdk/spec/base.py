"""What every section of a job has in common."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """A section of a job: unknown keys are refused, types are not guessed, nothing changes once read."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        defer_build=True,  # only Job is ever validated on its own; building 15 validators takes 50 ms
        frozen=True,
        validate_default=True,
        populate_by_name=True,
        protected_namespaces=(),
    )


def field_that_changes_nothing(**kwargs: Any) -> Any:
    """Declare a field that cannot change results, and so stays out of a plan's digest.

    Addresses count as such: the content found there is fingerprinted, and the fingerprint is in the digest.
    """
    return Field(json_schema_extra={"affects_results": False}, **kwargs)
