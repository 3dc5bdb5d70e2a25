"""Looks at images of a data set: each a process of its own, so that the API never holds 70,000 images."""

import subprocess
import sys
from collections import OrderedDict, deque
from threading import Lock

import structlog

from api.errors import Busy
from ml.judgement import Judgement, Order
from ml.samples import Part, Sample, Samples

RUN_SECONDS = 60.0  # of one process; two seconds are usual
SAMPLED = 200  # images that are fetched at once: 200 kB
KEPT = 8  # judgements: one of a network with 90 % mistakes takes 2 MB, of a good one 0.3

log = structlog.get_logger()


class Looks:
    """What was looked at, kept: judgements because a version never changes, images until each has been shown once."""

    def __init__(self) -> None:
        self._turn = Lock()  # one process at a time
        self._samples: dict[tuple[str, Part], deque[Sample]] = {}
        self._judgements: OrderedDict[str, Judgement] = OrderedDict()  # by the hash of the graph

    def random(self, dataset: str, part: Part) -> Sample:
        """A random image, none twice before all that were fetched have been shown; Busy as `_run` says."""
        with _Turn(self._turn):
            waiting = self._samples.setdefault((dataset, part), deque())
            if not waiting:
                found = Samples.model_validate_json(_run("ml.samples", dataset, part, str(SAMPLED)))
                waiting.extend(found.items)
            return waiting.popleft()

    def known(self, sha256: str) -> Judgement | None:
        """The judgement of a graph, where it was asked for before."""
        return self._judgements.get(sha256)

    def judged(self, sha256: str, order: Order, graph: bytes) -> Judgement:
        """The judgement of a graph with this hash; Busy as `_run` says."""
        with _Turn(self._turn):
            if (known := self.known(sha256)) is not None:
                return known
            content = _run("ml.judgement", fed=order.model_dump_json().encode() + b"\n" + graph)
            found = self._judgements[sha256] = Judgement.model_validate_json(content)
            while len(self._judgements) > KEPT:
                self._judgements.popitem(last=False)
            return found


class _Turn:
    """A lock that is not waited for without end."""

    def __init__(self, lock: Lock) -> None:
        self._lock = lock

    def __enter__(self) -> None:
        if not self._lock.acquire(timeout=RUN_SECONDS):
            raise Busy("others look at images just now; try again in a minute")

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def _run(module: str, *arguments: str, fed: bytes = b"") -> bytes:
    """What `python -m module …` writes to standard output; Busy where it takes too long or fails."""
    command = [sys.executable, "-m", module, *arguments]
    try:
        done = subprocess.run(command, input=fed, capture_output=True, timeout=RUN_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise Busy("the images took too long to read; try again when the machine is less busy") from None
    if done.returncode:
        log.error("a look at images failed", module=module, error=done.stderr.decode(errors="replace")[-4000:])
        raise Busy("the images cannot be read; the API's log says why")
    return done.stdout
