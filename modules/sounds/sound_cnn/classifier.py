"""The network and how it learns."""

from __future__ import annotations

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional


class SoundClassifier(pl.LightningModule):
    """A small convolutional network for recordings of any rate and length.

    Parameters
    ----------
    num_classes
        Number of classes.
    width
        Channels of the first stage; each following one has twice as many.
    stages
        Number of stages; each but the first takes every fourth place.
    learning_rate
        Step size of the module's own AdamW.
    """

    def __init__(self, num_classes: int, width: int = 16, stages: int = 3, learning_rate: float = 2e-3) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.learning_rate = learning_rate
        # The first layer learns what pitches to listen to; 64 samples are 4 ms at 16 kHz.
        layers: list[nn.Module] = [nn.Conv1d(1, width, 64, stride=8, padding=32), nn.GroupNorm(1, width), nn.ReLU()]
        for _ in range(stages - 1):
            layers += [nn.Conv1d(width, 2 * width, 9, stride=4, padding=4), nn.GroupNorm(1, 2 * width), nn.ReLU()]
            width *= 2
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Score the classes.

        Parameters
        ----------
        x
            Recordings of shape (batch, 1, samples) with values from -1 to 1.

        Returns
        -------
        Tensor
            Logits of shape (batch, num_classes).
        """
        return self.head(self.features(x).mean(dim=2))

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
        return torch.optim.AdamW(self.parameters(), lr=self.learning_rate)
