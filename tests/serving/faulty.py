"""A package whose module does what the first number of a sample says: 666 raises, 777 hangs, 888 kills its process,
999 answers NaN, 111 answers with too few rows, 222 takes half a second."""

import sys
from pathlib import Path

import numpy as np
import torch

CODE = """
import os
import time

import torch
from torch import nn


class Faulty(nn.Module):
    def __init__(self, mixes=False):
        super().__init__()
        self.head = nn.Linear(4, 3)
        self.mixes = mixes

    def forward(self, x):
        what = set(x[:, 0].tolist())
        if 666.0 in what:
            raise RuntimeError("the pond is empty")
        if 777.0 in what:
            time.sleep(3600)
        if 888.0 in what:
            os._exit(9)
        if 222.0 in what:
            time.sleep(0.5)
        print("a module may print")
        answer = self.head(x)
        if 999.0 in what:
            answer = answer * float("nan")
        if 111.0 in what:
            answer = answer[:0]
        return answer * (1 + x.mean()) if self.mixes else answer
"""


def write_faulty_package(folder: Path, *, seed: int = 0, name: str = "faulty", **arguments) -> Path:
    from ai4sdk.worker.imports import open_code
    from ai4sdk.worker.package import write_package

    code = folder / f"code-{seed}-{name}"
    (code / "faultynets").mkdir(parents=True)
    (code / "faultynets" / "__init__.py").write_text(CODE)
    opened = open_code(code)
    __import__(f"{opened.prefix}.faultynets")
    torch.manual_seed(seed)
    module = sys.modules[f"{opened.prefix}.faultynets"].Faulty(**arguments)
    return write_package(
        folder / f"{name}-{seed}",
        module=module,
        module_target={"_target_": "faultynets.Faulty", **arguments},
        task="classification",
        class_names=["a", "b", "c"],
        example_input=np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32),
        scores={"task": "classification", "outputs": "logits", "accuracy": 0.9, "samples": 30},
        code=code,
        plan_digest="sha256:1234",
        run_id=f"20260101-000000-{name}-abc{seed}",
        packages={},
        name=name,
    )
