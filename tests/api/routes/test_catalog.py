"""The catalog: everything that a job can name, and the tensors of each network."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from starlette.testclient import TestClient
from torch import nn

from ml.datasets import datasets
from ml.network.modules import module_of
from ml.networks import networks
from ml.optimizers import optimizers
from ml.samplers import pruners, samplers
from tests.api.tools import problem, send

KINDS: dict[str, Mapping[str, Any]] = {
    "networks": networks,
    "datasets": datasets,
    "samplers": samplers,
    "pruners": pruners,
    "optimizers": optimizers,
}
LIMITS = {"minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"}


@pytest.fixture
def catalog(shared_api: TestClient) -> dict[str, Any]:
    """Return the catalog without query parameters."""
    found: dict[str, Any] = shared_api.get("/catalog").json()
    return found


def alternatives(parameter: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the schemas that a parameter may follow, without null."""
    return [option for option in parameter.get("anyOf", [parameter]) if option["type"] != "null"]


def tensors(api: TestClient, model: str, **query: Any) -> dict[str, list[int]]:
    """Return the shapes of a network's tensors by name, in order."""
    listed = api.get("/catalog", params=query).json()["networks"][model]["tensors"]
    return {tensor["name"]: tensor["shape"] for tensor in listed}


def forward_shapes(model: str, batch: int) -> tuple[list[list[int]], list[list[int]]]:
    """Return torch's shapes: of each layer's output, except ReLU and a leading Flatten, and of the weights."""
    layers = networks[model].layers((1, 28, 28), 10, networks[model].params())
    module = module_of(layers, 0)
    leaving: list[list[int]] = []
    for n, layer in enumerate(module):
        if not isinstance(layer, nn.ReLU) and not (n == 0 and isinstance(layer, nn.Flatten)):
            layer.register_forward_hook(lambda _, __, output: leaving.append(list(output.shape)))
    with torch.inference_mode():
        module(torch.zeros(batch, 1, 28, 28))
    return leaving, [list(tensor.shape) for tensor in module.parameters()]


@pytest.mark.parametrize("kind", KINDS)
def test_the_catalog_lists_every_registered_name(catalog: dict[str, Any], kind: str) -> None:
    """Every registered name has an entry with a description."""
    assert list(catalog[kind]) == list(KINDS[kind])
    assert all(entry["description"] for entry in catalog[kind].values())


@pytest.mark.parametrize("kind", ["networks", "samplers", "pruners", "optimizers"])
def test_every_parameter_has_type_range_and_default(catalog: dict[str, Any], kind: str) -> None:
    """A form can be built from the catalog alone: numbers have limits, text has choices, lists have both."""
    for entry in catalog[kind].values():
        for name, parameter in entry["parameters"].items():
            assert "default" in parameter, name
            for option in alternatives(parameter):
                if option["type"] in ("integer", "number"):
                    assert LIMITS & option.keys(), name
                elif option["type"] == "string":
                    assert option["enum"], name
                else:
                    assert option["type"] == "array"
                    assert LIMITS & option["items"].keys(), name
                    assert {"minItems", "maxItems"} <= option.keys(), name


@pytest.mark.parametrize("kind", ["networks", "samplers", "pruners", "optimizers"])
def test_the_parameters_are_those_that_a_job_accepts(catalog: dict[str, Any], kind: str) -> None:
    """No parameter is missing, and no other is listed."""
    for name, entry in catalog[kind].items():
        registered = KINDS[kind][name]
        fields = registered.params.model_fields if kind == "networks" else registered.model_fields

        assert entry["parameters"].keys() == fields.keys() - ({"name"} if kind in ("samplers", "pruners") else set())


@pytest.mark.parametrize("model", networks)
def test_the_defaults_of_the_catalog_can_be_posted(shared_api: TestClient, catalog: dict[str, Any], model: str) -> None:
    """A job that names every default and a job with the shown search space are accepted."""
    entry = catalog["networks"][model]
    params = {name: parameter["default"] for name, parameter in entry["parameters"].items()}
    trained = send(shared_api, "/jobs/train", {"model": model, "params": params})
    tuned = send(shared_api, "/jobs/tune", {"model": model, "search_space": entry["search_space"]})

    assert (trained.status_code, tuned.status_code) == (202, 202)
    assert tuned.json()["spec"]["search_space"] == entry["search_space"]


@pytest.mark.parametrize("kind", ["samplers", "pruners"])
def test_a_job_may_name_every_sampler_and_pruner_with_its_defaults(
    shared_api: TestClient, catalog: dict[str, Any], kind: str
) -> None:
    """The stored defaults are those of the catalog."""
    for name, entry in catalog[kind].items():
        chosen = {"name": name, **{field: shown["default"] for field, shown in entry["parameters"].items()}}
        spec = {"model": "perceptron", "search_space": {"batch_size": {"type": "categorical", "choices": [8, 16]}}}
        short = send(shared_api, "/jobs/tune", {**spec, kind[:-1]: {"name": name}})
        full = send(shared_api, "/jobs/tune", {**spec, kind[:-1]: chosen})

        assert (short.status_code, full.status_code) == (202, 202)
        assert short.json()["spec"][kind[:-1]] == full.json()["spec"][kind[:-1]] == chosen


@pytest.mark.parametrize("name", datasets)
def test_a_data_set_shows_its_properties(catalog: dict[str, Any], name: str) -> None:
    """The entry has the number of images, their shape, classes, splits and hash."""
    entry, dataset = catalog["datasets"][name], datasets[name]

    assert (entry["images"], entry["sha256"]) == (dataset.size, dataset.sha256)
    assert (entry["shape"], entry["classes"]) == (list(dataset.shape), list(dataset.classes))
    assert ("official" in entry["splits"]) == (dataset.official_test is not None)


def test_the_perceptrons_tensors_are_those_of_the_study(shared_api: TestClient) -> None:
    """With batches of 5: x 5×784, w 784×10, b 10, y 5×10."""
    expected = {"x": [5, 784], "w": [784, 10], "b": [10], "y": [5, 10]}

    assert tensors(shared_api, "perceptron", batch_size=5) == expected
    assert tensors(shared_api, "perceptron") == expected


def test_the_shallow_networks_tensors_are_numbered(shared_api: TestClient) -> None:
    """The network has two matrices, and the hidden layer between them."""
    assert tensors(shared_api, "shallow", batch_size=3) == {
        "x": [3, 784],
        "w1": [784, 128],
        "b1": [128],
        "h1": [3, 128],
        "w2": [128, 10],
        "b2": [10],
        "y": [3, 10],
    }


@pytest.mark.parametrize("model", networks)
@pytest.mark.parametrize("batch", [1, 5, 64])
def test_the_tensors_have_the_shapes_of_torch(shared_api: TestClient, model: str, batch: int) -> None:
    """Each layer's output has the shape that torch computes; weights are torch's, with matrices transposed."""
    shown = tensors(shared_api, model, batch_size=batch)
    leaving, weights = forward_shapes(model, batch)
    outputs = [shape for name, shape in shown.items() if name[0] in "hpfy"]
    trained = [shape for name, shape in shown.items() if name[0] in "wb"]

    assert outputs == leaving
    assert trained == [shape[::-1] if len(shape) == 2 else shape for shape in weights]
    assert shown["x"] == [batch, 1, 28, 28] if model == "cnn" else [batch, 784]


@pytest.mark.parametrize("model", networks)
def test_weights_and_layers_are_counted(catalog: dict[str, Any], model: str) -> None:
    """The number of weights is torch's."""
    entry = catalog["networks"][model]
    module = module_of(networks[model].layers((1, 28, 28), 10, networks[model].params()), 0)

    assert entry["weights"] == sum(tensor.numel() for tensor in module.parameters())
    assert [text.partition("(")[0] for text in entry["layers"]] == [type(layer).__name__ for layer in module]


def test_a_matrix_takes_two_flops_per_weight(catalog: dict[str, Any]) -> None:
    """One image of the perceptron takes 784×10 multiply-adds; the CNN's number is summed by hand."""
    lenet = 2 * (6 * 24 * 24 * 25 + 16 * 8 * 8 * 6 * 25 + 256 * 120 + 120 * 84 + 84 * 10)

    assert catalog["networks"]["perceptron"]["flops"] == 2 * 784 * 10
    assert catalog["networks"]["cnn"]["flops"] == lenet


@pytest.mark.parametrize("dataset", datasets)
def test_the_tensors_follow_the_requested_data_set(shared_api: TestClient, dataset: str) -> None:
    """The shapes follow the named data set."""
    channels, height, width = datasets[dataset].shape

    assert tensors(shared_api, "perceptron", dataset=dataset)["x"] == [5, channels * height * width]


@pytest.mark.parametrize("batch", ["0", "-5", "4097", "five", "1.5", ""])
def test_a_batch_that_cannot_be_trained_is_refused(shared_api: TestClient, batch: str) -> None:
    """The limits are those of a job's batch_size."""
    problem(shared_api.get("/catalog", params={"batch_size": batch}), 422)
