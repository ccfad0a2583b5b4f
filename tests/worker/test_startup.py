"""What is imported in less time is there as ever."""

from __future__ import annotations

import subprocess
import sys

import pytest


def said(program: str) -> list[str]:
    begin = "import gc, sys\nfrom ai4sdk.worker.startup import quick_imports\n"
    done = subprocess.run([sys.executable, "-c", begin + program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_lightning_brings_no_signal_processing_and_what_asks_for_it_later_has_it() -> None:
    program = """
with quick_imports():
    import pytorch_lightning
print("scipy.signal" in sys.modules)
import scipy.signal
from torchmetrics import Accuracy
print(type(scipy.signal).__name__, callable(scipy.signal.butter), Accuracy(task="binary").__class__.__name__)
"""
    assert said(program) == ["False", "module True BinaryAccuracy"]


@pytest.mark.parametrize(
    "line",
    [
        "import scipy.signal; print(scipy.signal.butter.__name__)",
        "from scipy.signal import butter; print(butter.__name__)",
        "import scipy.signal.windows; print(scipy.signal.butter.__name__)",
        "from scipy.signal.windows import hann; import scipy; print(scipy.signal.butter.__name__)",
    ],
)
def test_whoever_asks_for_signal_processing_meanwhile_has_it(line: str) -> None:
    program = (
        f"with quick_imports():\n    {line}\nimport scipy.signal\nprint(type(sys.modules['scipy.signal']).__name__)"
    )
    assert said(program) == ["butter", "module"]


def test_garbage_is_looked_for_again_afterwards_even_if_an_import_fails() -> None:
    program = """
try:
    with quick_imports():
        print(gc.isenabled())
        import there_is_no_such_module
except ImportError:
    print(gc.isenabled(), gc.get_freeze_count() > 0, "scipy.signal" in sys.modules)
gc.disable()
with quick_imports():
    pass
print(gc.isenabled())
"""
    assert said(program) == ["False", "True True False", "False"]


@pytest.mark.slow
def test_who_only_predicts_has_the_compiler_once_it_is_asked_for_and_lightning_knows_what_is_compiled() -> None:
    program = """
with quick_imports(compiler=False):
    import ai4sdk.worker.model
print("torch._dynamo" in sys.modules)
import torch
from lightning_fabric.wrappers import _unwrap_compiled
from pytorch_lightning.trainer.connectors.logger_connector.result import _ResultCollection
from pytorch_lightning.utilities.compile import OptimizedModule
net = torch.nn.Linear(1, 1)
print(isinstance(net, OptimizedModule), "torch._dynamo" in sys.modules)
compiled = torch.compile(net, backend="eager")
found = type(sys.modules["torch._dynamo"]).__name__
print(isinstance(net, OptimizedModule), isinstance(compiled, OptimizedModule), found)
print(_unwrap_compiled(compiled)[0] is net)
print(compiled(torch.ones(2, 1)).shape == (2, 1), list(_ResultCollection(True).valid_items()))
print(not any(type(finder).__module__.startswith("ai4sdk") for finder in sys.meta_path))
"""
    assert said(program) == ["False", "False False", "False True module", "True", "True []", "True"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    [
        "import torch._dynamo; torch._dynamo.reset()",
        "from torch._dynamo import reset; reset()",
        "import torch._dynamo.config as config; config.verbose",
        "from torch._dynamo import config; config.verbose",
        "from torch._dynamo.eval_frame import OptimizedModule; OptimizedModule(torch.nn.ReLU(), lambda f: f)",
        "torch.compiler.disable(torch.nn.ReLU())",
        "torch.compiler.disable(lambda: None, reason='why not')",
        "torch._dynamo.disable()(len)",
    ],
)
def test_whoever_asks_for_the_compiler_meanwhile_has_it_and_each_part_of_it_once(line: str) -> None:
    program = f"""
import collections
runs = collections.Counter()
import torch
sys.addaudithook(lambda event, given: runs.update([given[0].co_filename]) if event == "exec" else None)
with quick_imports(compiler=False):
    {line}
from torch._dynamo import config, eval_frame
print(type(sys.modules["torch._dynamo"]).__name__, config is sys.modules["torch._dynamo.config"])
print(eval_frame.__spec__.name, eval_frame.__spec__.loader.__class__.__name__, torch._dynamo.eval_frame is eval_frame)
print(max(count for file, count in runs.items() if "_dynamo" in str(file)))
"""
    assert said(program) == ["module True", "torch._dynamo.eval_frame SourceFileLoader True", "1"]
