"""What the OpenAPI document says of `POST /predict`, which the framework does not serve itself."""

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
    """Whose answer it is."""

    model: str
    dataset: str
    version: int
    job_id: str
    trial: int
    checkpoint_sha256: str


class Shown(BaseModel):
    """What an image shows."""

    label: str
    digit: int | None = Field(description="the label as a number, where the classes are digits")
    confidence: float = Field(description="the label's probability, calibrated on validation images")
    abstained: bool = Field(description="whether the image does not look like what the network was trained on")
    reason: str | None = Field(description="why it abstains")
    probabilities: list[float] | None = Field(
        None, description="by class, in the order of the data set's classes; not with top_k"
    )
    top: list[Top] | None = Field(None, description="with top_k: the most probable labels")
    scale: int | None = Field(None, description="the value that was taken for white")
    input_report: dict[str, Any] | None = Field(None, description="what was changed, and the image that was fed")
    saliency: list[list[float]] | None = Field(
        None, description="with explain: how far the label's probability falls where a pixel is covered"
    )


class Unusable(BaseModel):
    """What is wrong with an image of a list."""

    error: str


class Prediction(Shown, Origin):
    """What one image shows, and whose answer it is."""


class Predictions(Origin):
    """What each image of a list shows, in its order, and whose answers these are."""

    predictions: list[Shown | Unusable]


PIXELS = {
    "anyOf": [
        {"type": "array", "items": {"type": "number", "minimum": 0, "maximum": 255}},
        {"type": "array", "items": {"type": "array", "items": {"type": "number", "minimum": 0, "maximum": 255}}},
    ],
    "description": "784 numbers, row by row, or 28 rows of 28; 0 is black",
}
BINARY = {"schema": {"type": "string", "format": "binary"}}


async def predict(options: Annotated[Options, Query()]) -> Prediction | Predictions:
    """Classify images with the champion of a network, or the best of all.

    One image as JSON, as 784 bytes, as an npy array, as PNG or as JPEG; up to 1,024 as JSON `images`, as 784 bytes
    each, or as an npy array. Of several each is answered in its place, with an `error` where it cannot be used.
    """
    raise NotImplementedError  # never called: api.prediction.endpoint answers


def document_predict(app: FastAPI) -> None:
    """Add the operation to what `app.openapi` describes, and the body of the Open Inference Protocol's."""
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
