"""Tensors of the Open Inference Protocol: in JSON, or as bytes after it (the binary tensor extension).

https://github.com/kserve/open-inference-protocol and, for the extensions, Triton's extension_binary_data.md and
extension_classification.md.
"""

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain
from math import prod
from typing import Annotated, Any

import numpy as np
import orjson
from pydantic import BaseModel, Field, ValidationError

from api.http.errors import BadInput, invalid
from api.http.field_errors import not_json
from api.inputs.pixels import MAX_IMAGES, InputImages, of_array
from api.prediction.batch_result import BatchSlice
from api.prediction.served import Served
from ml.layers import Shape

INPUT = "pixels"
DATATYPES = {"UINT8": "u1", "FP32": "<f4", "FP64": "<f8"}  # of the input; the protocol's binary is little-endian
BINARY = "binary_data"

Parameters = dict[str, Any]


class InputTensor(BaseModel):
    """An input of a request, with its numbers in `data` or after the JSON."""

    name: str = Field(max_length=100)
    shape: list[Annotated[int, Field(ge=0, le=1 << 30)]] = Field(max_length=8)
    datatype: str = Field(max_length=20)
    parameters: Parameters = {}
    data: list[Any] | None = None


class RequestedOutput(BaseModel):
    """An output that a request asks for."""

    name: str = Field(max_length=100)
    parameters: Parameters = {}


class Inference(BaseModel):
    """An inference request."""

    id: str | None = Field(None, max_length=1000)
    parameters: Parameters = {}
    inputs: list[InputTensor] = Field(min_length=1, max_length=1)
    outputs: list[RequestedOutput] = Field([], max_length=20)


@dataclass(frozen=True)
class Output:
    """An output of a model: its datatype, its shape for one image, and its values for n images."""

    datatype: str
    shape: Callable[[Served], list[int]]
    values: Callable[[Served, BatchSlice], np.ndarray]


OUTPUTS: dict[str, Output] = {
    "probabilities": Output("FP32", lambda served: [len(served.labels)], lambda served, predicted: predicted.raw),
    "label": Output("BYTES", lambda served: [], lambda served, predicted: _labels(served, predicted)),
    "confidence": Output("FP32", lambda served: [], lambda served, predicted: predicted.raw.max(1)),
    "abstained": Output(
        "BOOL", lambda served: [], lambda served, predicted: np.array([why is not None for why in predicted.reasons])
    ),
}


def read(body: bytes, json_bytes: int | None, shape: Shape) -> tuple[Inference, InputImages]:
    """Parse a request and its images.

    Args:
        body: JSON, and after it binary tensors.
        json_bytes: the length of the JSON; None if all of the body is JSON.
        shape: the model's, [channels, height, width].

    Raises:
        BadInput: if the request or one of its images is invalid.
    """
    head, rest = (body, b"") if json_bytes is None else (body[:json_bytes], body[json_bytes:])
    try:
        inference = Inference.model_validate(orjson.loads(head))
    except orjson.JSONDecodeError as error:
        raise BadInput("#", not_json(error.pos)) from None
    except ValidationError as error:
        raise invalid(error, "#/", Inference) from None
    (tensor,) = inference.inputs
    rows = _rows(tensor, rest, shape)
    images = of_array(rows, shape, None, several=True)
    if images.errors:
        place, detail = next(iter(images.errors.items()))
        raise BadInput("#/inputs/0/data", f"image {place}: {detail}")
    return inference, images


def write(inference: Inference, served: Served, predicted: BatchSlice) -> tuple[bytes, int | None]:
    """Return the answer, and the length of its JSON if binary tensors follow, else None."""
    outputs, tails = [], []
    binary_by_default = bool(inference.parameters.get("binary_data_output"))
    for wanted in inference.outputs or [RequestedOutput(name=name) for name in OUTPUTS]:
        datatype, values = _values(wanted, served, predicted)
        output: dict[str, Any] = {"name": wanted.name, "datatype": datatype, "shape": list(values.shape)}
        if wanted.parameters.get(BINARY, binary_by_default):
            tails.append(_packed(values))
            output["parameters"] = {"binary_data_size": len(tails[-1])}
        else:
            output["data"] = values.ravel().tolist()
        outputs.append(output)
    answer = {"model_name": served.name, "model_version": str(served.version.version), "outputs": outputs}
    head = orjson.dumps({"id": inference.id, **answer} if inference.id is not None else answer)
    return b"".join([head, *tails]), len(head) if tails else None


def _rows(tensor: InputTensor, rest: bytes, shape: Shape) -> np.ndarray:
    """Return the numbers of an input as [n, features], uint8 or float64."""
    if tensor.name != INPUT:
        raise BadInput("#/inputs/0/name", f"unknown input; the only input is {INPUT}")
    if tensor.datatype not in DATATYPES:
        raise BadInput("#/inputs/0/datatype", f"unsupported datatype; use one of {', '.join(DATATYPES)}")
    features, count = prod(shape), prod(tensor.shape)
    if not count or count % features or count // features > MAX_IMAGES:
        raise BadInput("#/inputs/0/shape", f"wrong shape; give [n, {features}] with n from 1 to {MAX_IMAGES:,}")
    values = _numbers(tensor, rest)
    if values.size != count:
        raise BadInput("#/inputs/0/data", f"{values.size:,} numbers do not fill this shape; give {count:,}")
    rows = values.reshape(-1, features)
    return rows if rows.dtype == np.uint8 else rows.astype(np.float64)


def _numbers(tensor: InputTensor, rest: bytes) -> np.ndarray:
    dtype = np.dtype(DATATYPES[tensor.datatype])
    if tensor.data is None:
        size = tensor.parameters.get("binary_data_size")
        if size != len(rest) or len(rest) % dtype.itemsize:
            raise BadInput(
                "#/inputs/0/parameters/binary_data_size",
                f"give data, or the size of what follows the JSON: {len(rest)} bytes, in items of {dtype.itemsize}",
            )
        return np.frombuffer(rest, dtype)
    try:
        values = np.asarray(tensor.data, np.float64)
        found = values.astype(dtype)
    except (ValueError, TypeError, OverflowError):
        raise BadInput(
            "#/inputs/0/data", "not an array; give numbers in a list, or in nested lists of equal lengths"
        ) from None
    if not set(map(type, _leaves(tensor.data, values.ndim))) <= {int, float}:  # numpy takes "1" and true for 1
        raise BadInput("#/inputs/0/data", "not numbers; give numbers without quotes, and 0 or 1 for false or true")
    if dtype == np.uint8 and not np.array_equal(found, values):
        raise BadInput("#/inputs/0/data", "not UINT8; give whole numbers from 0 to 255, or use FP32")
    return found.ravel()


def _leaves(values: list[Any], depth: int) -> Iterable[Any]:
    """Return the leaves of nested lists of a depth."""
    return values if depth == 1 else _leaves(list(chain.from_iterable(values)), depth - 1)


def _values(wanted: RequestedOutput, served: Served, predicted: BatchSlice) -> tuple[str, np.ndarray]:
    if wanted.name not in OUTPUTS:
        raise BadInput("#/outputs", f"unknown output; the outputs are {', '.join(OUTPUTS)}")
    count = wanted.parameters.get("classification")
    if count is None:
        output = OUTPUTS[wanted.name]
        return output.datatype, output.values(served, predicted)
    if wanted.name != "probabilities" or type(count) is not int or count < 1:
        raise BadInput(
            "#/outputs", "invalid classification; give a number of classes from 1 on, for the output probabilities"
        )
    return "BYTES", np.array([_classes(row, served, count) for row in predicted.raw.tolist()], object)


def _labels(served: Served, predicted: BatchSlice) -> np.ndarray:
    return np.array([served.labels[label] for label in predicted.labels], object)


def _classes(row: list[float], served: Served, count: int) -> list[str]:
    best = sorted(range(len(row)), key=lambda label: -row[label])[:count]
    return [f"{row[label]:f}:{label}:{served.labels[label]}" for label in best]


def _packed(values: np.ndarray) -> bytes:
    """Return a tensor as bytes: numbers one after another, and each text after its length in 4 bytes."""
    if values.dtype != object:
        return values.tobytes()
    texts = [str(text).encode() for text in values.ravel()]
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)
