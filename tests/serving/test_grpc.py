"""The Open Inference Protocol over gRPC: the definitions are the protocol's, and a client that is not ours is answered."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai4sdk.serving.contract import Contract, TensorSpec
from ai4sdk.serving.grpc import messages
from ai4sdk.serving.grpc.tensors import Unreadable, request_of
from ai4sdk.serving.protocols.v2 import decode

ROW = [0.5, 1.0, 2.0, 3.0]
SAME = {
    "ModelInferResponse",
    "ModelInferRequest",
    "InferInputTensor",
    "InferOutputTensor",
    "InferRequestedOutputTensor",
}


def fields_of(descriptor):
    return {field.name: (field.number, field.type, field.is_repeated) for field in descriptor.fields}


def test_the_definitions_are_those_of_a_client_that_is_not_ours():
    """Triton's messages hold the protocol's, some of them as messages in messages, and more fields."""
    from tritonclient.grpc import service_pb2 as theirs

    names = {
        "InferInputTensor": theirs.ModelInferRequest.InferInputTensor, "InferOutputTensor": theirs.ModelInferResponse.InferOutputTensor,
        "InferRequestedOutputTensor": theirs.ModelInferRequest.InferRequestedOutputTensor,
        "TensorMetadata": theirs.ModelMetadataResponse.TensorMetadata,
    }  # fmt: skip
    for name in messages._MESSAGES:
        other = names.get(name) or getattr(theirs, name)
        ours, their = fields_of(messages.message(name).DESCRIPTOR), fields_of(other.DESCRIPTOR)
        assert ours == {field: their[field] for field in ours}, name


@given(
    datatype=st.sampled_from(
        ["BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64", "FP32", "FP64"]
    ),
    data=st.data(),
)
def test_contents_of_every_type_arrive_as_sent(datatype, data):
    from ai4sdk.serving.grpc.tensors import _CONTENTS

    field, code = _CONTENTS[datatype]
    dtype = np.dtype("?" if datatype == "BOOL" else code)
    limits = None if dtype.kind in "fb" else np.iinfo(dtype)
    numbers = (
        st.booleans() if limits is None and dtype.kind == "b"
        else st.integers(int(limits.min), int(limits.max)) if limits is not None
        else st.floats(width=8 * dtype.itemsize, allow_nan=False, allow_infinity=False)
    )  # fmt: skip
    values = data.draw(st.lists(numbers, min_size=1, max_size=5))
    asked = messages.message("ModelInferRequest")(model_name="t")
    tensor = asked.inputs.add(name="input", datatype=datatype, shape=[len(values), 1])
    getattr(tensor.contents, field).extend(values)
    contract = Contract(
        "t", "other", "array", (TensorSpec("input", datatype, (-1, 1)),), (TensorSpec("output", "FP32", (-1, 1)),), (1,)
    )
    found = decode(request_of(asked), contract).samples
    assert found.dtype == dtype
    assert found.reshape(-1).tolist() == values


def test_what_does_not_belong_together_is_refused():
    asked = messages.message("ModelInferRequest")(raw_input_contents=[b"", b""])
    asked.inputs.add(name="x", datatype="FP32", shape=[1])
    with pytest.raises(Unreadable, match="1 inputs and 2 raw"):
        request_of(asked)
    asked = messages.message("ModelInferRequest")(raw_input_contents=[b"1234"])
    asked.inputs.add(name="x", datatype="FP32", shape=[1]).contents.fp32_contents.append(1)
    with pytest.raises(Unreadable, match="give one of them"):
        request_of(asked)
    asked = messages.message("ModelInferRequest")()
    asked.inputs.add(name="x", datatype="UINT8", shape=[1]).contents.uint_contents.append(300)
    with pytest.raises(Unreadable, match="beyond UINT8"):
        request_of(asked)
    asked.inputs[0].datatype = "FP16"
    with pytest.raises(Unreadable, match="needs raw_input_contents"):
        request_of(asked)


@pytest.mark.slow
@pytest.mark.engine
def test_triton_s_client_infers(start, faulty):
    import tritonclient.grpc as triton
    from tritonclient.utils import InferenceServerException

    server = start(
        faulty, "--trust-code", "serving.grpc_port=0", "serving.tokens=['${secret:TOKEN}']", env={"TOKEN": "grpc-token"}
    ).ready()
    port = server._wait_for(r"listening for gRPC at 127.0.0.1:(\d+)")
    headers = {"authorization": "Bearer grpc-token"}
    with triton.InferenceServerClient(f"127.0.0.1:{port}") as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("faulty", headers=headers)
        assert not client.is_model_ready("other", headers=headers)
        metadata = client.get_model_metadata("faulty", headers=headers)
        assert [(each.name, each.datatype, list(each.shape)) for each in metadata.inputs] == [
            ("input", "FP32", [-1, 4])
        ]
        given = triton.InferInput("input", [2, 4], "FP32")
        given.set_data_from_numpy(np.array([ROW, ROW], np.float32))
        answer = client.infer("faulty", [given], request_id="7", headers={**headers, "x-request-id": "grpc-7"})
        over_http = server.ask("/predict", {"inputs": [ROW]}, Authorization="Bearer grpc-token")
        assert answer.as_numpy("label")[0].decode() in over_http.body.decode()
        assert answer.as_numpy("probabilities").shape == (2, 3)
        assert answer.get_response().id == "7"
        for model, row, code, words in (
            ("other", ROW, "NOT_FOUND", "no model 'other'"),
            ("faulty", [666.0, 1, 1, 1], "INTERNAL", "the pond is empty"),
        ):
            given = triton.InferInput("input", [1, 4], "FP32")
            given.set_data_from_numpy(np.array([row], np.float32))
            with pytest.raises(InferenceServerException, match=words) as refused:
                client.infer(model, [given], headers=headers)
            assert code in str(refused.value.status())
        with pytest.raises(InferenceServerException, match="token"):
            client.infer("faulty", [given])
    metrics = server.ask("/metrics", Authorization="Bearer grpc-token").body.decode()
    assert 'ai4sdk_requests_total{model="faulty",protocol="grpc",status="500",version="1"} 1.0' in metrics
    assert 'protocol="grpc",status="401"' in metrics
    server._wait_for('"id":"grpc-7"')
    (line,) = (json.loads(line) for line in server.log.splitlines() if '"grpc-7"' in line)
    assert (line["client"], line["method"], line["path"]) == (
        "127.0.0.1", "gRPC", "/inference.GRPCInferenceService/ModelInfer",
    )  # fmt: skip
    assert (line["status"], line["in"] > 32, line["out"] > 0) == (200, True, True)
