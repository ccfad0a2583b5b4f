"""An environment is made once of what it is made of, found again by that, and made anew if it was not finished."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ai4sdk.errors import EnvironmentFault, NotFound
from ai4sdk.serving.deepaas.environment import make_environment
from ai4sdk.serving.deepaas.modules import with_paths
from ai4sdk.serving.deepaas.worker import environment_python
from ai4sdk.spec.serving import Module, Serving

POND = Path(__file__).parent / "pond"
REQUIREMENTS = ["deepaas==2.5.2", "numpy<2"]
SETUP = "from setuptools import setup\nsetup(name='brook', version='1', py_modules=['brook'])\n"


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "brook"
    folder.mkdir()
    (folder / "setup.py").write_text(SETUP)
    (folder / "brook.py").write_text("FISH = 1\n")
    return folder


class Commands(list):
    """Notes commands instead of running them; those with a word in ``failing`` fail."""

    failing = ""

    def __call__(self, command, **_):
        self.append(command)
        if command[1:3] == ["-m", "venv"]:
            (Path(command[3]) / "bin").mkdir(parents=True)
            (Path(command[3]) / "bin" / "python").touch()
        fails = bool(self.failing) and self.failing in command
        return subprocess.CompletedProcess(command, int(fails), "", "ERROR: No matching distribution found for mud\n")


@pytest.fixture
def commands(monkeypatch):
    noted = Commands()
    monkeypatch.setattr("ai4sdk.serving.deepaas.environment.subprocess.run", noted)
    return noted


@pytest.mark.slow
@pytest.mark.engine
def test_a_folder_becomes_an_environment_with_its_module(environment, monkeypatch):
    imports = "import lake, webargs; print(webargs.__version__)"
    told = subprocess.run(
        [environment / "bin" / "python", "-I", "-c", imports], capture_output=True, text=True, check=True
    )
    assert told.stdout.startswith("5.")
    monkeypatch.setattr("ai4sdk.serving.deepaas.environment.subprocess.run", None)  # nothing is done again
    assert make_environment(POND, environment.parent, requirements=REQUIREMENTS) == environment


def test_it_is_found_again_by_what_it_is_made_of(source, tmp_path, commands):
    first = make_environment(source, tmp_path)
    (source / "__pycache__").mkdir()
    (source / "__pycache__" / "brook.pyc").write_text("")
    (source / ".git").mkdir()
    (source / ".git" / "HEAD").write_text("")
    assert make_environment(source, tmp_path) == first
    assert len(commands) == 2
    (source / "brook.py").write_text("FISH = 2\n")
    second = make_environment(source, tmp_path)
    third = make_environment(source, tmp_path, requirements=["numpy<2"])
    assert len({first, second, third}) == 3
    assert commands[-1][-2:] == ["numpy<2", str(source)]


def test_a_relative_folder_is_never_looked_up_in_an_index(source, tmp_path, commands, monkeypatch):
    monkeypatch.chdir(source.parent)
    make_environment(Path(source.name), tmp_path / "kept")
    assert commands[-1][-1] == str(source)


def test_a_file_of_requirements_will_do(tmp_path, commands):
    (tmp_path / "requirements.txt").write_text("pond==1.2\n")
    make_environment(tmp_path / "requirements.txt", tmp_path / "kept")
    assert commands[-1][-2:] == ["-r", str(tmp_path / "requirements.txt")]


def test_what_cannot_be_installed_is_told_and_tried_again(source, tmp_path, commands):
    commands.failing = "mud"
    with pytest.raises(EnvironmentFault) as caught:
        make_environment(source, tmp_path / "kept", requirements=["mud"])
    assert f"{source} cannot be installed" in caught.value.message
    assert "No matching distribution found for mud" in caught.value.hint
    commands.failing = ""
    made = make_environment(source, tmp_path / "kept", requirements=["mud"])
    assert len(commands) == 4
    assert (made / ".ai4sdk-ready").is_file()


def test_one_that_was_not_finished_is_made_anew(source, tmp_path, commands):
    made = make_environment(source, tmp_path)
    (made / ".ai4sdk-ready").unlink()
    (made / "half").touch()
    assert make_environment(source, tmp_path) == made
    assert not (made / "half").exists()
    assert len(commands) == 4


def test_one_whose_python_was_taken_away_is_made_anew(source, tmp_path, commands):
    made = make_environment(source, tmp_path)
    (made / "bin" / "python").unlink()
    assert make_environment(source, tmp_path) == made
    assert len(commands) == 4


def test_a_file_that_cannot_be_read_is_told(source, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("ai4sdk.serving.deepaas.environment.open", refuse, raising=False)
    with pytest.raises(EnvironmentFault, match=r"brook\.py cannot be read: Permission denied"):
        make_environment(source, tmp_path)


def test_an_environment_whose_python_is_gone_says_so(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to("/opt/python3.6/bin/python")
    with pytest.raises(EnvironmentFault) as caught:
        environment_python(tmp_path)
    assert "leads to /opt/python3.6/bin/python, which is not there" in caught.value.message


def test_paths_of_modules_start_at_the_project(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/angler")
    made = Serving(
        modules={
            "a": Module(environment="venv"),
            "b": Module(source="~/b", python="python3.8"),
            "c": Module(source="/c", python="old/python"),
        }
    )
    whole = with_paths(made, tmp_path)
    assert whole.trainings == str(tmp_path / "trainings")
    assert [(each.environment, each.source, each.python) for each in whole.modules.values()] == [
        (str(tmp_path / "venv"), None, None),
        (None, "/home/angler/b", "python3.8"),
        (None, "/c", str(tmp_path / "old/python")),
    ]


def test_what_is_no_module_is_told(tmp_path):
    with pytest.raises(NotFound, match=r"no pyproject\.toml or setup\.py"):
        make_environment(tmp_path, tmp_path / "kept")


def test_an_interpreter_that_is_not_there_is_told(source, tmp_path):
    with pytest.raises(EnvironmentFault, match="cannot be made with /nowhere/python"):
        make_environment(source, tmp_path / "kept", python=Path("/nowhere/python"))
