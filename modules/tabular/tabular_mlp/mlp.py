"""The network and how it learns."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional

from tabular_mlp.scaling import RunningScale


class TabularMLP(pl.LightningModule):
    """A multilayer perceptron for the rows of a table.

    Columns may have any unit: the module measures them during its first epoch and keeps the scale with its weights.

    Parameters
    ----------
    in_features
        Number of columns to learn from.
    out_features
        Number of classes, or for a regression the number of values to predict.
    task
        ``classification`` expects labels as class numbers, ``regression`` as values.
    hidden
        Width of each hidden layer.
    dropout
        Share of hidden values that is set to zero at random while training, 0 to 1.
    learning_rate
        Step size of the module's own AdamW.
    weight_decay
        Pull of the module's own AdamW towards small weights.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        task: Literal["classification", "regression"] = "classification",
        hidden: Sequence[int] = (64, 64),
        dropout: float = 0.1,
        learning_rate: float = 2e-3,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__()
        if task not in ("classification", "regression"):
            raise ValueError(f"task must be classification or regression, not {task!r}")
        hidden = [int(width) for width in hidden]
        self.save_hyperparameters()
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.inputs = RunningScale(in_features)
        self.targets = RunningScale(out_features) if task == "regression" else None
        layers: list[nn.Module] = []
        for before, after in pairwise([in_features, *hidden]):
            layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout)]
        self.network = nn.Sequential(*layers, nn.Linear([in_features, *hidden][-1], out_features))

    def forward(self, x: Tensor) -> Tensor:
        """Predict.

        Parameters
        ----------
        x
            Rows of shape (batch, in_features).

        Returns
        -------
        Tensor
            Logits of shape (batch, out_features), or for a regression values of that shape in the target's unit.
        """
        answer = self.network(self.inputs(x))
        return answer if self.targets is None else self.targets.restore(answer)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        if self.current_epoch == 0:
            self._measure(x, y)
        loss = self._loss(self(x), y)
        self.log("train_loss", loss, on_step=True, on_epoch=True, prog_bar=True, batch_size=len(y))
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._judge(batch, "val")

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._judge(batch, "test")

    def _measure(self, x: Tensor, y: Tensor) -> None:
        self.inputs.update(x)
        if self.targets is not None:
            self.targets.update(y.reshape(len(y), -1).to(x.dtype))

    def _loss(self, answer: Tensor, y: Tensor) -> Tensor:
        """Cross entropy, or the squared error in units of the target's variance: 1 is guessing the mean."""
        if self.targets is None:
            return functional.cross_entropy(answer, y)
        errors = (answer - y.reshape(answer.shape)) / self.targets.deviation
        return errors.square().mean()

    def _judge(self, batch: tuple[Tensor, Tensor], split: str) -> None:
        x, y = batch
        answer = self(x)
        scores = {f"{split}_loss": self._loss(answer, y)}
        if self.targets is None:
            scores[f"{split}_accuracy"] = (answer.argmax(dim=1) == y).float().mean()
        else:
            scores[f"{split}_mae"] = (answer - y.reshape(answer.shape)).abs().mean()
        self.log_dict(scores, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(y))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay)
