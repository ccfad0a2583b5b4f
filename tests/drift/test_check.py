"""From a training to a verdict on new data: the command, its exit code, and its page."""

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

import ai4sdk
from ai4sdk.drift.check import main
from ai4sdk.drift.reference import REFERENCE, read_reference
from ai4sdk.worker.model import load_model

pytestmark = pytest.mark.slow

TABLE_NET = """
import net


class Net(net.Net):
    def __init__(self, width=8):
        super().__init__(width, features=5)
"""


def rows(count, seed=0, *, shift=0.0, colours=("red", "blue"), empty=0.0):
    generator = np.random.default_rng(seed)
    numbers = generator.normal(10 + shift, 2, (count, 3))
    return [
        [
            *("" if generator.uniform() < empty else f"{value:.3f}" for value in line),
            str(generator.choice(colours)),
            "yes" if line[0] + generator.normal() > 10 else "no",
        ]
        for line in numbers
    ]


def as_csv(lines, label=True):
    head = ["a", "b", "c", "colour", "y"]
    return "\n".join(",".join(line[: None if label else 4]) for line in [head, *lines]) + "\n"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A project with a trained model of a table; entered."""
    from ai4sdk.testing.project import write_project

    folder, before = tmp_path_factory.mktemp("project"), Path.cwd()
    write_project(folder)
    (folder / "wide.py").write_text(TABLE_NET)
    (folder / "data.csv").write_text(as_csv(rows(600)))
    os.chdir(folder)
    yield ai4sdk.run("train", "tracking.kind=none", "module._target_=wide.Net"), folder
    os.chdir(before)


def check(*argv, stdin=None):
    return subprocess.run(
        [sys.executable, "-m", "ai4sdk", "drift", "check", *map(str, argv)],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )


def test_data_like_those_of_the_training_are_no_drift(trained, tmp_path):
    (tmp_path / "new.csv").write_text(as_csv(rows(200, 1), label=False))
    done = check("latest", "--data", tmp_path / "new.csv")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("no drift in 6 tests of 200 samples, alpha 0.05 over all of them")


def test_drift_has_an_exit_code_names_the_features_and_draws_a_page(trained, tmp_path):
    (tmp_path / "new.csv").write_text(as_csv(rows(200, 1, shift=2.0, colours=("red", "green")), label=False))
    page = tmp_path / "out.html"
    done = check(trained[0].id, "--data", tmp_path / "new.csv", "--report", page)
    assert done.returncode == 8, done.stderr
    assert "drift in" in done.stdout
    assert f"report  {page}" in done.stdout
    text = page.read_text()
    assert "default-src 'none'" in text
    assert text.count("<svg") >= 4
    for drawn in text.split("<svg")[1:]:
        ET.fromstring("<svg" + drawn.split("</svg>")[0] + "</svg>")
    assert "input: colour" in text
    assert not list(tmp_path.glob(".*part"))


def test_json_tells_every_test(trained, tmp_path):
    done = check("--data", "-", "--json", stdin=as_csv(rows(150, 3, shift=3.0)))
    told = json.loads(done.stdout)
    assert done.returncode == 8
    assert told["drift"] is True
    assert told["tests"] == len(told["findings"]) == 6
    by_name = {(finding["part"], finding["name"]): finding for finding in told["findings"]}
    assert by_name["input", "a"]["drift"]
    assert by_name["input", "a"]["adjusted_p"] >= by_name["input", "a"]["p"]
    assert not by_name["input", "colour"]["drift"]
    assert by_name["output", "class"]["drift"]  # nearly all are "yes" now


def test_cells_that_the_model_would_refuse_are_drift_and_no_error(trained, tmp_path):
    (tmp_path / "new.csv").write_text(as_csv(rows(200, 1, empty=0.2)))
    done = check("latest", "--data", tmp_path / "new.csv", "--json")
    told = json.loads(done.stdout)
    assert done.returncode == 8, done.stderr
    missing = {finding["name"] for finding in told["findings"] if finding["of"] == "missing" and finding["drift"]}
    assert missing == {"a", "b", "c"}
    assert any("were not given to the model" in note for note in told["notes"])
    answered = next(finding for finding in told["findings"] if finding["name"] == "class")
    assert 60 < answered["samples"] < 150


@pytest.mark.parametrize(
    ("argv", "code", "told"),
    [
        (["nosuch", "--data", "data.csv"], 6, "nosuch"),
        (["latest", "--data", "nosuch.csv"], 6, "nosuch.csv"),
        (["latest", "--data", "data.csv", "--alpha", "2"], 2, "alpha"),
        (["latest", "--data", "data.csv", "--alfa", "2"], 2, "--alpha"),
    ],
)
def test_a_mistake_is_told_in_a_sentence(trained, argv, code, told):
    done = check(*argv)
    assert done.returncode == code, done.stderr
    assert told in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("data", "report", "code", "told"),
    [
        ("s3://bucket/new.csv", None, 6, "copy it first"),
        ("other.csv", None, 3, "no column 'a'"),
        ("empty.csv", None, 3, "no sample to check"),
        ("nothing.csv", None, 3, "has no header"),
        ("folder", None, 3, "no picture or recording in folder"),
        ("array.npy", None, 3, "does not have 4 cells"),
        ("data.csv", "no/such/folder/x.html", 7, "cannot be written"),
        ("data.csv", "folder", 7, "cannot be written"),
    ],
)
def test_data_that_do_not_fit_and_pages_that_cannot_be_written_are_told(trained, capsys, data, report, code, told):
    folder = trained[1]
    (folder / "other.csv").write_text("b,c,colour\n1,2,red\n")
    (folder / "empty.csv").write_text("a,b,c,colour\n")
    (folder / "nothing.csv").touch()
    (folder / "folder").mkdir(exist_ok=True)
    np.save(folder / "array.npy", np.zeros((5, 3)))
    argv = [str(trained[0].paths.root), "--data", data, *(["--report", report] if report else [])]
    assert main(argv) == code  # in this process: a new one would import torch first
    printed = capsys.readouterr()
    assert told in printed.err
    assert "drift" not in printed.out


def test_an_action_that_is_none_is_told():
    done = subprocess.run(
        [sys.executable, "-m", "ai4sdk", "drift", "chek"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "ai4sdk drift check" in done.stderr


def test_a_package_is_checked_where_it_lies_and_its_reference_is_part_of_it(trained, tmp_path):
    package = trained[0].paths.package
    assert (package / REFERENCE).stat().st_size < 20_000
    assert "drift check" in (package / "README.md").read_text()
    (tmp_path / "new.csv").write_text(as_csv(rows(200, 1)))
    done = check(package, "--data", tmp_path / "new.csv", "--trust-code")
    assert done.returncode == 0, done.stderr


def test_the_same_run_has_the_same_reference(trained):
    again = ai4sdk.run("train", "tracking.kind=none", "module._target_=wide.Net")
    first, second = (run.paths.package / REFERENCE for run in (trained[0], again))
    assert first.read_bytes() == second.read_bytes()


def test_mlflow_and_ours_load_a_package_with_a_reference(trained):
    import mlflow.pyfunc

    record = {"a": 10.0, "b": 10.0, "c": 10.0, "colour": "red"}
    ours = load_model(trained[0].paths.package, trust_code=True)(record).to_records()
    import pandas as pd

    theirs = mlflow.pyfunc.load_model(str(trained[0].paths.package)).predict(pd.DataFrame([record]))
    assert ours[0]["prediction"] == theirs["prediction"].iloc[0]


def test_what_is_written_is_the_jobs_to_say(trained):
    common = ("train", "tracking.kind=none", "module._target_=wide.Net", "training.max_epochs=1")
    only = read_reference(ai4sdk.run(*common, "++evaluation.drift=outputs").paths.package)
    assert only.inputs == {}
    assert set(only.outputs) == {"class", "confidence"}
    assert not (ai4sdk.run(*common, "++evaluation.drift=none").paths.package / REFERENCE).exists()


FEDERATED = ("training.mode=federated", "training.max_epochs=1", "++federation.partition.sites=2")


def test_a_federation_tells_nothing_of_what_sites_have_but_of_its_answers(trained, tmp_path):
    made = ai4sdk.run("train", "tracking.kind=none", "module._target_=wide.Net", *FEDERATED)
    known = read_reference(made.paths.package)
    assert known.form is None
    assert known.inputs == {}
    assert set(known.outputs) == {"class", "confidence"}
    (tmp_path / "new.csv").write_text(as_csv(rows(200, 1)))
    done = check(made.id, "--data", tmp_path / "new.csv", "--json")
    assert "answers only" in json.loads(done.stdout)["notes"][0]
    assert {finding["part"] for finding in json.loads(done.stdout)["findings"]} == {"output"}


def test_a_federation_with_privacy_has_no_reference_and_the_check_says_so(trained):
    pytest.importorskip("dp_accounting")
    private = "++federation.privacy={mode: local, noise_multiplier: 1.0, delta: 1e-3}"
    made = ai4sdk.run("train", "tracking.kind=none", "module._target_=wide.Net", *FEDERATED, private)
    assert not (made.paths.package / REFERENCE).exists()
    done = check(made.id, "--data", "data.csv")
    assert done.returncode == 6
    assert "with privacy none" in done.stderr
