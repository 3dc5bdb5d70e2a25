"""Augmentation: how far the training images are distorted, anew in each minibatch.

All lanes of a pack see the same minibatches, so an augmentation is part of their key.
"""

from dataclasses import astuple, dataclass, fields

from ml.parameters.params import Params

SIGMA = 4.0  # pixels; Simard, Steinkraus and Platt (2003) found it best on MNIST


@dataclass(frozen=True)
class Augmentation:
    """How far each image is distorted; a value of 0 leaves it alone. Everything is drawn evenly up to what is given."""

    shift: float = 0.0  # pixels, in each direction
    rotation: float = 0.0  # degrees
    scale: float = 0.0  # share of the size, drawn for each direction
    shear: float = 0.0  # degrees
    elastic: float = 0.0  # α of Simard, Steinkraus and Platt (2003): what the smoothed noise is multiplied by
    elastic_sigma: float = SIGMA  # pixels: the width of the Gaussian that smooths it

    @classmethod
    def of(cls, params: Params) -> "Augmentation":
        """The augmentation that a trial's hyper-parameters ask for."""
        given = {name: getattr(params, name) for name in AUGMENTATION_NAMES}
        return cls(**{name: float(value) for name, value in given.items() if value is not None})

    @property
    def affine(self) -> bool:
        """Whether images are moved, turned, stretched or slanted."""
        return any((self.shift, self.rotation, self.scale, self.shear))

    def __bool__(self) -> bool:
        return self.affine or self.elastic > 0

    def __str__(self) -> str:
        return ", ".join(f"{name} {value:g}" for name, value in zip(AUGMENTATION_NAMES, astuple(self), strict=True))


NONE = Augmentation()
AUGMENTATION_NAMES = tuple(field.name for field in fields(Augmentation))
