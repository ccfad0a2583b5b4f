"""The same requests go to DEEPaaS 2.5.2 and to us, with the same module: the answers differ where it is written that they do."""

from __future__ import annotations

import json
import re
import time

import httpx
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.engine]

POND = "/v2/models/pond"
PREDICT = f"{POND}/predict/"
FILE = {"data": ("a b.txt", b"hello", "text/plain")}
JSON = {"content-type": "application/json"}

ALIKE = {
    "versions": ("GET", "/", {}),
    "version": ("GET", "/v2/", {}),
    "models": ("GET", "/v2/models/", {}),
    "model": ("GET", f"{POND}/", {}),
    "debug": ("GET", "/v2/debug/", {}),
    "no training": ("GET", f"{POND}/train/", {}),
    "no argument": ("POST", PREDICT, {}),
    "query": ("POST", PREDICT, {"params": {"n": 4, "flag": "true", "ratio": "1e-3", "unknown": 1}}),
    "form": ("POST", PREDICT, {"data": {"n": 4, "lst": ["5", "6"]}}),
    "json": ("POST", PREDICT, {"json": {"n": 4, "lst": [1, 2, 3], "cfg": {"b": [1]}, "flag": True, "unknown": {}}}),
    "one value for a list": ("POST", PREDICT, {"json": {"lst": 7}}),
    "null for a list": ("POST", PREDICT, {"json": {"lst": None}}),
    "json that is no mapping": ("POST", PREDICT, {"json": [1]}),
    "query before json": ("POST", PREDICT, {"params": {"n": 2}, "json": {"n": 4, "word": "eel"}}),
    "query before form": ("POST", PREDICT, {"params": {"n": 2}, "data": {"n": 4, "word": "eel"}}),
    "repeated": ("POST", PREDICT, {"params": {"lst": ["1", "2"], "n": ["4", "5"]}}),
    "not repeated": ("POST", PREDICT, {"params": {"lst": "1,2"}}),
    "a date": ("POST", PREDICT, {"params": {"day": "2024-02-03"}}),
    "all wrong": ("POST", PREDICT, {"params": {"n": 11, "ratio": "x", "mode": "?", "word": "y" * 30, "day": "soon"}}),
    "wrong types": ("POST", PREDICT, {"json": {"n": "x", "cfg": 3, "lst": ["a", 1], "flag": "perhaps", "word": 5}}),
    "broken json": ("POST", PREDICT, {"content": b"{bad", "headers": JSON}),
    "json that is no text": ("POST", PREDICT, {"content": b"\xff\xfe", "headers": JSON}),
    "no json": ("POST", PREDICT, {"content": b"", "headers": JSON}),
    "another type": ("POST", PREDICT, {"content": b"data", "headers": {"content-type": "text/plain"}}),
    "a file": ("POST", PREDICT, {"files": FILE, "params": {"n": 1}, "data": {"word": "tench"}}),
    "text for a file": ("POST", PREDICT, {"data": {"data": "text"}}),
    "a file in the query": ("POST", PREDICT, {"params": {"data": "text"}}),
    "a file for text": ("POST", PREDICT, {"files": {"word": ("w.txt", b"hello")}}),
    "a picture": ("POST", PREDICT, {"headers": {"accept": "image/png"}}),
    "a file back": ("POST", PREDICT, {"headers": {"accept": "application/zip"}}),
    "a type it has not": ("POST", PREDICT, {"headers": {"accept": "text/html"}}),
    "accept in the query": ("POST", PREDICT, {"params": {"accept": "image/png"}}),
    "printing": ("POST", PREDICT, {"params": {"mode": "print"}}),
    "train without an argument": ("POST", f"{POND}/train/", {}),
}

SAME_STATUS = {
    "a model without slash": ("GET", POND, {}, 308),
    "with a query": ("GET", "/v2/debug?x=1&y=a%20b", {}, 308),
    "several slashes": ("GET", "/v2//models/pond", {}, 308),
    "predict without slash": ("POST", f"{POND}/predict", {}, 308),
    "ui": ("GET", "/ui", {}, 302),
    "another model": ("GET", "/v2/models/nope/", {}, 404),
    "another path": ("GET", "/nothing", {}, 404),
    "another training": ("GET", f"{POND}/train/nope", {}, 404),
    "a training with a slash": ("GET", f"{POND}/train/nope/", {}, 404),
    "cancelling another training": ("DELETE", f"{POND}/train/nope", {}, 404),
    "another method": ("POST", "/v2/models/", {}, 405),
    "GET predict": ("GET", PREDICT, {}, 405),
    "HEAD": ("HEAD", "/v2/models/", {}, 405),
    "raising": ("POST", PREDICT, {"params": {"mode": "raise"}}, 500),
    "an AttributeError": ("POST", PREDICT, {"params": {"mode": "attribute"}}, 500),
    "no JSON": ("POST", PREDICT, {"params": {"mode": "unserialisable"}}, 500),
}


def ask(client, method, path, options):
    options = {**options, "headers": {"accept": "*/*", **options.get("headers", {})}}
    return client.request(method, path, **options)


@pytest.mark.parametrize("name", ALIKE)
def test_answers_are_the_same(name, ours, theirs):
    method, path, options = ALIKE[name]
    our, their = ask(ours, method, path, options), ask(theirs, method, path, options)
    assert (our.status_code, our.headers.get("content-type")) == (
        their.status_code,
        their.headers.get("content-type"),
    ), our.text
    assert our.content == their.content


@pytest.mark.parametrize("name", SAME_STATUS)
def test_what_fails_has_the_same_status_and_with_us_a_reason(name, ours, theirs):
    method, path, options, status = SAME_STATUS[name]
    our, their = ask(ours, method, path, options), ask(theirs, method, path, options)
    assert our.status_code == their.status_code == status
    assert our.headers.get("location") == their.headers.get("location")
    if status >= 400 and method != "HEAD":
        assert our.json()["message"]
        assert their.headers["content-type"].startswith("text/plain")


DIFFERENCES = {
    # what is asked: (theirs, ours)
    "a mapping in the query": (
        {"params": {"cfg": '{"a": 2}'}},
        (422, '"Not a valid mapping type."'),
        (200, '"cfg": {"a": 2}'),
    ),
    "a number that is not finite": (
        {"params": {"mode": "nan"}},
        (200, '"weight": NaN'),
        (200, '"weight": null'),
    ),
    "not implemented": (
        {"params": {"mode": "not implemented"}},
        (500, "Server got itself in trouble"),
        (501, "pond does not implement predict: one day"),
    ),
    "a path as a file's name": (
        {"files": {"data": ("../../x/é.txt", b"hello")}},
        (200, '"../../x/\\u00e9.txt"'),
        (200, '"\\u00e9.txt"'),
    ),
}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_a_difference_is_as_written_down(name, ours, theirs):
    options, *expected = DIFFERENCES[name]
    for client, (status, text) in zip((theirs, ours), expected, strict=True):
        answer = ask(client, "POST", PREDICT, options)
        assert answer.status_code == status
        assert text in answer.text


@pytest.mark.parametrize("mode", ["refuse", "exit", "abort"])
def test_what_deepaas_never_answers_is_answered_here(mode, ours, another_deepaas):
    with pytest.raises(httpx.ReadTimeout):
        another_deepaas.post(PREDICT, params={"mode": mode}, timeout=4)
    assert ours.post(PREDICT, params={"mode": mode}).json()["message"]


def test_the_description_has_the_same_paths_and_parameters(ours, theirs):
    our, their = ours.get("/swagger.json").json(), theirs.get("/swagger.json").json()
    assert our["swagger"] == their["swagger"]
    assert set(our["paths"]) == set(their["paths"])
    assert set(their["definitions"]) <= set(our["definitions"])
    for path, operations in their["paths"].items():
        for method, their_operation in operations.items():
            our_operation = our["paths"][path][method]
            assert our_operation["produces"] == their_operation["produces"]
            assert our_operation["tags"] == their_operation["tags"]
            assert our_operation["parameters"] == [swagger_2(one) for one in their_operation["parameters"]]


def swagger_2(parameter):
    """Bring a parameter of theirs into what Swagger 2.0 allows, which is what we say of it."""
    if parameter.get("type") == "object":
        parameter = {**parameter, "type": "string", "format": "json", "default": json.dumps(parameter["default"])}
    return {key: value for key, value in parameter.items() if not (key == "default" and value is None)}


def until_ended(client, uuid):
    while (record := client.get(f"{POND}/train/{uuid}").json())["status"] == "running":
        time.sleep(0.05)
    return record


def without_times(record):
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}", "DATE", json.dumps(record))
    return json.loads(re.sub(r"\d+:\d\d:\d\d\.\d{6}", "DURATION", text.replace(record["uuid"], "UUID")))


@pytest.mark.parametrize(
    "params",
    [{"epochs": 2}, {"epochs": 3, "seconds": 0.1, "fail": True}, {"epochs": 1, "unknown": 1}],
    ids=["done", "failed", "unknown argument"],
)
def test_a_training_is_told_of_alike(params, ours, theirs):
    records = []
    for client in (ours, theirs):
        begun = client.post(f"{POND}/train/", params=params)
        assert begun.status_code == 200
        ended = until_ended(client, begun.json()["uuid"])
        assert ended in client.get(f"{POND}/train/").json()
        records.append((without_times(begun.json()), without_times(ended)))
    assert records[0] == records[1]


def test_taking_away_a_training_that_has_ended_is_alike(ours, theirs):
    answers = []
    for client in (ours, theirs):
        uuid = client.post(f"{POND}/train/", params={"epochs": 2}).json()["uuid"]
        until_ended(client, uuid)
        gone = client.delete(f"{POND}/train/{uuid}")
        after = client.get(f"{POND}/train/{uuid}").status_code
        answers.append((gone.status_code, without_times(gone.json()), after))
    assert answers[0] == answers[1]
    assert answers[0][0] == 200
    assert answers[0][2] == 404


def test_a_cancelled_training_keeps_its_record_with_us(ours, theirs):
    answers = []
    for client in (theirs, ours):
        uuid = client.post(f"{POND}/train/", params={"epochs": 2, "seconds": 60}).json()["uuid"]
        time.sleep(1)  # theirs may hang for ever where its process has not begun
        gone = client.delete(f"{POND}/train/{uuid}")
        answers.append((gone.status_code, client.get(f"{POND}/train/{uuid}").status_code))
    assert answers == [(500, 404), (200, 200)]
    assert ours.get(f"{POND}/train/{uuid}").json()["status"] == "cancelled"


def test_a_file_to_train_with_works_with_us(ours, theirs):
    answers = []
    for client in (theirs, ours):
        begun = client.post(f"{POND}/train/", params={"epochs": 2}, files={"data": ("t.csv", b"1,2", "text/csv")})
        answers.append(begun)
    assert answers[0].status_code == 500 or until_ended(theirs, answers[0].json()["uuid"])["status"] == "error"
    record = until_ended(ours, answers[1].json()["uuid"])
    assert record["result"]["output"] == {"epochs": 2, "read": "1,2"}
    assert record["args"]["data"] == {"content_type": "text/csv", "original_filename": "t.csv"}
