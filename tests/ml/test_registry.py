"""The registries: dicts with a decorator."""

import pytest

from ml.datasets import datasets
from ml.errors import UnknownName
from ml.networks import networks
from ml.optimizers import optimizers
from ml.registry import Registry
from ml.samplers import pruners, samplers

REGISTRIES = [datasets, networks, optimizers, pruners, samplers]
by_noun = pytest.mark.parametrize("registry", REGISTRIES, ids=lambda registry: registry.noun)


@by_noun
def test_every_name_leads_to_its_entry(registry: Registry[object]) -> None:
    """Iterating over a registry gives names that it holds."""
    entries = dict(registry)

    assert entries
    assert all(registry[name] is entry for name, entry in entries.items())


@by_noun
def test_the_error_for_an_unknown_name_lists_the_known_ones(registry: Registry[object]) -> None:
    """The error for an unknown name says what kind of thing is missing and lists the choices."""
    with pytest.raises(UnknownName) as caught:
        registry["perceptor"]

    assert registry.noun in str(caught.value)
    assert all(name in str(caught.value) for name in registry)


@by_noun
def test_in_and_get_accept_an_unknown_name(registry: Registry[object]) -> None:
    """They return False and None, as in every Mapping."""
    found = ("perceptor" in registry, registry.get("perceptor"))

    assert found == (False, None)


def test_a_long_name_is_shortened_in_the_error() -> None:
    """The error does not repeat a name of a million letters."""
    with pytest.raises(UnknownName) as caught:
        networks["x" * 1_000_000]

    assert len(str(caught.value)) < 300


def test_a_name_can_be_registered_only_once() -> None:
    """Registering a second entry under a name is an error, and the first stays."""
    registry: Registry[int] = Registry("number")
    registry.register("one")(1)

    with pytest.raises(ValueError, match="number 'one' is registered twice"):
        registry.register("one")(11)
    assert dict(registry) == {"one": 1}
