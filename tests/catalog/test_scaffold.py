"""A project that `ai4sdk init` writes is whole, is a valid job, and never costs the user a file."""

import csv
import os
import resource
import subprocess
import sys

import pytest

from ai4sdk.catalog.metadata import METADATA_FILE, read_metadata, validate_metadata
from ai4sdk.catalog.modules import find_modules
from ai4sdk.catalog.scaffold import init_project
from ai4sdk.config.load import load_job
from ai4sdk.config.project import MARKER, find_project
from ai4sdk.errors import EnvironmentFault, UsageError


def files_under(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_project_is_a_job_with_its_own_module_and_data(tmp_path):
    written = init_project(tmp_path / "fish", name="fish-counting")
    project = find_project(tmp_path / "fish" / "configs")
    assert project.root == tmp_path / "fish"
    assert {path.relative_to(project.root).as_posix() for path in written} == set(files_under(project.root))
    assert {MARKER, ".gitignore", "README.md", "configs/train.yaml"} <= set(files_under(project.root))
    job = load_job("train", project=project).job
    assert job.name == "fish-counting"
    assert job.module.target == "fish_counting_model.FishCountingModel"
    with open(project.root / job.dataset.uri, encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row[job.dataset.label] for row in rows} == {"cod", "herring", "plaice"}


def test_the_module_is_described_and_found(tmp_path):
    init_project(tmp_path, name="fish")
    (module,) = find_modules([tmp_path / "modules"])
    assert (module.name, module.packages, module.options) == ("fish", ("fish_model",), {"module": ("fish",)})
    assert validate_metadata(read_metadata(module.folder / METADATA_FILE)) == []


def test_no_placeholder_is_left_in_names_or_text(tmp_path):
    init_project(tmp_path, name="fish")
    for name, content in files_under(tmp_path).items():
        for word in ("@name@", "@package@", "@class@", ".tmpl"):
            assert word not in name
            assert word.encode() not in content


def test_the_code_is_formatted_and_without_lint(tmp_path):
    init_project(tmp_path, name="fish-counting")
    # where the module's own import belongs among the others depends on its name
    for command in (["check", "--ignore=I001"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *command, "--isolated", "--line-length=120", "modules"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_the_tests_of_the_project_pass(tmp_path):
    init_project(tmp_path, name="fish-counting")
    command = [sys.executable, "-m", "pytest", "-q", "modules", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


def test_a_second_time_writes_nothing(tmp_path):
    init_project(tmp_path, name="fish")
    before = files_under(tmp_path)
    assert init_project(tmp_path, name="fish") == []
    assert files_under(tmp_path) == before


def test_a_missing_file_is_put_back(tmp_path):
    init_project(tmp_path, name="fish")
    (tmp_path / "README.md").unlink()
    assert init_project(tmp_path, name="fish") == [tmp_path / "README.md"]


def test_files_of_the_user_are_never_overwritten_and_all_are_named(tmp_path):
    (tmp_path / "README.md").write_text("mine", encoding="utf-8")
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "train.yaml").write_text("name: mine", encoding="utf-8")
    before = files_under(tmp_path)
    with pytest.raises(UsageError) as caught:
        init_project(tmp_path, name="fish")
    assert "README.md" in caught.value.message
    assert "configs/train.yaml" in caught.value.message
    assert ".gitignore" not in caught.value.message
    assert files_under(tmp_path) == before


@pytest.mark.parametrize("kind", ["file", "dangling link", "folder"])
def test_anything_else_in_the_way_is_named_too(tmp_path, kind):
    if kind == "file":
        (tmp_path / "modules").touch()
    elif kind == "dangling link":
        (tmp_path / "modules").symlink_to(tmp_path / "nowhere")
    else:
        (tmp_path / "README.md").mkdir()
    with pytest.raises(UsageError, match="README.md" if kind == "folder" else "modules"):
        init_project(tmp_path, name="fish")


def test_a_file_in_place_of_the_project_is_refused(tmp_path):
    (tmp_path / "fish").touch()
    with pytest.raises(UsageError, match="is a file"):
        init_project(tmp_path / "fish", name="fish")


def test_a_project_that_cannot_be_written_whole_leaves_nothing(tmp_path):
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, most))  # as a full disk would: larger files cannot be written
    try:
        with pytest.raises(EnvironmentFault):
            init_project(tmp_path / "deep" / "fish", name="fish")
        with pytest.raises(EnvironmentFault):
            init_project(tmp_path, name="fish")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    assert [entry.name for entry in tmp_path.iterdir()] == ["notes.txt"]


def test_a_folder_below_a_file_is_a_fault_of_the_place(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentFault):
        init_project(tmp_path / "file" / "fish", name="fish")


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("", "my-project"),
        ("2nd fish", "nd-fish"),
        ("my project.1", "my-project"),
        ("../up", "up"),
        ("fish-", "fish"),
        ("käse", "k-se"),
        ("a" * 65, "a" * 64),
        ("@name@", "name"),
    ],
)
def test_a_name_that_cannot_be_one_is_refused_with_one_that_can(tmp_path, name, near):
    with pytest.raises(UsageError) as caught:
        init_project(tmp_path / "p", name=name)
    assert caught.value.hint.endswith(f": {near}")
    assert not os.path.lexists(tmp_path / "p")
    init_project(tmp_path / "p", name=near)


@pytest.mark.parametrize("name", ["json", "class", "torch", "digits", "A", "a_b-c2"])
def test_any_usable_name_gives_code_that_hides_no_other_package(tmp_path, name):
    init_project(tmp_path, name=name)
    (module,) = find_modules([tmp_path / "modules"])
    (package,) = module.packages
    assert package.endswith("_model")
    for file in module.folder.rglob("*.py"):
        compile(file.read_text(encoding="utf-8"), str(file), "exec")
    load_job("train", project=find_project(tmp_path))
