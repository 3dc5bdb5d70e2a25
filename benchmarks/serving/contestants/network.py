"""The trained network in plain torch, which the contestants share; it uses no code of Chiffre.

NETWORK is its name. WEIGHTS is the path of Chiffre's checkpoint: safetensors, with weights named by layer position.
"""

import os

import torch
from safetensors.torch import load_file
from torch import nn

NETWORKS = {
    "shallow": [nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10)],
    "cnn": [
        *(nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Flatten(),
        *(nn.Linear(256, 120), nn.ReLU()),
        *(nn.Linear(120, 84), nn.ReLU()),
        nn.Linear(84, 10),
    ],
}


def trained() -> nn.Sequential:
    """Return the network with its trained weights, on one thread: pixels [n, 1, 28, 28] in 0..1 → outputs [n, 10]."""
    torch.set_num_threads(1)
    network = nn.Sequential(*NETWORKS[os.environ["NETWORK"]])
    network.load_state_dict(load_file(os.environ["WEIGHTS"]))
    return network.eval()
