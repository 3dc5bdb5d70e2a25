// What can be told of a trial: the columns of the table, the axes of the parallel coordinates, the names for filters.

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

/** What the trials of a job are best at: its name, how it is written, whether a higher one is better, `read(trial)`. */
export function objectiveOf(job) {
  const objective = OBJECTIVES[job.spec.objective] ?? OBJECTIVES.val_accuracy;
  return {
    ...objective,
    read: (trial) => trial.value ?? trial[objective.name],
    better: (a, b) => (objective.high ? a > b : a < b),
  };
}

const SAMPLE = 2000; // values by which it is told which are bad: to sort twenty thousand takes longer than to draw them

/** The range of some values, less a tenth of the worst where they are many, so that the good ones can be told apart. */
export function telling(values, high) {
  const whole = extent(values);
  if (!whole || values.length <= 20) return whole;
  const every = Math.ceil(values.length / SAMPLE);
  const sorted = values.filter((_, i) => i % every === 0).sort((a, b) => a - b);
  const bad = Math.floor(sorted.length * 0.1);
  return high ? [sorted[bad], whole[1]] : [whole[0], sorted[sorted.length - 1 - bad]];
}

/** {name, label, read(trial), format(value), numeric}: first what was reached, then the parameters. */
export function columnsOf(job, trials) {
  const objective = objectiveOf(job);
  const reached = [
    { name: "number", label: "Trial", read: (t) => t.number, format: String, numeric: true },
    { name: "state", label: "State", read: (t) => t.state, format: badge },
    { name: "val_accuracy", label: "Accuracy", read: (t) => t.val_accuracy, format: percent, numeric: true },
    { name: "val_loss", label: "Loss", read: (t) => t.val_loss, format: figure, numeric: true },
    { name: "epochs_run", label: "Epochs", read: (t) => t.epochs_run, format: figure, numeric: true },
    { name: "seconds", label: "Time", read: (t) => t.seconds, format: duration, numeric: true },
  ].map((column) => (column.name === objective.name ? { ...column, read: objective.read } : column));
  return [...reached, ...parametersOf(job, trials)];
}

/** The columns of hyper-parameters: of a search those that it searches, else all. */
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

/** Compare two values; what is not there comes last in both directions. */
export function compare(a, b, down) {
  const [without, other] = [a === null || a === undefined, b === null || b === undefined];
  if (without || other) return without - other;
  const order =
    typeof a === "number" && typeof b === "number"
      ? a - b
      : String(a).localeCompare(String(b), "en", { numeric: true });
  return down ? -order : order;
}
