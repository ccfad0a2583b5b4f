"""Requests become values by argument, paths become routes, descriptions become Swagger: without any process."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import io
import json
import os
import string
import sys
import tempfile
import urllib.error
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai4sdk.serving.deepaas import agent
from ai4sdk.serving.deepaas.api import Api
from ai4sdk.serving.deepaas.arguments import Answer, Argument, Description
from ai4sdk.serving.deepaas.calls import Call, Found, find_values, parse_query
from ai4sdk.serving.deepaas.forms import BadRequest, Body, BodyReader, Limits, Scratch, Upload
from ai4sdk.serving.deepaas.messages import HttpRequest
from ai4sdk.serving.deepaas.page import render_page
from ai4sdk.serving.deepaas.routes import NotAllowed, Redirect, Route, find_route, takes
from ai4sdk.serving.deepaas.served import ServedModule
from ai4sdk.serving.deepaas.swagger import render_swagger

FORM = "multipart/form-data; boundary=edge"
LIMITS = Limits(body=5000, text=1000, parts=4)


def read(content_type, body, folder, limits=LIMITS, step=7):
    reader = BodyReader(content_type, SimpleNamespace(folder=folder), limits)
    try:
        for start in range(0, len(body), step):
            reader.write(body[start : start + step])
        return reader.finish()
    finally:
        reader.close()


def part(name, content=b"x", *, file=None, kind=None, more=""):
    head = f'Content-Disposition: form-data; name="{name}"' + (f'; filename="{file}"' if file is not None else "")
    head += f"\r\nContent-Type: {kind}" if kind else ""
    return b"--edge\r\n" + head.encode() + more.encode() + b"\r\n\r\n" + content + b"\r\n"


END = b"--edge--\r\n"


# -- the agent ---------------------------------------------------------------------------------------------------------


def test_the_agent_is_python_3_6_and_imports_the_standard_library_alone():
    source = Path(agent.__file__).read_text()
    tree = ast.parse(source, feature_version=(3, 6))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not [name for name in imported if name.partition(".")[0] == "ai4sdk"]
    assert imported <= {
        "collections", "contextlib", "datetime", "fcntl", "importlib", "io", "json", "os", "re", "socket", "struct", "sys",
        "time", "traceback", "typing",
    }  # fmt: skip


class Odd:
    pass


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": [1, Odd()]}, "test_pure.Odd at a[1]"),
        ({(1, 2): 3}, "builtins.tuple at a key"),
        (Odd(), "a test_pure.Odd"),
        ({"a": {"b": b"bytes"}}, "a builtins.bytes at a.b"),
    ],
)
def test_what_json_has_no_form_for_is_named(value, text):
    with pytest.raises(agent.Unanswerable) as caught:
        agent.to_json(value, "predict")
    assert text in str(caught.value).replace("tests.serving.deepaas.", "")


def test_what_holds_itself_is_refused():
    loop: list = []
    loop.append(loop)
    with pytest.raises(agent.Unanswerable, match="Circular reference"):
        agent.to_json(loop, "predict")


def test_numbers_that_are_not_finite_become_null():
    assert json.loads(agent.to_json({"a": [float("nan"), -float("inf"), 1.5]}, "predict")) == {"a": [None, None, 1.5]}


class Wordless(Exception):
    def __str__(self):
        raise RuntimeError("no words")


def test_an_error_without_words_is_told_all_the_same():
    assert agent.failure(Wordless())["failed"] == {"type": "Wordless", "message": "(its text raises RuntimeError)"}


def test_a_status_is_taken_from_errors_of_servers_alone(monkeypatch):
    gone = urllib.error.HTTPError("https://example.org/weights", 404, "Not Found", {}, None)
    assert "status" not in agent.failure(gone)["failed"]
    refused = type("HTTPBadRequest", (Exception,), {"status": 400, "reason": "no fish"})()
    theirs = SimpleNamespace(HTTPException=type(refused))
    assert "status" not in agent.failure(refused)["failed"]
    monkeypatch.setitem(sys.modules, "aiohttp.web_exceptions", theirs)
    assert agent.failure(refused)["failed"] == {"type": "HTTPBadRequest", "message": "no fish", "status": 400}


def test_too_many_mistakes_are_told_of_in_short():
    few = {"lst": {0: ["Not a valid integer."]}}
    assert agent.told(few) == few
    many = {"lst": {number: ["Not a valid integer."] for number in range(10_000)}}
    assert agent.told(many) == {"lst": ["Not valid, in more places than can be told."]}


def test_a_long_argument_is_shown_by_its_size():
    assert agent.shown([1, 2]) == [1, 2]
    assert agent.shown([0] * 100_000) == "(300000 bytes of JSON)"


@pytest.mark.parametrize("stdout", [None, object(), io.StringIO()])
def test_what_a_module_puts_in_the_place_of_stdout_does_no_harm(stdout, monkeypatch):
    if isinstance(stdout, io.StringIO):
        stdout.close()
    monkeypatch.setattr(sys, "stdout", stdout)
    agent.flush()


def test_what_a_training_leaves_behind_does_not_hold_up_the_next_one(tmp_path, monkeypatch):
    left_behind = []

    def train():  # a child would have its descriptors
        turns = [int(each.name) for each in Path("/proc/self/fd").iterdir() if each.resolve().name == ".turn-0"]
        left_behind.extend(os.dup(each) for each in turns)
        return "done"

    monkeypatch.setattr(agent, "entry_points", lambda: {"pond": lambda: SimpleNamespace(train=train)})
    folder = tmp_path / ("0" * 32)
    folder.mkdir()
    (folder / "training.json").write_text('{"values": {}, "in_json": {}}')
    (folder / "body.json").touch()
    agent.train(str(folder), "pond", 1)
    assert json.loads((folder / "outcome.json").read_text())["output"] == "done"
    (descriptor,) = left_behind
    with agent.wait_for_turn(str(tmp_path), 1):
        os.close(descriptor)


# -- bodies ------------------------------------------------------------------------------------------------------------


def test_a_form_of_fields_and_files_is_read_whatever_the_pieces(tmp_path):
    body = part("n", b"4") + part("lst", b"1") + part("lst", "é".encode())
    body += part("data", b"\r\n--edg\x00", file="../a/b.png", kind="image/png") + END
    for step in (1, 2, 3, 50, 10_000):
        folder = tmp_path / str(step)
        folder.mkdir()
        form = read(FORM, body, folder, step=step).form
        assert form["n"] == ["4"]
        assert form["lst"] == ["1", "é"]
        (upload,) = form["data"]
        assert (upload.original_name, upload.content_type) == ("b.png", "image/png")
        assert upload.path.read_bytes() == b"\r\n--edg\x00"
        assert upload.path.parent == folder


def test_a_folder_is_made_for_files_alone_and_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with Scratch() as scratch:
        BodyReader(FORM, scratch, LIMITS).write(part("n", b"4") + END)
        assert not list(tmp_path.iterdir())
        reader = BodyReader(FORM, scratch, LIMITS)
        reader.write(part("n", b"4", file="f") + END)
        assert reader.finish().form["n"][0].path.read_bytes() == b"4"
        assert len(list(tmp_path.iterdir())) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "kept"),
    [("../../etc/passwd", "passwd"), ("C:\\x\\y.txt", "y.txt"), ("a\0b", "ab"), ("..", ""), ("x/..", ""), ("/", "")],
)
def test_a_files_name_has_no_folders(name, kept, tmp_path):
    upload = read(FORM, part("data", file=name) + END, tmp_path).form["data"][0]
    assert upload.original_name == kept
    assert upload.path.parent == tmp_path


def test_a_disk_that_is_full_is_told_and_no_defect(tmp_path):
    with pytest.raises(BadRequest) as caught:
        read(FORM, part("data", file="a") + END, tmp_path / "gone")
    assert (caught.value.status, caught.value.message) == (507, "a file cannot be kept here: No such file or directory")


def test_a_file_nobody_chose_is_none(tmp_path):
    assert read(FORM, part("data", b"", file="", kind="application/octet-stream") + END, tmp_path).form == {}


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("multipart/form-data", b"x", 400),
        ("multipart/form-data; boundary=" + "b" * 300, b"x", 400),
        (FORM, b"rubbish", 400),
        (FORM, b"", 400),
        (FORM, part("n"), 400),
        (FORM, part("n")[:-2], 400),
        (FORM, b"--edge\r\nContent-Disposition: form-data\r\n\r\nx\r\n" + END, 400),
        (FORM, part("n", b"\xff") + END, 400),
        (FORM, part("n", more="\r\nContent-Transfer-Encoding: base64") + END, 415),
        (FORM, part("n", more="\r\nX: " + "y" * 9000) + END, 400),
        (FORM, part("n", b"x" * 1001) + END, 413),
        (FORM, part("n", b"x" * 6000, file="f") + END, 413),
        (FORM, part("n") * 5 + END, 413),
        ("application/json", b'"' + b"x" * 1000, 413),
        ("application/x-www-form-urlencoded", b"n=%ff", 400),
        ("application/x-www-form-urlencoded", b"&".join([b"n=1"] * 5), 400),
        ("text/plain", b"x" * 5001, 413),
    ],
)
def test_a_body_that_is_none_or_too_much_is_refused(content_type, body, status, tmp_path):
    with pytest.raises(BadRequest) as caught:
        read(content_type, body, tmp_path, step=100)
    assert caught.value.status == status


@given(st.binary(max_size=300), st.sampled_from([FORM, "application/json", "application/x-www-form-urlencoded", ""]))
def test_rubbish_is_read_or_refused(tmp_path_factory, body, content_type):
    try:
        read(content_type, body, tmp_path_factory.mktemp("rubbish"))
        read(FORM, b"--edge\r\n" + body, tmp_path_factory.mktemp("rubbish"))
    except BadRequest:
        pass


def test_json_is_kept_as_it_came_and_read_by_who_answers(tmp_path):
    deep = b"[" * 100_000
    body = read("application/json", deep, tmp_path, Limits(), step=10_000)
    assert find_values(Call(body=body), [N, LST]) == Found(in_json={"n": False, "lst": True}, json=deep)


def test_deep_json_is_broken_and_no_defect():
    for depth, is_read in ((200, True), (201, False), (100_000, False)):
        content = b'{"n": %s%s}' % (b"[" * (depth - 1), b"]" * (depth - 1))
        with contextlib.nullcontext() if is_read else pytest.raises(agent.BrokenJson):
            agent.in_body(content, {"n": False})


@pytest.mark.parametrize("text", ['["%s"]' % ("[" * 500), '["\\\\", "%s"]' % ("[" * 500), '["\\"%s"]' % ("{" * 500)])
def test_brackets_in_text_are_not_depth(text):
    assert agent.read_json(text) == json.loads(text)


# -- arguments ---------------------------------------------------------------------------------------------------------

N, LST, CFG = Argument("n"), Argument("lst", many=True), Argument("cfg", {"type": "object"})


def values_of(call, arguments):
    """Do what the server and the agent do, one after the other."""
    found = find_values(call, arguments)
    held = agent.values_of(found.to_json(), found.json)
    return {name: agent.untagged(name, value) for name, value in held.items()}


def test_a_value_is_looked_for_in_the_query_then_the_form_then_the_json():
    body = Body(form={"n": ["2"], "lst": ["3", "4"]}, json=b'{"n": 5, "lst": 6, "cfg": {"a": 1}}')
    assert values_of(Call({"n": ["1"]}, {}, body), [N, LST, CFG]) == {"n": "1", "lst": ["3", "4"], "cfg": {"a": 1}}
    assert values_of(Call({}, {}, body), [N]) == {"n": "2"}
    body.form.clear()
    assert values_of(Call({}, {}, body), [N, LST]) == {"n": 5, "lst": [6]}


def test_an_argument_with_a_place_is_looked_for_there_alone():
    call = Call({"n": ["1"]}, {"n": "2", "cookie": "n=3; m=4"}, Body(form={"n": ["5"]}, json=b'{"n": 6}'))
    found = {place: values_of(call, [Argument("n", location=place)]) for place in ("query", "querystring", "headers",
             "cookies", "form", "files", "json")}  # fmt: skip
    assert found == {
        "query": {"n": "1"}, "querystring": {"n": "1"}, "headers": {"n": "2"}, "cookies": {"n": "3"},
        "form": {"n": "5"}, "files": {"n": "5"}, "json": {"n": 6},
    }  # fmt: skip


@pytest.mark.parametrize("broken", [b"{", b"\xff\xfe", b"[" * 300])
def test_broken_json_matters_only_where_it_is_looked_at(broken):
    call = Call({"n": ["1"]}, {}, Body(json=broken))
    assert values_of(call, [N]) == {"n": "1"}
    with pytest.raises(agent.BrokenJson):
        values_of(call, [N, LST])


@pytest.mark.parametrize("other", [b"", b" \n", b"[1]", b"null"])
def test_json_that_is_no_mapping_has_nothing(other):
    assert values_of(Call(body=Body(json=other)), [N, LST]) == {}


def test_mappings_are_json_in_a_query_and_text_that_is_none_stays_for_the_modules_own_check():
    many = Argument("cfgs", {"type": "array", "items": {"type": "object"}}, many=True)
    call = Call(parse_query('cfg={"a":1}&cfgs={"b":2}&cfgs=oops'))
    assert values_of(call, [CFG, many]) == {"cfg": {"a": 1}, "cfgs": [{"b": 2}, "oops"]}


def test_too_many_values_in_a_query_are_refused():
    with pytest.raises(BadRequest):
        parse_query("&".join(["a=1"] * 1001))


def test_values_are_told_from_files_by_what_stands_beside_them(tmp_path):
    upload = Upload(tmp_path / "x", "a.png", "image/png")
    file = {"path": str(tmp_path / "x"), "original_name": "a.png", "content_type": "image/png"}
    as_text = json.dumps({"file": file})
    call = Call({"n": [as_text]}, {}, Body(form={"lst": [upload, as_text], "cfg": [as_text]}))
    assert values_of(call, [N, LST, CFG]) == {
        "n": as_text,
        "lst": [agent.UploadedFile("lst", str(tmp_path / "x"), "image/png", "a.png"), as_text],
        "cfg": {"file": file},
    }
    body = Body(json=b'{"n": %s, "lst": [%s], "cfg": %s}' % ((as_text.encode(),) * 3))
    in_json = {"n": {"file": file}, "lst": [{"file": file}], "cfg": {"file": file}}
    assert values_of(Call(body=body), [N, LST, CFG]) == in_json


@pytest.mark.parametrize("kind", ["text/plain\r\nx-evil: 1", "image/é", "html", "text/html,*/*;q=0.8"])
def test_a_type_that_a_client_has_made_up_is_no_header(kind, tmp_path):
    async def predict(_):
        return kind, b"fish"

    module = SimpleNamespace(description=described(), predict=predict, python=Path("python"), name="pond", workers=[])
    api = Api({"pond": ServedModule(module, tmp_path)})
    answer = asyncio.run(api.handle(HttpRequest("POST", "/v2/models/pond/predict/")))
    assert (answer.status, json.loads(answer.body)) == (422, {"accept": ["Not a media type."]})


# -- routes ------------------------------------------------------------------------------------------------------------

MODELS = ["pond", "pond2", "a.b"]


@pytest.mark.parametrize(
    ("method", "path", "found"),
    [
        ("GET", "/", Route("versions")),
        ("GET", "/v2/models/", Route("models")),
        ("GET", "/v2/models/pond/", Route("model", "pond")),
        ("GET", "/v2/models/pond2/", Route("model", "pond2")),
        ("POST", "/v2/models/a.b/predict/", Route("predict", "a.b")),
        ("GET", "/v2/models/pond/train/", Route("trainings", "pond")),
        ("POST", "/v2/models/pond/train/", Route("train", "pond")),
        ("GET", "/v2/models/pond/train/abc", Route("training", "pond", "abc")),
        ("DELETE", "/v2/models/pond/train/abc", Route("cancel", "pond", "abc")),
        ("GET", "/v2/models/aXb/", None),
        ("GET", "/v2/models/pond/train/a/b", None),
        ("GET", "/v2/models/pond/train", Redirect("/v2/models/pond/train/")),
        ("GET", "///v2//models", Redirect("/v2/models/")),
        ("GET", "/v2/models/pond/predict", None),
        ("POST", "/v2/models/pond/predict", Redirect("/v2/models/pond/predict/")),
        ("PUT", "/v2/models/pond/train/", NotAllowed(("GET", "POST"))),
        ("DELETE", "/", NotAllowed(("GET",))),
    ],
)
def test_a_path_leads_where_deepaas_leads(method, path, found):
    assert find_route(method, path, MODELS) == found


@pytest.mark.parametrize(
    ("path", "is_ours"),
    [
        ("/v2/", True), ("/v2/models/", True), ("/v2/models", True), ("/v2/models/pond/", True), ("/api", True),
        ("/v2/models/pond/predict", True), ("/v2/models/pond/train/", True), ("/v2/models/pond/train/abc", True),
        ("/v2", False), ("/v2/models/pond", False), ("/v2/models/pond/infer", False), ("/", False), ("/predict", False),
        ("/v2/models/pond/versions/2/infer/", False), ("/v2/models/pond/ready", False), ("/v2/health/ready", False),
    ],
)  # fmt: skip
def test_paths_are_told_from_those_of_the_open_inference_protocol(path, is_ours):
    assert takes(path) == is_ours


@given(st.text(string.printable, max_size=40))
def test_no_path_is_a_redirect_to_elsewhere(path):
    found = find_route("GET", "/" + path, MODELS)
    if isinstance(found, Redirect):
        assert not found.path.startswith("//")
        assert isinstance(find_route("GET", found.path, MODELS), Route)


# -- Swagger -----------------------------------------------------------------------------------------------------------


def described(*arguments, **more):
    return Description({"name": "pond"}, frozenset({"predict"}), arguments, **more)


def parameters(*arguments):
    return render_swagger({"pond": described(*arguments)}, version="1")["paths"]["/v2/models/pond/predict/"]["post"]


def test_parameters_are_such_as_swagger_2_allows():
    operation = parameters(
        Argument("file", {"type": "file", "default": None, "description": "an image"}, location="form", required=True),
        Argument("cfg", {"type": "object", "default": {"a": 1}}),
        Argument("boxes", {"type": "array", "items": {"type": "object", "properties": {"x": {}}}}, many=True),
        Argument("any", {}),
        Argument("accept", {"type": "string"}, location="headers"),
        Argument("inside", {"type": "object"}, location="json", required=True),
    )
    assert operation["parameters"] == [
        {"in": "formData", "name": "file", "required": True, "type": "file", "description": "an image"},
        {"in": "query", "name": "cfg", "required": False, "type": "string", "format": "json", "default": '{"a": 1}'},
        {"in": "query", "name": "boxes", "required": False, "collectionFormat": "multi", "type": "array",
         "items": {"type": "string", "format": "json"}},
        {"in": "query", "name": "any", "required": False, "type": "string"},
        {"in": "header", "name": "accept", "required": False, "type": "string"},
        {"in": "body", "name": "body", "required": True, "schema": {
            "type": "object", "properties": {"inside": {"type": "object"}}, "required": ["inside"]}},
    ]  # fmt: skip
    assert operation["consumes"] == ["multipart/form-data"]


def test_answers_of_several_models_have_names_of_their_own():
    answer = Answer("ModelPredictionResponse", {"label": {"type": "string"}})
    made = render_swagger({"a": described(answer=answer), "b": described(answer=answer)}, version="1", base_path="/x")
    assert made["basePath"] == "/x"
    assert {"ModelPredictionResponse", "ModelPredictionResponse1"} <= set(made["definitions"])
    refs = [
        made["paths"][f"/v2/models/{name}/predict/"]["post"]["responses"]["200"]["schema"]["$ref"]
        for name in ("a", "b")
    ]
    assert refs == ["#/definitions/ModelPredictionResponse", "#/definitions/ModelPredictionResponse1"]


def test_the_page_has_a_form_for_each_operation_and_breaks_out_of_none():
    evil = '"><script>alert(1)</script>'
    model = described(
        Argument("n", {"type": "integer", "default": 3, "description": evil}),
        Argument("mode", {"type": "string", "enum": ["a", evil]}),
        Argument("data", {"type": "file"}, location="form"),
        Argument("size", {"type": "string", "format": "number"}),
    )
    page = render_page(render_swagger({"pond": model}, version="1"))
    assert page.count("<form ") == 10
    assert page.count("<script>") == 1
    assert '<input type="file" name="data"' in page
    assert '<input type="number" step="any" value="" name="size"' in page
    assert 'value="3"' in page
