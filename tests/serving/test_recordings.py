"""A model of recordings, asked in every protocol, by clients of ours and of others."""

import base64
import json
import subprocess

import numpy as np
import pytest
from sounds import sound_file, tone

from ai4sdk.data.preprocessing import Preprocessing
from ai4sdk.spec import Audio
from ai4sdk.worker.model import load_model

pytestmark = [pytest.mark.slow, pytest.mark.engine]

HOW = Audio(rate=8000, seconds=0.1)
WHOLE = np.round(tone(700) * 32767).astype(np.int16)
WAV = sound_file(WHOLE)
FLAC = sound_file(tone(1500, rate=44100, seconds=0.4), 44100, "FLAC")


def test_every_protocol_takes_recordings_and_says_the_same(start, make_package, tmp_path):
    import mlflow.pyfunc
    import tritonclient.grpc
    import tritonclient.http

    rules = Preprocessing("audio", HOW.shape, "classification", audio=HOW)
    example = np.random.default_rng(0).uniform(-1, 1, (3, 1, 800)).astype(np.float32)
    package = make_package(net="Sounds", preprocessing=rules, example_input=example)
    wanted, other = load_model(package, trust_code=True)([WAV, FLAC]).to_records()
    server = start(package, "--trust-code", "serving.threads=1", "serving.grpc_port=0").ready()

    def told(path, body, kind="application/json"):
        answer = server.ask(path, body, kind)
        assert answer.status == 200, answer.body
        return json.loads(answer.body)["predictions"]

    def alike(one, two):
        assert one["prediction"] == two["prediction"]
        assert one["probabilities"] == pytest.approx(two["probabilities"], abs=1e-5)

    assert "golden requests answered as when it was packed" in server.log
    (tmp_path / "a.wav").write_bytes(WAV)
    curl = [
        "curl",
        "-s",
        "--data-binary",
        f"@{tmp_path / 'a.wav'}",
        "-H",
        "content-type: audio/wav",
        server.url + "/predict",
    ]
    alike(json.loads(subprocess.run(curl, capture_output=True, check=True).stdout)["predictions"][0], wanted)
    alike(told("/predict", FLAC, "application/octet-stream")[0], other)
    for numbers in (WHOLE.tolist(), (WHOLE / 32768).tolist()):
        for path in ("/predict", "/invocations"):
            alike(told(path, {"inputs": [numbers]})[0], wanted)

    form = b"".join(
        b'--e\r\ncontent-disposition: form-data; name="data"; filename="x"\r\ncontent-type: audio/wav\r\n\r\n'
        + one
        + b"\r\n"
        for one in (WAV, FLAC)
    )
    together = told("/v2/models/tiny/predict/", form + b"--e--\r\n", "multipart/form-data; boundary=e")
    for one, expected in zip(together, (wanted, other), strict=True):
        alike(one, expected)

    plain = {"name": "audio", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(WAV).decode()]}
    plain["parameters"] = {"content_type": "base64"}
    labels = json.loads(server.ask("/v2/models/tiny/infer", {"inputs": [plain]}).body)["outputs"][0]["data"]
    assert labels == [wanted["prediction"]]
    grpc = "127.0.0.1:" + server._wait_for(r"listening for gRPC at 127.0.0.1:(\d+)")
    for room, address in ((tritonclient.http, server.url.removeprefix("http://")), (tritonclient.grpc, grpc)):
        with room.InferenceServerClient(address) as client:
            given = room.InferInput("audio", [2], "BYTES")
            given.set_data_from_numpy(np.array([WAV, FLAC], object))
            answer = client.infer("tiny", [given])
            assert [label.decode() for label in answer.as_numpy("label")] == [wanted["prediction"], other["prediction"]]
    alike(mlflow.pyfunc.load_model(str(package)).predict(WHOLE[None]).to_dict("records")[0], wanted)

    facts = json.loads(server.ask("/models/tiny").body)
    assert (facts["form"], facts["rate"]) == ("audio", 8000)
    assert facts["inputs"] == [{"name": "audio", "datatype": "BYTES", "shape": [-1]}]
    described = json.loads(server.ask("/openapi.json").body)["paths"]["/models/tiny/predict"]["post"]
    assert described["requestBody"]["content"]["audio/wav"] == {"schema": {"type": "string", "format": "binary"}}

    for content, kind, status, words in (
        (WAV[:-9], "audio/wav", 400, "recording 1 is cut short"),
        (b"a letter", "audio/wav", 400, "recording 1 is no recording; give a WAV, FLAC, OGG or MP3 file"),
        (sound_file([0.1, np.nan], coding="FLOAT"), "audio/wav", 400, "no numbers"),
        (b"\x89PNG\r\n\x1a\n", "image/png", 415, "the model takes no pictures"),
        (b"a,b\n1,2", "text/csv", 415, "the model takes recordings, not CSV"),
    ):
        answer = server.ask("/predict", content, kind)
        assert (answer.status, words in answer.body.decode()) == (status, True), answer.body
