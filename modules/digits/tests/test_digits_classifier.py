"""What the module promises: it learns, it repeats itself exactly, its arguments reach the network."""

import pytest
import pytorch_lightning as pl
import torch
from digits_classifier import DigitsClassifier
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    return TensorDataset(torch.tensor(x, dtype=torch.float32), torch.tensor(y))


def train(data, folder, epochs=1, **arguments):
    pl.seed_everything(0, verbose=False)
    model = DigitsClassifier(**arguments)
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", deterministic=True, logger=False, default_root_dir=folder,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    learn = torch.utils.data.Subset(data, range(1200))
    judge = torch.utils.data.Subset(data, range(1200, 1797))
    trainer.fit(model, DataLoader(learn, 64, shuffle=True), DataLoader(judge, 256))
    return model, {name: float(value) for name, value in trainer.callback_metrics.items()}


def test_two_epochs_teach_most_digits_and_log_the_promised_metrics(digits, tmp_path):
    _, metrics = train(digits, tmp_path, epochs=2)
    assert {"train_loss", "train_loss_step", "train_loss_epoch", "val_loss", "val_accuracy"} <= set(metrics)
    assert metrics["val_accuracy"] > 0.8  # these come from writers it has not seen


def test_the_logged_accuracy_is_that_of_all_samples_though_batches_differ_in_size(digits, tmp_path):
    model, metrics = train(digits, tmp_path)
    x, y = digits[1200:]
    with torch.no_grad():
        right = (model.eval()(x).argmax(dim=1) == y).float().mean().item()
    assert metrics["val_accuracy"] == pytest.approx(right, abs=1e-6)


def test_one_seed_gives_the_same_weights_bit_for_bit(digits, tmp_path):
    first, second = (train(digits, tmp_path)[0].state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("shape", [(5, 64), (5, 8, 8), (5, 1, 8, 8)])
def test_pictures_may_come_flat_or_square(shape):
    assert DigitsClassifier(num_classes=7)(torch.zeros(shape)).shape == (5, 7)


def test_grey_values_up_to_sixteen_are_brought_to_one():
    model = DigitsClassifier()
    seen = []
    model.features.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    model(torch.full((1, 64), 16.0))
    assert seen[0].shape == (1, 1, 8, 8)
    assert torch.equal(seen[0], torch.ones(1, 1, 8, 8))


def test_width_widens_dropout_drops_and_the_learning_rate_is_adams():
    narrow, wide = DigitsClassifier(width=4), DigitsClassifier(width=8, dropout=0.5, learning_rate=0.25)
    assert sum(p.numel() for p in narrow.parameters()) < sum(p.numel() for p in wide.parameters())
    assert wide.head[0].p == 0.5
    optimizer = wide.configure_optimizers()
    assert isinstance(optimizer, torch.optim.Adam)
    assert optimizer.defaults["lr"] == 0.25


def test_dropout_acts_in_training_only():
    model, x = DigitsClassifier(dropout=0.5), torch.rand(4, 64) * 16
    assert not torch.equal(model.train()(x), model(x))
    assert torch.equal(model.eval()(x), model(x))
