"""What is promised of ``_target_``: proved from source, never imported, mistakes named with their fix."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path

import pytest

from ai4sdk.planning.source.modules import ModuleFinder
from ai4sdk.planning.targets import (
    TargetReport,
    ancestors,
    check_target,
    nearest_name,
    parameters,
)

MODULE = "pytorch_lightning.core.module.LightningModule"


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
    return folder


def names(target: str, *search: Path) -> list[str]:
    found = parameters(target, search)
    assert found is not None
    return [one.name for one in found]


def required(target: str, *search: Path) -> list[str]:
    return [one.name for one in parameters(target, search) or () if one.required]


def faults(report: TargetReport) -> list[str | None]:
    return [problem.argument for problem in report.problems]


def is_fine(report: TargetReport) -> bool:
    return report.found and report.certain and not report.problems


def check(code: str, target: str, arguments: Iterable[str], folder: Path, **options: int | bool) -> TargetReport:
    write(folder, {"own.py": code})
    return check_target(f"own.{target}", list(arguments), [folder], **options)  # type: ignore[arg-type]


class TestInstalledPackages:
    @pytest.mark.parametrize(
        ("target", "arguments", "positional", "kind"),
        [
            ("torch.optim.AdamW", ["lr", "weight_decay"], 1, "class"),
            ("torch.optim.SGD", ["lr", "momentum"], 1, "class"),
            ("torch.optim.lr_scheduler.StepLR", ["step_size", "gamma"], 1, "class"),
            ("torch.nn.CrossEntropyLoss", ["label_smoothing"], 0, "class"),
            ("torch.nn.LSTM", ["input_size", "hidden_size", "num_layers"], 0, "class"),
            ("torch.utils.data.DataLoader", ["dataset", "batch_size"], 0, "class"),
            ("sklearn.datasets.load_digits", ["return_X_y"], 0, "function"),
            ("pytorch_lightning.callbacks.LearningRateMonitor", ["logging_interval"], 0, "class"),
            ("pytorch_lightning.Trainer", ["max_epochs", "accelerator"], 0, "class"),
            ("torchmetrics.Accuracy", ["task", "num_classes"], 0, "class"),
            ("collections.OrderedDict", ["anything"], 0, "class"),
            ("functools.partial", ["anything"], 1, "class"),
        ],
    )
    def test_what_works_is_found_and_certain(
        self, target: str, arguments: list[str], positional: int, kind: str
    ) -> None:
        report = check_target(target, arguments, [], positional=positional)
        assert is_fine(report), report
        assert report.kind == kind
        assert report.file is not None
        assert report.line is not None

    def test_an_unknown_argument_is_named_with_all_valid_ones(self) -> None:
        report = check_target("torch.optim.AdamW", ["learning_rate", "weight_decai"], [], positional=1)
        assert faults(report) == ["learning_rate", "weight_decai"]
        fixes = [problem.fix or "" for problem in report.problems]
        assert all("lr, betas, eps, weight_decay" in fix for fix in fixes)
        assert "params" not in fixes[0]  # given by position already
        assert "did you mean weight_decay?" in fixes[1]

    def test_a_missing_argument_is_named(self) -> None:
        report = check_target("torch.optim.lr_scheduler.StepLR", [], [], positional=1)
        assert faults(report) == ["step_size"]
        assert "step_size" in report.problems[0].message

    def test_what_is_given_later_is_not_missing(self) -> None:
        assert is_fine(check_target("torch.optim.AdamW", ["lr"], [], partial=True))

    @pytest.mark.parametrize(
        ("target", "meant"),
        [
            ("torch.optim.AdmaW", "torch.optim.AdamW"),
            ("torch.optim.ADAMW", "torch.optim.AdamW"),
            ("torch.optm.AdamW", "torch.optim.AdamW"),
            ("torch.optim.StepLR", "torch.optim.lr_scheduler.StepLR"),
            ("torch.nn.Lnear", "torch.nn.Linear"),
            ("sklearn.datasets.load_digit", "sklearn.datasets.load_digits"),
            ("pytorch_lightnin.Trainer", "pytorch_lightning.Trainer"),
            ("builtins.dct", "builtins.dict"),
        ],
    )
    def test_a_misspelt_path_gets_the_path_to_write(self, target: str, meant: str) -> None:
        report = check_target(target, [], [])
        assert not report.found
        assert [problem.fix for problem in report.problems] == [meant]

    def test_a_module_is_no_target(self) -> None:
        report = check_target("torch.optim.adamw", [], [])
        assert [problem.fix for problem in report.problems] == ["torch.optim.adamw.AdamW"]

    def test_known_packages_are_told_how_to_install(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(sys, "path", [str(tmp_path)])
        monkeypatch.delitem(sys.modules, "sklearn", raising=False)
        report = check_target("sklearn.datasets.load_digits", [], [])
        assert [problem.fix for problem in report.problems] == ["pip install scikit-learn"]

    def test_strangers_are_not_recommended_for_installation(self, tmp_path: Path) -> None:
        report = check_target("no_such_package_anywhere.Thing", [], [tmp_path])
        fix = report.problems[0].fix or ""
        assert "pip install" not in fix
        assert str(tmp_path) in fix

    @pytest.mark.parametrize("target", ["torch.relu", "numpy.array", "math.sqrt", "builtins.dict", "numpy.float32"])
    def test_nothing_is_refused_that_source_cannot_show(self, target: str) -> None:
        report = check_target(target, ["whatever"], [])
        assert (report.found, report.certain, report.problems) == (True, False, ())

    def test_a_lightning_module_can_be_told_from_others(self, tmp_path: Path) -> None:
        write(
            tmp_path,
            {
                "net.py": """
                    import pytorch_lightning as pl
                    from torch import nn
                    from torch.utils.data import Dataset

                    class Net(pl.LightningModule):
                        def __init__(self, width: int = 8): ...

                    class Wide(Net): ...
                    class Plain(nn.Module): ...
                    class Rows(Dataset[int]): ...
                    class Data(pl.LightningDataModule):
                        def __init__(self, folder: str): ...
                """
            },
        )
        assert MODULE in ancestors("net.Wide", [tmp_path])
        assert ancestors("net.Wide", [tmp_path])[0] == "net.Net"
        assert MODULE not in ancestors("net.Plain", [tmp_path])
        assert "torch.nn.modules.module.Module" in ancestors("net.Plain", [tmp_path])
        assert "torch.utils.data.dataset.Dataset" in ancestors("net.Rows", [tmp_path])
        assert "pytorch_lightning.core.datamodule.LightningDataModule" in ancestors("net.Data", [tmp_path])
        assert names("net.Wide", tmp_path) == ["width"]
        assert faults(check_target("net.Plain", ["path"], [tmp_path])) == ["path"]
        assert faults(check_target("net.Data", ["path"], [tmp_path])) == ["path", "folder"]

    def test_reading_agrees_with_python(self) -> None:
        """What is certain from source is what ``inspect`` says of the imported thing."""
        import argparse
        import concurrent.futures
        import dataclasses
        import json
        import logging.handlers
        import tempfile
        import unittest

        compared = 0
        for module in (argparse, concurrent.futures, dataclasses, json, logging.handlers, tempfile, unittest):
            for name in getattr(module, "__all__", None) or dir(module):
                thing = getattr(module, name)
                target = f"{module.__name__}.{name}"
                if name.startswith("_") or not callable(thing):
                    continue
                report = check_target(target, [], [], partial=True)
                assert report.found, target
                assert not report.problems, target
                if not report.certain:
                    continue
                real = [
                    (one.name, one.default is one.empty and not str(one).startswith("*"), one.kind.name.lower())
                    for one in inspect.signature(thing).parameters.values()
                ]
                assert [(one.name, one.required, one.kind) for one in parameters(target, []) or ()] == real, target
                if isinstance(thing, type):
                    bases = tuple(f"{one.__module__}.{one.__qualname__}" for one in thing.__mro__[1:-1])
                    assert len(report.bases) == len(bases), target
                compared += 1
        assert compared > 50

    def test_a_heavy_package_is_not_imported(self) -> None:
        program = (
            "import sys; from ai4sdk.planning.targets import check_target;"
            "report = check_target('torch.optim.AdamW', ['lr'], [], positional=1); assert report.certain;"
            "check_target('pytorch_lightning.Trainer', [], []);"
            "print([name for name in ('torch', 'pytorch_lightning', 'numpy') if name in sys.modules])"
        )
        folder = str(Path(__file__).parents[2])
        path = os.pathsep.join([folder, *filter(None, [os.environ.get("PYTHONPATH")])])
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
        )
        assert done.stdout.strip() == "[]", done.stderr


class TestFindingModules:
    def test_users_code_runs_at_no_time(self, tmp_path: Path) -> None:
        write(
            tmp_path,
            {
                "own/__init__.py": "raise SystemExit('imported')",
                "own/net.py": "open('touched', 'w')\nclass Net:\n    def __init__(self, width): ...\n",
            },
        )
        assert is_fine(check_target("own.net.Net", ["width"], [tmp_path]))
        assert not Path("touched").exists()
        assert "own" not in sys.modules

    def test_a_file_made_an_instant_ago_is_seen(self, tmp_path: Path) -> None:
        for number in range(20):
            assert not check_target(f"own{number}.Net", [], [tmp_path]).found
            write(tmp_path, {f"own{number}.py": "class Net: ..."})
            assert check_target(f"own{number}.Net", [], [tmp_path]).found

    def test_an_edited_file_is_read_again(self, tmp_path: Path) -> None:
        assert is_fine(check("class Net: ...", "Net", [], tmp_path))
        assert faults(check("class Ne_: ...", "Net", [], tmp_path)) == [None]

    def test_the_first_folder_wins(self, tmp_path: Path) -> None:
        first = write(tmp_path / "a", {"own.py": "def f(x): ..."})
        second = write(tmp_path / "b", {"own.py": "def f(y): ..."})
        assert names("own.f", first, second) == ["x"]
        assert names("own.f", second, first) == ["y"]

    def test_users_code_comes_before_installed_code(self, tmp_path: Path) -> None:
        write(tmp_path, {"sklearn.py": "def mine(): ..."})
        assert is_fine(check_target("sklearn.mine", [], [tmp_path]))

    def test_a_folder_of_data_does_not_hide_an_installed_package(self, tmp_path: Path) -> None:
        write(tmp_path, {"torch/weights.txt": ""})
        assert is_fine(check_target("torch.optim.SGD", ["lr"], [tmp_path], positional=1))

    def test_a_package_over_several_folders_without_init(self, tmp_path: Path) -> None:
        a = write(tmp_path / "a", {"shared/one.py": "def f(x): ..."})
        b = write(tmp_path / "b", {"shared/two.py": "def g(y): ..."})
        assert names("shared.one.f", a, b) == ["x"]
        assert names("shared.two.g", a, b) == ["y"]

    def test_an_editable_install_by_path_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write(tmp_path, {"src/editable_by_path/__init__.py": "def f(x): ..."})
        monkeypatch.syspath_prepend(tmp_path / "src")  # what a .pth file does when Python starts
        assert names("editable_by_path.f") == ["x"]

    def test_an_editable_install_by_import_hook(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from importlib.machinery import ModuleSpec
        from importlib.util import spec_from_file_location

        file = write(
            tmp_path, {"src/hooked/__init__.py": "from hooked.net import f", "src/hooked/net.py": "def f(x): ..."}
        )

        class Hook:
            @staticmethod
            def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
                place = file / "src" / "hooked"
                locations = [str(place)]
                if name != "hooked":
                    return None
                return spec_from_file_location(name, place / "__init__.py", submodule_search_locations=locations)

        monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Hook])
        assert names("hooked.f") == names("hooked.net.f") == ["x"]
        assert "hooked" not in sys.modules

    def test_modules_are_found_as_files(self, tmp_path: Path) -> None:
        write(tmp_path, {"own/__init__.py": "", "own/net.py": "", "loose/x.py": ""})
        modules = ModuleFinder([tmp_path])
        own, net, loose, built_in = map(modules.find, ("own", "own.net", "loose", "sys"))
        assert own
        assert own.file == tmp_path / "own" / "__init__.py"
        assert net
        assert net.file == tmp_path / "own" / "net.py"
        assert loose
        assert (loose.file, loose.folders) == (None, (tmp_path / "loose",))
        assert built_in
        assert built_in.file is None
        assert modules.find("own.nothing") is None
        assert modules.find("own.net.nothing") is None

    @pytest.mark.parametrize(
        "target", ["", ".", "a..b", "own.", "1.x", "${module}", "own.Net()", "own Net", "../own.Net"]
    )
    def test_what_is_no_dotted_path_is_said_to_be_none(self, target: str, tmp_path: Path) -> None:
        report = check_target(target, [], [tmp_path])
        assert not report.found
        assert len(report.problems) == 1

    def test_a_pipe_named_like_a_module_does_not_hang(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "own.py")
        assert not check_target("own.Net", [], [tmp_path]).found


class TestFollowingNames:
    FILES = {
        "pkg/__init__.py": """
            from .models import Net as Model, make
            from pkg.models import *
            from . import tools
            import pkg.deep.inner as short
            Alias = Model
            Nested = short.Outer.Inner
        """,
        "pkg/models.py": """
            __all__ = ["Starred", "_exported"]
            class Net:
                def __init__(self, width, depth=2): ...
            class Starred: ...
            class Hidden: ...
            def _exported(x): ...
            make = lambda a, *, b=1: a
        """,
        "pkg/tools.py": """
            from ..pkg import nothing
            from .models import Hidden
        """,
        "pkg/deep/__init__.py": "",
        "pkg/deep/inner.py": """
            from ..models import Net
            class Outer(Net):
                class Inner:
                    def __init__(self, x): ...
                @classmethod
                def build(cls, size): ...
                @staticmethod
                def make(size, *, seed=0): ...
                def run(self, x): ...
        """,
    }

    @pytest.mark.parametrize(
        ("target", "expected"),
        [
            ("pkg.Model", ["width", "depth"]),
            ("pkg.Alias", ["width", "depth"]),
            ("pkg.models.Net", ["width", "depth"]),
            ("pkg.deep.inner.Outer", ["width", "depth"]),
            ("pkg.deep.inner.Net", ["width", "depth"]),
            ("pkg.Starred", []),
            ("pkg._exported", ["x"]),
            ("pkg.make", ["a", "b"]),
            ("pkg.tools.Hidden", []),
            ("pkg.short.Outer.Inner", ["x"]),
            ("pkg.Nested", ["x"]),
            ("pkg.deep.inner.Outer.build", ["size"]),
            ("pkg.deep.inner.Outer.make", ["size", "seed"]),
        ],
    )
    def test_imports_aliases_stars_and_nesting(self, target: str, expected: list[str], tmp_path: Path) -> None:
        write(tmp_path, self.FILES)
        assert names(target, tmp_path) == expected

    def test_a_star_import_takes_only_what_is_exported(self, tmp_path: Path) -> None:
        write(tmp_path, self.FILES)
        report = check_target("pkg.Hidden", [], [tmp_path])
        assert not report.found
        assert report.problems[0].fix == "pkg.models.Hidden"

    def test_a_list_of_exports_that_grows_while_running(self, tmp_path: Path) -> None:
        grown = '__all__ = ["A"]\nclass A: ...\nclass B: ...\ndef add(name):\n    __all__.append(name)\nadd("B")'
        write(tmp_path, {"grown.py": grown, "own.py": "from grown import *"})
        assert is_fine(check_target("own.A", [], [tmp_path]))
        assert is_fine(check_target("own.B", [], [tmp_path]))

    def test_a_method_needs_its_instance(self, tmp_path: Path) -> None:
        write(tmp_path, self.FILES)
        report = check_target("pkg.deep.inner.Outer.run", ["x"], [tmp_path])
        assert "instance" in report.problems[0].message

    def test_inherited_class_methods(self, tmp_path: Path) -> None:
        code = """
            class A:
                @classmethod
                def build(cls, size): ...
            class B(A): ...
        """
        assert is_fine(check(code, "B.build", ["size"], tmp_path))
        assert faults(check(code, "B.build", ["sizes"], tmp_path)) == ["sizes", "size"]
        assert check(code, "B.buidl", [], tmp_path).problems[0].fix == "own.B.build"

    @pytest.mark.parametrize(
        "code",
        [
            "try:\n    from missing_package import Net\nexcept ImportError:\n    class Net: ...",
            "try:\n    import missing_package\nexcept ImportError:\n    missing_package = None\nclass Net: ...",
            "if True:\n    class Net: ...\nelse:\n    Net = None",
            "import typing\nif typing.TYPE_CHECKING:\n    from missing import Net\nelse:\n    class Net: ...",
            "with open('x'):\n    class Net: ...",
            "Net = None\nclass Net: ...",
            "class _Net: ...\nNet = _Net",
            "class Net: ...\nif __name__ == '__main__':\n    Net = 3",
        ],
    )
    def test_definitions_under_conditions(self, code: str, tmp_path: Path) -> None:
        assert is_fine(check(code, "Net", [], tmp_path))

    def test_a_name_only_type_checkers_see_is_no_target(self, tmp_path: Path) -> None:
        code = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from torch.nn import Linear"
        assert not check(code, "Linear", [], tmp_path).found

    def test_a_deleted_name_is_gone(self, tmp_path: Path) -> None:
        assert not check("class Net: ...\ndel Net", "Net", [], tmp_path).found

    @pytest.mark.parametrize(
        "code",
        [
            "def __getattr__(name):\n    return load(name)",
            "globals()['Net'] = type('Net', (), {})",
            "Net = make_class('Net')",
            "class Net: ...\nNet = wrap(Net)",
            "import sys\nsys.modules[__name__] = object()",
            "def setup():\n    global Net\n    Net = 3",
            "Net, Other = make_two()",
            "from math import *",
            "import enum\nclass Net(enum.Enum):\n    a = 1",
            "class Meta(type):\n    def __call__(cls, *args): ...\nclass Net(metaclass=Meta): ...",
            "@unknown\nclass Net: ...",
            "if flag:\n    class Net: ...\nelse:\n    class Net:\n        def __init__(self, b): ...",
            "class Net:\n    __init__ = make_init()",
            "class Net(make_base()): ...",
        ],
    )
    def test_what_source_cannot_tell_is_not_judged(self, code: str, tmp_path: Path) -> None:
        report = check(code, "Net", ["anything"], tmp_path)
        assert (report.found, report.certain, report.problems) == (True, False, ())

    def test_lazy_packages_that_name_their_parts_for_type_checkers(self, tmp_path: Path) -> None:
        write(
            tmp_path,
            {
                "lazy/__init__.py": """
                    from typing import TYPE_CHECKING
                    if TYPE_CHECKING:
                        from .net import Net
                    def __getattr__(name):
                        import importlib
                        return getattr(importlib.import_module('.net', __name__), name)
                """,
                "lazy/net.py": "class Net:\n    def __init__(self, width): ...",
            },
        )
        assert names("lazy.Net", tmp_path) == ["width"]
        assert not check_target("lazy.Other", [], [tmp_path]).certain

    def test_circles_of_imports_and_bases_end(self, tmp_path: Path) -> None:
        write(
            tmp_path,
            {
                "a.py": "from b import *\nfrom b import X\nclass Own(X): ...",
                "b.py": "from a import *\nfrom a import X",
                "loop.py": "class A(B): ...\nclass B(A): ...\nC = D\nD = C",
            },
        )
        assert "imports b.X, which cannot be found" in check_target("a.X", [], [tmp_path]).problems[0].message
        for target in ("a.Own", "loop.A", "loop.C"):
            report = check_target(target, ["x"], [tmp_path])
            assert (report.found, report.certain, report.problems) == (True, False, ())
        assert ancestors("loop.A", [tmp_path]) == ("loop.B",)

    def test_a_broken_import_of_the_users_is_shown(self, tmp_path: Path) -> None:
        report = check("\nfrom timmy import Net", "Net", [], tmp_path)
        assert not report.found
        assert report.line == 2
        assert f"{tmp_path / 'own.py'}:2" in report.problems[0].message

    @pytest.mark.parametrize("value", ["3", "'text'", "[1]", "{}", "None", "True"])
    def test_a_value_cannot_be_called(self, value: str, tmp_path: Path) -> None:
        assert "plain value" in check(f"Net = {value}", "Net", [], tmp_path).problems[0].message

    @pytest.mark.parametrize(
        "text", ["class Net(:\n", "\n\nx = = 1\nclass Net: ...", "class Net:\n\tx=1\n        y=2\n", "\0"]
    )
    def test_a_syntax_error_names_its_place(self, text: str, tmp_path: Path) -> None:
        report = check(text, "Net", [], tmp_path)
        assert not report.found
        assert report.file == tmp_path / "own.py"
        assert f"{tmp_path / 'own.py'}:" in report.problems[0].message

    def test_a_syntax_error_on_the_way(self, tmp_path: Path) -> None:
        write(tmp_path, {"own/__init__.py": "oops(", "own/net.py": "class Net: ..."})
        assert check_target("own.net.Net", [], [tmp_path]).file == tmp_path / "own" / "__init__.py"

    def test_what_a_docstring_shows_is_not_there(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        text = '"""Example::\n\nclass Net:\n    pass\n"""\n'
        text += "TEXT = '''\ndef make(): ...\n''' % {\n}\nclass Real:\n    x = 1\n"
        write(tmp_path, {"installed_text.py": text})
        monkeypatch.syspath_prepend(tmp_path)  # installed files are read in part only
        assert not check_target("installed_text.Net", [], []).found
        assert not check_target("installed_text.make", [], []).found
        assert is_fine(check_target("installed_text.Real", [], []))

    def test_other_encodings_and_line_ends(self, tmp_path: Path) -> None:
        (tmp_path / "latin.py").write_bytes(
            "# coding: latin-1\r\nname = 'é'\r\nclass Net:\r\n    pass\r\n".encode("latin-1")
        )
        (tmp_path / "marked.py").write_bytes(b"\xef\xbb\xbfclass Net:\n    pass\n")
        assert check_target("latin.Net", [], [tmp_path]).line == 3
        assert is_fine(check_target("marked.Net", [], [tmp_path]))


class TestSignatures:
    @pytest.mark.parametrize(
        ("code", "expected", "needed"),
        [
            ("class X: ...", [], []),
            ("class X:\n    def __init__(self, a, b=1, *, c, d=2): ...", ["a", "b", "c", "d"], ["a", "c"]),
            ("class X:\n    def __new__(cls, a, b=1): ...", ["a", "b"], ["a"]),
            ("class A:\n    def __init__(self, a): ...\nclass X(A): ...", ["a"], ["a"]),
            (
                "class A: ...\nclass B:\n    def __init__(self, b): ...\nclass C(A): ...\nclass X(C, B): ...",
                ["b"],
                ["b"],
            ),
            (  # Python's order, not depth first
                "class R:\n    def __init__(self, r): ...\nclass A(R): ...\n"
                "class B(R):\n    def __init__(self, b): ...\nclass X(A, B): ...",
                ["b"],
                ["b"],
            ),
            (
                "class A:\n    def __init__(self, a, b=1): ...\n"
                "class X(A):\n    def __init__(self, x, *args, **kwargs):\n        super().__init__(*args, **kwargs)",
                ["x", "a", "b"],
                ["x", "a"],
            ),
            (
                "class A:\n    def __init__(self, a, b, c=1): ...\n"
                "class X(A):\n    def __init__(self, x, **kwargs):\n        super().__init__(x, b=2, **kwargs)",
                ["x", "c"],
                ["x"],
            ),
            (
                "class A:\n    def __init__(self, a): ...\n"
                "class X(A):\n    def __init__(self, **kwargs):\n        self.y = kwargs.pop('y', 1)\n"
                "        super().__init__(**kwargs)",
                ["a", "y"],
                ["a"],
            ),
            (
                "class A:\n    def __init__(self, a): ...\n"
                "class X(A):\n    def __init__(self, **kwargs):\n        kwargs.setdefault('a', 1)\n"
                "        super(X, self).__init__(**kwargs)",
                ["a"],
                [],
            ),
            ("class X:\n    def __init__(self, **kwargs):\n        super().__init__(**kwargs)", [], []),
            ("class X:\n    def __init__(self, **kwargs):\n        self.options = kwargs", ["kwargs"], []),
            (
                "from dataclasses import dataclass, field, KW_ONLY\nfrom typing import ClassVar\n"
                "@dataclass\nclass A:\n    a: int\n    n: ClassVar[int] = 0\n"
                "@dataclass\nclass X(A):\n    b: int = 1\n    c: list = field(default_factory=list)\n"
                "    d: int = field(init=False)\n    e: int = field(default=3, kw_only=True)\n"
                "    _: KW_ONLY\n    f: str",
                ["a", "b", "c", "e", "f"],
                ["a", "f"],
            ),
            (
                "import dataclasses as d\n@d.dataclass(kw_only=True)\nclass X:\n    a: int\n    b: int = 1",
                ["a", "b"],
                ["a"],
            ),
            ("import dataclasses\n@dataclasses.dataclass(init=False)\nclass X:\n    a: int", [], []),
            ("from typing import NamedTuple\nclass X(NamedTuple):\n    a: int\n    b: int = 2", ["a", "b"], ["a"]),
            (
                "from pydantic import BaseModel, Field\nfrom typing import Annotated, ClassVar\n"
                "class A(BaseModel):\n    a: int\n    k: ClassVar[int] = 1\n    _p: int = 2\n"
                "class X(A):\n    b: int = 1\n    c: int = Field(gt=0)\n    d: list = Field(default_factory=list)\n"
                "    e: int = Field(3)\n    f: int = Field(...)\n    g: Annotated[int, Field(default=4)]",
                ["a", "b", "c", "d", "e", "f", "g"],
                ["a", "c", "f"],
            ),
            (
                "from pydantic import BaseModel, ConfigDict\nclass X(BaseModel):\n"
                "    model_config = ConfigDict(extra='allow')\n    a: int = 1",
                ["a", "extra"],
                [],
            ),
            ("def X(a, /, b, *args, c=1, **kwargs): ...", ["a", "b", "args", "c", "kwargs"], ["a", "b"]),
            ("async def X(a): ...", ["a"], ["a"]),
            ("import functools\n@functools.lru_cache(maxsize=None)\ndef X(a): ...", ["a"], ["a"]),
            ("import torch\n@torch.no_grad()\ndef X(a): ...", ["a"], ["a"]),
            (
                "import functools\ndef logged(f):\n    @functools.wraps(f)\n    def wrapper(*args, **kwargs):\n"
                "        return f(*args, **kwargs)\n    return wrapper\n@logged\ndef X(a): ...",
                ["a"],
                ["a"],
            ),
            (
                "def register(name):\n    def deco(cls):\n        return cls\n    return deco\n"
                "@register('x')\nclass X:\n    def __init__(self, a): ...",
                ["a"],
                ["a"],
            ),
            (
                "from typing import overload\n@overload\ndef X(a: int): ...\n@overload\ndef X(a: str): ...\n"
                "def X(a, b=1): ...",
                ["a", "b"],
                ["a"],
            ),
        ],
    )
    def test_parameters(self, code: str, expected: list[str], needed: list[str], tmp_path: Path) -> None:
        write(tmp_path, {"own.py": code})
        assert names("own.X", tmp_path) == expected
        assert required("own.X", tmp_path) == needed

    @pytest.mark.parametrize(
        "code",
        [
            "@decorate\ndef X(a): ...",
            "def decorate(f):\n    return lambda: f(1)\n@decorate\ndef X(a): ...",
            "import functools\n@functools.partial(print)\ndef X(a): ...",
            "from pydantic import BaseModel, Field\nclass X(BaseModel):\n    a: int = Field(alias='b')",
            "class X(Exception): ...",
        ],
    )
    def test_uncertain_signatures_are_not_given(self, code: str, tmp_path: Path) -> None:
        write(tmp_path, {"own.py": code})
        assert parameters("own.X", [tmp_path]) is None
        assert is_fine(check_target("own.X", ["q"], [tmp_path])) is False
        assert check_target("own.X", ["q"], [tmp_path]).problems == ()

    @pytest.mark.parametrize(
        ("arguments", "positional", "expected"),
        [
            (["a", "b"], 0, []),
            (["b"], 1, []),
            ([], 2, []),
            ([], 3, [None]),
            (["a"], 1, ["a", "b"]),
            (["a"], 0, ["b"]),
            (["a", "b", "c"], 0, ["c"]),
        ],
    )
    def test_by_position_and_by_name(
        self, arguments: list[str], positional: int, expected: list[str | None], tmp_path: Path
    ) -> None:
        assert faults(check("def f(a, b): ...", "f", arguments, tmp_path, positional=positional)) == expected

    def test_only_by_position(self, tmp_path: Path) -> None:
        report = check("def f(a, /): ...", "f", ["a"], tmp_path)
        assert "only by position" in report.problems[0].message

    def test_no_argument_at_all(self, tmp_path: Path) -> None:
        assert check("class X: ...", "X", ["a"], tmp_path).problems[0].fix == "it takes no arguments by name"


@pytest.mark.parametrize(
    ("annotation", "takes"),
    [
        ("float", "a number"),
        ("int", "a whole number"),
        ("bool", "true or false"),
        ("float | Tensor", "a number"),
        ("torch.Tensor | float", "a number"),
        ("Optional[int]", "a whole number"),
        ("Union[int, float, None]", "a number"),
        ("'int | None'", "a whole number"),
        ("int = None", "a whole number"),
        ("str", None),
        ("float | str", None),
        ("float = 'scale'", None),
        ("list[int]", None),
        ("Tensor", None),
        ("'[ no type'", None),
        ("Literal[1, 2]", None),
    ],
)
def test_what_kind_of_value_an_annotation_asks_for(annotation: str, takes: str | None, tmp_path: Path) -> None:
    report = check(f"def f(a: {annotation}): ...", "f", ["a"], tmp_path)
    assert report.takes.get("a") == takes


def test_the_kind_is_known_through_an_inherited_constructor(tmp_path: Path) -> None:
    code = """
        class A:
            def __init__(self, lr: float): ...
        class B(A):
            def __init__(self, *, size=1, **kwargs):
                super().__init__(**kwargs)
        """
    assert check(code, "B", ["lr"], tmp_path).takes == {"lr": "a number"}


def test_the_nearest_name_is_found_whatever_its_case() -> None:
    assert nearest_name("adamw", ["Adam", "AdamW", "SGD"]) == "AdamW"
    assert nearest_name("max_epoch", ["max_epochs", "min_epochs"]) == "max_epochs"
    assert nearest_name("zzz", ["Adam"]) is None
    assert nearest_name("a", []) is None
