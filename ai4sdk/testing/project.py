"""A small project to test with."""

from __future__ import annotations

import textwrap
from pathlib import Path

__all__ = ["write_project"]

_FILES = {
    ".ai4sdk": "",
    "configs/train.yaml": """
        defaults:
          - module: net
          - optimizer: adam
          - training: short
          - _self_
        name: train
        dataset:
          uri: data.csv
          label: y
        """,
    "configs/module/net.yaml": """
        # A small network
        _target_: net.Net
        width: 8
        """,
    "configs/optimizer/adam.yaml": """
        # Adam
        _target_: torch.optim.Adam
        lr: 1e-3
        """,
    "configs/optimizer/sgd.yaml": """
        # Stochastic gradient descent
        _target_: torch.optim.SGD
        lr: 1e-2
        momentum: 0.9
        """,
    "configs/training/short.yaml": "max_epochs: 2\n",
    "net.py": """
        import torch
        import pytorch_lightning as pl


        class Net(pl.LightningModule):
            def __init__(self, width=8, features=2):
                super().__init__()
                self.layers = torch.nn.Sequential(
                    torch.nn.Linear(features, width), torch.nn.ReLU(), torch.nn.Linear(width, 2)
                )

            def forward(self, x):
                return self.layers(x)

            def training_step(self, batch, batch_idx):
                x, y = batch
                loss = torch.nn.functional.cross_entropy(self(x), y)
                self.log("train_loss", loss)
                return loss

            def validation_step(self, batch, batch_idx):
                x, y = batch
                self.log("val_loss", torch.nn.functional.cross_entropy(self(x), y))

            def configure_optimizers(self):
                return torch.optim.SGD(self.parameters(), lr=0.1)
        """,
    "data.csv": "a,b,y\n" + "".join(f"{i % 7},{i % 5},{'no' if i % 2 else 'yes'}\n" for i in range(60)),
}
"""Relative path → text, indented as it suits here."""


def write_project(folder: Path) -> None:
    """Write a project: ``train.yaml``, a config with layers, and a module that plain Lightning could train."""
    for name, text in _FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip("\n"), encoding="utf-8")
