// Store of one job: its trials and their learning curves, kept up to date by the event stream.

import { follow, get, pages, pause } from "../api.js";
import { objectiveOf } from "../charts/columns.js";
import { isOver } from "../states.js";

const FEW = 4; // up to this many changed trials are requested one by one, more as pages
const INTERVAL = 700; // milliseconds between two such requests, at least
const WHEN_OVER = 3000; // milliseconds between requests for a job that has ended, as it may be restarted

let latest = null; // the store of the last job, so that going back to that job is quick

/** Return the loaded store of a job; the store of the last job is used again. */
export async function openStore(id, signal) {
  if (latest?.id !== id) latest = new JobStore(id);
  const store = latest;
  await store.load(signal);
  return store;
}

/** A job, its trials by number, their learning curves, and the id of the last event. */
class JobStore {
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
    // Curves first: they say up to which event they hold, and every later change of the job or a trial is an event.
    if (!this.last) await this.#loadCurves(signal);
    this.job = await get(`/jobs/${this.id}`, { signal });
    await this.#loadTrials(signal);
  }

  /** Load all curves so far in one request; the event stream continues from there. */
  async #loadCurves(signal) {
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

  /**
   * Follow the events until `signal` is aborted, even after the job has ended: it may be restarted. `changed` is called
   * after each batch of events and each response.
   */
  async follow(signal, changed, onState) {
    const onEvents = (events) => {
      for (const event of events) this.#apply(event);
      changed();
    };
    this.#refresh(signal, changed);
    while (!signal.aborted) {
      await follow(`/jobs/${this.id}/events`, { after: this.last, signal, onEvents, onState });
      this.stale.add("job");
      do await pause(WHEN_OVER, signal);
      while (!signal.aborted && isOver(this.job) && (this.stale.add("job"), true));
    }
  }

  #apply({ id, event, data }) {
    this.last = Number(id ?? this.last);
    if (event === "job") this.#onJob(data);
    else if (event === "trial") this.#onTrial(data);
    else if (event === "epoch") this.#onEpoch(data);
  }

  #onJob({ at }) {
    const newest = this.job.history.at(-1)?.at ?? "";
    if (at > newest) this.stale.add("job");
  }

  #onTrial({ number, state, at }) {
    const trial = this.trials.get(number);
    const isKnown =
      trial && (trial.state === state ? trial.params !== null : trial.finished_at !== null && at <= trial.finished_at);
    if (!isKnown) this.stale.add(number);
  }

  #onEpoch({ number, ...point }) {
    const curve = this.curves.get(number) ?? [];
    this.curves.set(number, curve);
    this.points += insertPoint(curve, point);
    const trial = this.trials.get(number);
    if (!trial?.params) this.stale.add(number);
    else if (trial.state === "running") updateTrial(trial, curve, point, objectiveOf(this.job));
  }

  /** Request jobs and trials that events have marked as stale, at most every INTERVAL. */
  async #refresh(signal, changed) {
    while (!signal.aborted) {
      await pause(INTERVAL, signal);
      if (!this.stale.size || signal.aborted) continue;
      const stale = this.stale;
      this.stale = new Set();
      try {
        this.job = await get(`/jobs/${this.id}`, { signal });
        stale.delete("job");
        await (stale.size > FEW ? this.#loadTrials(signal) : this.#loadEach(stale, signal));
        changed();
      } catch {
        for (const key of stale) this.stale.add(key); // requested again when the API answers
      }
    }
  }

  async #loadTrials(signal) {
    for await (const items of pages(`/jobs/${this.id}/trials?limit=1000`, { signal })) {
      for (const trial of items) this.trials.set(trial.number, trial);
    }
  }

  async #loadEach(numbers, signal) {
    for (const number of numbers) {
      const { measurements, ...trial } = await get(`/jobs/${this.id}/trials/${number}`, { signal });
      this.trials.set(number, trial);
    }
  }
}

/** Insert a point by epoch; an epoch is measured again if its pack was lost. Returns 1 if the point is new, else 0. */
function insertPoint(curve, point) {
  const at = curve.findLastIndex((known) => known.epoch <= point.epoch);
  const isRepeat = at >= 0 && curve[at].epoch === point.epoch;
  curve.splice(isRepeat ? at : at + 1, isRepeat ? 1 : 0, point);
  return isRepeat ? 0 : 1;
}

/** Update the figures of a running trial as the API will report them in its next response. */
function updateTrial(trial, curve, point, { name, better }) {
  trial.epochs_run = point.epoch;
  trial.seconds = curve.reduce((sum, each) => sum + each.seconds, 0);
  if (point[name] === null || (trial[name] !== null && !better(point[name], trial[name]))) return;
  const { epoch, val_accuracy, val_loss, train_loss } = point;
  Object.assign(trial, { best_epoch: epoch, val_accuracy, val_loss, train_loss });
}
