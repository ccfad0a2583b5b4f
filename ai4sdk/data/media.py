"""Pictures and recordings to arrays, one or several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ai4sdk.data.audio import read_recording
from ai4sdk.data.images import read_picture
from ai4sdk.spec import Audio, Images

__all__ = ["read_sample", "read_samples", "several"]


def read_sample(sample: Any, how: Images | Audio, shown: str | None = None) -> NDArray[np.float32]:
    """Read a picture or a recording; see `read_picture` and `read_recording`."""
    if isinstance(how, Images):
        return read_picture(sample, how, shown or "the picture")
    return read_recording(sample, how, shown or "the recording")


def read_samples(inputs: Any, how: Images | Audio) -> NDArray[np.float32]:
    """Read one sample or several; see `several`.

    Returns
    -------
    array
        Samples along the first axis, then ``how.shape``; float32.

    Raises
    ------
    DataError
        If one cannot be read; it is named by its path or number.
    """
    noun = "picture" if isinstance(how, Images) else "recording"
    read = [read_sample(each, how, f"{noun} {place}") for place, each in enumerate(several(inputs, how), start=1)]
    return np.stack(read) if read else np.empty((0, *how.shape), np.float32)


def several(inputs: Any, how: Images | Audio) -> Sequence[Any]:
    """Bring one picture or recording, or several, into a sequence.

    Of arrays one picture is (height, width), (height, width, 3) and, of the size asked for, (3, height, width); one
    recording is (samples,).
    """
    if isinstance(inputs, np.ndarray):
        return [inputs] if _is_one(inputs, how) else list(inputs)
    is_sequence = isinstance(inputs, Sequence) and not isinstance(inputs, str | bytes | bytearray | memoryview)
    return inputs if is_sequence else [inputs]


def _is_one(array: NDArray[Any], how: Images | Audio) -> bool:
    if isinstance(how, Audio):
        return array.ndim == 1
    is_colour = array.ndim == 3 and (array.shape[2] in (3, 4) or array.shape == how.shape)
    return array.ndim == 2 or is_colour
