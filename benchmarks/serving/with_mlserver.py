"""The peer: a runtime of MLServer's around the same network, with its adaptive batching."""

import os

import torch
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Digits(MLModel):
    async def load(self) -> bool:
        torch.set_num_threads(1)
        self.network = torch.jit.load(os.environ["NETWORK"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        rows = torch.from_numpy(NumpyCodec.decode_input(payload.inputs[0]))
        with torch.inference_mode():
            chances = torch.softmax(self.network(rows), 1)
        output = NumpyCodec.encode_output("probabilities", chances.numpy())
        return InferenceResponse(model_name=self.name, outputs=[output])
