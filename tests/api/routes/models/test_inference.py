"""The Open Inference Protocol, tested with Triton's client."""

import gzip
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import tritonclient.http as triton
from support.worker_tools import Work
from tritonclient.utils import InferenceServerException

from ml.datasets import datasets
from tests.api.tools import Version, publish

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 784)).astype(np.float32) / 255


@pytest.fixture
def cnn(work: Work, environment: Path) -> Version:
    """Return a version of the CNN."""
    return publish(work, environment, "cnn", 0.99)


@pytest.fixture
def client(url: str, cnn: Version) -> Iterator[triton.InferenceServerClient]:
    """Yield Triton's client, connected to a real server."""
    with triton.InferenceServerClient(url.removeprefix("http://")) as found:
        yield found


def asked(values: np.ndarray, datatype: str = "FP32", binary: bool = True) -> list[Any]:
    """Return an input tensor with these numbers."""
    tensor = triton.InferInput("pixels", list(values.shape), datatype)
    tensor.set_data_from_numpy(values, binary_data=binary)
    return [tensor]


def expected(version: Version, images: np.ndarray) -> np.ndarray:
    """Return torch's softmax for images."""
    return np.array([version.answer(list(image), 1) for image in images])


def test_the_server_and_its_models_have_metadata(client: triton.InferenceServerClient) -> None:
    """The metadata have name, extensions, versions, inputs and outputs."""
    server, model = client.get_server_metadata(), client.get_model_metadata("cnn")

    assert server["name"] == "chiffre"
    assert "binary_tensor_data" in server["extensions"]
    assert model["versions"] == ["1"]
    assert model["inputs"] == [{"name": "pixels", "datatype": "FP32", "shape": [-1, 1, 28, 28]}]
    assert {"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]} in model["outputs"]
    assert client.get_model_metadata("cnn", "1") == model


def test_the_server_its_models_and_versions_report_readiness(client: triton.InferenceServerClient) -> None:
    """The server, its models and versions are ready; a version that was never published is not."""
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("cnn")
    assert client.is_model_ready("cnn", "1")
    assert not client.is_model_ready("cnn", "2")
    assert not client.is_model_ready("shallow")
    assert not client.is_model_ready("resnet")


def test_a_server_without_a_model_is_live_and_not_ready(url: str) -> None:
    """A load balancer that checks readiness sends it no requests."""
    with triton.InferenceServerClient(url.removeprefix("http://")) as client:
        assert client.is_server_live()
        assert not client.is_server_ready()


@pytest.mark.parametrize("shape", [(5, 784), (5, 28, 28), (5, 1, 28, 28)])
@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_the_answer_is_torchs_softmax(
    client: triton.InferenceServerClient, cnn: Version, shape: tuple[int, ...], binary_in: bool, binary_out: bool
) -> None:
    """JSON and binary agree, for images in any of the three shapes."""
    wanted = [triton.InferRequestedOutput(name, binary_data=binary_out) for name in ("probabilities", "label")]
    result = client.infer("cnn", asked(IMAGES.reshape(shape), binary=binary_in), outputs=wanted, request_id="7")
    found = result.as_numpy("probabilities")
    labels = [label.decode() if isinstance(label, bytes) else label for label in result.as_numpy("label")]

    assert found.shape == (5, 10)
    assert found == pytest.approx(expected(cnn, IMAGES), abs=1e-5)
    assert labels == [str(row.argmax()) for row in found]
    assert result.get_response()["id"] == "7"
    assert result.get_response()["model_version"] == "1"


def test_uint8_input_is_accepted(client: triton.InferenceServerClient, cnn: Version) -> None:
    """Bytes from 0 to 255 take a quarter of the space of float32."""
    images = np.rint(IMAGES * 255).astype(np.uint8)
    found = client.infer("cnn", asked(images, "UINT8")).as_numpy("probabilities")

    assert found == pytest.approx(expected(cnn, images.astype(np.float32) / 255), abs=1e-5)


def test_the_classification_extension_gives_the_best_classes(
    client: triton.InferenceServerClient, cnn: Version
) -> None:
    """Each class has probability, index and name, most probable first."""
    wanted = [triton.InferRequestedOutput("probabilities", class_count=3)]
    found = client.infer("cnn", asked(IMAGES), outputs=wanted).as_numpy("probabilities")
    first = expected(cnn, IMAGES)[0]
    probability, label, name = found[0, 0].decode().split(":")

    assert found.shape == (5, 3)
    assert int(label) == first.argmax()
    assert name == label
    assert float(probability) == pytest.approx(first.max(), abs=1e-5)


def test_a_model_of_another_data_set_is_named_with_it(
    client: triton.InferenceServerClient, work: Work, environment: Path
) -> None:
    """The name is network, dot, data set; the input has that data set's image size."""
    publish(work, environment, "shallow", 0.9, dataset="digits")
    shape = list(datasets["digits"].shape)

    assert client.get_model_metadata("shallow.digits")["inputs"][0]["shape"] == [-1, *shape]
    assert client.infer("shallow.digits", asked(np.zeros((2, *shape), np.float32))).as_numpy("label").shape == (2,)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({}, "inputs"),
    ({"inputs": []}, "inputs"),
    ({"inputs": [{"name": "x", "shape": [1, 784], "datatype": "FP32", "data": [0] * 784}]}, "pixels"),
    ({"inputs": [{"name": "pixels", "shape": [1, 784], "datatype": "FP16", "data": [0] * 784}]}, "FP32"),
    ({"inputs": [{"name": "pixels", "shape": [1, 783], "datatype": "FP32", "data": [0] * 783}]}, "784"),
    ({"inputs": [{"name": "pixels", "shape": [0, 784], "datatype": "FP32", "data": []}]}, "784"),
    ({"inputs": [{"name": "pixels", "shape": [1025, 784], "datatype": "FP32", "data": []}]}, "1,024"),
    ({"inputs": [{"name": "pixels", "shape": [1, 784], "datatype": "FP32", "data": [0] * 783}]}, "give 784"),
    ({"inputs": [{"name": "pixels", "shape": [1, 784], "datatype": "FP32", "data": ["a"] * 784}]}, "numbers"),
    ({"inputs": [{"name": "pixels", "shape": [1, 784], "datatype": "FP32", "data": [-1] * 784}]}, "0 to 255"),
    ({"inputs": [{"name": "pixels", "shape": [1, 784], "datatype": "UINT8", "data": [256] * 784}]}, "0 to 255"),
    ({"inputs": [{"name": "pixels", "shape": [1, 784], "datatype": "FP32", "data": ["1"] * 784}]}, "numbers"),
    ({"inputs": [{"name": "pixels", "shape": [1, 784], "datatype": "FP32", "data": [1] * 783 + [True]}]}, "numbers"),
    ({"inputs": [{"name": "pixels", "shape": [1, 784], "datatype": "UINT8", "data": [[False] * 784]}]}, "numbers"),
    ({"inputs": [{"name": "pixels", "shape": [1, 784], "datatype": "FP32", "data": [[[]]]}]}, "give 784"),
    ({"inputs": [{"name": "pixels", "shape": [1, 784], "datatype": "FP32"}]}, "binary_data_size"),
    ({"inputs": [{"name": "pixels", "shape": [2**30] * 8, "datatype": "FP32", "data": [0]}]}, "784"),
]


@pytest.mark.parametrize(("request_", "words"), REFUSED, ids=lambda value: repr(value)[:60])
def test_an_invalid_request_is_refused_with_a_message(
    url: str, cnn: Version, request_: dict[str, Any], words: str
) -> None:
    """The answer is problem+json with the member `error`, which the protocol's clients show."""
    response = httpx2.post(f"{url}/v2/models/cnn/infer", json=request_)

    assert response.status_code == 422
    assert words in response.json()["error"]


def test_a_compressed_body_is_refused(url: str, cnn: Version) -> None:
    """The answer is 415 with the member `error`, as at /predict, because the unpacked size is unknown."""
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    response = httpx2.post(f"{url}/v2/models/cnn/infer", content=gzip.compress(b"{}"), headers=headers)

    assert response.status_code == 415
    assert "Content-Encoding" in response.json()["error"]


def test_the_client_shows_why_it_was_refused(client: triton.InferenceServerClient) -> None:
    """The message is about an unknown model, an unknown output, or a missing version."""
    wanted = [triton.InferRequestedOutput("logits")]

    with pytest.raises(InferenceServerException, match="use a network"):
        client.infer("resnet", asked(IMAGES))
    with pytest.raises(InferenceServerException, match="the outputs are"):
        client.infer("cnn", asked(IMAGES), outputs=wanted)
    with pytest.raises(InferenceServerException, match="no version of this number"):
        client.infer("cnn", asked(IMAGES), model_version="9")


def test_1024_images_are_answered_at_once(client: triton.InferenceServerClient, cnn: Version) -> None:
    """Their 3 MB of float32 are more than other requests may send."""
    generator = random.Random(1)
    images = np.array([[generator.random() for _ in range(784)] for _ in range(16)], np.float32)
    found = client.infer("cnn", asked(np.tile(images, (64, 1)))).as_numpy("probabilities")

    assert found.shape == (1024, 10)
    assert found[-16:] == pytest.approx(expected(cnn, images), abs=1e-5)
