"""The end of a trial: its reason, its event, and the checkpoint of its best epoch."""

from ml.layers import to_json
from ml.records import OUT_OF_TIME, Checkpoint, Finished, Stop, TrialState
from ml.training.lane import Lane, objective

MAX_REASON = 2000  # characters of an error that are recorded


def end_failed(lane: Lane, error: Exception) -> None:
    """End a lane that an error stopped; its reason is the error."""
    lane.end(TrialState.FAILED, f"{type(error).__name__}: {error}"[:MAX_REASON])


def end_stopped(lane: Lane, stop: Stop | None) -> None:
    """End a lane that was stopped between two epochs.

    If the job's seconds are spent, a trial that was measured may still win; any other is cancelled.
    """
    if stop == Stop.SECONDS and lane.best is not None:
        lane.end(TrialState.STOPPED_EARLY, OUT_OF_TIME)
    elif stop == Stop.SECONDS:
        lane.end(TrialState.CANCELLED, f"{OUT_OF_TIME} before the first epoch ended")
    else:
        lane.end(TrialState.CANCELLED, "cancelled")


def finished(lane: Lane) -> Finished:
    """Return the event that a lane's trial has ended."""
    value = objective(lane.spec, lane.best)
    return Finished(lane.number, lane.state, lane.reason, lane.best, value, _checkpoint(lane))


def _checkpoint(lane: Lane) -> Checkpoint | None:
    """Return the best epoch's weights and what is needed to use them; None if the trial cannot win."""
    if lane.best is None or not lane.state.judged:
        return None
    dataset = lane.spec.dataset
    card = {
        "model": lane.spec.model,
        "shape": list(dataset.shape),
        "classes": list(dataset.classes),
        "layers": to_json(lane.spec.layers(lane.params)),
        "params": lane.params.model_dump(mode="json", exclude_none=True),
        "trial": lane.number,
        "epoch": lane.best.epoch,
        "val_accuracy": lane.best.val_accuracy,
        "val_loss": lane.best.val_loss,
        "spec": lane.spec.model_dump(mode="json"),
        "fresh": lane.fresh,
    }
    return Checkpoint({name: tensor.numpy() for name, tensor in lane.best_weights.items()}, card)
