"""Recordings: however they come, of one rate and length; and what is none."""

from __future__ import annotations

import resource
import struct
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from sounds import sound_file, tone

from ai4sdk.data.audio import read_recording
from ai4sdk.data.preprocessing import Preprocessing
from ai4sdk.errors import DataError
from ai4sdk.spec import Audio

SHORT = Audio(rate=8000, seconds=0.1)
FILES = {
    name: sound_file(tone(seconds=0.2), 8000, kind, coding)
    for name, (kind, coding) in {
        "wav": ("WAV", "PCM_16"),
        "wav8": ("WAV", "PCM_U8"),
        "wav24": ("WAV", "PCM_24"),
        "wav32": ("WAV", "PCM_32"),
        "wavf": ("WAV", "FLOAT"),
        "wavd": ("WAV", "DOUBLE"),
        "flac": ("FLAC", "PCM_24"),
        "ogg": ("OGG", "VORBIS"),
        "opus": ("OGG", "OPUS"),
        "mp3": ("MP3", "MPEG_LAYER_III"),
    }.items()
}


def recordings(how: Audio = SHORT) -> Preprocessing:
    return Preprocessing("audio", how.shape, audio=how)


# However they come --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_every_format_and_depth_is_read(name: str) -> None:
    read = read_recording(FILES[name], SHORT)
    assert (read.shape, read.dtype) == ((1, 800), np.float32)
    if name in ("opus", "mp3"):  # whose beginning is not to the sample
        assert 0.3 < np.abs(read).max() < 0.7
    else:
        np.testing.assert_allclose(read[0], tone(), atol=0.02 if name in ("wav8", "ogg") else 1e-4)


def test_recordings_however_they_come(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    whole = np.round(tone() * 32768).astype(np.int16)
    path.write_bytes(sound_file(whole))
    made = recordings()
    expected = made.transform(path)
    for given_ in (
        str(path), path.read_bytes(), bytearray(path.read_bytes()), [path], whole, [whole], [whole.tolist()],
        whole[None], whole[None, None], [whole[None]], (whole / 32768).astype(np.float32), [(whole / 32768).tolist()],
    ):  # fmt: skip
        array = made.transform(given_)
        assert array.shape == (1, 1, 800)
        np.testing.assert_allclose(array, expected, atol=1e-6)
    assert made.transform(np.zeros((5, 300))).shape == (5, 1, 800)
    assert made.transform([]).shape == (0, 1, 800)


def test_long_ones_are_cut_and_short_ones_filled_with_silence() -> None:
    assert np.array_equal(
        read_recording(sound_file(tone(seconds=3)), SHORT), read_recording(sound_file(tone(seconds=0.1)), SHORT)
    )
    short = read_recording(sound_file(tone(seconds=0.05)), SHORT)[0]
    assert short[:400].any()
    assert not short[400:].any()


def test_channels_become_their_mean() -> None:
    one, other = tone(300), tone(700, loud=0.3)
    read = read_recording(sound_file(np.stack([one, other], axis=1)), SHORT)
    np.testing.assert_allclose(read[0], (one + other) / 2, atol=1e-4)


@pytest.mark.parametrize("rate", [4000, 11025, 22050, 44100, 48000, 96000, 192_000, 44_101, 191_999])
def test_every_rate_becomes_the_one_asked_for(rate: int) -> None:
    """A tone is what it was, and what no wave of the lower rate can hold is gone rather than heard as another tone."""
    sound = tone(440, rate=rate, seconds=0.3) + (tone(0.4 * rate, rate=rate, seconds=0.3) if rate > 25_000 else 0)
    read = read_recording(sound_file(sound, rate, coding="FLOAT"), SHORT)[0]
    np.testing.assert_allclose(read[50:], tone()[50:], atol=0.02)


@given(st.integers(100, 768_000), st.sampled_from([100, 8000, 16_000, 44_100, 768_000]))
@settings(max_examples=200)
def test_rates_are_brought_to_each_other_by_factors_that_are_small_and_close(rate: int, wanted: int) -> None:
    from ai4sdk.data.audio import _factors

    up, down = _factors(rate, wanted)
    assert max(up, down) <= 20_000
    assert up / down == pytest.approx(wanted / rate, rel=1e-4)


def test_the_end_does_not_depend_on_where_reading_stopped() -> None:
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, 44100)
    long = read_recording(sound_file(sound, 44100), Audio(rate=16000, seconds=0.8))
    assert np.allclose(read_recording(sound_file(sound, 44100), Audio(rate=16000, seconds=0.5))[0], long[0, :8000])


def test_what_is_a_little_too_loud_is_cut_off() -> None:
    read = read_recording(sound_file(tone(loud=1.5), coding="FLOAT"), SHORT)
    assert (read.min(), read.max()) == (-1, 1)


def test_json_gives_the_preprocessing_back() -> None:
    made = Preprocessing("audio", (1, 800), "classification", audio=SHORT, class_names=("a", "b"))
    assert Preprocessing.from_json(made.to_json()) == made


def test_a_length_of_no_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="not a single sample"):
        Audio(rate=100, seconds=0.001)


# What is none -------------------------------------------------------------------------------------------------------


def wave(data: bytes, *, channels: int = 1, rate: int = 8000, bits: int = 16, said: int | None = None) -> bytes:
    """Return a WAV whose header says what one likes."""
    step = channels * bits // 8
    form = struct.pack("<HHIIHH", 1, channels % 65536, rate, min(rate * step, 2**32 - 1), step % 65536, bits)
    chunks = b"fmt " + struct.pack("<I", 16) + form
    chunks += b"data" + struct.pack("<I", len(data) if said is None else said) + data
    return b"RIFF" + struct.pack("<I", min(len(chunks) + 4, 2**32 - 1)) + b"WAVE" + chunks


NO_RECORDINGS = [
    (b"", "is no recording"),
    (b"no recording at all", "is no recording"),
    (b"RIFF", "is no recording"),
    (b"\x89PNG\r\n\x1a\n    ", "is no recording"),
    ("text in UTF-16".encode("utf-16"), "is no recording"),
    (b"RIFF\x10\0\0\0WAVEfmt ", "cut short"),
    (b"fLaC and nothing of the kind", "cannot be read"),
    (b"OggS and nothing of the kind", "cannot be read"),
    (b"ID3 and nothing of the kind", "cannot be read"),
    (FILES["mp3"][:50], "cannot be read: it is damaged"),
    (FILES["wav"][:-7], "cut short"),
    (FILES["wav"][:40], "cut short"),
    (FILES["flac"][: len(FILES["flac"]) // 4], "cannot be read"),
    (FILES["ogg"][: len(FILES["ogg"]) // 2], r"cannot be read|holds no sound"),
    (wave(b""), "holds no sound"),
    (wave(b"\1\0" * 90, said=2**30), "cut short"),
    (wave(b"\1\0" * 90, rate=3), "3 samples a second"),
    (wave(b"\1\0" * 90, rate=2**31 - 1), "2147483647 samples a second"),
    (wave(b"\1\0" * 2000, channels=1000), "1000 channels"),
    (sound_file([0.1, np.nan, 0.2], coding="FLOAT"), "no numbers"),
    (sound_file([0.1, np.inf, 0.2], coding="DOUBLE"), "no numbers"),
    (sound_file([100.0, -20_000.0], coding="FLOAT"), "values up to 20000"),
]


# Files of fractions hold the time they were written at, which names of tests must not.
@pytest.mark.parametrize(("content", "words"), NO_RECORDINGS, ids=[words for _, words in NO_RECORDINGS])
def test_bytes_that_are_no_recording(content: bytes, words: str) -> None:
    with pytest.raises(DataError, match=rf"^recording 1 .*({words})"):
        recordings().transform([content])


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((2, 800)),
        np.zeros((1, 1, 800)),
        np.float64(0.5),
        np.array([]),
        np.array([0.1, np.nan]),
        np.array([0.0, 9.0]),
        np.array([0, 40_000]),
        np.array([True]),
        np.array(["a"]),
        {"a": 1},
    ],
)
def test_what_is_no_recording_either(wrong: Any) -> None:
    with pytest.raises(DataError, match=r"^recording 1 "):
        recordings().transform([wrong])


def test_a_missing_one_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no recording .*gone\.wav"):
        recordings().transform(tmp_path / "gone.wav")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        recordings().transform(tmp_path)


def test_a_wav_written_into_a_pipe_has_no_length_and_is_read() -> None:
    read = read_recording(wave(np.full(800, 16384, "<i2").tobytes(), said=0xFFFF_FFFF), SHORT)
    assert np.allclose(read, 0.5)


@given(
    st.sampled_from(sorted(FILES)),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6),
    st.integers(0, 4000),
)
@settings(max_examples=300, deadline=None)
def test_damaged_files_are_read_or_refused(name: str, changes: list[tuple[int, int]], cut: int) -> None:
    content = bytearray(FILES[name])
    for place, value in changes:
        content[place % len(content)] = value
    try:
        read = read_recording(bytes(content[: len(content) - cut]), SHORT)
    except DataError:
        return
    assert read.shape == (1, 800)
    assert np.abs(read).max() <= 1


def test_bombs_take_no_memory(tmp_path: Path) -> None:
    """Silence that is 50 and 130 MB when it is decoded, and a header that claims more than there is, of many channels and rates."""
    with soundfile.SoundFile(tmp_path / "long.flac", "w", 8000, 8, "PCM_16") as file:
        for _ in range(4):
            file.write(np.zeros((2**20, 8), np.int16))
    with soundfile.SoundFile(tmp_path / "long.ogg", "w", 8000, 1) as file:
        for _ in range(400):
            file.write(np.zeros(2**15, np.float32))
    assert (tmp_path / "long.flac").stat().st_size < 2**20
    claims = bytearray((tmp_path / "long.flac").read_bytes())
    claims[21] |= 0x0F  # the upper bits of how many samples there are
    claims[22:26] = b"\xff" * 4
    (tmp_path / "claims.flac").write_bytes(claims)
    (tmp_path / "wide.wav").write_bytes(wave(b"\0\0" * 64 * 9000, channels=64, rate=768_000))
    code = f"""
    import resource
    from ai4sdk.data.audio import read_recording
    from ai4sdk.spec import Audio
    import numpy, scipy.signal, soundfile
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name in ("long.flac", "long.ogg", "claims.flac", "wide.wav"):
        assert read_recording({str(tmp_path)!r} + "/" + name, Audio()).shape == (1, 16000)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (60, 60)),
    )
    assert int(done.stdout) < 40_000  # KiB; what is decoded at once is 4 MiB


def test_a_rate_and_length_that_are_too_much_together_are_refused() -> None:
    with pytest.raises(DataError, match="too many for 3600 seconds"):
        read_recording(wave(b"\0\0" * 100, rate=768_000), Audio(rate=100, seconds=3600))


def test_where_the_decoder_is_missing_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from ai4sdk.errors import EnvironmentFault

    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(EnvironmentFault, match="soundfile") as caught:
        read_recording(FILES["wav"], SHORT)
    assert caught.value.hint == "pip install 'ai4sdk[audio]'"
