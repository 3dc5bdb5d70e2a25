"""The hand-written endpoint: FastAPI and torch, as a careful user would write it.

The endpoint is `async def`, although inference blocks the event loop: as `def`, in a thread of FastAPI, an image took
1.5 times as much processor time.
"""

from typing import Annotated

import torch
from fastapi import FastAPI
from network import trained
from pydantic import BaseModel, Field

app = FastAPI()
network = trained()


class Image(BaseModel):
    """784 numbers, row by row; 0 is black and 255 is white."""

    pixels: Annotated[list[float], Field(min_length=784, max_length=784)]


class Prediction(BaseModel):
    """The answer for one image."""

    label: int
    probabilities: list[float]


@app.post("/predict")
async def predict(image: Image) -> Prediction:
    """Classify one image."""
    with torch.inference_mode():
        pixels = (torch.tensor(image.pixels) / 255).reshape(1, 1, 28, 28)
        probabilities = network(pixels).softmax(1)[0]
    return Prediction(label=int(probabilities.argmax()), probabilities=probabilities.tolist())
