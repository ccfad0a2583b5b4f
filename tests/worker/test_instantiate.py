"""Objects from the YAML, and whose fault it is when one cannot be made."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from ai4sdk.errors import DataError, EnvironmentFault, RunFailed
from ai4sdk.worker.failures import failure_of, one_line
from ai4sdk.worker.instantiate import instantiate, instantiate_all
from ai4sdk.worker.signals import StopTraining

Write = Callable[..., Path]


@pytest.fixture
def parts(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a module of the user's importable."""
    root = write(
        {
            "parts_of_instantiate.py": """
                import sys
                from ai4sdk.errors import DataError

                class Part:
                    def __init__(self, size=1, inner=None, names=()):
                        self.size, self.inner, self.names = size, inner, names
                        if size < 0:
                            raise ValueError("size must not be negative\\nreally")

                def spoilt():
                    raise DataError("row 3 is empty", hint="mend it")

                def leave(code):
                    sys.exit(code)

                def full():
                    raise OSError(28, "No space left on device")

                def missing():
                    import a_package_nobody_has
                """,
            "needs_something_else.py": "import another_package_nobody_has",
        }
    )
    monkeypatch.syspath_prepend(str(root))


def part(**arguments: Any) -> dict[str, Any]:
    return {"_target_": "parts_of_instantiate.Part", **arguments}


@pytest.mark.usefixtures("parts")
class TestInstantiate:
    def test_nested_targets_get_plain_values(self) -> None:
        made = instantiate(part(inner=part(size=3), names=["a", {"b": [1]}]), key="module")
        assert made.inner.size == 3
        assert made.names == ["a", {"b": [1]}]
        assert type(made.names) is list
        assert type(made.names[1]) is dict

    def test_partial_takes_the_rest_later(self) -> None:
        assert instantiate(part(), key="module", partial=True)(size=5).size == 5

    def test_secrets_are_looked_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("A_TOKEN", "shh")
        assert instantiate(part(names="${secret:A_TOKEN}")).names == "shh"

    def test_every_target_in_a_nest_is_called(self) -> None:
        made = instantiate_all({"limit": 3, "list": [part(size=2)], "one": part()}, key="training.trainer")
        assert (made["limit"], made["list"][0].size, made["one"].size) == (3, 2, 1)

    def test_an_error_names_key_and_target(self) -> None:
        with pytest.raises(RunFailed) as caught:
            instantiate(part(size=-1), key="module")
        expected = "module: parts_of_instantiate.Part raised ValueError: size must not be negative"
        assert caught.value.message == expected

    def test_an_error_of_a_nested_target_names_the_inner_key(self) -> None:
        with pytest.raises(RunFailed, match=r"^module\.inner: parts_of_instantiate\.Part raised ValueError"):
            instantiate(part(inner=part(size=-1)), key="module")

    def test_an_unknown_target_is_named(self) -> None:
        with pytest.raises(RunFailed, match=r"module.*parts_of_instantiate\.Prat"):
            instantiate({"_target_": "parts_of_instantiate.Prat"}, key="module")

    def test_an_unknown_argument_is_named(self) -> None:
        with pytest.raises(RunFailed, match="unexpected keyword argument 'sice'"):
            instantiate(part(sice=3), key="module")

    def test_an_error_of_ours_stays_what_it_is(self) -> None:
        with pytest.raises(DataError, match="row 3 is empty"):
            instantiate({"_target_": "parts_of_instantiate.spoilt"}, key="dataset")

    @pytest.mark.parametrize(
        ("target", "message"),
        [
            ("parts_of_instantiate.missing", "the package a_package_nobody_has is not installed"),
            ("needs_something_else.Thing", "the package another_package_nobody_has is not installed"),
            ("parts_of_instantiate.full", "disk full"),
        ],
    )
    def test_what_the_machine_lacks_is_no_fault_of_the_code(self, target: str, message: str) -> None:
        with pytest.raises(EnvironmentFault, match=message):
            instantiate({"_target_": target}, key="module")

    def test_code_that_exits_is_a_failure_whatever_its_status(self) -> None:
        with pytest.raises(SystemExit) as caught:
            instantiate({"_target_": "parts_of_instantiate.leave", "code": 0}, key="module")
        failure = failure_of(caught.value, phase="fit")
        assert (failure.cause, failure.kind, failure.exit_code) == ("the code called sys.exit(0) during fit", "user", 4)


class Unlucky(Dataset[int]):
    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> int:
        raise ValueError(f"sample {index} is spoilt")


def test_errors_in_loader_processes_are_told_by_their_own_words() -> None:
    with pytest.raises(ValueError, match="Caught ValueError in DataLoader worker") as caught:
        list(DataLoader(Unlucky(), num_workers=1))
    assert one_line(caught.value) == "ValueError: sample 0 is spoilt"


def test_long_causes_are_cut() -> None:
    assert len(one_line(ValueError("x" * 5000))) == 400
    assert one_line(ValueError()) == "ValueError"


@pytest.mark.parametrize(
    ("error", "kind", "code", "words"),
    [
        (ZeroDivisionError("division by zero"), "user", 4, "ZeroDivisionError: division by zero"),
        (RunFailed("no", hint="do this"), "user", 4, "no → do this"),
        (DataError("the data changed"), "data", 3, "the data changed"),
        (EnvironmentFault("no GPU"), "environment", 7, "no GPU"),
        (OSError(errno.ENOSPC, "No space left on device"), "environment", 7, "disk full"),
        (MemoryError(), "environment", 7, "out of memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "environment", 7, "out of memory"),
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "),
            "environment",
            7,
            "out of memory",
        ),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), "user", 4, "mat1 and mat2"),
        (ModuleNotFoundError("No module named 'nobody_has'", name="nobody_has"), "environment", 7, "nobody_has"),
        (ModuleNotFoundError("No module named 'torch.nobody'", name="torch.nobody"), "user", 4, "torch.nobody"),
        (FileNotFoundError(2, "No such file", "weights.pt"), "user", 4, "weights.pt"),
        (StopTraining("stopped on request"), "cancelled", 130, "stopped on request"),
        (StopTraining("wall time reached"), "interrupted", 5, "wall time reached"),
        (KeyboardInterrupt(), "cancelled", 130, "stopped"),
    ],
)
def test_every_end_has_a_kind_and_an_exit_code(error: BaseException, kind: str, code: int, words: str) -> None:
    failure = failure_of(error)
    assert (failure.kind, failure.exit_code) == (kind, code)
    assert words in failure.cause
    assert "\n" not in failure.cause


def test_signals_are_heard_before_anything_heavy_is_imported() -> None:
    code = "import sys, ai4sdk.worker.__main__; print(any(name in sys.modules for name in ('torch', 'numpy')))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"
