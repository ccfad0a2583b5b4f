"""Versions of the packages that change results."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from functools import lru_cache
from importlib.machinery import PathFinder
from pathlib import Path

from ai4sdk._version import __version__

__all__ = ["package_versions"]

ALWAYS = ("torch", "pytorch_lightning", "numpy")
"""Import names of what every training computes with."""

_DISTRIBUTIONS = {"sklearn": "scikit_learn", "PIL": "pillow", "cv2": "opencv_python", "yaml": "PyYAML"}
"""Distributions whose name is not their import name."""


def package_versions(imports: Iterable[str], always: Iterable[str] = ALWAYS) -> dict[str, str]:
    """Return the versions of ai4sdk, of what trainings compute with, and of what the user's code imports.

    Parameters
    ----------
    imports
        Top-level import names.
    always
        Further ones; none for a job that trains nothing.

    Returns
    -------
    dict
        Distribution name, lower case with hyphens → version; names that are not installed are left out.
    """
    versions = {"ai4sdk": __version__}
    for name in sorted({*always, *imports}):
        if found := _version(name):
            versions[found[0]] = found[1]
    return dict(sorted(versions.items()))


@lru_cache(maxsize=256)
def _version(name: str) -> tuple[str, str] | None:
    """Look for the metadata folder beside the package: far cheaper than asking importlib.metadata for all of them."""
    if name in sys.stdlib_module_names or name == "ai4sdk":
        return None
    spec = PathFinder.find_spec(name)
    if spec is None:
        return None
    locations = list(spec.submodule_search_locations or ([spec.origin] if spec.origin else []))
    for location in locations:
        folder = Path(location).parent
        for candidate in dict.fromkeys((_DISTRIBUTIONS.get(name, name), name, name.replace("_", "-"))):
            pattern = re.sub(r"[-_.]", "?", candidate)
            for info in sorted(folder.glob(f"{pattern}-*.dist-info")):
                distribution, _, version = info.name.removesuffix(".dist-info").rpartition("-")
                return re.sub(r"[-_.]+", "-", distribution).lower(), version
    return _slow_version(name)


def _slow_version(name: str) -> tuple[str, str] | None:
    from importlib.metadata import PackageNotFoundError, packages_distributions, version

    for distribution in packages_distributions().get(name, []):
        try:
            return re.sub(r"[-_.]+", "-", distribution).lower(), version(distribution)
        except PackageNotFoundError:
            continue
    return None
