"""The loss and accuracy of a module on a set of images."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ml.datasets import Arrays
from ml.specs import Loss

EVALUATION_BATCH = 1000  # images; activations of the CNN stay within a core's cache-friendly 30 MB


@dataclass(frozen=True)
class Images:
    """Images, uint8 [n, channels, height, width], and labels, int64 [n], as tensors."""

    images: Tensor
    labels: Tensor

    @classmethod
    def of(cls, arrays: Arrays) -> "Images":
        """Return the tensors of `arrays`; the images share memory."""
        return cls(torch.from_numpy(arrays.images), torch.from_numpy(arrays.labels.astype(np.int64)))

    def to(self, device: str) -> "Images":
        """Return these images on another device."""
        return Images(self.images.to(device), self.labels.to(device))

    def first(self, count: int) -> "Images":
        """Return the first `count` images, or all if there are fewer; they share memory."""
        return Images(self.images[:count], self.labels[:count])

    def __len__(self) -> int:
        return len(self.labels)


def scaled(images: Tensor) -> Tensor:
    """Return pixels as every network takes them, float32 in 0..1."""
    return images.float().div_(255)


def loss_of(kind: Loss, outputs: Tensor, labels: Tensor) -> Tensor:
    """Return the mean loss of outputs [n, classes] for labels [n]."""
    if kind == "mse":
        targets = functional.one_hot(labels, outputs.shape[1]).to(outputs.dtype)
        return functional.mse_loss(outputs, targets)
    return functional.cross_entropy(outputs, labels)


@torch.inference_mode()
def evaluate(module: nn.Module, data: Images, loss: Loss) -> tuple[float, float]:
    """Return the mean loss and the accuracy (0..1) over `data`; the loss may be infinite or NaN."""
    module.eval()
    total, right = 0.0, 0
    for images, labels in zip(
        torch.split(data.images, EVALUATION_BATCH), torch.split(data.labels, EVALUATION_BATCH), strict=True
    ):
        outputs = module(scaled(images))
        total += loss_of(loss, outputs, labels).item() * len(labels)
        right += int((outputs.argmax(1) == labels).sum())
    return total / len(data), right / len(data)


@torch.inference_mode()
def probabilities(module: nn.Module, images: Tensor) -> np.ndarray:
    """Return class probabilities, float32 [n, classes], for uint8 images."""
    module.eval()
    outputs = [module(scaled(batch)).softmax(1) for batch in torch.split(images, EVALUATION_BATCH)]
    return torch.cat(outputs).numpy()
