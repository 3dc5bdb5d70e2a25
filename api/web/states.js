// What states of jobs and trials look like, and how far a job has come.

import { h } from "./dom.js";
import { words } from "./format.js";

const KINDS = {
  queued: "",
  running: "active",
  paused: "warn",
  stopping: "active",
  completed: "good",
  failed: "bad",
  cancelled: "",
  pruned: "",
  stopped_early: "good",
  diverged: "warn",
};

/** Whether a job classifies images: it has a result instead of trials. */
export const classifies = (job) => ["predict", "evaluate"].includes(job.kind);

export const badge = (state) => h("span", { class: `badge ${KINDS[state] ?? ""}` }, words(state));

export const isOver = (job) => ["completed", "failed", "cancelled"].includes(job.state);

/** Trials that have ended. */
export const ended = (job) =>
  Object.entries(job.trials).reduce((sum, [state, n]) => sum + (state === "running" ? 0 : n), 0);

/**
 * The share of a job's budget that is spent, by whichever limit is nearer; null where none of them tells, as of a run-off
 * and a publication. `epochs` is how many a training has had, where that is known.
 */
export function progressOf(job, epochs = 0) {
  if (job.state === "completed") return 1;
  if (job.state === "stopping") return null;
  const byTrials = job.kind === "tune" ? ended(job) / job.trial_limit : epochs / (job.spec?.budget?.epochs ?? Infinity);
  const byTime = job.seconds_limit ? job.active_seconds / job.seconds_limit : 0;
  return Math.max(byTrials, byTime) > 0 ? Math.min(1, Math.max(byTrials, byTime)) : null;
}

/** Seconds of work that are left at the pace so far, null where it cannot be told. */
export function secondsLeft(job, epochs = 0) {
  const spent = progressOf(job, epochs);
  return isOver(job) || job.state === "queued" || !spent ? null : (job.active_seconds * (1 - spent)) / spent;
}

/** What a job is about, for people. */
export function titleOf(job) {
  const verb = { tune: "Tune", train: "Train", predict: "Predict with", evaluate: "Evaluate" }[job.kind] ?? words(job.kind);
  return `${verb} ${job.model} on ${job.dataset}`;
}
