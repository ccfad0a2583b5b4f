"""The network and how it learns."""

from __future__ import annotations

import math

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional

SIDE = 8
"""Height and width of a picture, in pixels."""

BRIGHTEST = 16.0
"""Grey value of a fully inked pixel in scikit-learn's digits."""


def _convolution(before: int, after: int) -> list[nn.Module]:
    # Groups instead of batches: the answer for a picture does not depend on its neighbours, whatever the batch size.
    norm = nn.GroupNorm(math.gcd(8, after), after)
    return [nn.Conv2d(before, after, kernel_size=3, padding=1), norm, nn.ReLU()]


class DigitsClassifier(pl.LightningModule):
    """A small convolutional network for grey pictures of 8 by 8 pixels.

    Parameters
    ----------
    num_classes
        Number of different digits.
    width
        Channels of the first convolution; the following ones have twice as many. A multiple of 8 serves best.
    dropout
        Share of the last features that is set to zero at random while training, 0 to 1.
    learning_rate
        Step size of the module's own Adam.
    """

    def __init__(
        self, num_classes: int = 10, width: int = 32, dropout: float = 0.2, learning_rate: float = 3e-3
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.learning_rate = learning_rate
        self.features = nn.Sequential(
            *_convolution(1, width),
            *_convolution(width, 2 * width),
            nn.MaxPool2d(2),
            *_convolution(2 * width, 2 * width),
            nn.MaxPool2d(2),
            nn.Flatten(),
        )
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(2 * width * (SIDE // 4) ** 2, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        """Score the classes.

        Parameters
        ----------
        x
            Grey values from 0 to 16, of shape (batch, 64) or anything that holds 64 values a sample.

        Returns
        -------
        Tensor
            Logits of shape (batch, num_classes).
        """
        pictures = x.reshape(-1, 1, SIDE, SIDE) / BRIGHTEST
        return self.head(self.features(pictures))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        loss = functional.cross_entropy(self(x), y)
        self.log("train_loss", loss, on_step=True, on_epoch=True, prog_bar=True, batch_size=len(y))
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
