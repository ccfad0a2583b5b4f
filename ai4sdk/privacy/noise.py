"""Clipping, and noise that nobody can foresee without a secret.

Noise follows from a secret of whoever adds it, and from what it is for: done again after a crash it is the same, so
that nothing is given away twice. The secret is drawn by the operating system and is neither in a plan nor in a record.
Known limit: values are floats, whose last digits are not distributed as real numbers would be (I. Mironov: On
Significance of the Least Significant Bits for Differential Privacy, 2012).
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ai4sdk.errors import EnvironmentFault

__all__ = ["clipped", "gaussian", "noised", "read_secret"]

Arrays = Mapping[str, "np.ndarray[Any, Any]"]
_LENGTH = 32


def read_secret(path: Path) -> bytes:
    """Return the secret in a file that only its owner may read; drawn by the operating system if there is none.

    Raises
    ------
    EnvironmentFault
        If it can be neither read nor made, or is not whole.
    """
    try:
        with contextlib.suppress(FileExistsError):
            path.parent.mkdir(parents=True, exist_ok=True)
            scratch = path.with_name(f".{path.name}.{os.getpid()}")
            descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                os.write(descriptor, secrets.token_bytes(_LENGTH))
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            try:
                os.link(scratch, path)  # unlike renaming, this never replaces one that is in use
            finally:
                scratch.unlink()
        found = path.read_bytes()
    except OSError as error:
        raise EnvironmentFault(
            f"the secret that noise is drawn with cannot be kept in {path}: {error}",
            hint="free some space, or make the folder writable",
        ) from error
    if len(found) != _LENGTH:
        raise EnvironmentFault(
            f"{path} does not hold a whole secret", hint="restore it, or start the federation anew with `ai4sdk rerun`"
        )
    return found


def clipped(update: Arrays, norm: float) -> tuple[dict[str, Any], float]:
    """Scale an update down to an L2 norm, over all of its arrays together.

    Parameters
    ----------
    update
        Changes of the weights.
    norm
        Largest norm of what is returned, but for rounding.

    Returns
    -------
    dict, float
        The update as float64, and the norm that it had.
    """
    had = math.sqrt(sum(float(np.square(array, dtype=np.float64).sum()) for array in update.values()))
    factor = 1.0 if had <= norm else norm / had
    return {name: array.astype(np.float64) * factor for name, array in update.items()}, had


def noised(update: Arrays, deviation: float, secret: bytes, label: str) -> dict[str, Any]:
    """Add Gaussian noise of a standard deviation to every number; the same for the same secret and label."""
    return {
        name: array + deviation * gaussian(secret, f"{label}\0{name}", array.size).reshape(array.shape)
        for name, array in update.items()
    }


def gaussian(secret: bytes, label: str, count: int) -> Any:
    """Return independent standard Gaussian numbers that look random to all who do not know the secret.

    The bits are those of SHAKE-256 (FIPS 202), keyed by the secret; the numbers follow from them as in G. Box and
    M. Muller: A Note on the Generation of Random Normal Deviates, 1958.

    Returns
    -------
    numpy.ndarray
        Shape (count,), float64.
    """
    pairs = -(-count // 2)
    bits = hashlib.shake_256(secret + label.encode()).digest(16 * pairs)
    uniform = (np.frombuffer(bits, dtype="<u8").reshape(2, pairs) >> np.uint64(11)) * 2.0**-53
    radius = np.sqrt(-2.0 * np.log1p(-uniform[0]))
    angle = 2.0 * np.pi * uniform[1]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]
