"""Memory that the front and a model's process share, in which large bodies lie instead of going through the socket."""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence

from ai4sdk.serving.messages import HEADER_LENGTH, Request

__all__ = ["HALF", "Slab"]

HALF = 32 * 2**20
"""Bytes for the bodies of a batch. There are two halves: a process has at most two batches."""
_LARGE = 64 * 2**10
"""Below this a socket is as fast."""
_ALIGNED = 64
"""Tensors begin at multiples of so many bytes, as what computes likes them."""


class Slab:
    """Two halves, each for the large bodies of one batch at a time.

    What lies in a half stays as it is until the batch is answered; then another one may lie there. Pages take memory
    only once they have been used.

    Parameters
    ----------
    descriptor
        Of a slab that another process made; none to make one.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        if descriptor is None:
            descriptor = os.memfd_create("ai4sdk-bodies", os.MFD_CLOEXEC)
            os.ftruncate(descriptor, 2 * HALF)
        self.descriptor = descriptor
        self._memory = mmap.mmap(descriptor, 2 * HALF)
        self._next = 0

    def put(self, requests: Sequence[Request]) -> list[int | None]:
        """Put the large bodies of a batch into the half whose turn it is.

        Parameters
        ----------
        requests
            The batch. That before the last one must have been answered.

        Returns
        -------
        list
            Where the body of each begins; none for those that are to go through the socket: small ones, and those that
            find no place.
        """
        at, self._next = self._next, HALF - self._next
        end = at + HALF
        places: list[int | None] = []
        for request in requests:
            length = len(request.body)
            start = at + -(at + _before_tensors(request)) % _ALIGNED
            if length < _LARGE or start + length > end:
                places.append(None)
                continue
            self._memory[start : start + length] = request.body
            places.append(start)
            at = start + length
        return places

    def view(self) -> memoryview:
        """Return all of it."""
        return memoryview(self._memory)

    def close(self) -> None:
        """Give up this process's part of it."""
        self._memory.close()
        os.close(self.descriptor)


def _before_tensors(request: Request) -> int:
    """Return after how many bytes of a body its tensors begin; who reads it refuses a number that makes no sense."""
    length = request.parameters.get(HEADER_LENGTH, "")
    return int(length) if length.isascii() and length.isdigit() and len(length) < 12 else 0
