"""Frouros's detectors live in an environment of their own; whatever happens to it, watching goes on."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from ai4sdk.drift import frouros as room
from ai4sdk.drift.frouros import DETECTORS, FrourosProcess, reference_ranks
from ai4sdk.drift.sketch import sketch
from ai4sdk.drift.watch import DriftWatch
from ai4sdk.errors import EnvironmentFault, RunFailed, UsageError
from ai4sdk.spec.drift import DriftWatching, Frouros
from ai4sdk.worker.prediction import Prediction


@pytest.fixture(scope="session")
def python(tmp_path_factory):
    """The interpreter of an environment with Frouros: the one that is named, or one made for the tests."""
    if named := os.environ.get("AI4SDK_TEST_FROUROS"):
        return named
    folder = tmp_path_factory.mktemp("frouros")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    made = folder / "bin" / "python"
    done = subprocess.run(
        [made, "-m", "pip", "install", "-q", "frouros==0.9.0"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        assert not os.environ.get("CI"), done.stderr[-2000:]
        pytest.skip("no environment with frouros can be made here")
    return str(made)


@pytest.fixture
def stand_in(tmp_path):
    """Write an interpreter's stand-in that answers by rules of the test."""

    def write(body):
        path = tmp_path / "python"
        path.write_text(f"#!{sys.executable}\nimport json, os, sys, time\n" + textwrap.dedent(body))
        path.chmod(0o755)
        return str(path)

    return write


def confidences(values):
    chances = np.stack([values, 1 - values], axis=1)
    return Prediction("classification", chances, np.array(["a"] * len(values)), chances, ("a", "b"))


CONFIDENCE = {"output:confidence": sketch(np.random.default_rng(0).uniform(0.5, 1, 2000))}
VALUES = np.random.default_rng(1).uniform(0.5, 1, 100)


def test_an_unknown_detector_gets_its_nearest_name():
    with pytest.raises(UsageError, match="name KSTest"):
        FrourosProcess(Frouros(python=sys.executable, detectors={"KStest": {}}), CONFIDENCE, 100)


def test_an_interpreter_that_is_none_is_told_with_how_to_make_one():
    with pytest.raises(EnvironmentFault, match="pip install frouros"):
        FrourosProcess(Frouros(python="/no/python"), CONFIDENCE, 100)


def test_an_environment_without_frouros_is_told_three_times_and_given_up(stand_in):
    bare = stand_in("for line in sys.stdin: print(json.dumps({'error': \"No module named 'frouros'\"}), flush=True)\n")
    process = FrourosProcess(Frouros(python=bare), CONFIDENCE, 100)
    for _ in range(4):
        with pytest.raises(RunFailed, match="No module named 'frouros'") as caught:
            process.see("output:confidence", VALUES)
    assert "given up" in str(caught.value)
    assert f"{bare} -m pip install frouros" in str(caught.value)
    assert process.see("output:confidence", VALUES) == []


ONCE = """
    first = not os.path.exists(__file__ + ".seen")
    open(__file__ + ".seen", "w").close()
    for line in sys.stdin:
        if "detectors" in json.loads(line):
            print(json.dumps({"ready": "0"}), flush=True)
        elif first:
            os._exit(3)
        else:
            print(json.dumps({"results": []}), flush=True)
"""


def test_a_process_that_dies_is_an_error_and_is_started_again(stand_in, reference):
    settings = DriftWatching(window=50, load=1.0, frouros=Frouros(python=stand_in(ONCE)))
    with DriftWatch(reference, settings) as watch:
        watch.feed(None, confidences(VALUES))
        assert watch.drain()
        assert "ended with 3" in watch.snapshot()["last_error"]
        assert watch.snapshot()["counters"]["windows"] == 2  # ours went on
        watch.feed(None, confidences(VALUES))
        assert watch.drain()
        assert watch.snapshot()["counters"]["errors"] == 1


HANGS = """
    import threading
    threading.Event().wait()
"""
CHATTERS = """
    sys.stderr.write("a warning of some library" * 20_000)
    for line in sys.stdin:
        print(json.dumps({"ready": "0"} if "detectors" in json.loads(line) else {"results": []}), flush=True)
"""
DIES = """
    sys.exit("ImportError: libopenblas.so.0: cannot open shared object file")
"""


def test_a_process_that_reads_and_answers_nothing_is_given_up_in_the_end(stand_in, monkeypatch):
    monkeypatch.setattr(room, "_PATIENCE", 0.2)
    many = {f"output:{place}": CONFIDENCE["output:confidence"] for place in range(40)}  # more than a pipe takes
    process = FrourosProcess(Frouros(python=stand_in(HANGS)), many, 100)
    for _ in range(4):
        with pytest.raises(RunFailed, match="no answer in 0 s"):
            process.see("output:3", VALUES)
    assert process.given_up


def test_what_a_process_says_beside_its_answers_does_not_stop_it(stand_in):
    process = FrourosProcess(Frouros(python=stand_in(CHATTERS)), CONFIDENCE, 100)
    assert process.see("output:confidence", VALUES) == []
    process.close()


def test_a_process_that_dies_is_told_with_its_last_words(stand_in):
    process = FrourosProcess(Frouros(python=stand_in(DIES)), CONFIDENCE, 100)
    with pytest.raises(RunFailed, match="ended with 1: ImportError: libopenblas"):
        process.start()


def test_failures_of_long_ago_are_forgotten(stand_in, monkeypatch):
    monkeypatch.setattr(room, "_SOUND", 3)
    dies_at_fourth = """
        for number, line in enumerate(sys.stdin):
            if number == 5:
                os._exit(3)
            print(json.dumps({"ready": "0"} if number == 0 else {"results": []}), flush=True)
    """
    process = FrourosProcess(Frouros(python=stand_in(dies_at_fourth)), CONFIDENCE, 100)
    for _ in range(6):
        for _ in range(4):
            assert process.see("output:confidence", VALUES) == []
        with pytest.raises(RunFailed, match="ended with 3"):
            process.see("output:confidence", VALUES)
    assert not process.given_up


def test_detectors_that_are_given_up_have_no_state_any_more(stand_in, reference, tmp_path):
    says_drift = """
        for number, line in enumerate(sys.stdin):
            if "detectors" in json.loads(line):
                if os.path.exists(__file__ + ".seen"):
                    os._exit(3)
                print(json.dumps({"ready": "0"}), flush=True)
            elif number == 1:
                open(__file__ + ".seen", "w").close()
                told = {"feature": "output:confidence", "name": "ADWIN", "seen": 1, "alarms": 1, "warning": False}
                print(json.dumps({"results": [told | {"windows": []}]}), flush=True)
            else:
                os._exit(3)
    """
    settings = DriftWatching(
        detectors=[], load=1.0, frouros=Frouros(python=stand_in(says_drift), detectors={"ADWIN": {}})
    )
    with DriftWatch(reference, settings, events=tmp_path / "drift.jsonl") as watch:
        states = []
        for _ in range(6):
            watch.feed(None, confidences(VALUES))
            assert watch.drain()
            states.append(watch.state)
        told = watch.snapshot()
    assert states == ["drift"] * 4 + ["ok"] * 2
    assert told["counters"]["errors"] == 4
    assert "given up" in told["last_error"]
    events = [json.loads(line)["event"] for line in (tmp_path / "drift.jsonl").read_text().splitlines()]
    assert events == ["began", "changed", "given up"]


def test_closing_a_watch_ends_a_process_that_hangs(stand_in, reference):
    hangs_later = """
        print(json.dumps({"ready": "0"}), flush=True)
        time.sleep(600)
    """
    watch = DriftWatch(reference, DriftWatching(frouros=Frouros(python=stand_in(hangs_later)))).start()
    watch.feed(None, confidences(VALUES))
    watch.close(timeout=0.5)
    watch._thread.join(30)
    assert not watch._thread.is_alive()


def test_a_reference_as_ranks_is_even_and_bounded():
    made = reference_ranks(sketch(np.random.default_rng(0).normal(size=5000)))
    assert len(made) == 1000
    assert made.mean() == pytest.approx(0.5, abs=0.01)
    assert reference_ranks(sketch(np.array([1.0, 1.0, 2.0] * 10))).tolist() == [1 / 3] * 20 + [5 / 6] * 10


@pytest.mark.engine
@pytest.mark.slow
def test_every_detector_of_the_real_frouros_takes_our_values(python):
    later = {"BWSTest", "MMD"}  # of later versions
    names = [name for name in DETECTORS if name not in later]
    process = FrourosProcess(Frouros(python=python, detectors={name: {} for name in names}), CONFIDENCE, 50)
    try:
        results = process.see("output:confidence", VALUES)
        alike = process.see("output:confidence", np.full(100, 0.75))
    finally:
        process.close()
    assert [result["name"] for result in results] == [result["name"] for result in alike] == names
    assert [result for result in [*results, *alike] if "error" in result] == []
    for name in later:
        process = FrourosProcess(Frouros(python=python, detectors={name: {}}), CONFIDENCE, 50)
        try:
            process.start()
        except RunFailed as error:
            assert f"has no detector {name}" in str(error)  # noqa: PT017 - or it is such a version
        finally:
            process.close()


@pytest.mark.engine
@pytest.mark.slow
def test_a_detector_that_cannot_bear_its_values_is_told_and_the_others_go_on(python):
    constant = {"output:confidence": sketch(np.ones(200))}
    detectors = {"AndersonDarlingTest": {}, "KSTest": {}}
    process = FrourosProcess(Frouros(python=python, detectors=detectors), constant, 50)
    try:
        failed, fine = process.see("output:confidence", np.ones(100))
    finally:
        process.close()
    assert "distinct" in failed["error"]
    assert fine["windows"][0]["p"] == 1.0


@pytest.mark.engine
@pytest.mark.slow
def test_the_real_frouros_sees_confidence_fall(python, reference, tmp_path):
    detectors = {"KSTest": {}, "PSI": {}, "ADWIN": {}, "CUSUM": {"lambda_": 30.0}}
    settings = DriftWatching(detectors=[], window=100, load=1.0, frouros=Frouros(python=python, detectors=detectors))
    generator = np.random.default_rng(3)
    with DriftWatch(reference, settings, events=tmp_path / "drift.jsonl") as watch:
        for _ in range(8):
            watch.feed(None, confidences(generator.uniform(0.5, 1, 50)))
        assert watch.drain()
        before = watch.snapshot()
        for _ in range(6):
            watch.feed(None, confidences(generator.uniform(0.5, 0.6, 50)))
        assert watch.drain()
        after = watch.snapshot()
    assert before["counters"]["errors"] == 0, before["last_error"]
    assert before["state"] == "ok"
    assert after["distances"]["frouros.PSI/output:confidence"] > before["distances"]["frouros.PSI/output:confidence"]
    lines = [json.loads(line) for line in (tmp_path / "drift.jsonl").read_text().splitlines()]
    seen = {line["stream"] for line in lines if line.get("state") == "drift"}
    assert seen == {
        f"frouros.{name}/output:confidence" for name in ("KSTest", "ADWIN", "CUSUM")
    }  # PSI has no threshold


def test_what_runs_in_the_other_environment_imports_nothing_of_ours():
    host = Path(sys.modules["ai4sdk.drift.frouros"].__file__).with_name("frouros_host.py").read_text()
    assert "import ai4sdk" not in host
    assert "from ai4sdk" not in host
