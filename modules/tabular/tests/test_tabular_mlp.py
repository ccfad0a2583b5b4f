"""What the module promises: it learns classes and numbers in any unit, and its arguments reach the network."""

import pytest
import pytorch_lightning as pl
import torch
from sklearn.datasets import load_wine
from tabular_mlp import TabularMLP
from torch.utils.data import DataLoader, TensorDataset


def train(model, x, y, folder, epochs):
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", deterministic=True, logger=False, default_root_dir=folder,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    data = TensorDataset(x, y)
    trainer.fit(model, DataLoader(data, 16, shuffle=True), DataLoader(data, 64))
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def test_it_tells_wines_apart_from_columns_of_very_different_units(tmp_path):
    pl.seed_everything(0, verbose=False)
    x, y = load_wine(return_X_y=True)
    x, y = torch.tensor(x, dtype=torch.float32), torch.tensor(y)
    metrics = train(TabularMLP(13, 3), x, y, tmp_path, epochs=8)
    assert metrics["val_accuracy"] > 0.95
    assert {"train_loss", "val_loss"} <= set(metrics)


@pytest.mark.parametrize("columns", [(), (1,)], ids=["targets (batch,)", "targets (batch, 1)"])
def test_it_predicts_numbers_in_their_own_unit(tmp_path, columns):
    pl.seed_everything(0, verbose=False)
    x = torch.randn(200, 3)
    y = (5000 + 300 * x[:, 0] - 200 * x[:, 1]).reshape(200, *columns)
    model = TabularMLP(3, 1, task="regression", dropout=0.0)
    metrics = train(model, x, y, tmp_path, epochs=30)
    answer = model.eval()(x)
    assert answer.shape == (200, 1)
    assert (answer.squeeze(1) - y.reshape(200)).abs().mean() < 50
    assert metrics["val_mae"] == pytest.approx((answer.squeeze(1) - y.reshape(200)).abs().mean().item(), rel=1e-3)
    assert metrics["val_loss"] < 0.05


def test_a_regression_that_guesses_the_mean_has_a_loss_of_one():
    y = torch.randn(1000) * 40 + 7
    model = TabularMLP(2, 1, task="regression")
    model.targets.update(y.reshape(-1, 1))
    guess = torch.full((1000, 1), y.mean().item())
    assert model._loss(guess, y).item() == pytest.approx(1.0, rel=1e-3)


def test_the_scale_is_measured_in_the_first_epoch_only(tmp_path):
    model = TabularMLP(2, 2)
    train(model, torch.randn(48, 2), torch.randint(2, (48,)), tmp_path, epochs=3)
    assert model.inputs.count == 48


def test_one_seed_gives_the_same_weights_bit_for_bit(tmp_path):
    def weights():
        pl.seed_everything(3, verbose=False)
        model = TabularMLP(4, 2)
        train(model, torch.randn(64, 4), torch.randint(2, (64,)), tmp_path, epochs=2)
        return model.state_dict()

    first, second = weights(), weights()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_hidden_layers_are_those_asked_for():
    widths = [layer.out_features for layer in TabularMLP(5, 2, hidden=[7, 3]).network if hasattr(layer, "out_features")]
    assert widths == [7, 3, 2]
    assert TabularMLP(5, 2, hidden=[])(torch.zeros(1, 5)).shape == (1, 2)


def test_the_own_optimizer_takes_learning_rate_and_weight_decay():
    optimizer = TabularMLP(2, 2, learning_rate=0.5, weight_decay=0.25).configure_optimizers()
    assert isinstance(optimizer, torch.optim.AdamW)
    assert (optimizer.defaults["lr"], optimizer.defaults["weight_decay"]) == (0.5, 0.25)


def test_an_unknown_task_is_refused_by_name():
    with pytest.raises(ValueError, match="clustering"):
        TabularMLP(2, 2, task="clustering")
