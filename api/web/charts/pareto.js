// Accuracy against the time that a trial took, with the Pareto front: those that none is better than at less cost.

import { h } from "../dom.js";
import { count, duration } from "../format.js";
import { axes, inside, plot } from "./canvas.js";
import { objectiveOf, telling } from "./columns.js";
import { extent, padded, scale } from "./scales.js";

const REACH = 12;

/** The scatter of a record's trials. `chosen` and `open` as for curves. Beside the element: `redraw()`. */
export function pareto({ record, chosen, open, signal }) {
  let near = null;
  let places = [];
  let words = "";
  const drawn = plot({
    label: "Objective against time of each trial; the table of trials has the same figures",
    height: 300,
    signal,
    paint,
    over,
    onmove,
    onleave: () => onmove(-99, -99),
    onpick: () => near && open(near.trial.number),
  });

  function paint(context, size, colours) {
    const objective = objectiveOf(record.job);
    const trials = [...record.trials.values()].filter((trial) => objective.read(trial) !== null && trial.seconds > 0);
    places = [];
    near = null;
    words = "";
    if (!trials.length) return drawn.nothing("No trial has been measured yet.");
    const { x: across, y: up } = inside(size);
    const [least, most] = extent(trials.map((trial) => trial.seconds));
    const x = scale([least * 0.9, most * 1.1], across, most / least > 10);
    const y = scale(padded(telling(trials.map(objective.read), objective.high)), up);
    axes(context, x, y, colours, { labelX: "seconds of training", labelY: objective.label, formatY: objective.axis });
    const clamp = (at) => Math.min(up[0], Math.max(up[1], at));
    places = trials.map((trial) => ({ trial, x: x(trial.seconds), y: clamp(y(objective.read(trial))) }));
    for (const place of places) dot(context, place, colours);
    const best = frontOf(trials, objective);
    front(
      context,
      best.map((trial) => places.find((place) => place.trial === trial)),
      colours,
    );
    words = `${count(best.length, "trial")} of ${trials.length} on the front: none is better in less time.`;
  }

  /** The one that is pointed at, and the words for it. */
  function over(context, size, { ink }) {
    if (!near) return words && drawn.say(words);
    const { format, read } = objectiveOf(record.job);
    context.fillStyle = ink;
    circle(context, near, 6);
    drawn.say(
      `Trial ${near.trial.number}, ${near.trial.state}: ${format(read(near.trial))} in ${duration(near.trial.seconds)}.`,
    );
  }

  function dot(context, place, { mark, mark_faded }) {
    const { trial } = place;
    context.fillStyle = trial.state === "pruned" || !chosen(trial) ? mark_faded : mark;
    context.globalAlpha = chosen(trial) ? (trial.state === "pruned" ? 0.5 : 0.8) : 0.12;
    circle(context, place, 3.5);
    context.globalAlpha = 1;
  }

  function onmove(px, py) {
    const was = near;
    const found = places
      .map((place) => [Math.hypot(place.x - px, place.y - py), place])
      .filter(([away]) => away < REACH);
    near = found.sort(([a], [b]) => a - b)[0]?.[1] ?? null;
    drawn.canvas.style.cursor = near ? "pointer" : "";
    if (near !== was) drawn.again();
  }

  return {
    element: h(
      "div",
      {},
      h("h2", {}, objectiveOf(record.job).high ? "Accuracy against time" : "Loss against time"),
      drawn.element,
    ),
    redraw: drawn.redraw,
  };
}

/** The trials that no other beats in objective and time, the quickest first. */
function frontOf(trials, { read, better }) {
  const front = [];
  for (const trial of trials.toSorted((a, b) => a.seconds - b.seconds)) {
    if (!front.length || better(read(trial), read(front.at(-1)))) front.push(trial);
  }
  return front;
}

/** A staircase through places: what was reached by then. */
function front(context, places, { mark_2 }) {
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
