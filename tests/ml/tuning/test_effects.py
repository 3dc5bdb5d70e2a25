"""A search over a hyper-parameter without effect is refused."""

from typing import Any

import pytest

from ml.errors import SpecError
from ml.networks import networks
from ml.presets import collections
from ml.specs import TuneSpec
from ml.tuning.effects import check_effects, without_effect

MOMENTUM = {"type": "float", "low": 0.0, "high": 0.9}
SIGMAS = {"type": "float", "low": 2.0, "high": 8.0}
EPOCHS = {"type": "int", "low": 20, "high": 40}


def spec_of(space: dict[str, Any], model: str = "shallow") -> TuneSpec:
    """Return a search over this space, with at most ten epochs."""
    rate = {"learning_rate": {"type": "float", "low": 1e-3, "high": 1e-2}}
    return TuneSpec.model_validate({"model": model, "search_space": rate | space})


@pytest.mark.parametrize(
    ("space", "idle"),
    [
        ({"momentum": MOMENTUM}, ["momentum"]),
        ({"momentum": MOMENTUM, "optimizer": "adam"}, ["momentum"]),
        ({"momentum": MOMENTUM, "optimizer": {"type": "categorical", "choices": ["adam"]}}, ["momentum"]),
        ({"momentum": MOMENTUM, "optimizer": "sgd"}, []),
        ({"momentum": MOMENTUM, "optimizer": {"type": "categorical", "choices": ["adam", "sgd"]}}, []),
        ({"momentum": {"type": "categorical", "choices": [0.5]}}, []),
        ({"elastic_sigma": SIGMAS}, ["elastic_sigma"]),
        ({"elastic_sigma": SIGMAS, "rotation": 10.0}, ["elastic_sigma"]),
        ({"elastic_sigma": SIGMAS, "elastic": {"type": "float", "low": 0.0, "high": 30.0}}, []),
        ({"epochs": EPOCHS}, ["epochs"]),
        ({"epochs": {**EPOCHS, "low": 5}}, []),
        ({"momentum": MOMENTUM, "epochs": EPOCHS}, ["momentum", "epochs"]),
        ({"schedule": {"type": "categorical", "choices": ["constant", "cosine"]}}, []),
        (
            {
                "weight_decay": {"type": "float", "low": 0.0, "high": 0.1},
                "dropout": {"type": "float", "low": 0.0, "high": 0.5},
            },
            [],
        ),
    ],
)
def test_parameters_that_change_no_trial_are_found(space: dict[str, Any], idle: list[str]) -> None:
    """A parameter may depend on another one, fixed or searched, or on the budget."""
    assert without_effect(spec_of(space)) == idle


def test_the_error_names_every_such_parameter() -> None:
    """It says what to do."""
    with pytest.raises(SpecError) as refused:
        check_effects(spec_of({"momentum": MOMENTUM, "epochs": EPOCHS}))

    assert [problem.path for problem in refused.value.problems] == [
        ("search_space", "momentum"),
        ("search_space", "epochs"),
    ]
    assert "leave it out" in refused.value.problems[0].detail


@pytest.mark.parametrize("model", networks)
def test_default_spaces_and_collections_have_effects_only(model: str) -> None:
    """What Chiffre proposes is accepted."""
    check_effects(TuneSpec.model_validate({"model": model}))
    for collection in collections().values():
        for experiment in collection.experiments:
            if isinstance(experiment.spec, TuneSpec) and experiment.spec.model == model:
                check_effects(experiment.spec)
