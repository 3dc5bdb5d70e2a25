"""Packs: rungs, refills, ends, and resuming a lost pack."""

from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
import torch
from support.solo import batches, distance, train_alone

from ml.artifacts import load_checkpoint, save_checkpoint
from ml.errors import CheckpointError, LanesError
from ml.records import Checkpoint, RungResult, TrialState
from ml.specs import TuneSpec
from ml.training.lane import Lane, TrainingData
from ml.training.pack import LanePack
from ml.training.process import memory_at_hand
from ml.training.shares import SoloTimes
from ml.tuning.width import check_memory, heaviest, measured_width, worthwhile

CPU = torch.device("cpu")

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


def _spec(**fields: Any) -> TuneSpec:
    body = {"model": "shallow", "dataset": "digits", "budget": {"trials": 8, "epochs": 2}, "pruner": {"name": "none"}}
    return TuneSpec.model_validate(body | fields)


def _lane(spec: TuneSpec, number: int, **params: Any) -> Lane:
    chosen = spec.params({"batch_size": 16, "learning_rate": 1e-3, **params})
    return Lane(number, spec, chosen, init_seed=100 + number, stream_seed=5)


def _pack(spec: TuneSpec, data: TrainingData, *lanes: Lane) -> LanePack:
    pack = LanePack.of(spec, data, lanes[0].params, stream_seed=5)
    for lane in lanes:
        pack.join(lane)
    return pack


def _run(pack: LanePack) -> list[tuple[int, RungResult]]:
    return [(lane.number, measured) for rungs in pack.run(lambda: False) for lane, measured in rungs]


def _timeless(measured: RungResult) -> tuple[Any, ...]:
    return measured.step, measured.images_seen, measured.train_loss, measured.val_loss, measured.val_accuracy


# --- rungs


def test_lanes_are_measured_at_their_rungs(digits_data: TrainingData) -> None:
    """Lanes are measured at the tenths of an epoch that the pruner judges, and at whole epochs."""
    spec = _spec(pruner={"name": "hyperband", "min_epochs": 0.1})
    measured = _run(_pack(spec, digits_data, _lane(spec, 0), _lane(spec, 1)))
    steps = [-(-tenths * len(digits_data.train) // 160) for tenths in (1, 3, 9, 10, 20)]

    assert [(number, m.step) for number, m in measured] == [(n, s) for s in (1, 3, 9, 10, 20) for n in (0, 1)]
    assert [m.images_seen for number, m in measured if number == 0] == [16 * step for step in steps]


def test_two_rungs_on_one_step_are_measured_once(digits_data: TrainingData) -> None:
    """If a batch is half the data set, an epoch has fewer steps than rungs."""
    spec = _spec(pruner={"name": "hyperband", "min_epochs": 0.1})
    pack = LanePack.of(spec, digits_data, spec.params({"batch_size": 600}), stream_seed=5)
    pack.join(_lane(spec, 0, batch_size=600))
    measured = [m for _, m in _run(pack)]

    assert [(m.step, m.images_seen) for m in measured] == [(3, 600), (9, 1200), (10, 1800), (20, 3000)]
    assert all(m.train_loss is not None for m in measured)


def test_lanes_in_a_pack_measure_the_same_as_alone(digits_data: TrainingData) -> None:
    """Losses and accuracies of three lanes are those of three packs with one lane each."""
    spec = _spec()
    rates = [{"learning_rate": 1e-3}, {"learning_rate": 0.05, "optimizer": "sgd"}, {"hidden_size": 20}]
    together = _run(_pack(spec, digits_data, *(_lane(spec, n, **own) for n, own in enumerate(rates))))
    alone = [pair for n, own in enumerate(rates) for pair in _run(_pack(spec, digits_data, _lane(spec, n, **own)))]

    for number, measured in alone:
        found = next(m for n, m in together if n == number and m.step == measured.step)
        assert found.images_seen == measured.images_seen
        assert found.train_loss == pytest.approx(measured.train_loss, rel=1e-3)
        assert found.val_loss == pytest.approx(measured.val_loss, rel=1e-3)
        assert found.val_accuracy == pytest.approx(measured.val_accuracy, abs=0.0031)  # one of 323 images


# --- refills


@pytest.mark.parametrize(
    ("model", "own"),
    [("perceptron", {}), ("shallow", {"hidden_size": 50}), ("mlp", {"hidden_sizes": [50, 20]}), ("cnn", {})],
)
def test_a_refilled_lane_equals_a_fresh_solo_run_from_its_start_step(
    model: str, own: dict[str, Any], digits_data: TrainingData
) -> None:
    """A lane that joins later trains on the stream from that step, with its own initial weights and optimizer."""
    spec = _spec(model=model, search_space={"epochs": 1})
    pack = _pack(spec, digits_data, _lane(spec, 0, epochs=1), _lane(spec, 1, epochs=2))
    late = _lane(spec, 2, epochs=1, **own)
    for rungs in pack.run(lambda: False):
        if late.number not in [lane.number for lane in pack.running] and rungs[0][0].number == 0:
            pack.join(late)
    steps = pack.stream.steps(10)
    state = _lane(spec, 2, epochs=1, **own).initial(steps, {})
    images = digits_data.train.to("cpu")
    alone = train_alone(state, images, batches(len(images), 16, steps, 5, first=steps))

    assert (late.start_step, late.steps, late.state) == (steps, steps, TrialState.COMPLETED)
    assert distance(late.best_weights, alone.state_dict()) < 1e-3


def test_lanes_that_ended_are_not_trained_further(digits_data: TrainingData) -> None:
    """The caller may end a lane between two rungs; its weights then stay as they are."""
    spec = _spec()
    ended, other = _lane(spec, 0), _lane(spec, 1)
    seen = []
    for rungs in _pack(spec, digits_data, ended, other).run(lambda: False):
        seen.append([lane.number for lane, _ in rungs])
        ended.end(TrialState.PRUNED, "for the test")

    assert seen == [[0, 1], [1]]
    assert ended.steps < other.steps


def test_a_lane_that_diverges_ends_at_once_and_the_others_go_on(digits_data: TrainingData) -> None:
    """Its loss is null, and it ends before its rung."""
    spec = _spec(budget={"trials": 8, "epochs": 3})
    wild, calm = _lane(spec, 0, learning_rate=3e38, optimizer="sgd", batch_size=4), _lane(spec, 1, batch_size=4)
    pack = LanePack.of(spec, digits_data, calm.params, stream_seed=5)
    pack.join(wild)
    pack.join(calm)
    measured = _run(pack)

    assert (wild.state, calm.state) == (TrialState.DIVERGED, TrialState.COMPLETED)
    assert [m.train_loss for number, m in measured if number == 0] == [None]
    assert wild.steps < pack.stream.steps(10)
    assert [m.step for number, m in measured if number == 1] == [10, 20, 30]


def test_the_time_of_a_pack_is_shared_among_its_lanes(digits_data: TrainingData) -> None:
    """The lanes' seconds add up to at most the pack's; time between training and measuring counts for no lane."""
    spec = _spec()
    pack = _pack(spec, digits_data, *(_lane(spec, n) for n in range(4)))
    started = perf_counter()
    measured = _run(pack)
    took = perf_counter() - started

    assert 0.25 * took < sum(m.seconds for _, m in measured) <= took


def test_a_wide_lane_has_a_larger_share_of_the_time(digits_data: TrainingData, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shares are as the times alone, here made up; of one width between two others the time is interpolated."""
    monkeypatch.setattr("ml.training.pack.SOLO_TIMES", SoloTimes())
    timed = []

    def alone(spec: TuneSpec, params: Any, *_: Any) -> float:
        timed.append((params.hidden_size, params.optimizer))
        return (100 + params.hidden_size) * (2.0 if params.optimizer == "adam" else 1.0)

    monkeypatch.setattr("ml.training.shares.step_seconds", alone)
    spec = _spec()
    own = [*({"hidden_size": width} for width in (16, 100, 1024)), {"hidden_size": 100, "optimizer": "sgd"}]
    pack = _pack(spec, digits_data, *(_lane(spec, n, **params) for n, params in enumerate(own)))
    measured = {number: m.seconds for number, m in _run(pack) if m.step == 10}
    cost = [232.0, 400.0, 2248.0, 200.0]

    assert [measured[n] / sum(measured.values()) for n in range(4)] == pytest.approx(
        [c / sum(cost) for c in cost], rel=1e-3
    )
    assert sorted(set(timed)) == [(16, "adam"), (100, "sgd"), (1024, "adam")]


def test_lanes_of_a_job_of_an_earlier_release_have_equal_shares(digits_data: TrainingData) -> None:
    """By rules 1 the seconds of a trial are its pack's, divided by the number of lanes."""
    spec = _spec().under(1)
    pack = _pack(spec, digits_data, _lane(spec, 0, hidden_size=16), _lane(spec, 1, hidden_size=1024))
    first, second = (m.seconds for _, m in _run(pack) if m.step == 10)

    assert first == second


# --- a lost pack


@pytest.mark.long
@pytest.mark.parametrize("model", ["perceptron", "shallow", "mlp", "cnn"])
def test_a_resumed_pack_is_bit_equal(model: str, digits_data: TrainingData, tmp_path: Path) -> None:
    """A pack that is resumed from its file has the same measurements and ends with the same weights."""
    early = {"early_stopping": {"patience": 2, "min_delta": 0.0}}
    spec = _spec(model=model, budget={"trials": 8, "epochs": 3}, **early)
    kinds = [{}, {"optimizer": "sgd", "learning_rate": 0.05, "momentum": 0.9}, {"learning_rate": 1e-4}]
    whole = _pack(spec, digits_data, *(_lane(spec, n, **own) for n, own in enumerate(kinds)))
    lost = _pack(spec, digits_data, *(_lane(spec, n, **own) for n, own in enumerate(kinds)))
    expected = _run(whole)
    first = next(iter(lost.run(lambda: False)))
    save_checkpoint(tmp_path / "pack.safetensors", lost.checkpoint())
    resumed = LanePack.resumed(load_checkpoint(tmp_path / "pack.safetensors"), digits_data)
    rest = _run(resumed)

    assert [_timeless(m) for _, m in first] == [_timeless(m) for _, m in expected[:3]]
    assert [(n, _timeless(m)) for n, m in rest] == [(n, _timeless(m)) for n, m in expected[3:]]
    for one, other in zip(whole.lanes, resumed.lanes, strict=True):
        assert (one.best is None) == (other.best is None)
        assert all(torch.equal(tensor, other.best_weights[name]) for name, tensor in one.best_weights.items())


def test_a_pack_can_be_lost_between_two_rungs(digits_data: TrainingData) -> None:
    """If training is interrupted within an epoch, the sums of the training loss are resumed too, bit for bit."""
    spec = _spec()
    whole, lost = (_pack(spec, digits_data, _lane(spec, 0), _lane(spec, 1)) for _ in range(2))
    expected = _run(whole)
    asked = iter(range(1000))
    interrupted = next(iter(lost.run(lambda: next(asked) == 30)))
    rest = _run(LanePack.resumed(lost.checkpoint(), digits_data))

    assert (lost.position, interrupted) == (30, [])
    assert [(n, _timeless(m)) for n, m in rest] == [(n, _timeless(m)) for n, m in expected]


def test_an_interruption_changes_nothing(digits_data: TrainingData) -> None:
    """A pack that is interrupted at every step has the same measurements, bit for bit."""
    spec = _spec()
    whole, often = (_pack(spec, digits_data, _lane(spec, 0), _lane(spec, 1)) for _ in range(2))
    asked = iter(range(100_000))
    measured = [(lane.number, m) for rungs in often.run(lambda: next(asked) % 2 == 0) for lane, m in rungs]

    assert [(n, _timeless(m)) for n, m in measured] == [(n, _timeless(m)) for n, m in _run(whole)]


def test_some_lanes_of_a_checkpoint_can_go_on_without_the_others(digits_data: TrainingData) -> None:
    """They end as in the whole pack, except for rounding."""
    spec = _spec()
    whole, lost = (_pack(spec, digits_data, *(_lane(spec, n) for n in range(3))) for _ in range(2))
    next(iter(lost.run(lambda: False)))
    part = LanePack.resumed(lost.checkpoint(), digits_data, {0, 2})
    gone_on = [lane.number for lane in part.lanes]
    rest = dict(_run(part))
    expected = {n: m for n, m in _run(whole) if m.step == 20}

    assert gone_on == [0, 2]
    for number in (0, 2):
        assert rest[number].images_seen == expected[number].images_seen
        assert rest[number].val_loss == pytest.approx(expected[number].val_loss, rel=1e-3)


def test_recorded_rungs_are_kept_if_a_pack_is_trained_again(digits_data: TrainingData) -> None:
    """A recorded rung is not measured again, so that it never has two values."""
    spec = _spec()
    recorded = dict.fromkeys([10], RungResult(10, 1296, 0.5, 0.25, 0.999, 1.0))
    lane = _lane(spec, 0)
    lane.recorded = recorded
    measured = _run(_pack(spec, digits_data, lane))

    assert measured[0] == (0, recorded[10])
    assert lane.best == recorded[10]


def test_a_checkpoint_that_lacks_something_is_refused(digits_data: TrainingData) -> None:
    """The error says what is missing and what to do."""
    spec = _spec()
    pack = _pack(spec, digits_data, _lane(spec, 0))
    next(iter(pack.run(lambda: False)))
    checkpoint = pack.checkpoint()
    card = {name: value for name, value in checkpoint.card.items() if name != "position"}

    with pytest.raises(CheckpointError, match="lacks 'position'; run its trials again"):
        LanePack.resumed(Checkpoint(checkpoint.weights, card), digits_data)


# --- width


def test_a_job_that_sets_lanes_gets_them(digits_data: TrainingData) -> None:
    """A job never gets more lanes than it has trials."""
    params = _spec().params({})

    assert measured_width(_spec(lanes=3), params, digits_data) == 3
    assert measured_width(_spec(lanes=100), params, digits_data) == 8


def test_the_measured_width_leaves_enough_packs_to_the_search(digits_data: TrainingData) -> None:
    """A job of 64 trials trains at most four at once, a job of one trial only one."""
    wide, one = _spec(budget={"trials": 64}), _spec(budget={"trials": 1})

    assert measured_width(wide, wide.params({}), digits_data) in (1, 2, 4)
    assert measured_width(one, one.params({}), digits_data) == 1


def test_lanes_that_memory_cannot_hold_are_refused_before_any_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says how much memory they need and what to do; a measured width is reduced instead."""
    asked, measured = _spec(lanes=8), _spec()
    params = asked.params({"hidden_size": 4000})
    monkeypatch.setattr("ml.tuning.width.memory_at_hand", lambda device: 400 * 2**20)  # a small machine

    with pytest.raises(LanesError, match=r"8 lanes of shallow take up to 0\.\d GiB, and memory holds \d of them; ask"):
        check_memory(asked, params, 8, CPU)
    assert 1 <= check_memory(measured, params, 8, CPU) < 8


def test_memory_must_hold_the_largest_trials_that_may_be_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every trial that may join counts, not only the first; batch size and number of layers are fixed by the key."""
    sizes = {
        "type": "list",
        "length": {"type": "int", "low": 1, "high": 5},
        "items": {"type": "int", "low": 10, "high": 3000},
    }
    space = {"hidden_sizes": sizes, "batch_size": {"type": "int", "low": 8, "high": 1000}}
    spec = _spec(model="mlp", search_space=space, lanes=8)
    params = spec.params({"hidden_sizes": [10, 20], "batch_size": 16})
    widest = heaviest(spec, params)
    monkeypatch.setattr("ml.tuning.width.memory_at_hand", lambda device: 2**30)

    assert (widest.hidden_sizes, widest.batch_size) == ([3000, 3000], 16)  # type: ignore[attr-defined]
    with pytest.raises(LanesError, match=r"8 lanes of mlp take up to 1\.\d GiB, and memory holds 2 of them"):
        check_memory(spec, params, 8, CPU)


def test_memory_at_hand_is_that_of_the_machine() -> None:
    """The result is between 100 MiB and the installed memory."""
    installed = int(Path("/proc/meminfo").read_text().split()[1]) * 1024

    assert 100 * 2**20 < memory_at_hand(CPU) <= installed


def test_memory_at_hand_is_at_most_the_containers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the rest of the container's limit plus cached files; without a limit it is the machine's memory."""
    monkeypatch.setattr("ml.training.process.CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text(f"{300 * 2**20}\n")
    (tmp_path / "memory.current").write_text(f"{100 * 2**20}\n")
    (tmp_path / "memory.stat").write_text(f"file {80 * 2**20}\ninactive_file {50 * 2**20}\n")
    limited = memory_at_hand(CPU)
    (tmp_path / "memory.max").write_text("max\n")

    assert limited == 250 * 2**20
    assert memory_at_hand(CPU) > limited


@pytest.mark.parametrize(
    ("seconds", "width"),
    [
        ({1: 9.0, 2: 5.0, 4: 3.0, 8: 2.9, 16: 2.95}, 4),  # no gain from 8 on
        ({1: 9.0, 2: 9.5, 4: 3.0, 8: 2.0, 16: 2.5}, 8),  # 2 was measured while something else ran
        ({1: 5.0, 2: 6.0, 4: 6.0, 8: 1.0}, 1),  # no gain twice in a row: 8 is not tried
        ({1: 5.0}, 1),
    ],
)
def test_the_narrowest_of_the_fastest_widths_is_taken(seconds: dict[int, float], width: int) -> None:
    """One disturbed measurement does not end the search for a width."""
    assert worthwhile(list(seconds), seconds.__getitem__) == width
