"""How two plans differ, in what changes results and in what does not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ai4sdk.planning.plan import Plan, results_of

__all__ = ["Difference", "compare"]

_ABSENT = "(not there)"


@dataclass(frozen=True)
class Difference:
    """One value that two plans disagree on."""

    part: str
    key: str
    left: Any
    right: Any
    matters: bool


def compare(left: Plan, right: Plan) -> list[Difference]:
    """Return how two plans differ, what matters first.

    A difference matters if it is in the digest: two plans without such differences give the same results.
    """
    found: list[Difference] = []
    left_results, right_results = _flat(results_of(left.as_job())), _flat(results_of(right.as_job()))
    left_job, right_job = _flat(left.job), _flat(right.job)
    for key, a, b in _pairs(left_job, right_job):
        found.append(Difference("job", key, a, b, key in left_results or key in right_results))
    found += [Difference("code", key, a, b, True) for key, a, b in _pairs(_files(left), _files(right))]
    for part in ("data", "inputs"):
        pairs = _pairs(_fingerprints(getattr(left, part)), _fingerprints(getattr(right, part)))
        found += [Difference(part, key, a, b, True) for key, a, b in pairs]
    found += [Difference("packages", key, a, b, True) for key, a, b in _pairs(left.packages, right.packages)]
    if left.python != right.python:
        found.append(Difference("python", "python", left.python, right.python, False))
    return sorted(found, key=lambda difference: not difference.matters)


def _pairs(left: Mapping[str, Any], right: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for key in dict.fromkeys([*left, *right]):
        a, b = left.get(key, _ABSENT), right.get(key, _ABSENT)
        if a != b:
            yield key, a, b


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping) and value:
        return {k: v for name, child in value.items() for k, v in _flat(child, f"{prefix}.{name}".lstrip(".")).items()}
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return {k: v for i, child in enumerate(value) for k, v in _flat(child, f"{prefix}.{i}").items()}
    return {prefix: value}


def _files(plan: Plan) -> dict[str, str]:
    return {file["path"]: file["sha256"][:12] for file in plan.code["files"]}


def _fingerprints(part: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {name: entry["fingerprint"] for name, entry in part.items()}
