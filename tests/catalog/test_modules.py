"""The modules of a project and of ai4sdk are found with what they offer."""

import subprocess
import sys

import pytest

from ai4sdk.catalog.metadata import METADATA_FILE
from ai4sdk.catalog.modules import find_modules
from ai4sdk.catalog.shipped import shipped_configs, shipped_modules


@pytest.fixture
def fish(tmp_path):
    """A project's module, as small as can be."""
    folder = tmp_path / "modules" / "fish"
    for name in ("fish_net/__init__.py", "tests/__init__.py", "configs/module/fish.yaml", "configs/fish.yaml"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (folder / "helpers.py").touch()
    (folder / METADATA_FILE).write_text((shipped_modules() / "digits" / METADATA_FILE).read_text(encoding="utf-8"))
    return folder


def test_a_module_is_found_with_its_packages_and_options(fish):
    (module,) = find_modules([fish.parent])
    assert (module.name, module.folder, module.source) == ("fish", fish, "project")
    assert module.packages == ("fish_net", "helpers")
    assert module.options == {"": ("fish",), "module": ("fish",)}
    assert module.metadata["metadata_version"] == "2.3.0"
    assert module.summary == "Recognise handwritten digits in grey pictures of 8×8 pixels"
    assert module.problems == ()


def test_the_shipped_modules_are_there_without_problems():
    modules = find_modules([shipped_modules()])
    assert {"digits", "heart", "images", "sounds", "tabular"} <= {module.name for module in modules}
    assert {module.source for module in modules} == {"shipped"}
    assert [module for module in modules if module.problems] == []


def test_a_module_of_the_project_hides_a_shipped_one_of_its_name(fish):
    fish.rename(fish.with_name("digits"))
    modules = find_modules([fish.parent, shipped_modules()])
    assert [module.source for module in modules if module.name == "digits"] == ["project"]


def test_a_broken_description_does_not_hide_the_module(fish):
    (fish / METADATA_FILE).write_text("title: [", encoding="utf-8")
    (module,) = find_modules([fish.parent])
    assert module.packages == ("fish_net", "helpers")
    assert module.metadata == {}
    assert "YAML" in module.problems[0].message


def test_a_module_without_description_is_told_so(fish):
    (fish / METADATA_FILE).unlink()
    (module,) = find_modules([fish.parent])
    assert METADATA_FILE in module.problems[0].message


def test_what_is_no_module_is_passed_over(fish):
    for name in (".git", "__pycache__", "notes"):
        (fish.parent / name).mkdir()
    (fish.parent / "README.md").touch()
    assert [module.name for module in find_modules([fish.parent, fish.parent / "missing"])] == ["fish"]


def test_configs_and_modules_ship_together():
    assert (shipped_configs() / "base.yaml").is_file()
    assert (shipped_modules() / "digits" / METADATA_FILE).is_file()


def test_looking_for_modules_imports_nothing_heavy():
    code = (
        "import sys, ai4sdk.catalog.modules as m, ai4sdk.catalog.scaffold, ai4sdk.catalog.shipped as s;"
        "assert m.find_modules([s.shipped_modules()]);"
        "print(sorted({'torch', 'pytorch_lightning', 'mlflow', 'pandas', 'jsonschema', 'hydra'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
