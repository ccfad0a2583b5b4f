"""Tiny modules, and packages of them: fixtures for whoever imports them."""

import sys
import textwrap

import numpy as np
import pytest
import torch

TABLE_CODE = """
import pytorch_lightning as pl
import torch
from torch import nn

from tinynets.parts import scale


class Table(pl.LightningModule):
    def __init__(self, features, classes, hidden=4):
        super().__init__()
        self.save_hyperparameters()
        self.body = nn.Linear(features, hidden)
        self.head = nn.Linear(hidden, classes)

    def forward(self, x):
        return self.head(torch.tanh(self.body(scale(x))))


class Pictures(pl.LightningModule):
    def __init__(self, classes=3):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.norm = nn.BatchNorm2d(2)
        self.head = nn.Linear(2, classes)

    def forward(self, x):
        return self.head(self.norm(self.conv(x)).mean((2, 3)))


class Sounds(pl.LightningModule):
    def __init__(self, classes=3):
        super().__init__()
        self.conv = nn.Conv1d(1, 4, 9, stride=4)
        self.head = nn.Linear(4, classes)

    def forward(self, x):
        return self.head(torch.relu(self.conv(x)).mean(2))
"""


@pytest.fixture
def make_code(tmp_path):
    """Write a folder of code; ``factor`` tells versions of it apart."""

    def make(name="code", factor=1.0, top="tinynets"):
        folder = tmp_path / name / top
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("")
        (folder / "nets.py").write_text(textwrap.dedent(TABLE_CODE).replace("tinynets", top))
        (folder / "parts.py").write_text(f"def scale(x):\n    return x * {factor}\n")
        return folder.parent

    return make


@pytest.fixture
def writing(make_package, make_code):
    """Return a package of a module that writes into what it is given, as ``x /= 255`` does."""
    code = make_code("writing")
    (code / "tinynets" / "parts.py").write_text("def scale(x):\n    x *= 3\n    return x\n")
    return make_package("writing_package", code=code)


@pytest.fixture
def make_package(tmp_path, make_code):
    """Write a package of a fresh module."""
    from ai4sdk.worker.imports import open_code
    from ai4sdk.worker.package import write_package

    def make(name="package", *, net="Table", code=None, arguments=None, seed=0, **options):
        code = code or make_code(f"{name}_code")
        arguments = arguments if arguments is not None else ({"features": 4, "classes": 3} if net == "Table" else {})
        target = {"_target_": f"tinynets.nets.{net}", **arguments}
        opened = open_code(code)
        __import__(f"{opened.prefix}.tinynets.nets")
        torch.manual_seed(seed)
        module = getattr(sys.modules[f"{opened.prefix}.tinynets.nets"], net)(**arguments)
        shape = (4,) if net == "Table" else (1, 8, 8)
        example = np.random.default_rng(0).normal(size=(5, *shape)).astype(np.float32)
        settings = {
            "module": module,
            "module_target": target,
            "task": "classification",
            "class_names": ["a", "b", "c"],
            "example_input": example,
            "scores": {"task": "classification", "outputs": "logits", "accuracy": 0.9, "samples": 30},
            "code": code,
            "plan_digest": "sha256:1234",
            "run_id": "20260101-000000-tiny-abcd",
            "packages": {"torch": "2.13.0+cpu", "numpy": "2.4.6"},
            "name": "tiny",
            **options,
        }
        return write_package(tmp_path / name, **settings)

    return make
