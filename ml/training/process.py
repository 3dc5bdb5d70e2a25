"""The settings of a training process: one thread, compiled kernels, and its device and memory."""

from pathlib import Path

import torch

from ml.datasets import Stream
from ml.errors import LanesError
from ml.lanes.lanes import Lanes, LaneState
from ml.layers import Conv2d, Dropout, Flatten, Linear, MaxPool2d, ReLU
from ml.network.evaluate import Images
from ml.optimizers import Adam, Sgd
from ml.training.augmentation import Augmentation
from ml.training.distortion import Minibatches

CGROUP = Path("/sys/fs/cgroup")  # has the limits of a container


def process_settings() -> None:
    """Set this process up for training: one thread, and numbers below 1e-38 become 0.

    Two threads on a busy core ran up to five times slower than one. Adam's moments of a pixel that stays dark decay to
    such small numbers, and some processors take many times longer to compute with them. On a GPU, products use all
    24 bits of a float32, not the 11 of TF32, and sums are added in the same order every time.
    """
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.backends.cudnn.allow_tf32 = False  # for matrix products this is the default
    torch.backends.cudnn.deterministic = True


def device_of(name: str) -> str:
    """Return the device that lanes train on, cuda or cpu.

    Args:
        name: cuda, cpu, or auto for cuda if there is a GPU.

    Raises:
        LanesError: if `name` is cuda and PyTorch finds no GPU.
    """
    found = torch.cuda.is_available()
    if name == "cuda" and not found:
        raise LanesError("PyTorch finds no GPU here to train on; set the device to auto or cpu instead of cuda")
    return "cpu" if name == "cpu" or not found else "cuda"


def warm_up() -> None:
    """Compile every kernel, or load it from the cache: 15 seconds for the first time on a machine, else less than one.

    A trainer does this before it takes work, so that it does not count towards a job's seconds.
    """
    images = Images(torch.ones(4, 1, 14, 14, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64))
    dense = [Flatten(), Linear(32, 256), Dropout(0.5), Linear(256, 2)]
    convolved = [Conv2d(1, 2, 3), ReLU(), MaxPool2d(2), Conv2d(2, 2, 3), *dense]
    distorted = Minibatches(images, Stream(4, 4, 0), Augmentation(elastic=1.0))
    optimizers = [Adam(), Sgd(), Sgd(momentum=0.5)]
    for layers in (convolved, [Flatten(), Linear(196, 2)]):
        lanes = Lanes([LaneState.initial(layers, optimizer, 0) for optimizer in optimizers], (1, 14, 14))
        lanes.step(*distorted.at(0))


def memory_at_hand(device: torch.device) -> int:
    """Return the bytes that this process may still take on a device: the free memory, within the container's limit."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    available = next(int(fields[1]) * 1024 for fields in lines if fields[0] == "MemAvailable:")
    try:
        limit, used = (int((CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        counts = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no container, or no limit, which reads "max"
        return available
    given_back = int(counts.get("inactive_file", 0))  # cached files, which the kernel drops if memory is needed
    return max(0, min(available, limit - used + given_back))
