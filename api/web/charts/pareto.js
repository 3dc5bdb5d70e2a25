// Objective against training time, with the Pareto front: the trials that no other trial beats in both.

import { h } from "../dom.js";
import { count, duration, figure } from "../format.js";
import { axes, inside, plot } from "./canvas.js";
import { objectiveOf, usefulRange } from "./columns.js";
import { extent, padded, scale } from "./scales.js";

const REACH = 12; // pixels from a dot within which the pointer selects it

/** Return the scatter plot of a job's trials: its element and `redraw()`. `matches` and `open` are as for the curves. */
export function pareto({ store, matches, open, signal }) {
  let near = null;
  let places = [];
  let summary = "";
  const drawn = plot({
    label: "Objective against time of each trial; the table of trials has the same values",
    height: 300,
    signal,
    paint,
    over,
    onmove,
    onleave: () => onmove(-99, -99),
    onpick: () => near && open(near.trial.number),
  });

  function paint(context, size, colours) {
    const objective = objectiveOf(store.job);
    const trials = [...store.trials.values()].filter((trial) => objective.read(trial) !== null && trial.seconds > 0);
    places = [];
    near = null;
    summary = "";
    if (!trials.length) return drawn.hide("No trials measured yet.");
    const { x: across, y: up } = inside(size);
    const [least, most] = extent(trials.map((trial) => trial.seconds));
    const x = scale([least * 0.9, most * 1.1], across, most / least > 10);
    const y = scale(padded(usefulRange(trials.map(objective.read), objective.high)), up);
    axes(context, x, y, colours, { labelX: "training time (s)", labelY: objective.label, formatY: objective.axis });
    const clamp = (at) => Math.min(up[0], Math.max(up[1], at));
    places = trials.map((trial) => ({ trial, x: x(trial.seconds), y: clamp(y(objective.read(trial))) }));
    for (const place of places) dot(context, place, colours);
    const best = frontOf(trials, objective);
    drawFront(
      context,
      best.map((trial) => places.find((place) => place.trial === trial)),
      colours,
    );
    summary = `${figure(best.length)} of ${count(trials.length, "trial")} on the Pareto front: no other trial is both better and faster.`;
  }

  /** Highlight the trial under the pointer and describe it in the caption. */
  function over(context, size, { ink }) {
    if (!near) return summary && drawn.caption(summary);
    const { format, read } = objectiveOf(store.job);
    context.fillStyle = ink;
    circle(context, near, 6);
    drawn.caption(
      `Trial ${near.trial.number}, ${near.trial.state}: ${format(read(near.trial))} in ${duration(near.trial.seconds)}.`,
    );
  }

  function dot(context, place, { mark, mark_faded }) {
    const { trial } = place;
    context.fillStyle = trial.state === "pruned" || !matches(trial) ? mark_faded : mark;
    context.globalAlpha = matches(trial) ? (trial.state === "pruned" ? 0.5 : 0.8) : 0.12;
    circle(context, place, 3.5);
    context.globalAlpha = 1;
  }

  function onmove(px, py) {
    const was = near;
    const within = places
      .map((place) => [Math.hypot(place.x - px, place.y - py), place])
      .filter(([distance]) => distance < REACH);
    near = within.sort(([a], [b]) => a - b)[0]?.[1] ?? null;
    drawn.canvas.style.cursor = near ? "pointer" : "";
    if (near !== was) drawn.redrawOver();
  }

  return {
    element: h(
      "div",
      {},
      h("h2", {}, objectiveOf(store.job).high ? "Accuracy against time" : "Loss against time"),
      drawn.element,
    ),
    redraw: drawn.redraw,
  };
}

/** Return the trials that no other trial beats in both objective and time, fastest first. */
function frontOf(trials, { read, better }) {
  const front = [];
  for (const trial of trials.toSorted((a, b) => a.seconds - b.seconds)) {
    if (!front.length || better(read(trial), read(front.at(-1)))) front.push(trial);
  }
  return front;
}

/** Draw the front as a staircase: the best objective within each time. */
function drawFront(context, places, { mark_2 }) {
  context.strokeStyle = context.fillStyle = mark_2;
  context.lineWidth = 2;
  context.beginPath();
  places.forEach(({ x, y }, i) => {
    if (i) (context.lineTo(x, places[i - 1].y), context.lineTo(x, y));
    else context.moveTo(x, y);
  });
  context.stroke();
  for (const place of places) circle(context, place, 4);
}

function circle(context, { x, y }, radius) {
  context.beginPath();
  context.arc(x, y, radius, 0, 7);
  context.fill();
}
