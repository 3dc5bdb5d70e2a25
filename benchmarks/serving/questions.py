"""The requests to servers: images to classify, on which no network was trained."""

from dataclasses import dataclass

import numpy as np
import orjson

from benchmarks.serving.servers import Contestant, ContestantServer
from benchmarks.serving.trained import test_images

IMAGES, BATCH = 64, 1024  # IMAGES: sent one at a time, in turn; BATCH: sent in one body, as octet-stream
CHECKED = 16  # answers of each server to check before it is measured
JSON, OCTETS = "application/json", "application/octet-stream"


@dataclass(frozen=True)
class Questions:
    """Images, as bodies of requests."""

    images: np.ndarray  # uint8 [n, 1, 28, 28]

    @classmethod
    def of_test(cls) -> "Questions":
        """Return requests with the first test images."""
        return cls(test_images(BATCH))

    def bodies(self, contestant: Contestant) -> list[bytes]:
        """Return bodies with one image each, as compact JSON: {"pixels": [784 integers]}."""
        rows = self.images[:IMAGES].reshape(IMAGES, -1).tolist()
        return [orjson.dumps({"pixels": [row] if contestant.nested else row}) for row in rows]

    @property
    def octets(self) -> bytes:
        """All images in one body."""
        return self.images.tobytes()

    @property
    def scaled(self) -> np.ndarray:
        """All images as input of a network, float32 in 0..1."""
        return self.images.astype(np.float32) / 255

    def check(self, server: ContestantServer, labels: list[int]) -> None:
        """Check the first answers of a server, one image per request.

        Raises:
            RuntimeError: if a label differs from `labels`.
        """
        with server.awake():
            answers = [orjson.loads(server.ask(body, JSON)) for body in self.bodies(server.contestant)[:CHECKED]]
        found = [int((answer[0] if server.contestant.nested else answer)["label"]) for answer in answers]
        _compare(server.contestant.name, found, labels[:CHECKED])

    def check_batch(self, server: ContestantServer, labels: list[int]) -> None:
        """Check the answer of a server to all images in one request.

        Raises:
            RuntimeError: if a label differs from `labels`.
        """
        with server.awake():
            answer = orjson.loads(server.ask(self.octets, OCTETS, "?top_k=1"))
        _compare(server.contestant.name, [int(one["label"]) for one in answer["predictions"]], labels)


def _compare(name: str, found: list[int], expected: list[int]) -> None:
    if found != expected:
        wrong = sum(one != other for one, other in zip(found, expected, strict=True))
        raise RuntimeError(f"{name} gives another label than the network for {wrong} of {len(expected)} images")
