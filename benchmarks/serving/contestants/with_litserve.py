"""The server of LitServe: `python with_litserve.py PORT`. It has one worker, linked to HTTP by ZeroMQ (`fast_queue`).

It does not batch: with batches (64 images, 1 ms) an image took 1.1 times as much processor time, and 1.5 times at
concurrency 1.
"""

import sys
from typing import Any

import litserve
import torch
from network import trained


class Digits(litserve.LitAPI):
    """One image per request."""

    def setup(self, device: str) -> None:
        self.network = trained().to(device)

    def decode_request(self, request: dict[str, Any]) -> torch.Tensor:
        return (torch.tensor(request["pixels"], dtype=torch.float32) / 255).reshape(1, 1, 28, 28)

    def predict(self, pixels: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return self.network(pixels).softmax(1)

    def encode_response(self, probabilities: torch.Tensor) -> dict[str, Any]:
        return {"label": int(probabilities.argmax()), "probabilities": probabilities[0].tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(Digits(), accelerator="cpu", workers_per_device=1, fast_queue=True)
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        num_api_servers=1,
        log_level="warning",
        access_log=False,
        generate_client_file=False,
    )
