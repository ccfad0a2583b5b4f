"""What every section of a job has in common."""

from __future__ import annotations

import os
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
        ser_json_inf_nan="constants",  # else infinity would be null in the plan, which is another value
    )


def field_that_changes_nothing(**kwargs: Any) -> Any:
    """Declare a field that cannot change results, and so stays out of a plan's digest.

    Addresses count as such: the content found there is fingerprinted, and the fingerprint is in the digest.
    """
    return Field(json_schema_extra={"affects_results": False}, **kwargs)


def complete(model: type[BaseModel]) -> None:
    """Build a model's validator, if that is still to be done, without looking for plugins of pydantic.

    Looking for them reads the metadata of every package installed, which takes longer than validating a job; our models
    need none. Models of the user's keep theirs.
    """
    if model.__pydantic_complete__:
        return
    name = "PYDANTIC_DISABLE_PLUGINS"
    before = os.environ.get(name)
    os.environ[name] = "__all__"
    try:
        model.model_rebuild()
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
