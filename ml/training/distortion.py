"""Minibatches distorted by random affine maps and elastic displacements.

A distortion depends only on the stream's seed, the step and the image's place in the batch. So a pack that is resumed,
or a trial that is trained again alone, sees the same images. Images stay bytes, as in the data set, and dark pixels
stay dark, because the kernels of a first layer are fast on dark pixels.
"""

from math import ceil

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ml.datasets import Stream
from ml.kernels.noise import keys_of, places_of, uniform
from ml.layers import Shape
from ml.network.evaluate import Images
from ml.seeds import SeedPurpose, derive
from ml.training.augmentation import Augmentation

AFFINE_DRAWS = 6  # two shifts, a rotation, two scales, a shear


class Distortion:
    """The distortion of images of one shape, drawn from one seed."""

    def __init__(self, augmentation: Augmentation, image: Shape, seed: int, device: torch.device) -> None:
        self.augmentation, self.device = augmentation, device
        _, self.height, self.width = image
        self.seed = np.array([derive(seed, SeedPurpose.AUGMENTATION)], np.uint32)
        self.places = places_of(np.arange(AFFINE_DRAWS + 2 * self.height * self.width))
        sides = (self.height, self.width)
        self.down, self.across = (smoother(n, augmentation.elastic_sigma).to(device) for n in sides)
        rows, columns = (torch.arange(n) - (n - 1) / 2 for n in (self.height, self.width))
        x, y = columns.expand(self.height, -1), rows[:, None].expand(-1, self.width)
        self.centred = torch.stack([x, y, torch.ones_like(x)]).view(3, -1).to(device)
        reach = torch.tensor([max(1, self.width - 1), max(1, self.height - 1)]).view(2, 1, 1) / 2
        self.reach = reach.to(device)

    def sources(self, step: int, batch: int) -> Tensor:
        """Return the source of each pixel: x and y in pixels from the centre, float32 [batch, 2, height, width]."""
        keys = keys_of(self.seed, np.array([step]), batch)[0]
        maps = affine_maps(self.augmentation, uniform(keys, self.places[:AFFINE_DRAWS]))
        flat = maps.view(-1, 3).to(self.device, non_blocking=True)
        found = torch.mm(flat, self.centred).view(batch, 2, self.height, self.width)
        if self.augmentation.elastic:
            found += self.displacement(self._noise(keys).view_as(found))
        return found

    def _noise(self, keys: np.ndarray) -> Tensor:
        """Return the noise of displacements; from pinned memory, so that copying it to a GPU does not block."""
        places = self.places[AFFINE_DRAWS:]
        drawn = torch.empty(len(keys), len(places), pin_memory=self.device.type == "cuda")
        uniform(keys, places, drawn.numpy())
        return drawn.to(self.device, non_blocking=True)

    def displacement(self, noise: Tensor) -> Tensor:
        """Return each pixel's displacement, in pixels: the noise [batch, 2, height, width], smoothed and scaled."""
        across = torch.mm(noise.reshape(-1, self.width), self.across).view(noise.shape)
        return torch.matmul(self.down, across).mul_(self.augmentation.elastic)

    def __call__(self, images: Tensor, step: int) -> Tensor:
        """Return the images of a step distorted, uint8 [batch, channels, height, width]; outside of them it is dark."""
        grid = self.sources(step, len(images)).div_(self.reach)
        found = functional.grid_sample(images.float(), grid.permute(0, 2, 3, 1), align_corners=True)
        return found.add_(0.5).to(torch.uint8)


def affine_maps(augmentation: Augmentation, draws: np.ndarray) -> Tensor:
    """Return the map of each image from a pixel (x, y, 1) to its source, float32 [batch, 2, 3].

    A map is a rotation times a shear times two scales, plus a shift.

    Args:
        augmentation: the limits.
        draws: random numbers within ±1 for them, [batch, 6].
    """
    x, y, turn, wide, tall, slant = draws.T
    angle = np.deg2rad(augmentation.rotation) * turn
    slope = np.tan(np.deg2rad(augmentation.shear) * slant)
    width, height = 1 + augmentation.scale * wide, 1 + augmentation.scale * tall
    cos, sin = np.cos(angle), np.sin(angle)
    maps = np.empty((len(draws), 2, 3), np.float32)
    maps[:, 0, 0], maps[:, 0, 1] = cos / width, (cos * slope - sin) / height
    maps[:, 1, 0], maps[:, 1, 1] = sin / width, (sin * slope + cos) / height
    maps[:, 0, 2], maps[:, 1, 2] = augmentation.shift * x, augmentation.shift * y
    return torch.from_numpy(maps)


def smoother(size: int, sigma: float) -> Tensor:
    """Return a matrix that smooths a line of numbers by a Gaussian, float32 [size, size]; beyond its ends are zeros.

    A product with it took less time than a convolution.
    """
    distance = torch.arange(size, dtype=torch.float64)[:, None] - torch.arange(size)
    far = max(4 * size, ceil(8 * sigma))  # a wide Gaussian has more of its mass beyond the ends
    reach = torch.arange(-far, far + 1, dtype=torch.float64)
    whole = torch.exp(-0.5 * (reach / sigma).square()).sum()
    return (torch.exp(-0.5 * (distance / sigma).square()) / whole).float()


class Minibatches:
    """The minibatches of a pack: the stream's images, distorted if the augmentation asks for it."""

    def __init__(self, data: Images, stream: Stream, augmentation: Augmentation) -> None:
        self.data, self.stream = data, stream
        shape, device = tuple(data.images.shape[1:]), data.images.device
        self._distort = Distortion(augmentation, shape, stream.seed, device) if augmentation else None

    def at(self, step: int) -> tuple[Images, np.ndarray]:
        """Return the minibatch of a step: images, and the indices of its images among them, int64 [batch]."""
        indices = self.stream.batch(step)
        if self._distort is None:
            return self.data, indices
        chosen = torch.from_numpy(indices).to(self.data.images.device, non_blocking=True)
        images = self._distort(self.data.images.index_select(0, chosen), step)
        return Images(images, self.data.labels.index_select(0, chosen)), np.arange(len(indices))
