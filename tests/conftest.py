"""What tests of every room share."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write files into the test's folder, by relative path, dedented."""

    def write_files(files: dict[str, str], root: Path = tmp_path) -> Path:
        for name, text in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text).lstrip("\n"), encoding="utf-8")
        return root

    return write_files


@pytest.fixture
def project(tmp_path: Path, write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a small user project, entered: a config with layers and a module that plain Lightning could train."""
    write(
        {
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
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def function_project(tmp_path: Path, write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a project, entered, whose config ``pond.yaml`` calls a function."""
    write(
        {
            ".ai4sdk": "",
            "pond.yaml": """
                defaults: [base, _self_]
                name: pond
                function:
                  _target_: pond.catch
                  boats: 3
                tracking:
                  kind: none
                """,
            "pond.py": """
                def catch(boats, nets=2, table=None):
                    return {"fish": boats * nets}
                """,
        }
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path
