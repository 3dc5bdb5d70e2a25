// Learning curves: a line for each trial, drawn as it trains. Pruned trials are faded; the best is on top.

import { h } from "../dom.js";
import { count, figure, percent } from "../format.js";
import { axes, inside, plot } from "./canvas.js";
import { usefulRange } from "./columns.js";
import { padded, scale } from "./scales.js";

const FIGURES = {
  val_accuracy: { name: "accuracy", format: (v) => percent(v, 1), high: true },
  val_loss: { name: "validation loss", format: figure, high: false },
  train_loss: { name: "training loss", format: figure, high: false },
};
const BATCH = 25; // lines per path
const REACH = 14; // pixels from a line within which the pointer selects it

/**
 * Return the learning curves of a job: their element and `redraw()`. Curves are in the foreground if `matches(trial)` is
 * true. `open(number)` is called with the trial that is clicked.
 */
export function curves({ store, matches, open, signal }) {
  let figureName = "val_accuracy";
  let near = null;
  let scales = null;
  const drawn = plot({
    label: "Learning curves; the table of trials has the same values",
    height: 320,
    signal,
    paint,
    over,
    onmove: (x, y) => point(x, y),
    onleave: () => point(null),
    onpick: () => near !== null && open(near),
  });
  const select = h(
    "select",
    { "aria-label": "Curve metric", onchange: () => ((figureName = select.value), drawn.redraw()) },
    Object.entries(FIGURES).map(([value, { name }]) => h("option", { value }, name)),
  );

  function paint(context, size, colours) {
    const { name, format, high } = FIGURES[figureName];
    const lines = [...store.curves].map(([number, curve]) => ({ number, curve, trial: store.trials.get(number) }));
    const domain = usefulRange(
      lines.flatMap(({ curve }) => curve.map((at) => at[figureName])).filter((v) => v !== null),
      high,
    );
    if (!domain) return void ((scales = null), drawn.hide("No epochs measured yet."));
    const { x: acrossRange, y: upRange } = inside(size);
    const x = scale([0, Math.max(1, ...lines.map(({ curve }) => curve.at(-1).epoch))], acrossRange);
    const y = scale(padded(domain), upRange);
    scales = { x, y, lines };
    axes(context, x, y, colours, { labelX: "epoch", labelY: name, formatY: format });
    clipped(context, x, y, () => draw(context, lines, x, y, colours));
  }

  /** Highlight the curve under the pointer and describe it in the caption. */
  function over(context, size, { ink }) {
    if (!scales) return;
    const { x, y, lines } = scales;
    const { name, format } = FIGURES[figureName];
    if (near === null) return drawn.caption(summary(lines));
    clipped(context, x, y, () =>
      stroke(
        context,
        lines.filter(({ number }) => number === near),
        x,
        y,
        ink,
        2.5,
        1,
      ),
    );
    drawn.caption(describe(near, name, format));
  }

  function draw(context, lines, x, y, colours) {
    const best = store.job.best?.trial;
    const groups = { back: [], pruned: [], front: [] };
    for (const line of lines) {
      if (line.number === best) continue;
      groups[line.trial && !matches(line.trial) ? "back" : line.trial?.state === "pruned" ? "pruned" : "front"].push(
        line,
      );
    }
    const thin = Math.max(0.12, Math.min(1, 60 / lines.length)); // dense places stay visible among a thousand lines
    stroke(context, groups.back, x, y, colours.mark_faded, 1, 0.25 * thin);
    stroke(context, groups.pruned, x, y, colours.mark_faded, 1, 0.6 * thin);
    stroke(context, groups.front, x, y, colours.mark, 1.25, 0.85 * thin);
    stroke(
      context,
      lines.filter(({ number }) => number === best),
      x,
      y,
      colours.mark_2,
      2.5,
      1,
    );
  }

  /** Draw the lines of a group in batches, each as one path: that is fast, and dense places still look darker. */
  function stroke(context, lines, x, y, colour, width, alpha) {
    for (let at = 0; at < lines.length; at += BATCH)
      strokeBatch(context, lines.slice(at, at + BATCH), x, y, colour, width, alpha);
  }

  function strokeBatch(context, lines, x, y, colour, width, alpha) {
    context.strokeStyle = context.fillStyle = colour;
    context.lineWidth = width;
    context.globalAlpha = alpha;
    context.lineJoin = "round";
    context.beginPath();
    for (const { curve } of lines) trace(context, curve, x, y);
    context.stroke();
    context.beginPath();
    for (const { curve } of lines) dot(context, curve, x, y, width);
    context.fill();
    context.globalAlpha = 1;
  }

  function trace(context, curve, x, y) {
    let started = false;
    for (const measured of curve) {
      const value = measured[figureName];
      if (value === null) continue;
      started ? context.lineTo(x(measured.epoch), y(value)) : context.moveTo(x(measured.epoch), y(value));
      started = true;
    }
  }

  function dot(context, curve, x, y, width) {
    const { epoch, [figureName]: value } = curve.at(-1);
    if (value === null) return;
    context.moveTo(x(epoch) + width, y(value));
    context.arc(x(epoch), y(value), 1 + width, 0, 7);
  }

  function point(px, py) {
    const was = near;
    near = px === null || !scales ? null : nearest(scales, figureName, px, py);
    drawn.canvas.style.cursor = near === null ? "" : "pointer";
    if (near !== was) drawn.redrawOver();
  }

  function summary(lines) {
    const pruned = lines.filter(({ trial }) => trial?.state === "pruned").length;
    if (lines.length === 1) return "Click the curve to open its trial.";
    return `${count(lines.length, "curve")}, ${figure(pruned)} pruned (faded). The best is thick. Click a curve to open its trial.`;
  }

  function describe(number, name, format) {
    const last = store.curves.get(number).at(-1);
    return `Trial ${number}, ${store.trials.get(number)?.state ?? "running"}: ${name} ${format(last[figureName])} after ${figure(last.epoch)} epochs.`;
  }

  return {
    element: h(
      "div",
      {},
      h("div", { class: "row spread" }, h("h2", {}, "Learning curves"), h("span", { class: "narrow" }, select)),
      drawn.element,
    ),
    redraw: drawn.redraw,
  };
}

/** Draw only inside the frame of a plot. */
function clipped(context, x, y, draw) {
  context.save();
  context.beginPath();
  context.rect(x.range[0], y.range[1] - 4, x.range[1] - x.range[0] + 4, y.range[0] - y.range[1] + 4);
  context.clip();
  draw();
  context.restore();
}

/** Return the number of the trial whose line is nearest to a point, or null if none is within REACH. */
function nearest({ x, y, lines }, name, px, py) {
  let best = null;
  let least = REACH;
  for (const { number, curve } of lines) {
    for (const measured of curve) {
      if (measured[name] === null) continue;
      const distance = Math.hypot(x(measured.epoch) - px, y(measured[name]) - py);
      if (distance < least) [least, best] = [distance, number];
    }
  }
  return best;
}
