"""The design of a search: which of its draws are independent observations."""

from dataclasses import dataclass

from ml.specs import TuneSpec
from ml.tuning.keys import key_names


@dataclass(frozen=True)
class Design:
    """How the values of trials were chosen."""

    per_pack: frozenset[str] = frozenset()  # flat names of parameters that all trials of a pack share
    learned: bool = False  # True if the sampler chose values by earlier results

    @classmethod
    def of(cls, spec: TuneSpec) -> "Design":
        """Return the design of a job."""
        return cls(frozenset(key_names(spec)), spec.sampler.learns)


INDEPENDENT = Design()
