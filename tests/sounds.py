"""Short recordings of tones."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

__all__ = ["folders_of_tones", "sound_file", "tone"]


def tone(pitch: float = 440.0, *, rate: int = 8000, seconds: float = 0.1, loud: float = 0.5) -> Any:
    """Return a sine of one channel, float64."""
    return loud * np.sin(2 * np.pi * pitch * np.arange(round(rate * seconds)) / rate)


def sound_file(sound: Any = None, rate: int = 8000, kind: str = "WAV", coding: str | None = None) -> bytes:
    """Return the bytes of a file."""
    file = io.BytesIO()
    soundfile.write(file, tone(rate=rate) if sound is None else sound, rate, coding, format=kind)
    return file.getvalue()


def folders_of_tones(root: Path, *, each: int = 12, pitches: dict[str, float] | None = None) -> Path:
    """Write a folder of tones for each class."""
    for name, pitch in (pitches or {"high": 1500.0, "low": 300.0}).items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(each):
            (root / name / f"{number}.wav").write_bytes(sound_file(tone(pitch + 10 * number)))
    return root
