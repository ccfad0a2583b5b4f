"""Keep the memory that a step of a network gave back, for the next step.

Each step makes and frees the same large arrays. glibc may hand each of them back to the system, which has to zero every
page of them when the next step asks for them again; whether it does depends on how the heap happens to lie, so that of
two processes alike one computes at half the speed of the other.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any

__all__ = ["give_back_memory", "keep_memory"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Of ``mallopt`` in glibc's malloc.h."""
_KEPT = 1 << 30
"""Bytes: an array that is no larger is taken from the heap, of which so much may lie free at its end."""
_KEPT_BY_OLD = 1 << 25
"""The largest array for which glibc before 2.35 agrees to it."""
_SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_memory() -> None:
    """Have this process keep what it frees; nothing where the environment says otherwise, or there is no glibc.

    What is kept is what one step needs at once: the most that the process ever uses stays the same.
    """
    set_option = _function("mallopt")
    if set_option is None or any(name in os.environ for name in _SETTINGS):
        return
    # With the second one alone glibc would ask the system for each array of 128 kB.
    if set_option(_MMAP_THRESHOLD, _KEPT) or set_option(_MMAP_THRESHOLD, _KEPT_BY_OLD):
        set_option(_TRIM_THRESHOLD, _KEPT)


def give_back_memory() -> None:
    """Give back what is free now: what was needed once, to load a model."""
    if (trim := _function("malloc_trim")) is not None:
        trim(0)


def _function(name: str) -> Any:
    try:
        return getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):  # another C library
        return None
