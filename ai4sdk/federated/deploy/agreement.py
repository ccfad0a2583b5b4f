"""Whether a coordinator's terms are those that a site has, and has agreed to, and whether sites' samples are alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ai4sdk.errors import DataError, EnvironmentFault, UsageError
from ai4sdk.planning.plan import digest_of
from ai4sdk.planning.terms import differences
from ai4sdk.spec.deployment import Join

__all__ = ["ALIKE", "names_of", "require_agreed", "require_equal", "require_names_alike", "terms_told"]

ALIKE = ("classes", "inputs")
"""What must be the same at all sites, though names of it are told to nobody."""


def terms_told(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return the terms in what a coordinator tells; their digest is computed, not believed.

    Raises
    ------
    EnvironmentFault
        If there are none.
    """
    terms = told.get("terms")
    if not isinstance(terms, dict) or not isinstance(terms.get("federation"), dict):
        raise EnvironmentFault(
            "what the coordinator tells of its federation is not understood",
            hint="have both sides install the same version of ai4sdk",
        )
    decided = {name: value for name, value in terms.items() if name != "digest"}
    return {**decided, "digest": digest_of(decided)}


def require_equal(terms: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """Refuse terms that are not what this site would do by its own config and code.

    Raises
    ------
    UsageError
        With what differs.
    """
    if terms["digest"] == ours["digest"]:
        return
    lines = differences(terms, ours)
    raise UsageError(
        "this site's config is not the coordinator's:\n  " + "\n  ".join(lines[:20]),
        hint="take the coordinator's config and code, or set these values; `code` is of the files that the module "
        "is made of",
    )


def require_agreed(told: Mapping[str, Any], ours: Mapping[str, Any], join: Join) -> None:
    """Refuse terms that the site's operator has not agreed to, or a token that is for another site.

    Raises
    ------
    EnvironmentFault
        If the coordinator has changed them, or takes this site for another.
    UsageError
        If they are not what this site would do.
    """
    terms = terms_told(told)
    if told.get("site") != join.site:
        raise EnvironmentFault(
            f"the token is for {told.get('site')}, not for {join.site}", hint=f"--site {told.get('site')}"
        )
    if terms["digest"] != join.approved:
        raise EnvironmentFault(
            f"the coordinator's terms are {terms['digest']} now; this site agreed to {join.approved}",
            hint="look at them with `ai4sdk federated show`, and join again",
        )
    require_equal(terms, ours)


def names_of(classes: Sequence[str] | None, inputs: Sequence[str] | None) -> dict[str, str]:
    """Return digests of the names of classes and inputs of a site's data, as far as they have names."""
    return {
        what: digest_of(list(names)) for what, names in zip(ALIKE, (classes, inputs), strict=True) if names is not None
    }


def require_names_alike(first: Mapping[str, Sequence[str]], ours: Mapping[str, str]) -> None:
    """Refuse data whose names are not those of the site that joined first, for which weights would mean other things.

    Parameters
    ----------
    first
        What → its digest, and the site that told it first.
    ours
        See `names_of`.

    Raises
    ------
    DataError
        If they differ.
    """
    for what, digest in ours.items():
        theirs, site = first.get(what, (digest, ""))
        if theirs != digest:
            raise DataError(
                f"the {what} of this site's data are not those of {site}, by name or by order",
                hint=f"{_MEANT[what]} must be the same at all sites: ask {site} for theirs",
            )


_MEANT = {"classes": "classes and their order", "inputs": "columns, their order, and the texts in each"}
