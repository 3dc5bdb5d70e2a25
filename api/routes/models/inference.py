"""The Open Inference Protocol, version 2, for clients of Triton, KServe and similar servers."""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Header, Path, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel
from sqlalchemy import select
from sqlmodel import col
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from api.deps import AskedDep, DatabaseDep, RosterDep
from api.http.errors import answer_to
from api.inputs.options import Options
from api.prediction.served import Served
from api.prediction.tensors import INPUT, OUTPUTS, read, write
from ml.datasets import can_be_dataset
from ml.errors import ChiffreError
from ml.networks import networks
from worker.database.tables import ModelVersion
from worker.errors import NotFound

LENGTH = "Inference-Header-Content-Length"
_SCHEMA = {"$ref": "#/components/schemas/Inference"}
INFER = {"requestBody": {"required": True, "content": {"application/json": {"schema": _SCHEMA}}}}


class ProtocolRoute(APIRoute):
    """A route that adds the member `error` to problems, because the protocol's clients show that member."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the route's handler, wrapped to answer errors in the protocol's form."""
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                return await handle(request)
            except (ChiffreError, RequestValidationError, HTTPException) as error:
                answer = answer_to(request, error)
                problem = orjson.loads(bytes(answer.body))
                details = "; ".join(f"{each['pointer']}: {each['detail']}" for each in problem["errors"])
                content = orjson.dumps({**problem, "error": details or problem["detail"]})
                kept = {name: answer.headers[name] for name in ("retry-after", "connection") if name in answer.headers}
                return Response(content, answer.status_code, kept, "application/problem+json")

        return handled


router = APIRouter(prefix="/v2", tags=["open inference protocol"], route_class=ProtocolRoute)

Name = Annotated[
    str,
    Path(max_length=200, description="a network, or network.dataset if its data set is not mnist: cnn.digits"),
]
Number = Annotated[int, Path(ge=1, le=2**31 - 1, description="the version's number")]


class Server(BaseModel):
    """The server's name, version and protocol extensions."""

    name: str = "chiffre"
    version: str
    extensions: list[str] = ["binary_tensor_data", "classification"]


class Live(BaseModel):
    """The process is alive."""

    live: bool = True


class AllReady(BaseModel):
    """Readiness of the server: true if it serves at least one model."""

    ready: bool


class ModelReady(BaseModel):
    """Readiness of a model."""

    name: str
    ready: bool


class TensorShape(BaseModel):
    """An input or an output tensor; -1 stands for the number of images."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    """A model's versions, inputs and outputs."""

    name: str
    versions: list[str]
    platform: str = "onnxruntime_onnx"
    inputs: list[TensorShape]
    outputs: list[TensorShape]


@router.get("")
def server_metadata(request: Request) -> Server:
    """Return the server's name, version and extensions."""
    return Server(version=request.app.version)


@router.get("/health/live")
async def server_live() -> Live:  # runs on the event loop, as /livez
    """Return 200 while the process answers."""
    return Live()


@router.get("/health/ready")
def server_ready(roster: RosterDep, response: Response) -> AllReady:
    """Return 200 if the server serves at least one model, else 503."""
    ready = roster.answers()
    response.status_code = 200 if ready else 503
    return AllReady(ready=ready)


@router.get("/models/{name}")
def model_metadata(name: Name, roster: RosterDep, database: DatabaseDep) -> ModelMetadata:
    """Return versions, inputs and outputs of a model, from its champion."""
    return _metadata(name, roster.find(_options(name)), database)


@router.get("/models/{name}/versions/{version}")
def version_metadata(name: Name, version: Number, roster: RosterDep, database: DatabaseDep) -> ModelMetadata:
    """Return versions, inputs and outputs of a model, from the given version."""
    return _metadata(name, roster.find(_options(name, version)), database)


@router.get("/models/{name}/ready")
def model_ready(name: Name, roster: RosterDep) -> ModelReady:
    """Return 200 if the champion is ready."""
    roster.find(_options(name))
    return ModelReady(name=name, ready=True)


@router.get("/models/{name}/versions/{version}/ready")
def version_ready(name: Name, version: Number, roster: RosterDep) -> ModelReady:
    """Return 200 if the version is ready."""
    roster.find(_options(name, version))
    return ModelReady(name=name, ready=True)


Length = Annotated[
    int | None, Header(alias=LENGTH, ge=0, description="bytes of JSON at the start of the body; binary tensors follow")
]


@router.post("/models/{name}/infer", openapi_extra=INFER)
async def infer(name: Name, body: AskedDep, roster: RosterDep, json_bytes: Length = None) -> Response:
    """Classify images with the champion."""
    return await _infer(_options(name), body, roster, json_bytes)


@router.post("/models/{name}/versions/{version}/infer", openapi_extra=INFER)
async def infer_version(
    name: Name, version: Number, body: AskedDep, roster: RosterDep, json_bytes: Length = None
) -> Response:
    """Classify images with the given version."""
    return await _infer(_options(name, version), body, roster, json_bytes)


async def _infer(options: Options, body: bytes, roster: RosterDep, json_bytes: int | None) -> Response:
    served = await roster.served_for(options)
    inference, images = await run_in_threadpool(read, body, json_bytes, served.predictor.shape)
    predicted = await served.batcher.predict(images.pixels)
    content, head = write(inference, served, predicted)
    if head is None:
        return Response(content, media_type="application/json")
    return Response(content, headers={LENGTH: str(head)}, media_type="application/octet-stream")


def _options(name: str, version: int | None = None) -> Options:
    """Return the options that choose the champion or version that a name stands for.

    Raises:
        NotFound: if the name is none of a network or a data set.

    """
    model, _, dataset = name.partition(".")
    dataset = dataset or "mnist"
    if model not in networks or not can_be_dataset(dataset):
        raise NotFound(
            f"there is no such model; use a network ({', '.join(networks)}), with .dataset if not mnist: cnn.digits"
        )
    return Options(model=model, dataset=dataset, version=version)


def _metadata(name: str, served: Served, database: DatabaseDep) -> ModelMetadata:
    version = served.version
    with database.reading() as session:
        of_model = (col(ModelVersion.model) == version.model, col(ModelVersion.dataset) == version.dataset)
        numbers = select(col(ModelVersion.version)).where(*of_model).order_by(col(ModelVersion.version))
        versions = [str(number) for number in session.scalars(numbers)]
    pixels = TensorShape(name=INPUT, datatype="FP32", shape=[-1, *served.predictor.shape])
    outputs = [
        TensorShape(name=name, datatype=output.datatype, shape=[-1, *output.shape(served)])
        for name, output in OUTPUTS.items()
    ]
    return ModelMetadata(name=name, versions=versions, inputs=[pixels], outputs=outputs)
