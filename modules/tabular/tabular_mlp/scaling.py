"""Bringing columns of any unit to mean 0 and deviation 1."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RunningScale(nn.Module):
    """Mean and deviation of columns, gathered batch by batch and kept with the weights.

    Parameters
    ----------
    columns
        Number of columns.
    """

    count: Tensor
    mean: Tensor
    variance: Tensor

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(columns))
        self.register_buffer("variance", torch.zeros(columns))

    @torch.no_grad()
    def update(self, rows: Tensor) -> None:
        """Count in more rows, of shape (batch, columns)."""
        seen, new = self.count, float(len(rows))
        total = seen + new
        variance, mean = torch.var_mean(rows, dim=0, correction=0)
        shift = mean - self.mean
        # Two sets of rows make one: Chan's formula, which stays exact where the mean is large.
        self.variance.copy_((seen * self.variance + new * variance + shift**2 * seen * new / total) / total)
        self.mean += shift * new / total
        self.count += new

    @property
    def deviation(self) -> Tensor:
        """Standard deviation of each column, of shape (columns,); 1 where a column never changed."""
        return torch.where(self.variance > 0, self.variance, 1.0).sqrt()

    def forward(self, rows: Tensor) -> Tensor:
        """Scale rows of shape (batch, columns)."""
        return (rows - self.mean) / self.deviation

    def restore(self, scaled: Tensor) -> Tensor:
        """Undo the scaling of rows of shape (batch, columns)."""
        return scaled * self.deviation + self.mean
