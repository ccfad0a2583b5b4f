"""Packages of ours by DEEPaaS's protocol: columns, files or JSON become samples, and answers have places for a UI."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest

from ai4sdk.serving.contract import Contract, TensorSpec
from ai4sdk.serving.deepaas.package import MOST_COLUMNS, describe_package
from ai4sdk.serving.deepaas.swagger import render_swagger
from ai4sdk.serving.messages import Request
from ai4sdk.serving.protocols import deepaas
from ai4sdk.serving.question import Question, Refused, Served
from ai4sdk.serving.refusals import refusal
from ai4sdk.worker.prediction import Prediction

LABELS = (TensorSpec("label", "BYTES", (-1,)), TensorSpec("probabilities", "FP64", (-1, 2)))
NUMBERS = (TensorSpec("output", "FP32", (-1,)),)
TABLE = Contract(
    "t",
    "classification",
    "table",
    (TensorSpec("p", "FP64", (-1,)), TensorSpec("q", "BYTES", (-1,))),
    LABELS,
    (),
    ("a", "b"),
)
ARRAY = Contract("t", "regression", "array", (TensorSpec("input", "FP32", (-1, 2)),), NUMBERS, (2,))
PICTURES = Contract("t", "classification", "images", (TensorSpec("image", "BYTES", (-1,)),), LABELS, (), ("a", "b"))
RECORDINGS = Contract("t", "classification", "audio", (TensorSpec("audio", "BYTES", (-1,)),), LABELS, (), ("a", "b"))
COLUMNS = [
    {"name": "p", "kind": "number", "mean": 0, "std": 1},
    {"name": "q", "kind": "text", "categories": ["x", "y"]},
]
PNG = b"\x89PNG and so on"


def asked(body=b"", kind="", query=""):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Request(
        "deepaas", "infer", kind or ("" if isinstance(body, bytes) else "application/json"), data, {"query": query}
    )


def form(*parts):
    body = b"".join(
        f'--e\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + content + b"\r\n"
        for name, more, content in parts
    )
    return asked(body + b"--e--\r\n", "multipart/form-data; boundary=e")


def file(name, content, kind="application/octet-stream"):
    return ("data", f'; filename="{name}"\r\nContent-Type: {kind}', content)


def npy(array):
    held = io.BytesIO()
    np.save(held, np.asarray(array, np.float32))
    return held.getvalue()


def samples(request, contract):
    return np.asarray(deepaas.decode(request, contract).samples).tolist()


@pytest.mark.parametrize(
    "request_",
    [
        asked(query="p=1&q=x&unknown=3"),
        asked(b"p=1&q=x", "application/x-www-form-urlencoded"),
        form(("p", "", b"1"), ("q", "", b"x")),
        asked({"q": "x"}, query="p=1"),
    ],
)
def test_a_record_comes_as_an_argument_a_column(request_):
    assert samples(request_, TABLE) == [{"p": 1.0, "q": "x"}]


@pytest.mark.parametrize(("text", "cell"), [("1.50", 1.5), ("1,5", "1,5"), ("", ""), ("x", "x")])
def test_a_number_is_written_with_a_point_or_as_the_model_reads_it(text, cell):
    assert samples(asked(query=f"p={text}&q=2"), TABLE) == [{"p": cell, "q": "2"}]


@pytest.mark.parametrize(
    "request_",
    [
        form(file("t.csv", b"p,q\n1,x\n2,y\n", "text/csv")),
        form(file("t.csv", b"p,q\n1,x\n2,y\n", "text/plain")),
        form(file("t.json", b'[{"p": "1", "q": "x"}, {"p": "2", "q": "y"}]')),
        form(file("a.csv", b"p,q\n1,x\n"), file("b.csv", b"p,q\n2,y\n")),
        asked({"data": [{"p": "1", "q": "x"}, {"p": "2", "q": "y"}]}),
        asked(query='data=[{"p":"1","q":"x"},{"p":"2","q":"y"}]'),
    ],
)
def test_several_records_come_as_data(request_):
    assert samples(request_, TABLE) == [{"p": "1", "q": "x"}, {"p": "2", "q": "y"}]


@pytest.mark.parametrize(
    "request_",
    [
        form(file("a.npy", npy([[1, 2], [3, 4]]))),
        form(file("a.npy", npy([[1, 2]])), file("b.npy", npy([[3, 4]]))),
        form(file("a.csv", b"u,v\n1,2\n3,4\n", "text/csv")),
        asked({"data": [[1, 2], [3, 4]]}),
        form(("data", "", b"[[1, 2], [3, 4]]")),
    ],
)
def test_arrays_come_as_data(request_):
    assert samples(request_, ARRAY) == [[1, 2], [3, 4]]


@pytest.mark.parametrize("contract", [TABLE, ARRAY])
def test_no_samples_are_no_mistake_of_files(contract):
    assert samples(asked({"data": []}), contract) == []


def test_pictures_come_as_files_one_or_several():
    assert deepaas.decode(form(file("a.png", PNG, "image/png")), PICTURES).samples == [PNG]
    assert deepaas.decode(form(file("a", PNG), file("b.jpg", b"\xff\xd8")), PICTURES).samples == [PNG, b"\xff\xd8"]


def test_recordings_come_as_files_too():
    assert deepaas.decode(form(file("a.wav", b"RIFF", "audio/wav"), file("b", b"fLaC")), RECORDINGS).samples == [
        b"RIFF",
        b"fLaC",
    ]


@pytest.mark.parametrize(
    ("request_", "contract", "status", "words"),
    [
        (asked(), TABLE, 422, "data: Missing data for required field: give data, or each column."),
        (asked(query="p=1"), TABLE, 422, "q: Missing data for required field."),
        (asked(), ARRAY, 422, "data: Missing data for required field."),
        (form(("p", '; filename="p.csv"', b"1"), ("q", "", b"x")), TABLE, 422, "p: Not a valid value"),
        (asked(query="data=oops"), ARRAY, 422, "data: Not valid JSON"),
        (asked(b"{", "application/json"), ARRAY, 400, "Invalid JSON body."),
        (form(file("a.npy", b"\x93NUMPY rubbish")), ARRAY, 400, "holds no array"),
        (form(file("a.npy", npy([[1, 2]])), file("b.npy", npy([[3]]))), ARRAY, 422, "do not fit together"),
        (form(file("a.npz", b"PK and so on")), ARRAY, 415, "send arrays as .npy"),
        (form(file("a.txt", b"hello")), PICTURES, 415, "what the body is cannot be told"),
        (asked(b"--e\r\n", "multipart/form-data; boundary=e"), PICTURES, 400, "cut short"),
    ],
)
def test_a_mistake_is_told_by_argument(request_, contract, status, words):
    with pytest.raises(Refused) as caught:
        deepaas.decode(request_, contract)
    assert caught.value.status == status
    assert words in caught.value.message


def test_errors_have_deepaas_form():
    assert json.loads(refusal("deepaas", 422, "q: Missing data for required field.").body) == {
        "q": ["Missing data for required field."]
    }
    assert json.loads(refusal("deepaas", 504, "no answer: it hangs").body) == {"message": "no answer: it hangs"}


def test_a_classifiers_answer_has_labels_and_probabilities_for_the_ui():
    prediction = Prediction(
        "classification", np.zeros((2, 2)), np.array(["b", "a"]), np.array([[0.25, 0.75], [1.0, 0.0]]), ("a", "b")
    )
    answer = deepaas.encode(Question([]), prediction, TABLE, Served("t", "1"))
    assert answer.content_type == "application/json; charset=utf-8"
    told = json.loads(answer.body)
    assert told["status"] == "OK"
    assert [record["prediction"] for record in told["predictions"]] == ["b", "a"]
    assert (told["labels"], told["probabilities"]) == (["a", "b"], [0.25, 0.75])


def test_a_regressors_answer_is_deepaas_plain_one():
    answer = deepaas.encode(Question([]), Prediction("regression", np.array([[1.5]])), ARRAY, Served("t", "1"))
    assert json.loads(answer.body) == {"status": "OK", "predictions": [{"prediction": 1.5}]}


def facts(contract, columns=None):
    return {"contract": contract.to_json(), "description": {"run": "r1", "preprocessing": {"columns": columns or []}}}


def parameters(contract, columns=None):
    model = describe_package("m", facts(contract, columns))
    swagger = render_swagger({"m": model}, version="1")
    return swagger["paths"]["/v2/models/m/predict/"]["post"]["parameters"], swagger


def test_a_table_is_described_with_an_argument_a_column():
    found, swagger = parameters(TABLE, COLUMNS)
    assert [(one["name"], one["in"], one["required"], one["type"]) for one in found] == [
        ("data", "formData", False, "file"),
        ("p", "query", False, "string"),
        ("q", "query", False, "string"),
    ]
    assert found[1]["format"] == "number"  # a text box: the UI leaves out a number that is 0, and sends the text "0"
    assert found[2]["enum"] == ["x", "y"]
    assert list(swagger["definitions"]["ModelPredictionResponse"]["properties"]) == [
        "status", "predictions", "labels", "probabilities",
    ]  # fmt: skip


def test_a_ui_is_told_pictures_and_sounds_from_other_files_by_a_word():
    (picture,), _ = parameters(PICTURES)
    (recording,), _ = parameters(RECORDINGS)
    (array,), swagger = parameters(ARRAY)
    assert picture["required"]
    assert "image" in picture["description"].lower()
    assert "audio" in recording["description"].lower()
    assert "image" not in recording["description"].lower()
    assert not any(word in array["description"].lower() for word in ("image", "audio", "video"))
    assert "ModelPredictionResponse" not in swagger["definitions"]


def test_many_columns_and_columns_with_names_of_ours_come_as_data_alone():
    names = [f"c{number}" for number in range(MOST_COLUMNS + 1)]
    for columns in (names, ["p", "data"], ["accept"]):
        contract = Contract(
            "t", "regression", "table", tuple(TensorSpec(name, "FP64", (-1,)) for name in columns), NUMBERS
        )
        (only,), _ = parameters(contract)
        assert (only["name"], only["required"]) == ("data", True)
        record = dict.fromkeys(columns, 1)
        assert deepaas.decode(asked({"data": [record]}), contract).samples == [record]
