"""Random images and judgements, read in separate processes so that the API never holds 70,000 images."""

from collections import OrderedDict, deque
from math import prod

from api.subprocesses.children import Children
from ml.datasets import DatasetInfo
from ml.images.samples import Sample, Samples, SubsetName
from ml.prediction.judgement import Judgement, JudgementOrder

SAMPLED, SAMPLED_BYTES = 200, 1 << 20  # images fetched at once: limits of their number and bytes, but at least one
SUBSETS = 8  # subsets of data sets that images are cached for
JUDGEMENTS = 8  # cached; one takes 0.3 MB for a good network, 2 MB for one with 90 % mistakes


class Looks:
    """A cache of random images and judgements.

    A judgement stays valid because a version never changes. Each image is used once. No lock is held: concurrent
    requests may compute the same result twice, which costs some seconds.
    """

    def __init__(self, children: Children) -> None:
        self._children = children
        self._samples: OrderedDict[tuple[str, SubsetName], deque[Sample]] = OrderedDict()
        self._judgements: OrderedDict[str, Judgement] = OrderedDict()  # by the hash of the graph

    def random(self, dataset: DatasetInfo, part: SubsetName) -> Sample:
        """Return a random image; none comes twice before all fetched images were returned.

        Raises:
            Busy: if the child process cannot run now.

        """
        waiting = self._samples.setdefault((dataset.name, part), deque())
        if len(self._samples) > SUBSETS:
            self._samples.popitem(last=False)
        try:
            return waiting.popleft()
        except IndexError:
            count = max(1, min(SAMPLED, SAMPLED_BYTES // prod(dataset.shape)))
            content = self._children.run("worker.image_looks", "samples", dataset.name, part, str(count))
            sample, *others = Samples.model_validate_json(content).items
            waiting.extend(others)
            return sample

    def known(self, sha256: str) -> Judgement | None:
        """Return the cached judgement of the graph with this hash, if any."""
        return self._judgements.get(sha256)

    def judged(self, sha256: str, order: JudgementOrder, graph: bytes) -> Judgement:
        """Compute and cache the judgement of a graph with this hash.

        Raises:
            Busy: if the child process cannot run now.

        """
        fed = order.model_dump_json().encode() + b"\n" + graph
        found = Judgement.model_validate_json(self._children.run("worker.image_looks", "judgement", fed=fed))
        self._judgements[sha256] = found
        while len(self._judgements) > JUDGEMENTS:
            self._judgements.popitem(last=False)
        return found
