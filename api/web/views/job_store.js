// What is known of a job: its trials and their curves, kept up to date by its event stream.

import { follow, get, pages, pause } from "../api.js";
import { objectiveOf } from "../charts/columns.js";
import { isOver } from "../states.js";

const ONE_BY_ONE = 4; // trials that have changed and are asked for one by one; more of them by the page
const EVERY = 700; // milliseconds between two such questions, at least

const WHEN_OVER = 3000; // milliseconds between looks at a job that has ended: somebody may let it go on

const kept = { record: null }; // the last job that was looked at: to go back to it costs nothing

/** The record of a job, as it was left if it is the one that was looked at last. */
export async function recordOf(id, signal) {
  if (kept.record?.id !== id) kept.record = new Record(id);
  await kept.record.load(signal);
  return kept.record;
}

/** A job, its trials by number, their curves, and the last event that was heard. */
class Record {
  constructor(id) {
    this.id = id;
    this.job = null;
    this.trials = new Map();
    this.curves = new Map(); // number → [{epoch, val_accuracy, val_loss, train_loss}], by epoch
    this.points = 0;
    this.last = 0;
    this.stale = new Set();
  }

  async load(signal) {
    this.job = await get(`/jobs/${this.id}`, { signal });
    if (!this.last) await this.#drawn(signal);
    await this.#all(signal);
  }

  /** The curves so far, at once; the stream goes on from there. */
  async #drawn(signal) {
    const { sequence, curves } = await get(`/jobs/${this.id}/curves`, { signal });
    this.last = sequence;
    for (const { number, epoch, train_loss, val_loss, val_accuracy, seconds } of curves) {
      const points = epoch.map((at, i) => ({
        epoch: at,
        train_loss: train_loss[i],
        val_loss: val_loss[i],
        val_accuracy: val_accuracy[i],
        seconds: seconds[i],
      }));
      this.curves.set(number, points);
      this.points += points.length;
    }
  }

  /** Hear events until `signal` is aborted, also of a job that goes on; `changed` is called after each batch and answer. */
  async follow(signal, changed, onState) {
    const onEvents = (events) => {
      for (const event of events) this.#apply(event);
      changed();
    };
    this.#freshen(signal, changed);
    while (!signal.aborted) {
      await follow(`/jobs/${this.id}/events`, { after: this.last, signal, onEvents, onState });
      this.stale.add("job");
      do await pause(WHEN_OVER, signal);
      while (!signal.aborted && isOver(this.job) && (this.stale.add("job"), true));
    }
  }

  #apply({ id, event, data }) {
    this.last = Number(id ?? this.last);
    if (event === "job") this.#heardOfJob(data);
    else if (event === "trial") this.#heardOfTrial(data);
    else if (event === "epoch") this.#measured(data);
  }

  #heardOfJob({ at }) {
    const seen = this.job.history.at(-1)?.at ?? "";
    if (at > seen) this.stale.add("job");
  }

  #heardOfTrial({ number, state, at }) {
    const trial = this.trials.get(number);
    const past =
      trial && (trial.state === state ? trial.params !== null : trial.finished_at !== null && at <= trial.finished_at);
    if (!past) this.stale.add(number);
  }

  #measured({ number, ...point }) {
    const curve = this.curves.get(number) ?? [];
    this.curves.set(number, curve);
    this.points += place(curve, point);
    const trial = this.trials.get(number);
    if (!trial?.params) this.stale.add(number);
    else if (trial.state === "running") follows(trial, curve, point, objectiveOf(this.job));
  }

  /** Ask for what has changed, no more often than need be. */
  async #freshen(signal, changed) {
    while (!signal.aborted) {
      await pause(EVERY, signal);
      if (!this.stale.size || signal.aborted) continue;
      const stale = this.stale;
      this.stale = new Set();
      try {
        this.job = await get(`/jobs/${this.id}`, { signal });
        stale.delete("job");
        await (stale.size > ONE_BY_ONE ? this.#all(signal) : this.#each(stale, signal));
        changed();
      } catch {
        for (const what of stale) this.stale.add(what); // asked for again when the API answers
      }
    }
  }

  async #all(signal) {
    for await (const items of pages(`/jobs/${this.id}/trials?limit=1000`, { signal })) {
      for (const trial of items) this.trials.set(trial.number, trial);
    }
  }

  async #each(numbers, signal) {
    for (const number of numbers) {
      const { measurements, ...trial } = await get(`/jobs/${this.id}/trials/${number}`, { signal });
      this.trials.set(number, trial);
    }
  }
}

/** Put a point where it belongs; a rung may come again after its pack was lost. 1 where it is new. */
function place(curve, point) {
  const at = curve.findLastIndex((known) => known.epoch <= point.epoch);
  const again = at >= 0 && curve[at].epoch === point.epoch;
  curve.splice(again ? at : at + 1, again ? 1 : 0, point);
  return again ? 0 : 1;
}

/** A running trial's figures, as the API would give them at its next answer. */
function follows(trial, curve, point, { name, better }) {
  trial.epochs_run = point.epoch;
  trial.seconds = curve.reduce((sum, each) => sum + each.seconds, 0);
  if (point[name] === null || (trial[name] !== null && !better(point[name], trial[name]))) return;
  const { epoch, val_accuracy, val_loss, train_loss } = point;
  Object.assign(trial, { best_epoch: epoch, val_accuracy, val_loss, train_loss });
}
