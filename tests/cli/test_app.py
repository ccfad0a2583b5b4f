"""The command line answers in words and with the right status."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ai4sdk.cli import main
from ai4sdk.cli.app import COMMANDS


def run(capsys, *argv: str) -> tuple[int, str, str]:
    status = main(list(argv))
    output = capsys.readouterr()
    return status, output.out, output.err


def test_help_lists_every_command(capsys):
    status, out, _ = run(capsys, "--help")
    assert status == 0
    assert all(f"  {name} " in out for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command):
    done = subprocess.run(
        [sys.executable, "-m", "ai4sdk", command, "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"usage: ai4sdk {command}" in done.stdout


@pytest.mark.parametrize(
    ("argv", "fix"),
    [
        (["rnu"], "ai4sdk run"),
        (["config=quickstart"], "ai4sdk run config=quickstart"),
        (["run"], "ai4sdk run config=quickstart"),
        (["run", "quickstart"], "config=quickstart"),
        (["run", "config=train", "--detatch"], "--detach"),
        (["plan", "config=train", "config=train"], "once"),
        (["why", "training.max_epoch", "config=train"], "training.max_epochs"),
        (["configs", "optimiser"], "ai4sdk configs optimizer"),
        (["schema", "hardwear"], "ai4sdk schema hardware"),
        (["status", "nobody"], "ai4sdk run config=quickstart"),
        (["diff", "a.json", "b.json"], "ai4sdk run config=quickstart"),
        (["run", "--plan", "nothing.json"], "ai4sdk plan"),
        (["run", "--plan", "x.json", "seed=1"], "ai4sdk plan"),
        (["predict", "latest"], "--help"),
    ],
)
def test_a_mistake_on_the_command_line_gets_the_fix(project, capsys, argv, fix):
    status, _, err = run(capsys, *argv)
    assert status in (2, 6)
    assert fix in err
    assert "Traceback" not in err


def test_plan_shows_what_would_run(project, capsys):
    status, out, _ = run(capsys, "plan", "config=train")
    assert status == 0
    for words in (
        "net.Net(width=8)",
        "data.csv",
        "60 samples",
        "2 classes",
        "torch.optim.Adam(lr=0.001)",
        "2 epochs",
        "ai4sdk run config=train",
    ):
        assert words in out


def test_a_plan_is_written_and_compared(project, capsys):
    assert run(capsys, "plan", "config=train", "--out", "a.json")[0] == 0
    assert run(capsys, "plan", "config=train", "seed=7", "name=b", "--out", "b.json")[0] == 0
    status, out, _ = run(capsys, "diff", "a.json", "b.json")
    assert status == 1
    assert "seed" in out.split("changes nothing")[0]
    assert "name" in out.split("changes nothing")[1]
    assert run(capsys, "diff", "a.json", "a.json")[0] == 0


def test_plan_as_json_is_the_plan(project, capsys):
    _, out, _ = run(capsys, "plan", "config=train", "--json")
    assert json.loads(out)["job"]["module"]["_target_"] == "net.Net"


def test_why_shows_the_layers_and_the_winner(project, capsys):
    status, out, _ = run(capsys, "why", "training.max_epochs", "config=train", "training.max_epochs=5")
    assert status == 0
    lines = out.splitlines()
    assert lines[0] == "training.max_epochs = 5"
    assert [("wins" in line) for line in lines[2:]] == [False, False, True]
    assert "configs/training/short.yaml:1:1" in lines[3]


def test_why_works_while_the_config_has_mistakes(project, capsys):
    status, out, _ = run(capsys, "why", "seed", "config=train", "seed=many")
    assert status == 0
    assert 'seed = "many"' in out


def test_configs_lists_ours_and_the_projects(project, capsys):
    status, out, _ = run(capsys, "configs")
    assert status == 0
    assert "A small network  [project]" in out
    assert "quickstart" in out


def test_modules_are_found_by_what_they_are_for(project, capsys):
    status, out, _ = run(capsys, "modules", "digits")
    assert status == 0
    assert out.startswith("digits  ")
    assert "quickstart" not in out
    assert "no such module" in run(capsys, "modules", "submarine")[1]
    assert {entry["name"] for entry in json.loads(run(capsys, "modules", "--json")[1])} >= {
        "digits",
        "tabular",
        "images",
    }


def test_ps_without_runs_says_how_to_make_one(project, capsys):
    status, out, _ = run(capsys, "ps")
    assert status == 0
    assert "ai4sdk run" in out


def test_a_pipe_that_closes_is_no_error(project):
    done = subprocess.run(
        f"{sys.executable} -m ai4sdk schema | head -1", shell=True, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_a_defect_of_ours_is_told_as_one_and_kept_in_a_file(project, capsys, monkeypatch):
    import ai4sdk.cli.why as why

    monkeypatch.setattr(why, "compose_layers", lambda *_: 1 / 0)
    status, _, err = run(capsys, "why", "seed", "config=train")
    assert status == 1
    assert "a defect of ai4sdk" in err
    assert "ZeroDivisionError" in Path(err.split()[-1]).read_text()


def test_commands_on_runs_do_not_pay_for_composing():
    code = "import sys, ai4sdk.cli.runs; print(sorted({'hydra', 'mlflow', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("option", "says"), [("-n=-3", "-n -3 is no number of points"), ("--csv", "two formats")])
def test_options_of_a_study_that_make_no_sense_are_refused(project, capsys, option, says):
    assert main(["study", "show", "latest", "--json", option]) == 2
    assert says in capsys.readouterr().err


def test_a_point_is_not_shown_as_a_study_but_where_it_is_said(project, capsys):
    assert main(["study", "show", "mine/3"]) == 2
    assert "ai4sdk status mine/3" in capsys.readouterr().err
