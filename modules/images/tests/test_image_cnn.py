"""What the module promises: it learns from pictures of any size, and its arguments reach the network."""

import pytest
import pytorch_lightning as pl
import torch
from image_cnn import ImageClassifier
from torch.utils.data import DataLoader, TensorDataset


def striped(count, size=16):
    """Noisy pictures with stripes across (class 0) or down (class 1)."""
    classes = torch.arange(count) % 2
    pictures = 0.3 * torch.rand(count, 3, size, size)
    pictures[classes == 0, :, ::4, :] += 0.6
    pictures[classes == 1, :, :, ::4] += 0.6
    return pictures, classes


def train(folder, epochs=4):
    pl.seed_everything(0, verbose=False)
    model, data = ImageClassifier(2, width=8, stages=2), TensorDataset(*striped(64))
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", deterministic=True, logger=False, default_root_dir=folder,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(model, DataLoader(data, 16, shuffle=True), DataLoader(TensorDataset(*striped(30)), 16))
    return model, {name: float(value) for name, value in trainer.callback_metrics.items()}


def test_it_learns_to_tell_stripes_across_from_stripes_down(tmp_path):
    _, metrics = train(tmp_path)
    assert metrics["val_accuracy"] > 0.9
    assert {"train_loss", "val_loss"} <= set(metrics)


def test_one_seed_gives_the_same_weights_bit_for_bit(tmp_path):
    first, second = (train(tmp_path, epochs=1)[0].state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("size", [(64, 64), (33, 17), (3, 5), (1, 1)])
def test_pictures_may_have_any_size(size):
    assert ImageClassifier(4, in_channels=1)(torch.rand(2, 1, *size)).shape == (2, 4)


def test_the_answer_for_a_picture_does_not_depend_on_its_neighbours():
    model, pictures = ImageClassifier(3, dropout=0.0), torch.rand(6, 3, 16, 16)
    torch.testing.assert_close(model.train()(pictures)[:1], model.train()(pictures[:1]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("width", [8, 12, 5])
def test_any_width_works(width):
    assert ImageClassifier(2, width=width, stages=1)(torch.rand(1, 3, 8, 8)).shape == (1, 2)


def test_the_own_optimizer_takes_the_learning_rate():
    assert ImageClassifier(2, learning_rate=0.5).configure_optimizers().defaults["lr"] == 0.5
