"""The hand-written endpoint: FastAPI and torch, as a careful user writes it.

`async def`, although inference blocks the loop: as `def`, in one of FastAPI's threads, an image took half as much
again of the core.
"""

from typing import Annotated

import torch
from fastapi import FastAPI
from network import trained
from pydantic import BaseModel, Field

app = FastAPI()
network = trained()


class Image(BaseModel):
    """784 numbers, row by row, 0 is black and 255 white."""

    pixels: Annotated[list[float], Field(min_length=784, max_length=784)]


class Prediction(BaseModel):
    """What the image shows."""

    label: int
    probabilities: list[float]


@app.post("/predict")
async def predict(image: Image) -> Prediction:
    """Classify one image."""
    with torch.inference_mode():
        pixels = (torch.tensor(image.pixels) / 255).reshape(1, 1, 28, 28)
        probabilities = network(pixels).softmax(1)[0]
    return Prediction(label=int(probabilities.argmax()), probabilities=probabilities.tolist())
