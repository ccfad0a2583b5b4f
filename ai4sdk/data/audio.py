"""Recordings to arrays of shape (1, samples), float32 in -1..1."""

from __future__ import annotations

import io
import math
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ai4sdk.data.formats import told_by_content
from ai4sdk.data.whole import check_whole
from ai4sdk.errors import DataError, EnvironmentFault
from ai4sdk.spec import Audio

__all__ = ["decoder", "read_recording"]

_RATES = range(100, 768_001)
_MOST_CHANNELS = 64
_MOST_READ = 2**27
"""Samples of a file, of one channel, up to which it is read: half a GiB."""
_AT_ONCE = 2**20
"""Samples, of all channels, that are decoded at once."""
_LOUDEST = 8.0
"""Full scale is 1. Decoders and filters exceed it a little, which is cut off; what exceeds it so far means something
else, such as whole numbers that were written as fractions."""
_FILTER = 10
"""Half the length of the filter in samples of the lower rate, as ``scipy.signal.resample_poly`` has it."""
_MOST_STEPS = 20_000
"""Largest factor that rates are brought to each other by; the filter has twenty times as many numbers."""

Sound = NDArray[np.float32]


def read_recording(recording: Any, how: Audio, shown: str = "the recording") -> Sound:
    """Read the beginning of one recording.

    No more of a file is decoded than is needed, so that neither long ones nor those that say they were take memory.

    Parameters
    ----------
    recording
        A path or the bytes of a file: WAV, FLAC, OGG or MP3. Or an array of the rate asked for, (samples,) or
        (1, samples): whole numbers of 16 bits, or fractions in -1..1.
    how
        Rate and length to bring it to.
    shown
        What to call it in an error; for paths, the path itself.

    Returns
    -------
    array
        Shape (1, rate times seconds), float32 in -1..1. Several channels become their mean.

    Raises
    ------
    DataError
        If it does not exist, is no recording, is cut short, or holds nothing or values that are no numbers.
    EnvironmentFault
        If what decodes files is not installed.
    """
    if isinstance(recording, bytes | bytearray | memoryview):
        return _decoded(io.BytesIO(recording), how, shown)
    if not isinstance(recording, str | Path):
        return _from_array(np.asarray(recording), how, shown)
    try:
        with open(recording, "rb", buffering=0) as file:
            return _decoded(file, how, str(recording))
    except FileNotFoundError:
        raise DataError(f"there is no recording {recording}", hint="check the path") from None
    except OSError as error:
        raise DataError(f"{recording} cannot be read: {error.strerror or error}", hint="check the path") from error


def _decoded(file: BinaryIO, how: Audio, shown: str) -> Sound:
    # What it begins with is looked at first: the decoder knows forty formats, most of which nobody sends in earnest.
    if told_by_content(file.read(12)) != "audio":
        raise DataError(f"{shown} is no recording", hint="give a WAV, FLAC, OGG or MP3 file")
    file.seek(0)
    check_whole(file, shown)
    file.seek(0)
    soundfile = decoder()
    # Of a file of this machine the decoder takes the descriptor, as it would else tell the format by its name.
    opened = file.fileno() if isinstance(file, io.FileIO) else file
    try:
        with soundfile.SoundFile(opened, closefd=False) as sound:
            rate = int(sound.samplerate)
            mono = _beginning(sound, _needed(rate, how, int(sound.channels), shown))
    except soundfile.SoundFileError as error:
        reason = str(getattr(error, "error_string", error)).rstrip(".")
        if "does not exist" in reason:  # said of MP3 files that are damaged; this one was opened here
            reason = "it is damaged"
        raise DataError(f"{shown} cannot be read: {reason}", hint="fetch it again, or delete it") from error
    return _fitted(_resampled(_sane(mono, shown), rate, how), how)


def _needed(rate: int, how: Audio, channels: int, shown: str) -> int:
    """Return how many samples of a file are needed; refuse files of no real microphone."""
    if rate not in _RATES:
        raise DataError(
            f"{shown} has {rate} samples a second", hint=f"{_RATES.start} to {_RATES.stop - 1} of them are read"
        )
    if channels > _MOST_CHANNELS:
        raise DataError(f"{shown} has {channels} channels", hint=f"{_MOST_CHANNELS} at most are read")
    up, down = _factors(rate, how.rate)
    # As many more as the filter looks ahead: the end does not depend on where reading stopped.
    needed = math.ceil(how.shape[1] * down / up) + math.ceil(_FILTER * max(up, down) / up)
    if needed > _MOST_READ:
        raise DataError(
            f"{shown} has {rate} samples a second, too many for {how.seconds:g} seconds of it",
            hint="bring it to a lower rate first",
        )
    return needed


def _beginning(sound: Any, needed: int) -> Sound:
    """Decode the beginning, and put the channels together."""
    parts: list[Sound] = []
    while needed > 0:
        block = sound.read(min(needed, _AT_ONCE // sound.channels), dtype="float32", always_2d=True)
        if not len(block):
            break
        parts.append(block[:, 0] if block.shape[1] == 1 else block.mean(axis=1))
        needed -= len(block)
    return np.concatenate(parts) if parts else np.empty(0, np.float32)


def _sane(sound: Sound, shown: str) -> Sound:
    """Refuse what is no sound."""
    if not len(sound):
        raise DataError(f"{shown} holds no sound", hint="record it again, or delete it")
    if not np.isfinite(sound).all():
        raise DataError(f"{shown} holds values that are no numbers", hint="write it again, or delete it")
    if (peak := float(np.abs(sound).max())) > _LOUDEST:
        raise DataError(
            f"{shown} holds values up to {peak:g}", hint="fractions are -1..1; divide by the largest there is"
        )
    return sound


def _factors(rate: int, wanted: int) -> tuple[int, int]:
    """Return by what to multiply and divide a rate.

    Exact for all usual rates. Where the factors would be large, the nearest small ones: off by less than one in ten
    thousand, which nobody hears, while the filter would take seconds to make.
    """
    larger, smaller = max(rate, wanted), min(rate, wanted)
    most = max(1, _MOST_STEPS // math.ceil(larger / smaller))
    ratio = Fraction(larger, smaller).limit_denominator(most)
    return (ratio.numerator, ratio.denominator) if wanted > rate else (ratio.denominator, ratio.numerator)


def _resampled(sound: Sound, rate: int, how: Audio) -> Sound:
    up, down = _factors(rate, how.rate)
    if up == down:
        return sound
    from scipy.signal import resample_poly

    resampled: Sound = resample_poly(sound, up, down, window=_filter(max(up, down)))
    return resampled


@lru_cache(maxsize=8)
def _filter(most: int) -> Sound:
    """Return what `resample_poly` would make for each recording anew, which takes longer than its use."""
    from scipy.signal import firwin

    made: Sound = firwin(2 * _FILTER * most + 1, 1 / most, window=("kaiser", 5.0)).astype(np.float32)
    return made


def _fitted(sound: Sound, how: Audio) -> Sound:
    """Cut it, or fill it up with silence."""
    made = np.zeros(how.shape, np.float32)
    kept = sound[: how.shape[1]]
    made[0, : len(kept)] = np.clip(kept, -1, 1)
    return made


def _from_array(sound: NDArray[Any], how: Audio, shown: str) -> Sound:
    if sound.dtype.kind not in "iuf" or not (sound.ndim == 1 or (sound.ndim == 2 and len(sound) == 1)):
        raise DataError(
            f"{shown} is an array of shape {sound.shape} and type {sound.dtype}, which is no recording",
            hint="give (samples,) or (1, samples) of one channel, whole numbers of 16 bits or fractions in -1..1",
        )
    sound = sound.reshape(-1)[: how.shape[1]]
    if sound.dtype.kind == "f":
        return _fitted(_sane(sound.astype(np.float32), shown), how)
    if len(sound) and (sound.min() < -32768 or sound.max() > 32767):
        raise DataError(
            f"{shown} has values beyond 16 bits", hint="divide by the largest there is, to fractions in -1..1"
        )
    return _fitted(_sane(sound.astype(np.float32) / np.float32(32768), shown), how)


def decoder() -> Any:
    """Import what decodes recordings.

    Raises
    ------
    EnvironmentFault
        If it is not installed.
    """
    try:
        import soundfile
    except ImportError as error:
        raise EnvironmentFault("recordings need the package soundfile", hint="pip install 'ai4sdk[audio]'") from error
    except OSError as error:  # a wheel without libsndfile, where the system has none
        raise EnvironmentFault(
            f"recordings need libsndfile: {error}", hint="install the system's libsndfile"
        ) from error
    return soundfile
