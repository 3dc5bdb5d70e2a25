// Parallel coordinates: an axis for each hyper-parameter, the objective last, and a line for each trial.

import { h } from "../dom.js";
import { count, plain } from "../format.js";
import { plot } from "./canvas.js";
import { extent, scale, ticks } from "./scales.js";
import { objectiveOf, parametersOf, usefulRange } from "./columns.js";

const SIDE = 56; // pixels outside the outer axes, for their labels
const ROOM = 84; // pixels per axis, at least
const [TOP, BOTTOM] = [34, 16];

/** Return the plot of a job's trials: its element and `redraw()`. Trials are in the foreground if `matches(trial)`. */
export function parallel({ store, matches, signal }) {
  const drawn = plot({
    label: "Parallel coordinates of hyper-parameters and the objective",
    height: 300,
    signal,
    paint,
  });

  function paint(context, size, colours) {
    const { read } = objectiveOf(store.job);
    const trials = [...store.trials.values()].filter((trial) => trial.params && read(trial) !== null);
    const axes = axesOf(store.job, trials);
    if (trials.length < 2 || axes.length < 2)
      return drawn.hide("Appears after two measured trials.");
    drawn.canvas.style.minWidth = `${axes.length * ROOM}px`; // the figure scrolls if that is wider than the page
    axes.forEach((axis, i) => place(axis, i, axes.length, size));
    const order = trials
      .map((trial) => ({ trial, share: axes.at(-1).share(read(trial)) }))
      .sort((a, b) => a.share - b.share);
    const thin = Math.max(0.25, Math.min(1, 100 / order.length));
    for (const { trial, share } of order) line(context, axes, trial, matches(trial) ? share : null, thin, colours);
    axes.forEach((axis, i) => drawAxis(context, axis, i, axes.length, colours));
    drawn.caption(
      `${count(order.length, "trial")}. Better trials have darker lines. Filter trials to see where the good ones lie.`,
    );
  }

  drawn.element.tabIndex = 0;
  return { element: h("div", {}, h("h2", {}, "Parallel coordinates"), drawn.element), redraw: drawn.redraw };
}

/** Return the axes of the parameters that differ between trials, and of the objective: {label, read, log, format}. */
function axesOf(job, trials) {
  const parameters = parametersOf(job, trials).map((column) => {
    const lists = trials.some((trial) => Array.isArray(column.read(trial)));
    const read = lists ? (trial) => column.read(trial)?.length ?? null : column.read;
    const label = lists ? `${column.label}, length` : column.label;
    return { label, read, log: Boolean(job.spec.search_space?.[column.name]?.log), format: plain };
  });
  const varied = parameters.filter(({ read }) => new Set(trials.map(read)).size > 1);
  return [...varied.map((axis) => withScale(axis, trials)), objectiveAxis(job, trials)];
}

/** Return the last axis. Its end holds the worst tenth of the trials; `share` maps a value to 0 (worst) to 1 (best). */
function objectiveAxis(job, trials) {
  const { label, high, axis, read } = objectiveOf(job);
  const domain = usefulRange(trials.map(read), high) ?? [0, 1];
  const share = (value) => Math.min(1, Math.max(0, (value - domain[0]) / (domain[1] - domain[0] || 1)));
  return { label, read, format: axis, domain, share: (value) => (high ? share(value) : 1 - share(value)) };
}

function withScale(axis, trials) {
  const values = trials.map(axis.read).filter((value) => value !== null);
  if (values.some((value) => typeof value !== "number")) {
    const choices = [...new Set(values.map(String))].sort();
    return { ...axis, choices, domain: [-0.5, choices.length - 0.5], log: false };
  }
  return { ...axis, domain: extent(values) };
}

function place(axis, i, n, { width, height }) {
  axis.x = SIDE + (i * (width - 2 * SIDE)) / (n - 1);
  const to = scale(axis.domain, [height - BOTTOM, TOP], axis.log && axis.domain[0] > 0);
  const bound = (at) => Math.min(height - BOTTOM, Math.max(TOP, at));
  axis.scale = to;
  axis.y = (value) => (value === null ? null : bound(to(axis.choices ? axis.choices.indexOf(String(value)) : value)));
}

function line(context, axes, trial, share, thin, colours) {
  context.beginPath();
  context.strokeStyle = share === null ? colours.mark_faded : colours.mark;
  context.globalAlpha = share === null ? 0.06 * thin : (0.08 + 0.75 * share ** 2) * (share > 0.97 ? 1 : thin);
  context.lineWidth = share > 0.97 ? 2 : 1;
  let started = false;
  for (const axis of axes) {
    const y = axis.y(axis.read(trial));
    if (y === null) continue;
    started ? context.lineTo(axis.x, y) : context.moveTo(axis.x, y);
    started = true;
  }
  context.stroke();
  context.globalAlpha = 1;
}

function drawAxis(context, axis, i, n, { muted, ink, surface }) {
  context.fillStyle = context.strokeStyle = muted;
  context.lineWidth = 1;
  context.beginPath();
  context.moveTo(axis.x, axis.scale.range[0]);
  context.lineTo(axis.x, axis.scale.range[1]);
  context.stroke();
  context.textAlign = i === 0 ? "left" : i === n - 1 ? "right" : "center";
  const edgeX = i === 0 ? 0 : i === n - 1 ? axis.x + SIDE : axis.x;
  context.fillStyle = ink;
  context.fillText(axis.label, edgeX, i % 2 && n > 4 ? 26 : 12);
  context.fillStyle = muted;
  context.textAlign = i === n - 1 ? "left" : "right";
  const marks = axis.choices
    ? axis.choices.map((label, at) => [label, at])
    : ticks(axis.scale, 4).map((value) => [axis.format(value), value]);
  for (const [label, at] of marks)
    drawLabel(context, label, axis.x + (i === n - 1 ? 6 : -6), axis.scale(at) + 4, surface, muted);
}

/** Draw a label that stays readable on top of lines. */
function drawLabel(context, label, x, y, ground, colour) {
  context.strokeStyle = ground;
  context.lineWidth = 4;
  context.lineJoin = "round";
  context.strokeText(label, x, y);
  context.fillStyle = colour;
  context.fillText(label, x, y);
}
