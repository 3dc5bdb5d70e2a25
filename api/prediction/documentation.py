"""The OpenAPI documentation of `POST /predict`, which the framework does not serve itself."""

from typing import Annotated, Any

from fastapi import FastAPI, Query
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field

from api.http.problems import RESPONSES
from api.inputs.options import Options
from api.prediction.tensors import Inference


class Top(BaseModel):
    """One of the most probable labels."""

    label: str
    probability: float


class Origin(BaseModel):
    """The version that predicted."""

    model: str
    dataset: str
    version: int
    job_id: str
    trial: int
    checkpoint_sha256: str


class Shown(BaseModel):
    """The prediction for an image."""

    label: str
    digit: int | None = Field(description="the label as a number, if the classes are digits")
    confidence: float = Field(description="the label's probability, calibrated on validation images")
    abstained: bool = Field(description="true if the image does not look like the training images")
    reason: str | None = Field(description="why the network abstains")
    probabilities: list[float] | None = Field(
        None, description="by class, in the order of the data set's classes; not with top_k"
    )
    top: list[Top] | None = Field(None, description="the most probable labels; only with top_k")
    scale: int | None = Field(None, description="the pixel value that was read as white")
    input_report: dict[str, Any] | None = Field(
        None, description="how the image was brought to the data set's form, and the pixels that the network was fed"
    )
    saliency: list[list[float]] | None = Field(
        None, description="how far the label's probability falls if a pixel is covered; only with explain"
    )


class Unusable(BaseModel):
    """An error in place of the prediction for an unusable image of a list."""

    error: str


class Prediction(Shown, Origin):
    """The prediction for one image, and the version that predicted."""


class Predictions(Origin):
    """The predictions for a list of images, in its order, and the version that predicted."""

    predictions: list[Shown | Unusable]


PIXELS = {
    "anyOf": [
        {"type": "array", "items": {"type": "number", "minimum": 0, "maximum": 255}},
        {"type": "array", "items": {"type": "array", "items": {"type": "number", "minimum": 0, "maximum": 255}}},
    ],
    "description": "784 numbers, row by row, or 28 rows of 28 numbers; 0 is black",
}
BINARY = {"schema": {"type": "string", "format": "binary"}}


async def predict(options: Annotated[Options, Query()]) -> Prediction | Predictions:
    """Classify images with the champion of a network, or with the best of all champions.

    Send one image as JSON, as 784 bytes, as an npy array, as PNG or as JPEG. Send up to 1,024 images as JSON `images`,
    as 784 bytes each, or as an npy array. The answer to a list has an `error` in the place of each unusable image.
    """
    raise NotImplementedError  # never called: api.prediction.endpoint answers


def document_predict(app: FastAPI) -> None:
    """Add this operation, and the body of the Open Inference Protocol, to what `app.openapi` returns."""
    document = app.openapi
    route = APIRoute("/predict", predict, methods=["POST"], tags=["predict"], responses=RESPONSES)
    route.openapi_extra = {"requestBody": _body()}

    def documented() -> dict[str, Any]:
        whole = document()
        own = get_openapi(title=app.title, version=app.version, routes=[route])
        whole["paths"] |= own["paths"]
        for name, schemas in own.get("components", {}).items():
            whole["components"].setdefault(name, {}).update(schemas)
        inference = Inference.model_json_schema(ref_template="#/components/schemas/{model}")
        whole["components"]["schemas"] |= {**inference.pop("$defs"), "Inference": inference}
        return whole

    app.openapi = documented  # type: ignore[method-assign]


def _body() -> dict[str, Any]:
    options = Options.model_json_schema()["properties"]
    images = {"type": "array", "items": PIXELS, "minItems": 1, "maxItems": 1024}
    bodies = [
        {"type": "object", "properties": {**options, **own}, "required": list(own), "additionalProperties": False}
        for own in ({"pixels": PIXELS}, {"images": images})
    ]
    content: dict[str, Any] = {
        "application/json": {
            "schema": {"oneOf": bodies},
            "example": {"model": "cnn", "pixels": [0] * 784},
        },
        **dict.fromkeys(("application/octet-stream", "application/x-npy", "image/png", "image/jpeg"), BINARY),
    }
    return {"required": True, "content": content}
