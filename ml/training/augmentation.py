"""Augmentation: limits for the random distortion of training images, drawn anew for each minibatch.

All lanes of a pack see the same minibatches, so an augmentation belongs to their key.
"""

from dataclasses import astuple, dataclass, fields

from ml.parameters.params import Params

SIGMA = 4.0  # pixels; Simard, Steinkraus and Platt (2003) found it best on MNIST


@dataclass(frozen=True)
class Augmentation:
    """The limits of the distortion of each image; 0 means none. Each distortion is drawn evenly within its limit."""

    shift: float = 0.0  # pixels, in each direction
    rotation: float = 0.0  # degrees
    scale: float = 0.0  # share of the size, drawn for each direction
    shear: float = 0.0  # degrees
    elastic: float = 0.0  # α of Simard, Steinkraus and Platt (2003): the factor of the smoothed noise
    elastic_sigma: float = SIGMA  # pixels: the width of the Gaussian that smooths it

    @classmethod
    def of(cls, params: Params) -> "Augmentation":
        """Return the augmentation that a trial's hyper-parameters ask for."""
        given = {name: getattr(params, name) for name in AUGMENTATION_NAMES}
        return cls(**{name: float(value) for name, value in given.items() if value is not None})

    @property
    def affine(self) -> bool:
        """True if images are shifted, rotated, scaled or sheared."""
        return any((self.shift, self.rotation, self.scale, self.shear))

    def __bool__(self) -> bool:
        return self.affine or self.elastic > 0

    def __str__(self) -> str:
        return ", ".join(f"{name} {value:g}" for name, value in zip(AUGMENTATION_NAMES, astuple(self), strict=True))


NONE = Augmentation()
AUGMENTATION_NAMES = tuple(field.name for field in fields(Augmentation))
