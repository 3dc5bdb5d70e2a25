"""A pack: lanes that train together on one stream of minibatches."""

from collections.abc import Callable, Container, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from time import perf_counter
from typing import Any, cast

import torch

from ml.datasets import DatasetInfo, Stream
from ml.errors import CheckpointError
from ml.lanes.lanes import Lanes, LaneState
from ml.layers import Shape
from ml.parameters.params import Params
from ml.records import Checkpoint, RungResult
from ml.specs import TuneSpec
from ml.training.augmentation import NONE, Augmentation
from ml.training.distortion import Minibatches
from ml.training.lane import Lane, TrainingData
from ml.training.shares import SOLO_TIMES

CHECK_EVERY = 100  # steps between checks for a diverged loss: a check costs microseconds, an epoch in vain seconds

# Tensors of a lane's state, by their names in a checkpoint, which are the names of earlier releases.
STORED = {"weights": "weights", "first": "exp_avg", "second": "exp_avg_sq", "average": "average"}

Rungs = list[tuple[Lane, RungResult]]


@dataclass
class LanePack:
    """Lanes that train as one module, and their progress."""

    spec: TuneSpec
    data: TrainingData
    stream: Stream
    augmentation: Augmentation = NONE
    position: int = 0  # steps taken of the stream
    lanes: list[Lane] = field(default_factory=list)
    since: int = 0  # the position up to which the lanes have added up their losses
    worked: float = 0.0  # seconds of training since that position
    _joining: list[tuple[Lane, LaneState]] = field(default_factory=list)
    _fused: Lanes | None = None

    @classmethod
    def of(cls, spec: TuneSpec, data: TrainingData, params: Params, stream_seed: int) -> "LanePack":
        """Return a pack without lanes, for trials with the key of these hyper-parameters."""
        return cls(spec, data, Stream(len(data.train), params.batch_size, stream_seed), Augmentation.of(params))

    @cached_property
    def _minibatches(self) -> Minibatches:
        return Minibatches(self.data.train, self.stream, self.augmentation)

    @property
    def running(self) -> list[Lane]:
        """The lanes that still train, including those that join at the next step."""
        return [lane for lane in [*self.lanes, *(joining for joining, _ in self._joining)] if lane.running]

    def join(self, lane: Lane) -> None:
        """Let a new lane train from the next step on; any error of its network is raised now."""
        lane.start_step = self.position
        self._joining.append((lane, lane.initial(self._steps(lane), self.data.initial)))

    def _steps(self, lane: Lane) -> int:
        """Return the steps that all epochs of a lane take together."""
        return self.stream.steps(lane.rungs[-1])

    def run(self, interrupted: Callable[[], bool]) -> Iterator[Rungs]:
        """Train until no lane is left.

        Between two items the caller may end lanes and let others join.

        Args:
            interrupted: called before every step. If it returns true, an empty list is yielded, and training goes on
                from that step with the next item.

        Yields:
            The lanes that reached a rung with their measurements, in the order of their numbers.
        """
        while (fused := self._put_together()) is not None:
            whole = self._train(fused, min(map(self._due, self.lanes)), interrupted)
            yield self._measure(fused) if whole else []

    def _put_together(self) -> Lanes | None:
        """Return the lanes that still train and those that join as one module; None if there are none."""
        if self._joining or not all(lane.running for lane in self.lanes):
            self._count(self._fused)
            # Taking the module apart into lanes and putting it together takes milliseconds; between rungs are seconds.
            running = [(i, lane) for i, lane in enumerate(self.lanes) if lane.running]
            kept = [(lane, self._fused.state(i)) for i, lane in running if self._fused is not None]
            together = [*kept, *self._joining]
            self.lanes = [lane for lane, _ in together]
            self._joining = []
            self._fused = self._lanes([state for _, state in together]) if together else None
        return self._fused

    def _due(self, lane: Lane, rung: int | None = None) -> int:
        """Return the step of the stream after which a lane reaches a rung, by default its next one."""
        return lane.start_step + self.stream.steps(lane.rungs[lane.rung if rung is None else rung])

    def _train(self, fused: Lanes, until: int, interrupted: Callable[[], bool]) -> bool:
        """Train up to a step of the stream, or until a lane diverges; return False if training was interrupted."""
        started, going = perf_counter(), True
        while self.position < until and (going := not interrupted()):
            fused.step(*self._minibatches.at(self.position))
            self.position += 1
            if (self.position - self.since) % CHECK_EVERY == 0 and not all(fused.finite()):
                break
        fused.wait()
        self.worked += perf_counter() - started
        if going:
            self._count(fused)
        return going

    def _count(self, fused: Lanes | None) -> None:
        """Let the lanes add up steps, losses and seconds since the last call.

        This must not happen at an interruption: a sum in two pieces rounds differently, and when an interruption comes
        depends on the clock.
        """
        shares = self._shares(self.lanes)
        for lane, loss, share in zip(self.lanes, fused.losses() if fused else [], shares, strict=True):
            lane.trained(self.position - self.since, loss, share * self.worked)
        self.since, self.worked = self.position, 0.0

    def _shares(self, lanes: list[Lane]) -> list[float]:
        """Return each lane's share of the time that they train or are validated together."""
        return SOLO_TIMES.shares(self.spec, self.data, [lane.params for lane in lanes]) if lanes else []

    def _measure(self, fused: Lanes) -> Rungs:
        """Measure the lanes that are due, and those whose loss shows that they diverged."""
        due = [i for i, lane in enumerate(self.lanes) if self._due(lane) <= self.position or not _finite(lane)]
        started = perf_counter()
        whole = len(due) == len(self.lanes)
        judged = fused if whole else self._lanes([fused.state(i) for i in due])
        found = judged.evaluate(self.data.validation)
        took = perf_counter() - started
        shares = self._shares([self.lanes[i] for i in due])
        measured: Rungs = []
        for i, share, (val_loss, val_accuracy) in zip(due, shares, found, strict=True):
            lane = self.lanes[i]
            while lane.rung + 1 < len(lane.rungs) and self._due(lane, lane.rung + 1) <= self.position:
                lane.rung += 1  # at large batches two rungs may fall on one step
            reached = lane.measure(val_loss, val_accuracy, share * took)
            if lane.is_best(reached):
                lane.best, lane.best_weights = reached, fused.state(i).judged
            measured.append((lane, reached))
        return sorted(measured, key=lambda pair: pair[0].number)

    def _lanes(self, states: list[LaneState]) -> Lanes:
        frozen = self.spec.frozen(states[0].layers)
        return Lanes(states, self._image, self.spec.loss, self.data.device, frozen=frozen)

    @property
    def _image(self) -> Shape:
        return tuple(self.data.train.images.shape[1:])

    def checkpoint(self) -> Checkpoint:
        """Return all that is needed to resume bit for bit, as one file."""
        fused = self._put_together()
        weights: dict[str, Any] = {}
        cards = []
        for i, (lane, loss_sum) in enumerate(zip(self.lanes, fused.loss_sums() if fused else [], strict=True)):
            state = cast("Lanes", fused).state(i)
            for stored, attribute in STORED.items():
                tensors = getattr(state, attribute)
                weights |= {f"{i}/{stored}/{name}": tensor.numpy() for name, tensor in tensors.items()}
            weights |= {f"{i}/best/{name}": tensor.numpy() for name, tensor in lane.best_weights.items()}
            cards.append(_card(lane, state.steps, loss_sum))
        stream = {
            "batch_size": self.stream.batch_size,
            "stream_seed": self.stream.seed,
            "augmentation": asdict(self.augmentation),
        }
        progress = {"position": self.position, "since": self.since, "worked": self.worked}
        job = {"spec": self.spec.model_dump(mode="json"), "rules": self.spec.rules}
        return Checkpoint(weights, {**stream, **progress, "lanes": cards, **job})

    @classmethod
    def resumed(
        cls,
        checkpoint: Checkpoint,
        data: TrainingData,
        numbers: Container[int] | None = None,
        dataset: DatasetInfo | None = None,
    ) -> "LanePack":
        """Return the pack of a checkpoint.

        Args:
            checkpoint: made by `checkpoint`.
            data: to train on.
            numbers: of the trials whose lanes are resumed; None for all.
            dataset: of the specification; None for a built-in one, found by its name.

        Raises:
            CheckpointError: if the checkpoint lacks something.
        """
        try:
            card = checkpoint.card
            spec = TuneSpec.model_validate(card["spec"] if dataset is None else {**card["spec"], "dataset": dataset})
            spec = spec.under(card.get("rules", 1))  # checkpoints of release 0.2 have none
            stream = Stream(len(data.train), card["batch_size"], card["stream_seed"])
            pack = cls(spec, data, stream, Augmentation(**card.get("augmentation", {})))
            pack.position, pack.since, pack.worked = card["position"], card["since"], card["worked"]
            wanted = [
                (f"{i}/", lane) for i, lane in enumerate(card["lanes"]) if numbers is None or lane["number"] in numbers
            ]
            restored = [_restored(pack, lane, prefix, checkpoint) for prefix, lane in wanted]
            loss_sums = [float(lane["loss_sum"]) for _, lane in wanted]
        except KeyError as error:
            raise CheckpointError(f"the checkpoint of this pack lacks {error}; run its trials again") from error
        pack.lanes = [lane for lane, _ in restored]
        if restored:
            pack._fused = pack._lanes([state for _, state in restored])
            pack._fused.take_up(loss_sums, pack.position - pack.since)
        return pack


def _finite(lane: Lane) -> bool:
    return abs(lane.loss) < float("inf")


def _card(lane: Lane, steps: int, loss_sum: float) -> dict[str, Any]:
    """Return a lane's counters as JSON; numbers that may be infinite or NaN are text."""
    seeds = ("number", "init_seed", "stream_seed", "start_step")
    names = (*seeds, "steps", "rung", "loss", "unmeasured", "seconds", "fresh", "until")
    return {
        **{name: getattr(lane, name) for name in names},
        "params": lane.params.model_dump(mode="json", exclude_none=True),
        "best": asdict(lane.best) if lane.best else None,
        "patience": [repr(lane.patience.reference), lane.patience.spent] if lane.patience else None,
        "optimizer_steps": steps,
        "loss_sum": repr(loss_sum),
    }


def _restored(pack: LanePack, card: dict[str, Any], prefix: str, checkpoint: Checkpoint) -> tuple[Lane, LaneState]:
    """Return a lane and its tensors from a checkpoint of `LanePack.checkpoint`."""
    others = ("params", "best", "patience", "optimizer_steps", "loss_sum")
    counters = {name: value for name, value in card.items() if name not in others}
    lane = Lane(spec=pack.spec, params=pack.spec.params(card["params"]), **counters)
    lane.best = RungResult(**card["best"]) if card["best"] else None
    if lane.patience:
        lane.patience.reference, lane.patience.spent = float(card["patience"][0]), card["patience"][1]

    def stored(name: str) -> dict[str, torch.Tensor]:
        whole = f"{prefix}{name}/"
        return {
            key.removeprefix(whole): torch.from_numpy(array.copy())
            for key, array in checkpoint.weights.items()
            if key.startswith(whole)
        }

    lane.best_weights = stored("best")
    state = LaneState(
        pack.spec.layers(lane.params),
        lane.params.of_optimizer(),
        stored("weights"),
        stored("first"),
        stored("second"),
        card["optimizer_steps"],
        lane.recipe(pack._steps(lane)),
        stored("average"),
    )
    return lane, state
