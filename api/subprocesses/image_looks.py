"""Looks at images of a data set: each a process of its own, so that the API never holds 70,000 images."""

from collections import OrderedDict, deque
from math import prod

from api.subprocesses.children import Children
from ml.datasets import DatasetInfo
from ml.images.samples import Sample, Samples, SubsetName
from ml.prediction.judgement import Judgement, JudgementOrder

SAMPLED, SAMPLED_BYTES = 200, 1 << 20  # images that are fetched at once, and what they take; one at least
SHELVES = 8  # parts of data sets of which such images are kept
KEPT = 8  # judgements: one of a network with 90 % mistakes takes 2 MB, of a good one 0.3


class Looks:
    """What was looked at, kept: judgements because a version never changes, images until each has been shown once.

    What many threads ask for at once may be looked at twice; that costs seconds, and no lock is held for them.
    """

    def __init__(self, children: Children) -> None:
        self._children = children
        self._samples: OrderedDict[tuple[str, SubsetName], deque[Sample]] = OrderedDict()
        self._judgements: OrderedDict[str, Judgement] = OrderedDict()  # by the hash of the graph

    def random(self, dataset: DatasetInfo, part: SubsetName) -> Sample:
        """A random image, none twice before all that were fetched have been shown; Busy as `Children.run` says."""
        waiting = self._samples.setdefault((dataset.name, part), deque())
        if len(self._samples) > SHELVES:
            self._samples.popitem(last=False)
        try:
            return waiting.popleft()
        except IndexError:
            count = max(1, min(SAMPLED, SAMPLED_BYTES // prod(dataset.shape)))
            content = self._children.run("worker.image_looks", "samples", dataset.name, part, str(count))
            first, *others = Samples.model_validate_json(content).items
            waiting.extend(others)
            return first

    def known(self, sha256: str) -> Judgement | None:
        """The judgement of a graph, where it was asked for before."""
        return self._judgements.get(sha256)

    def judged(self, sha256: str, order: JudgementOrder, graph: bytes) -> Judgement:
        """The judgement of a graph with this hash; Busy as `Children.run` says."""
        fed = order.model_dump_json().encode() + b"\n" + graph
        found = Judgement.model_validate_json(self._children.run("worker.image_looks", "judgement", fed=fed))
        self._judgements[sha256] = found
        while len(self._judgements) > KEPT:
            self._judgements.popitem(last=False)
        return found
