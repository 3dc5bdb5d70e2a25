"""Prediction."""

from math import prod
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, field_validator

from api.deps import RosterDep
from api.errors import BadInput
from api.serving import Served
from ml.datasets import datasets
from ml.networks import networks
from worker.errors import NotFound

router = APIRouter(tags=["predict"])

Pixel = Annotated[float, Field(ge=0, le=255, allow_inf_nan=False, strict=True)]
MAX_PIXELS = 1 << 16


class Image(BaseModel):
    """An image to classify."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"model": "cnn", "pixels": [0] * 784}]})

    pixels: list[Pixel] = Field(min_length=1, max_length=MAX_PIXELS, description="784 numbers, row by row, 0 is black")
    model: str | None = Field(None, max_length=100, description="a network; without it the best of all answers")
    dataset: str = Field("mnist", max_length=100, description="what the network was trained on")
    scale: int | None = Field(
        None,
        description="the value of white, 1 or 255; without it 1 if no value exceeds 1, else 255",
        json_schema_extra={"enum": [1, 255, None]},
    )

    @field_validator("scale", mode="before")
    @classmethod
    def _known(cls, scale: Any) -> Any:
        if scale is not None and (type(scale) is not int or scale not in (1, 255)):
            raise ValueError("the scale is 1 or 255")
        return scale


class Prediction(BaseModel):
    """What the image shows, and whose answer it is."""

    label: str
    digit: int | None = Field(description="the label as a number, where the classes are digits")
    probabilities: list[float] = Field(description="by class, in the order of the data set's classes")
    scale: int = Field(description="the value that was taken for white")
    model: str
    dataset: str
    version: int
    job_id: str
    trial: int
    checkpoint_sha256: str


@router.post("/predict")
def predict(image: Image, roster: RosterDep) -> Prediction:
    """Classify one image with the champion of a network, or the best of all."""
    _check_names(image)
    served = roster.find(image.model, image.dataset)
    if served is None:
        whose = image.model or "any network"
        raise NotFound(f"no version of {whose} trained on {image.dataset} is published; POST /jobs/tune makes one")
    scale = image.scale or (1 if max(image.pixels) <= 1 else 255)
    probabilities = served.predictor.probabilities(_array(image, served, scale))[0]
    return Prediction(**_label(served, probabilities), scale=scale, **_origin(served))


def _check_names(image: Image) -> None:
    if image.model is not None and image.model not in networks:
        raise BadInput("#/model", f"there is no such network; choose one of: {', '.join(networks)}")
    if image.dataset not in datasets:
        raise BadInput("#/dataset", f"there is no such data set; choose one of: {', '.join(datasets)}")


def _array(image: Image, served: Served, scale: int) -> np.ndarray:
    """The pixels as the network takes them, float32 [1, channels, height, width] in 0..1."""
    shape = served.predictor.shape
    if len(image.pixels) != prod(shape):
        raise BadInput("#/pixels", f"{prod(shape)} numbers are needed, not {len(image.pixels)}")
    if max(image.pixels) > scale:
        raise BadInput("#/pixels", f"a value exceeds the scale {scale}; leave scale out or give 255")
    return (np.asarray(image.pixels, np.float32) / scale).reshape(1, *shape)


def _label(served: Served, probabilities: np.ndarray) -> dict[str, Any]:
    label = served.predictor.classes[int(probabilities.argmax())]
    return {
        "label": label,
        "digit": int(label) if label.isdigit() else None,
        "probabilities": [round(float(p), 6) for p in probabilities],
    }


def _origin(served: Served) -> dict[str, Any]:
    version = served.version
    return {
        **version.model_dump(include={"model", "dataset", "version", "job_id", "trial"}),
        "checkpoint_sha256": served.checkpoint_sha256,
    }
