"""Modules work with the marshmallow and webargs they were written for, of any generation."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ai4sdk.serving.deepaas.environment import make_environment

pytestmark = [pytest.mark.slow, pytest.mark.engine]

HERE = Path(__file__).parent


@pytest.fixture
def kept(tmp_path):
    folder = os.environ.get("AI4SDK_TEST_ENVIRONMENTS")
    return Path(folder) if folder else tmp_path


def test_a_module_with_marshmallow_2(serving, kept, tmp_path):
    environment = make_environment(HERE / "pond", kept, requirements=["marshmallow<3"])
    with serving(["pond"], environment, tmp_path) as client:
        assert client.modules["pond"].description.versions["marshmallow"].startswith("2.")
        predict = "/v2/models/pond/predict/"
        assert client.post(predict, params={"n": 4, "unknown": 1}).json()["predictions"]["n"] == 4
        assert client.post(predict, params={"n": 40}).json() == {"n": ["Must be between 1 and 10."]}
        assert client.post(predict, json={"lst": [1, "x"]}).json() == {"lst": {"1": ["Not a valid integer."]}}
        parameters = client.get("/swagger.json").json()["paths"][predict]["post"]["parameters"]
        assert [(one["name"], one["in"], one["type"]) for one in parameters][:3] == [
            ("data", "formData", "file"), ("n", "query", "integer"), ("ratio", "query", "number"),
        ]  # fmt: skip


def test_a_module_with_marshmallow_4_and_webargs_8(serving, kept, tmp_path):
    environment = make_environment(HERE / "brook", kept)
    with serving(["brook"], environment, tmp_path) as client:
        versions = client.modules["brook"].description.versions
        assert versions["marshmallow"].startswith("4.")
        assert versions["webargs"].startswith("8.")
        predict = "/v2/models/brook/predict/"
        json = {"accept": "application/json"}
        answer = client.post(predict, params={"name": "x", "lst": "4,5", "spot": '{"x": 1}'}, headers=json)
        assert answer.json() == {"name": "x", "n": 3, "lst": [4, 5], "spot": {"x": 1}}
        assert client.post(predict, params={"name": "x"}, headers={"accept": "text/plain"}).text == "trout"
        wrong = client.post(predict, json={"name": "x"}, headers=json)  # it belongs into the query
        assert (wrong.status_code, wrong.json()) == (422, {"name": ["Missing data for required field."]})
        assert "Fish" in client.get("/swagger.json").json()["definitions"]
