"""Folders of recordings, from training in one place and at several to answers and drift, by the same commands."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sounds import folders_of_tones, sound_file, tone

import ai4sdk
from ai4sdk.cli import main

pytestmark = pytest.mark.slow

HOW = ("dataset.uri=tones", "dataset.audio.rate=8000", "dataset.audio.seconds=0.1", "dataset.loader.batch_size=8")


def trained(*overrides: str) -> ai4sdk.Run:
    settings = (*HOW, "training.max_epochs=1", "module.width=8", "module.stages=2", "tracking.kind=none", "name=tones")
    return ai4sdk.run("recordings", *settings, *overrides)


@pytest.fixture
def tones(project: Path) -> Path:
    return folders_of_tones(project / "tones", each=20)


def test_a_training_of_recordings_answers_recordings_and_knows_what_they_were_like(
    tones: Path, project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = trained()
    known = json.loads((run.folder / "package" / "model.json").read_text())
    assert known["input_shape"] == [1, 800]
    assert known["preprocessing"]["audio"] == {"rate": 8000, "seconds": 0.1}
    path = tones / "low" / "3.wav"
    model = ai4sdk.load_model(run.folder)
    (expected,) = model(path).to_records()
    assert model(path.read_bytes()).to_records() == [expected]

    assert main(["predict", "tones", "--input", str(path), "--output", "answer.json"]) == 0
    (answer,) = json.loads((project / "answer.json").read_text())
    assert answer == {"input": str(path), **expected}

    capfd.readouterr()
    assert main(["drift", "check", "tones", "--data", str(tones)]) == 0
    for number in range(30):
        (project / "muffled").mkdir(exist_ok=True)
        faint = sound_file(tone(100 + number, loud=0.02) + np.random.default_rng(number).normal(0, 0.001, 800))
        (project / "muffled" / f"{number}.wav").write_bytes(faint)
    assert main(["drift", "check", "tones", "--data", "muffled"]) == 8
    told = capfd.readouterr().out
    assert "level" in told
    assert "spectral centre" in told


def test_the_same_job_trains_at_several_sites(tones: Path) -> None:
    run = trained("training.mode=federated", "++federation.partition.sites=2")
    assert len(ai4sdk.load_model(run.folder)([tones / "low" / "1.wav", tones / "high" / "1.wav"])) == 2
