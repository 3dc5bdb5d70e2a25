// Columns of trials: for the table, for the axes of the parallel coordinates, and for filters by name.

import { duration, figure, percent, plain } from "../format.js";
import { extent } from "./scales.js";
import { badge } from "../states.js";

const OBJECTIVES = {
  val_accuracy: {
    name: "val_accuracy",
    label: "accuracy",
    high: true,
    format: percent,
    axis: (value) => percent(value, 1),
  },
  val_loss: { name: "val_loss", label: "loss", high: false, format: figure, axis: figure },
};

/** Return the objective of a job: name, label, format, `high` (higher is better), `read(trial)` and `better(a, b)`. */
export function objectiveOf(job) {
  const objective = OBJECTIVES[job.spec.objective] ?? OBJECTIVES.val_accuracy;
  return {
    ...objective,
    read: (trial) => trial.value ?? trial[objective.name],
    better: (a, b) => (objective.high ? a > b : a < b),
  };
}

const SAMPLE = 2000; // values that decide which are bad: sorting twenty thousand takes longer than drawing them

/** Return the range of some values. With more than 20, it leaves out the worst tenth, so that good values stand apart. */
export function usefulRange(values, high) {
  const whole = extent(values);
  if (!whole || values.length <= 20) return whole;
  const every = Math.ceil(values.length / SAMPLE);
  const sorted = values.filter((_, i) => i % every === 0).sort((a, b) => a - b);
  const bad = Math.floor(sorted.length * 0.1);
  return high ? [sorted[bad], whole[1]] : [whole[0], sorted[sorted.length - 1 - bad]];
}

/** Return the columns, results first and then parameters: {name, label, read(trial), format(value), numeric}. */
export function columnsOf(job, trials) {
  const objective = objectiveOf(job);
  const results = [
    { name: "number", label: "Trial", read: (t) => t.number, format: String, numeric: true },
    { name: "state", label: "State", read: (t) => t.state, format: badge },
    { name: "val_accuracy", label: "Accuracy", read: (t) => t.val_accuracy, format: percent, numeric: true },
    { name: "val_loss", label: "Loss", read: (t) => t.val_loss, format: figure, numeric: true },
    { name: "epochs_run", label: "Epochs", read: (t) => t.epochs_run, format: figure, numeric: true },
    { name: "seconds", label: "Time", read: (t) => t.seconds, format: duration, numeric: true },
  ].map((column) => (column.name === objective.name ? { ...column, read: objective.read } : column));
  return [...results, ...parametersOf(job, trials)];
}

/** Return the columns of hyper-parameters: for a tune job those that it searches, otherwise all. */
export function parametersOf(job, trials) {
  const searched = job.kind === "tune" ? Object.keys(job.spec.search_space) : Object.keys(trials[0]?.params ?? {});
  const varied = searched.filter((name) => job.kind !== "tune" || typeof job.spec.search_space[name] === "object");
  return varied.map((name) => ({
    name,
    label: name,
    read: (trial) => trial.params?.[name] ?? null,
    format: plain,
    numeric: trials.every(
      (trial) => ["number", "undefined"].includes(typeof trial.params?.[name]) || trial.params[name] === null,
    ),
  }));
}

/** Compare two values for sorting; missing values come last in both directions. */
export function compare(a, b, down) {
  const [missingA, missingB] = [a === null || a === undefined, b === null || b === undefined];
  if (missingA || missingB) return missingA - missingB;
  const order =
    typeof a === "number" && typeof b === "number"
      ? a - b
      : String(a).localeCompare(String(b), "en", { numeric: true });
  return down ? -order : order;
}
