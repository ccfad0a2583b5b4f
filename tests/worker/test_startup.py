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
