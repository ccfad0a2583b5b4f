"""The network and how it learns."""

from __future__ import annotations

import math

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional


def _stage(before: int, after: int) -> nn.Sequential:
    """Two convolutions, then half the height and width."""
    # Groups instead of batches: the answer for a picture does not depend on its neighbours, whatever the batch size.
    groups = math.gcd(8, after)
    return nn.Sequential(
        nn.Conv2d(before, after, kernel_size=3, padding=1, bias=False),
        nn.GroupNorm(groups, after),
        nn.ReLU(),
        nn.Conv2d(after, after, kernel_size=3, padding=1, bias=False),
        nn.GroupNorm(groups, after),
        nn.ReLU(),
        nn.MaxPool2d(2, ceil_mode=True),
    )


class ImageClassifier(pl.LightningModule):
    """A small convolutional network for pictures of any size.

    Parameters
    ----------
    num_classes
        Number of classes.
    in_channels
        Channels of a picture: 3 for colour, 1 for grey.
    width
        Channels of the first stage; each following one has twice as many. A multiple of 8 serves best.
    stages
        Number of stages; each halves height and width.
    dropout
        Share of the last features that is set to zero at random while training, 0 to 1.
    learning_rate
        Step size of the module's own AdamW.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        width: int = 16,
        stages: int = 3,
        dropout: float = 0.2,
        learning_rate: float = 2e-3,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.learning_rate = learning_rate
        widths = [width * 2**stage for stage in range(stages)]
        before = [in_channels, *widths]
        self.features = nn.Sequential(*(_stage(before[stage], widths[stage]) for stage in range(stages)))
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(before[-1], num_classes))

    def forward(self, x: Tensor) -> Tensor:
        """Score the classes.

        Parameters
        ----------
        x
            Pictures of shape (batch, in_channels, height, width) with values from 0 to 1.

        Returns
        -------
        Tensor
            Logits of shape (batch, num_classes).
        """
        centred = 2 * x - 1
        # A plain mean over the picture, as adaptive pooling has no deterministic gradient on GPUs.
        return self.head(self.features(centred).mean(dim=(2, 3)))

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
