// States of jobs and trials: their badges, a job's progress and its title.

import { h } from "./dom.js";
import { readable } from "./format.js";

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

/** Return true for a job that classifies images: it has a result instead of trials. */
export const isInference = (job) => ["predict", "evaluate"].includes(job.kind);

export const badge = (state) => h("span", { class: `badge ${KINDS[state] ?? ""}` }, readable(state));

export const isOver = (job) => ["completed", "failed", "cancelled"].includes(job.state);

/** Count the trials that have ended. */
export const endedTrials = (job) =>
  Object.entries(job.trials).reduce((sum, [state, n]) => sum + (state === "running" ? 0 : n), 0);

/**
 * Return the share of a job's budget that is used, by the limit that is nearest. Null if no limit applies, as during a
 * run-off and publication. `epochs` is the number of epochs that a train job has run.
 */
export function progressOf(job, epochs = 0) {
  if (job.state === "completed") return 1;
  if (job.state === "stopping") return null;
  const byTrials = job.kind === "tune" ? endedTrials(job) / job.trial_limit : epochs / (job.spec?.budget?.epochs ?? Infinity);
  const byTime = job.seconds_limit ? job.active_seconds / job.seconds_limit : 0;
  return Math.max(byTrials, byTime) > 0 ? Math.min(1, Math.max(byTrials, byTime)) : null;
}

/** Estimate the seconds of work left at the pace so far; null if there is nothing to estimate from. */
export function secondsLeft(job, epochs = 0) {
  const used = progressOf(job, epochs);
  return isOver(job) || job.state === "queued" || !used ? null : (job.active_seconds * (1 - used)) / used;
}

const STOP_REASONS = { trials: "trial limit", seconds: "time limit" };

/** Return why a job has stopped, or "" if it has not. */
export const stopReason = ({ stop_reason: reason }) => (reason ? (STOP_REASONS[reason] ?? readable(reason)) : "");

/** Return the rules that a job keeps, in words. */
export const rulesOf = ({ rules }) => (rules === 1 ? "1 (those of release 0.2)" : String(rules));

/** Return a sentence on how the time of a pack is shared by its trials. */
export const sharesOf = ({ rules }) =>
  rules === 1
    ? "Times are equal shares of a pack’s time for all its trials, by rules 1."
    : "Times are a trial’s share of its pack’s time, by what a step of the trial takes alone.";

/** Return the title of a job: "Tune shallow on digits". */
export function titleOf(job) {
  const verb = { tune: "Tune", train: "Train", predict: "Predict with", evaluate: "Evaluate" }[job.kind] ?? readable(job.kind);
  return `${verb} ${job.model} on ${job.dataset}`;
}
