"""Seeds: a seed must give the same results in every release."""

import numpy as np

from ml.seeds import SeedPurpose, derive, permutation


def test_derived_seeds_never_change() -> None:
    """The derived seeds are those that recorded results were made with."""
    found = {purpose.name: (derive(0, purpose), derive(7, purpose, 3)) for purpose in SeedPurpose}

    assert found == {
        "TEST": (3964924996, 1916955614),
        "SPLIT": (3141116543, 4233973465),
        "INIT": (2613022947, 3804076424),
        "STREAM": (1874364848, 2939212602),
        "SAMPLER": (161328693, 1558689951),
        "NOVELTY": (2617721224, 4178234391),
        "AUGMENTATION": (1369798745, 2885457512),
        "DROPOUT": (3026431988, 1868148864),
        "KEYS": (2214077229, 42987437),
        "RUN_OFF": (1013476761, 3258885218),
    }


def test_derived_seeds_differ() -> None:
    """No two of (seed, purpose, index) in daily use give the same stream."""
    found = [derive(seed, purpose, index) for seed in range(5) for purpose in SeedPurpose for index in range(100)]

    assert len(set(found)) == len(found)


def test_a_permutation_never_changes() -> None:
    """The order of ten for a seed is the same in every release."""
    order = permutation(10, 42)

    assert order.tolist() == [8, 1, 5, 0, 7, 2, 9, 4, 3, 6]


def test_a_permutation_leaves_numpys_own_state_unchanged() -> None:
    """Drawing an order does not change the random state that all code shares."""
    np.random.seed(3)
    before = np.random.get_state()[1].tolist()
    permutation(1000, 0)

    assert np.random.get_state()[1].tolist() == before
