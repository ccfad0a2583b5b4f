"""From files to answers: as JSON or CSV, a batch at a time, whole or not at all, with errors that name the record."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sounds import folders_of_tones, sound_file

from ai4sdk.data.preprocessing import ColumnRule, Preprocessing
from ai4sdk.errors import DataError, EnvironmentFault
from ai4sdk.spec import Audio, Images
from ai4sdk.worker.predict import main, predict

RULES = Preprocessing(
    "table",
    (4,),
    "classification",
    (
        ColumnRule("age", "number", 40.0, 10.0),
        ColumnRule("smokes", "bool"),
        ColumnRule("colour", "text", categories=("blue", "red")),
    ),
)
CSV = "age,smokes,colour\n45,true,red\n30,false,blue\n51,0,red\n"
RECORDS = [
    {"age": 45, "smokes": True, "colour": "red"},
    {"age": 30, "smokes": False, "colour": "blue"},
    {"age": 51, "smokes": False, "colour": "red"},
]


@pytest.fixture
def package(make_package):
    example = np.array([[0.5, 1, 0, 1]], np.float32)
    return make_package(preprocessing=RULES, example_input=example, column_names=RULES.column_names)


def answers(package, *names, **options):
    out = io.StringIO()
    predict(package, list(map(str, names)), stdout=out, trust_code=True, **options)
    return out.getvalue()


def test_csv_and_json_are_answered_alike(package, tmp_path):
    (tmp_path / "x.csv").write_text(CSV)
    (tmp_path / "x.json").write_text(json.dumps(RECORDS))
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, RECORDS)))
    found = [answers(package, tmp_path / name, batch_size=2) for name in ("x.csv", "x.json", "x.jsonl")]
    assert found[0] == found[1] == found[2]
    assert len(json.loads(found[0])) == 3
    assert answers(package, "-", stdin=io.BytesIO(CSV.encode())) == found[0]


def test_answers_as_csv(package, tmp_path):
    (tmp_path / "x.csv").write_text(CSV)
    rows = list(csv.DictReader(io.StringIO(answers(package, tmp_path / "x.csv", format="csv"))))
    assert list(rows[0]) == ["prediction", "probability", "probabilities.a", "probabilities.b", "probabilities.c"]
    record = json.loads(answers(package, tmp_path / "x.csv"))[0]
    assert rows[0]["prediction"] == record["prediction"]
    assert float(rows[0]["probabilities.b"]) == record["probabilities"]["b"]


def test_an_output_file_appears_whole(package, tmp_path):
    (tmp_path / "x.csv").write_text(CSV)
    assert predict(package, [str(tmp_path / "x.csv")], output=str(tmp_path / "out.csv"), trust_code=True) == 3
    assert (tmp_path / "out.csv").read_text().startswith("prediction,")
    (tmp_path / "bad.csv").write_text(CSV + "x,true,red\n")
    with pytest.raises(DataError):
        predict(package, [str(tmp_path / "bad.csv")], output=str(tmp_path / "out.csv"), trust_code=True, batch_size=1)
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 4
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".part")]


def test_an_output_that_cannot_be_written_is_told(package, tmp_path):
    (tmp_path / "x.csv").write_text(CSV)
    with pytest.raises(EnvironmentFault, match="cannot be written"):
        predict(package, [str(tmp_path / "x.csv")], output=str(tmp_path / "no" / "out.json"), trust_code=True)


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_a_wrong_record_is_named_by_its_number_in_the_file(package, tmp_path, batch_size):
    (tmp_path / "x.csv").write_text(CSV + "old,true,red\n")
    with pytest.raises(DataError, match=r"x\.csv, record 4: column 'age': 'old' is no number"):
        answers(package, tmp_path / "x.csv", batch_size=batch_size)
    (tmp_path / "x.json").write_text(json.dumps([*RECORDS, {"age": 3, "smokes": True}]))
    with pytest.raises(DataError, match=r"x\.json, record 4: has no column 'colour'"):
        answers(package, tmp_path / "x.json", batch_size=batch_size)


def test_no_samples_are_told(package, tmp_path):
    (tmp_path / "x.csv").write_text("age,smokes,colour\n")
    with pytest.raises(DataError, match="no sample"):
        answers(package, tmp_path / "x.csv")


def test_pictures_are_answered_with_their_names(make_package, tmp_path):
    rules = Preprocessing("images", (1, 8, 8), "classification", images=Images(size=[8, 8], mode="L"))
    package = make_package(net="Pictures", preprocessing=rules, example_input=np.zeros((1, 1, 8, 8), np.float32))
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        Image.fromarray(np.full((8, 8), number * 80, np.uint8)).save(folder / f"{number}.png")
    found = json.loads(answers(package, folder, batch_size=2))
    assert [Path(record["input"]).name for record in found] == ["0.png", "1.png", "2.png"]
    (folder / "1.png").write_text("no picture")
    with pytest.raises(DataError, match=r"1\.png is no picture"):
        answers(package, folder)


def test_recordings_are_answered_with_their_names(make_package, tmp_path):
    how = Audio(rate=8000, seconds=0.1)
    rules = Preprocessing("audio", how.shape, "classification", audio=how)
    package = make_package(net="Sounds", preprocessing=rules, example_input=np.zeros((1, 1, 800), np.float32))
    folder = folders_of_tones(tmp_path / "tones", each=2)
    found = json.loads(answers(package, folder, batch_size=3))
    assert [Path(record["input"]).name for record in found] == ["0.wav", "1.wav", "0.wav", "1.wav"]
    bare = tmp_path / "as_services_get_it"
    bare.write_bytes(sound_file())
    assert len(json.loads(answers(package, bare))) == 1
    (folder / "low" / "1.wav").write_text("no recording")
    with pytest.raises(DataError, match=r"low/1\.wav is no recording"):
        answers(package, folder)
    with pytest.raises(DataError, match=r"standard input holds no text"):
        answers(package, "-", stdin=io.BytesIO(sound_file()))


def test_a_recording_for_a_model_of_tables_is_told(package, tmp_path):
    (tmp_path / "x.wav").write_bytes(sound_file())
    with pytest.raises(DataError, match=r"x\.wav is a recording: .* takes 3 columns"):
        answers(package, tmp_path / "x.wav")


def test_a_picture_for_a_model_of_tables_is_told(package, tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "x.png")
    with pytest.raises(DataError, match=r"x\.png is a picture: .* takes 3 columns"):
        answers(package, tmp_path / "x.png")


def test_arrays_are_answered(make_package, tmp_path):
    np.save(tmp_path / "x.npy", np.ones((5, 4), np.float32))
    assert len(json.loads(answers(make_package(), tmp_path / "x.npy", batch_size=2))) == 5


def test_rows_of_a_csv_are_arrays_for_a_model_without_columns(make_package, tmp_path):
    package, rows = make_package(), np.array([[1, 0.5, -1, 2], [0, 0, 1, 3], [4, 1, 1, 1]])
    np.save(tmp_path / "x.npy", rows)
    header = "a,b,c,d\n"
    (tmp_path / "x.csv").write_text(header + "\n".join(",".join(map(str, row)) for row in rows))
    assert answers(package, tmp_path / "x.csv", batch_size=2) == answers(package, tmp_path / "x.npy")
    (tmp_path / "wide.csv").write_text("a,b,c,d,e\n1,2,3,4,5\n")
    with pytest.raises(DataError, match=r"wide\.csv, record 1 has 5 cells; the model takes arrays of the shape \(4,\)"):
        answers(package, tmp_path / "wide.csv")
    (tmp_path / "words.csv").write_text(header + "1,2,3,4\n1,2,three,4\n")
    with pytest.raises(DataError, match=r"words\.csv, record 2, 'c': 'three' is no number"):
        answers(package, tmp_path / "words.csv")


def test_a_file_that_is_mapped_is_no_trap_for_a_module_that_writes_into_its_input(
    make_package, make_code, writing, tmp_path
):
    np.save(tmp_path / "x.npy", np.ones((5, 4), np.float32))
    found = answers(writing, tmp_path / "x.npy")
    assert found == answers(make_package(code=make_code(factor=3)), tmp_path / "x.npy")
    assert np.array_equal(np.load(tmp_path / "x.npy"), np.ones((5, 4)))


@pytest.mark.parametrize("name", ["x.json", "x.jsonl"])
def test_records_are_arrays_by_the_order_of_the_first_for_a_model_without_columns(make_package, tmp_path, name):
    package, rows = make_package(), [[1, 0.5, -1, 2], [0, 0, 1, 3], [4, 1, 1, 1]]
    np.save(tmp_path / "x.npy", np.array(rows))
    records = [dict(zip("abcd", row, strict=True)) for row in rows]
    records[2] = dict(reversed(records[2].items()))  # in a batch of its own
    lines = [json.dumps(record) for record in records]
    (tmp_path / name).write_text("\n".join(lines) if name.endswith("l") else f"[{','.join(lines)}]")
    assert answers(package, tmp_path / name, batch_size=2) == answers(package, tmp_path / "x.npy")
    (tmp_path / name).write_text(json.dumps({**records[0], "d": 10**400}))
    with pytest.raises(DataError, match=r"record 1, 'd': 1000.*0000 is no number"):
        answers(package, tmp_path / name)


def test_the_command_ends_with_a_message_and_a_code(package, tmp_path, capsys):
    assert main([str(package), "--input", str(tmp_path / "nowhere.csv"), "--trust-code"]) == 6
    assert "there is no file" in capsys.readouterr().err
    (tmp_path / "x.csv").write_text("age\n1\n")
    assert main([str(package), "--input", str(tmp_path / "x.csv"), "--trust-code"]) == 3
    error = capsys.readouterr().err
    assert "record 1" in error
    assert "Traceback" not in error
    (tmp_path / "x.csv").write_text(CSV)
    assert main([str(package), "--input", str(tmp_path / "x.csv")]) == 6
    assert "trust_code=True" in capsys.readouterr().err
    assert main([str(package), "--input", str(tmp_path / "x.csv"), "--trust-code", "--format", "csv"]) == 0
    assert capsys.readouterr().out.startswith("prediction,")


@pytest.mark.slow
def test_the_command_in_a_process_of_its_own(package, as_run):
    run = as_run(package, package / "code")
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "ai4sdk.worker.predict", str(run), "--input", "-"]
    env = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(command, input=CSV, capture_output=True, text=True, env=env, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)) == 3
    assert done.stderr == ""


def imported(package, given):
    """Return what the command says, and the names of what it imports."""
    command = [sys.executable, "-X", "importtime", "-m", "ai4sdk.worker.predict", str(package), "--input", "-"]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [*command, "--trust-code"], input=given, capture_output=True, text=True, env=env, timeout=300, check=False
    )
    names = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    return done, names


@pytest.mark.slow
def test_what_is_not_needed_to_predict_is_not_imported(package):
    done, names = imported(package, CSV)
    assert done.returncode == 0, done.stderr
    assert {"torch", "pytorch_lightning"} <= names
    assert not {"torch._dynamo", "scipy.signal", "pandas", "mlflow"} & names


def test_an_input_that_cannot_be_read_is_told_before_torch_is_waited_for(package):
    done, names = imported(package, "age\tage\n1\t2\n[")
    assert done.returncode == DataError.exit_code, done.stderr
    assert "torch" not in names
