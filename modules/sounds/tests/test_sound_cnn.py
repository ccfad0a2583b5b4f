"""What the module promises: it learns to tell tones apart, and takes recordings of any length."""

import math

import pytest
import pytorch_lightning as pl
import torch
from sound_cnn import SoundClassifier
from torch.utils.data import DataLoader, TensorDataset


def tones(count, samples=800):
    """Tones of 300 Hz (class 0) or 1500 Hz (class 1) in noise, at 8 kHz."""
    classes = torch.arange(count) % 2
    pitch = torch.where(classes == 0, 300.0, 1500.0)[:, None]
    sounds = 0.5 * torch.sin(2 * math.pi * pitch * torch.arange(samples) / 8000) + 0.1 * torch.randn(count, samples)
    return sounds[:, None].clamp(-1, 1), classes


def test_it_learns_to_tell_low_tones_from_high_ones(tmp_path):
    pl.seed_everything(0, verbose=False)
    model = SoundClassifier(2, width=8, stages=2)
    trainer = pl.Trainer(
        max_epochs=4, accelerator="cpu", deterministic=True, logger=False, default_root_dir=tmp_path,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(
        model, DataLoader(TensorDataset(*tones(64)), 16, shuffle=True), DataLoader(TensorDataset(*tones(30)), 16)
    )
    assert trainer.callback_metrics["val_accuracy"] > 0.9
    assert {"train_loss", "val_loss"} <= set(trainer.callback_metrics)


@pytest.mark.parametrize("samples", [16_000, 801, 10, 1])
def test_recordings_may_have_any_length(samples):
    assert SoundClassifier(4)(torch.rand(2, 1, samples)).shape == (2, 4)
