"""The search: Optuna's in-memory study, rebuilt from our records.

Optuna suggests and judges; our records are the truth. A trial has the same number in the study as in the job, and every
draw has its own seed. So a study that is rebuilt from records draws and prunes as the study that made them.
"""

import hashlib
import json
import warnings
from collections.abc import Mapping
from copy import copy
from functools import cached_property
from pydoc import locate
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import TrialState as OptunaState

from ml.parameters.params import Params
from ml.parameters.space import suggest
from ml.records import TrialRecord, TrialState
from ml.samplers import Sampler
from ml.seeds import SeedPurpose, derive
from ml.specs import TuneSpec
from ml.tuning.key_study import FOLLOWS, study_of_keys
from ml.tuning.keys import Partition, partition_of
from ml.tuning.untried import UntriedPoints

optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)

# A diverged trial counts as pruned without a value, which samplers rank as the worst. A failed or cancelled trial says
# nothing about its hyper-parameters.
STATES = {
    TrialState.RUNNING: OptunaState.RUNNING,
    TrialState.COMPLETED: OptunaState.COMPLETE,
    TrialState.STOPPED_EARLY: OptunaState.COMPLETE,
    TrialState.PRUNED: OptunaState.PRUNED,
    TrialState.DIVERGED: OptunaState.PRUNED,
    TrialState.FAILED: OptunaState.FAIL,
    TrialState.CANCELLED: OptunaState.FAIL,
}

# Fields that jobs of earlier releases did not have. If null, they are left out of a study's name, so that such a job
# keeps its study.
LATER = ("images", "init_from", "run_off")


class Search:
    """One job's search."""

    def __init__(self, spec: TuneSpec) -> None:
        self.spec = spec
        self._distributions = distributions_of(spec)
        pruner: Any = locate(spec.pruner.optuna_class)
        self._pruner: optuna.pruners.BasePruner = pruner(**spec.pruner.arguments(spec.budget.epochs))
        self._records: dict[int, TrialRecord] = {}
        self._storage = self._new_storage()

    def fits(self, number: int, like: dict[str, Any]) -> bool:
        """Return whether trial `number` can join a pack whose first trial has the suggestion `like`."""
        return self._partition.fits(number, like)

    @property
    def draws_keys(self) -> bool:
        """True if the first trial of a pack draws a key that its other trials then share."""
        return bool(self._partition.names) and not self.spec.sampler.exhaustive

    def ask(
        self, number: int, like: dict[str, Any] | None = None, enqueued: dict[str, Any] | None = None
    ) -> tuple[Params, TrialRecord]:
        """Draw the hyper-parameters of a trial.

        Args:
            number: of the trial.
            like: the suggestion of its pack's first trial, whose key this trial adopts; none for a first trial.
            enqueued: values that a person chose, by flat names; they are not drawn.

        Returns:
            The hyper-parameters, and the trial's record with its suggestion.
        """
        fixed = self._partition.fixed(number, like or {}) | (enqueued or {})
        if like:
            self._storage.set_trial_system_attr(self._id(number), FOLLOWS, True)
        self._fix(self._id(number), fixed or self._key(number))
        # Not `Study.ask`, because Optuna would keep a list of trials from one call to the next.
        # Without the pruner, because with hyperband Optuna may show a sampler only the trials of the same bracket.
        trial = optuna.Trial(self._study(number, optuna.pruners.NopPruner()), self._id(number))
        params = self.spec.params(suggest(self.spec.search_space, trial))
        drawn = TrialRecord(number, TrialState.RUNNING, dict(trial.params), self.attrs(number))
        other = None if enqueued else self.ask_untried(drawn, like)
        return other or (params, drawn)

    @property
    def ends(self) -> bool:
        """True if the search ends once each point of its space was tried."""
        return self._untried is not None

    def ask_untried(self, drawn: TrialRecord, like: dict[str, Any] | None = None) -> tuple[Params, TrialRecord] | None:
        """Give a trial that was just drawn an untried point of a finite space.

        Args:
            drawn: the trial's record.
            like: as for `ask`.

        Returns:
            As `ask`. None if the trial's own point is untried, or if all points are tried.
        """
        if self._untried is None:
            return None
        number, fixed = drawn.number, self._partition.fixed(drawn.number, like or {})
        other = self._untried.instead_of(number, drawn.suggestion or {}, fixed, self.trials())
        if other is None:
            return None
        self._storage.forget(self._id(number))
        self._fix(self._id(number), other)
        params = self.spec.params(suggest(self.spec.search_space, _Replay(other)))
        return params, TrialRecord(number, TrialState.RUNNING, other, self.attrs(number))

    def _key(self, number: int) -> dict[str, Any]:
        """Return the values that decide the key of a pack's first trial; empty if it may draw all names at once.

        By rules 2 packs are small compared with the search, so the first trial draws all names at once. By rules 1 its
        key comes from a study of packs.
        """
        names = self._partition.names if self.spec.rules == 1 else ()
        sampler = self._sampler(self.spec.sampler.of_keys(), derive(self.spec.seed, SeedPurpose.KEYS, number))
        study = study_of_keys(self.trials(), names, self._direction, sampler) if names else None
        if study is None:
            return {}
        trial = study.ask()
        suggest(self.spec.search_space, trial)
        return {name: value for name, value in trial.params.items() if name in names}

    def recall(self, record: TrialRecord) -> Params:
        """Return the hyper-parameters of a trial that was drawn before."""
        return self.spec.params(suggest(self.spec.search_space, _Replay(record.suggestion or {})))

    def report(self, reached: Mapping[int, tuple[int, float]]) -> set[int]:
        """Report running trials that reached a rung together.

        They are judged together, each against all of them. A pruner that met them one by one would let the first go on,
        and the best of those so far, no matter how bad it is. A trial that has been ended elsewhere is not judged.

        Args:
            reached: the step and the objective of each trial, by number.

        Returns:
            The numbers of the trials that the pruner would end.
        """
        reached = {number: at for number, at in reached.items() if not self._ended(number)}
        for number, (step, value) in reached.items():
            self._storage.set_trial_intermediate_value(self._id(number), step, value)
        trials = [self._storage.get_trial(self._id(number)) for number in reached]
        if len(trials) > 1:
            # This call only lets the pruner note which trials are at the rung. Its answer is not used, because here
            # halving counts the trial twice among those at the rung: a third of five would be two, not one.
            for trial in trials:
                self._prunes(trial)
        return {trial.number for trial in trials if self._prunes(trial)}

    def _prunes(self, trial: optuna.trial.FrozenTrial) -> bool:
        return self._pruner.prune(self._study(trial.number, self._pruner), trial)

    def _ended(self, number: int) -> bool:
        return bool(self._storage.get_trial(self._id(number)).state.is_finished())

    def attrs(self, number: int) -> dict[str, Any]:
        """Return what Optuna has noted about a trial."""
        return dict(self._storage.get_trial(self._id(number)).system_attrs)

    def trials(self) -> list[optuna.trial.FrozenTrial]:
        """Return every trial of the study, by number."""
        return list(self._storage.get_all_trials(self._storage.get_study_id_from_name(self.name)))

    def apply(self, record: TrialRecord) -> None:
        """Bring a trial up to its record, made here or elsewhere; a trial that has ended may begin again."""
        known = self._storage.get_trial(self._id(record.number))
        before = self._records.get(record.number)
        if known.state.is_finished() and before is not None and _reached(before) == _reached(record):
            return
        lost = known.intermediate_values.keys() - _values(record).keys()
        begun_or_diverged = record.state in (TrialState.RUNNING, TrialState.DIVERGED)
        another = known.state.is_finished() or (begun_or_diverged and bool(lost))
        self._records[record.number] = record
        if another:  # Optuna cannot remove a trial's values, so a study without them is made
            self._storage = self._new_storage()
            for recorded in self._records.values():
                self._write(recorded)
        else:
            self._write(record)

    def _write(self, record: TrialRecord) -> None:
        trial_id = self._id(record.number)
        self._fix(trial_id, record.suggestion or {})
        for key, value in record.attrs.items():
            self._storage.set_trial_system_attr(trial_id, key, value)
        for step, value in _values(record).items():
            self._storage.set_trial_intermediate_value(trial_id, step, value)
        state = STATES[record.state]
        if state.is_finished():
            value = record.value if state == OptunaState.COMPLETE else None
            self._storage.set_trial_state_values(trial_id, state, None if value is None else [value])

    def _fix(self, trial_id: int, suggestion: dict[str, Any]) -> None:
        """Give a trial these values, by flat names; Optuna does not draw a name that has a value."""
        known = self._storage.get_trial(trial_id).params
        for name, value in suggestion.items():
            if name not in known:
                distribution = self._distributions[name]
                self._storage.set_trial_param(trial_id, name, distribution.to_internal_repr(value), distribution)

    def _id(self, number: int) -> int:
        """Return the study's id of a trial; create missing trials up to it, running and without hyper-parameters."""
        study_id = self._storage.get_study_id_from_name(self.name)
        while self._storage.get_n_trials(study_id) <= number:
            self._storage.create_new_trial(study_id)
        return self._storage.get_trial_id_from_study_id_trial_number(study_id, number)

    def _study(self, number: int, pruner: optuna.pruners.BasePruner) -> optuna.Study:
        """Return the study for trial `number`, with a sampler that has this trial's seed."""
        sampler = self._sampler(self.spec.sampler, derive(self.spec.seed, SeedPurpose.SAMPLER, number))
        return optuna.load_study(study_name=self.name, storage=self._storage, sampler=sampler, pruner=pruner)

    def _sampler(self, described: Sampler, seed: int) -> optuna.samplers.BaseSampler:
        kind: Any = locate(described.optuna_class)
        sampler: optuna.samplers.BaseSampler = kind(**described.arguments(self.spec.search_space, seed))
        return sampler

    @cached_property
    def _untried(self) -> UntriedPoints | None:
        finite = self.spec.points is not None and not self.spec.sampler.exhaustive
        return UntriedPoints(self.spec) if finite else None

    @cached_property
    def _partition(self) -> Partition:
        return partition_of(self.spec)

    @cached_property
    def name(self) -> str:
        """The study's name, made from specification and seed; hyperband's bracket is a hash of it.

        Limits on trials and seconds are left out, so that a job keeps its name if its budget is raised.
        """
        spec = self.spec.model_dump(mode="json", exclude={"budget": {"trials", "seconds"}})
        for name in LATER:
            if spec[name] is None:
                del spec[name]
        return hashlib.sha256(json.dumps(spec).encode()).hexdigest()

    def _new_storage(self) -> "_Memory":
        """Return the storage of an empty study."""
        storage = _Memory()
        storage.create_new_study([self._direction], self.name)
        return storage

    @property
    def _direction(self) -> StudyDirection:
        return StudyDirection.MAXIMIZE if self.spec.maximize else StudyDirection.MINIMIZE


class _Memory(optuna.storages.InMemoryStorage):
    """A storage that can take the parameters of a running trial back."""

    def forget(self, trial_id: int) -> None:
        """Let a trial have no parameters."""
        trial = copy(self._get_trial(trial_id))
        trial.params, trial.distributions = {}, {}
        self._set_trial(trial_id, trial)


class _Recorder(dict[str, BaseDistribution]):
    """A stand-in for a trial, which notes the distribution of every name that a space can suggest."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        self[name] = optuna.distributions.IntDistribution(low, high, log=log, step=step)
        return high  # the longest list names all its items

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        self[name] = optuna.distributions.FloatDistribution(low, high, log=log, step=step)
        return high

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        self[name] = optuna.distributions.CategoricalDistribution(choices)
        return choices[0]


def distributions_of(spec: TuneSpec) -> dict[str, BaseDistribution]:
    """Return the distribution of every name that a search may draw, as Optuna describes it."""
    recorder = _Recorder()
    suggest(spec.search_space, recorder)
    return recorder


class _Replay:
    """A stand-in for a trial, which suggests what was suggested before."""

    def __init__(self, suggestion: dict[str, Any]) -> None:
        self._suggestion = suggestion

    def suggest_int(self, name: str, *_: Any, **__: Any) -> int:
        return int(self._suggestion[name])

    def suggest_float(self, name: str, *_: Any, **__: Any) -> float:
        return float(self._suggestion[name])

    def suggest_categorical(self, name: str, *_: Any, **__: Any) -> Any:
        return self._suggestion[name]


def _values(record: TrialRecord) -> dict[int, float]:
    """Return the values of a trial that samplers and pruners see, by step.

    A diverged trial has none: TPE ranks pruned trials by their last step, so values would make it one of the best.
    """
    return {} if record.state == TrialState.DIVERGED else record.values


def _reached(record: TrialRecord) -> tuple[TrialState, float | None, dict[int, float]]:
    return record.state, record.value, record.values
