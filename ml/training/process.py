"""What a process that trains is: one thread, kernels compiled, and so much memory."""

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

CGROUP = Path("/sys/fs/cgroup")  # where a container finds its own limits


def process_settings() -> None:
    """Make this process one that trains: one thread, and numbers below 1e-38 as 0.

    Two threads on a busy core ran up to five times slower than one. What Adam remembers of a pixel that stays dark
    decays to such numbers, and some processors take many times longer over them. On a GPU all 24 bits of a float32 are
    multiplied, not the 11 of TF32, and the same sums are added in the same order.
    """
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.backends.cudnn.allow_tf32 = False  # of matrix products it is the default
    torch.backends.cudnn.deterministic = True


def device_of(name: str) -> str:
    """Where lanes train: cuda or cpu, for either or auto; LanesError where cuda is asked for and there is no GPU."""
    found = torch.cuda.is_available()
    if name == "cuda" and not found:
        raise LanesError("PyTorch finds no GPU here to train on; set the device to auto or cpu instead of cuda")
    return "cpu" if name == "cpu" or not found else "cuda"


def warm_up() -> None:
    """Compile every kernel, or load what was compiled before: 15 seconds on a machine's first time, else less than one.

    A trainer does this before it takes work, so that no job's seconds pay for it.
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
    """Bytes that this process may still take on a device: what the machine has left, or the container's limit."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    available = next(int(words[1]) * 1024 for words in lines if words[0] == "MemAvailable:")
    try:
        limit, used = (int((CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        counts = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no container, or one without a limit: "max"
        return available
    given_back = int(counts.get("inactive_file", 0))  # files in memory, which make room when it is wanted
    return max(0, min(available, limit - used + given_back))
