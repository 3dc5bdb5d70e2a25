"""The server of BentoML, with one worker: `bentoml serve with_bentoml:Digits`."""

from typing import Any

import bentoml
import numpy as np
import torch
from network import trained


@bentoml.service(
    workers=1,
    traffic={"timeout": 60},
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
    tracing={"sample_rate": 0.0},
)
class Digits:
    """The network behind two endpoints: one image per request, without and with adaptive batching."""

    def __init__(self) -> None:
        self.network = trained()

    @bentoml.api
    async def predict(self, pixels: list[float]) -> dict[str, Any]:
        """Classify one image of 784 numbers."""
        (row,) = self._probabilities(torch.tensor(pixels)[None])
        return {"label": int(np.argmax(row)), "probabilities": row}

    @bentoml.api(batchable=True, max_batch_size=64, max_latency_ms=60_000)
    def batched(self, pixels: list[list[float]]) -> list[dict[str, Any]]:
        """Classify the images of several requests, each [1, 784], at once."""
        rows = self._probabilities(torch.tensor(pixels))
        return [{"label": int(np.argmax(row)), "probabilities": row} for row in rows]

    def _probabilities(self, pixels: torch.Tensor) -> list[list[float]]:
        with torch.inference_mode():
            rows: list[list[float]] = self.network((pixels / 255).reshape(-1, 1, 28, 28)).softmax(1).tolist()
        return rows
