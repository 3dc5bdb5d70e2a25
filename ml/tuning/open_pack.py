"""The opening of a pack: a fresh one with its first trials, or a resumed one at its last checkpoint."""

from ml.parameters.params import Params
from ml.records import PackRecord
from ml.training.pack import LanePack
from ml.tuning.admission import Admission, Room, TrialSource
from ml.tuning.context import TuningContext
from ml.tuning.history import History
from ml.tuning.keys import key_of
from ml.tuning.width import check_memory, measured_width


def open_pack(context: TuningContext, opened: PackRecord) -> Admission | None:
    """Open a pack and let its first trials join.

    Args:
        context: the job's.
        opened: the pack as the book has it.

    Returns:
        The admission to the pack. None if there is nothing to train: every trial was cancelled before it was drawn, or
        there is no time to begin.
    """
    history = History.of(opened)
    source = TrialSource(context, opened, history.suggestion)
    if history.trials:
        return _resumed(context, opened, source, history)
    if not source.waiting or context.book.should_stop() is not None:
        return None
    return _fresh(context, opened, source, history)


def _fresh(context: TuningContext, opened: PackRecord, source: TrialSource, history: History) -> Admission:
    """Return a pack with its first trial, and as many more as train well together."""
    params, record = source.first()
    pack = LanePack.of(context.spec, context.data, params, opened.stream_seed)
    admission = Admission(context, pack, source, history, refills=0)
    events = admission.begin((params, record))
    if pack.running:
        room = Room.of(context.search, opened, record.number, _width(context, params))
        admission.refills = room.refills
        context.catch_up()  # measuring took its time, and others have begun trials meanwhile
        events += admission.fill(room.lanes - 1)
    context.book.record(events)
    return admission


def _resumed(context: TuningContext, opened: PackRecord, source: TrialSource, history: History) -> Admission:
    """Return a pack as its last checkpoint has it, or before its first step if there is none."""
    room = Room.of(context.search, opened, min(history.trials), opened.lanes)
    refills, places = room.refills, room.lanes if room.lanes > 1 and not opened.parted else 0
    taken: int | None = 0
    if opened.checkpoint is None:
        params = context.search.recall(next(iter(history.trials.values())))
        pack = LanePack.of(context.spec, context.data, params, opened.stream_seed)
    else:
        pack = LanePack.resumed(opened.checkpoint, context.data, history.trained, context.spec.dataset)
        refills = min(refills, opened.checkpoint.card["refills"])
        places, taken = opened.checkpoint.card.get("places", 0), opened.checkpoint.card.get("taken")
    if not pack.lanes and not (opened.checkpoint and places):
        pack.position = pack.since = history.next_start(pack.position)
    history.hand_records_to(pack)
    admission = Admission(context, pack, source, history, refills)
    admission.resume(places, taken)
    return admission


class _Untimed(Exception):
    """The steps of a trial cannot be timed."""


def _width(context: TuningContext, params: Params) -> int:
    """Return the number of lanes to begin with.

    It is 1 if steps cannot be timed, because training will say what is wrong.
    """

    def measured() -> int:
        try:
            return measured_width(context.spec, params, context.data)
        except Exception as error:  # any error of a network
            raise _Untimed from error

    try:
        width = context.book.width(key_of(context.spec, params), measured)
    except _Untimed:
        return 1
    return check_memory(context.spec, params, width, context.data.device)
