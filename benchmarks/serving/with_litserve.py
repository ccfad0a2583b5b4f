"""The peer: LitServe around the same network, with batches."""

import os
import sys

import litserve
import torch


class Digits(litserve.LitAPI):
    def setup(self, device):
        torch.set_num_threads(1)
        self.network = torch.jit.load(os.environ["NETWORK"])

    def decode_request(self, request):
        return torch.tensor(request["inputs"][0])

    def predict(self, rows):
        with torch.inference_mode():
            return torch.softmax(self.network(rows), 1)

    def batch(self, rows):
        return torch.stack(list(rows))

    def unbatch(self, chances):
        return list(chances)

    def encode_response(self, chances):
        return {"predictions": int(chances.argmax()), "probabilities": chances.tolist()}


if __name__ == "__main__":
    api = Digits(max_batch_size=16, batch_timeout=0.001)
    litserve.LitServer(api, accelerator="cpu").run(
        port=int(sys.argv[1]), generate_client_file=False, log_level="warning"
    )
