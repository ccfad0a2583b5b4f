"""The peer: bare FastAPI and uvicorn around the same network, as one would write it."""

import os

import torch
from fastapi import FastAPI
from pydantic import BaseModel

torch.set_num_threads(1)
network = torch.jit.load(os.environ["NETWORK"])
app = FastAPI()


class Rows(BaseModel):
    inputs: list[list[float]]


@app.post("/predict")
def predict(rows: Rows):
    with torch.inference_mode():
        chances = torch.softmax(network(torch.tensor(rows.inputs)), 1)
    return {"predictions": chances.argmax(1).tolist(), "probabilities": chances.tolist()}
