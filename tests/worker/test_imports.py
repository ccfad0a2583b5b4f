"""Two versions of one module live side by side, each with its own imports."""

import importlib
import sys

import pytest

from ai4sdk.worker.imports import code_digest, open_code, same_code


def write(folder, **files):
    for name, text in files.items():
        path = folder / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def imported(code, name):
    return importlib.import_module(f"{code.prefix}.{name}")


def test_each_folder_sees_its_own_modules(tmp_path):
    for version in (1, 2):
        write(
            tmp_path / str(version),
            kit__init="",
            kit__value=f"V = {version}",
            kit__user="import kit.value\nfrom kit.value import V\nfrom . import value\n"
            "def lazy():\n    from kit.value import V\n    import kit.value as m\n    return V, m.V\n",
            alone="import os.path, json\nfrom kit import value\n",
        )
        (tmp_path / str(version) / "kit" / "init.py").rename(tmp_path / str(version) / "kit" / "__init__.py")
    one, two = open_code(tmp_path / "1"), open_code(tmp_path / "2")
    for code, version in ((one, 1), (two, 2), (one, 1)):
        user = imported(code, "kit.user")
        assert (user.V, user.kit.value.V, user.value.V, user.lazy()) == (version, version, version, (version, version))
        alone = imported(code, "alone")
        assert alone.value is imported(code, "kit.value")
        assert alone.json is sys.modules["json"]
    assert "kit" not in sys.modules


def test_folders_without_init_are_packages_too(tmp_path):
    code = open_code(write(tmp_path / "a", loose__inner__leaf="X = 5", top="from loose.inner.leaf import X"))
    assert imported(code, "top").X == 5


def test_a_module_loaded_elsewhere_does_not_leak_in(tmp_path, monkeypatch):
    write(tmp_path / "plain", leaky_net="V = 'plain'")
    monkeypatch.syspath_prepend(str(tmp_path / "plain"))
    importlib.import_module("leaky_net")
    code = open_code(write(tmp_path / "run", leaky_net="V = 'run'", user="from leaky_net import V"))
    assert imported(code, "user").V == "run"
    assert sys.modules.pop("leaky_net").V == "plain"


def test_equal_code_is_imported_once(tmp_path):
    same = [open_code(write(tmp_path / name, mod="X = object()")) for name in ("a", "b")]
    assert imported(same[0], "mod").X is imported(same[1], "mod").X


def test_a_missing_module_is_reported_as_ever(tmp_path):
    code = open_code(write(tmp_path / "a", broken="import surely_not_installed", half="from broken2 import x"))
    with pytest.raises(ModuleNotFoundError, match="surely_not_installed"):
        imported(code, "broken")
    with pytest.raises(ModuleNotFoundError, match="nothing_here"):
        imported(code, "nothing_here")


def test_nothing_is_written_beside_the_code(tmp_path):
    code = open_code(write(tmp_path / "a", quiet="X = 1"))
    imported(code, "quiet")
    assert [path.name for path in (tmp_path / "a").rglob("*")] == ["quiet.py"]


def test_targets_are_pointed_into_the_folder(tmp_path):
    code = open_code(write(tmp_path / "a", mynet="X = 1"))
    config = {"_target_": "mynet.Net", "loss": {"_target_": "torch.nn.MSELoss"}, "parts": [{"_target_": "mynet.Part"}]}
    moved = code.localized(config)
    assert moved["_target_"] == f"{code.prefix}.mynet.Net"
    assert moved["loss"]["_target_"] == "torch.nn.MSELoss"
    assert moved["parts"][0]["_target_"] == f"{code.prefix}.mynet.Part"
    assert config["_target_"] == "mynet.Net"


def test_the_digest_knows_names_and_contents(tmp_path):
    base = code_digest(write(tmp_path / "a", one="1", two="2"))
    assert base == code_digest(write(tmp_path / "b", two="2", one="1"))
    assert base != code_digest(write(tmp_path / "c", one="2", two="1"))
    assert base != code_digest(write(tmp_path / "d", one="1", three="2"))


def test_same_code_wants_every_file(tmp_path):
    code = write(tmp_path / "code", kit__a="1", b="2")
    write(tmp_path / "here", kit__a="1")
    assert not same_code(code, [tmp_path / "here"])
    write(tmp_path / "there", b="2")
    assert same_code(code, [tmp_path / "here", tmp_path / "there"])
    write(tmp_path / "there", b="3")
    assert not same_code(code, [tmp_path / "here", tmp_path / "there"])
    assert not same_code(tmp_path / "nowhere", [tmp_path])
