"""The network and how it learns."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional

from heart_disease.patients import FEATURES


class HeartDisease(pl.LightningModule):
    """A small network that measures nothing of its inputs, so that differential privacy can cover all it keeps.

    Parameters
    ----------
    hidden
        Width of each hidden layer.
    learning_rate
        Step size of the module's own Adam.
    """

    def __init__(self, hidden: Sequence[int] = (16,), learning_rate: float = 1e-2) -> None:
        super().__init__()
        hidden = [int(width) for width in hidden]
        self.save_hyperparameters()
        self.learning_rate = learning_rate
        self.example_input_array = torch.zeros(1, len(FEATURES))  # for a coordinator that has no patients
        widths = [len(FEATURES), *hidden]
        layers = [layer for before, after in pairwise(widths) for layer in (nn.Linear(before, after), nn.ReLU())]
        self.network = nn.Sequential(*layers, nn.Linear(widths[-1], 2))

    def forward(self, x: Tensor) -> Tensor:
        """Score both classes.

        Parameters
        ----------
        x
            Shape (batch, 12), as `heart_disease.patients` prepares it.

        Returns
        -------
        Tensor
            Logits of shape (batch, 2): healthy, ill.
        """
        return self.network(x)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        loss = functional.cross_entropy(self(x), y)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(y))
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._judge(batch, "val")

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._judge(batch, "test")

    def _judge(self, batch: tuple[Tensor, Tensor], split: str) -> None:
        x, y = batch
        logits = self(x)
        accuracy = (logits.argmax(dim=1) == y).float().mean()
        scores = {f"{split}_loss": functional.cross_entropy(logits, y), f"{split}_accuracy": accuracy}
        self.log_dict(scores, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(y))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.learning_rate)
