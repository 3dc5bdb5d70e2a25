// A canvas that is drawn at most once a frame, sharp on every screen, in the colours of the theme, with axes.

import { eachFrame, h, text, token } from "../dom.js";
import { figure } from "../format.js";
import { ticks } from "./scales.js";

const MARGIN = { top: 14, right: 16, bottom: 34, left: 58 };

/**
 * A canvas in a <figure> whose caption says in words what it shows. `paint(context, size, colours)` draws what the trials
 * say, `over` (the same) what is pointed at. `redraw()` asks for both, `again()` for `over` alone; it happens at most once
 * a frame, only while the canvas is seen, and by itself where size or theme change. `say(words)` sets the caption;
 * `nothing(words)`, said while painting, hides the canvas too.
 */
export function plot({ label, height = 300, paint, over = () => {}, signal, onmove, onleave, onpick }) {
  const canvas = h("canvas", { role: "img", "aria-label": label, style: { height: `${height}px` } });
  const under = document.createElement("canvas");
  const caption = h("figcaption", { class: "small muted" });
  let stale = true;
  let seen = false;
  const draw = eachFrame(() => {
    if (!seen) return;
    canvas.hidden = false;
    const width = canvas.clientWidth;
    if (!width) return;
    const size = { width, height };
    const palette = colours();
    if (stale || under.width !== pixels(width)) paint(fresh(under, size, canvas), size, palette);
    stale = false;
    const context = fresh(canvas, size, canvas);
    context.drawImage(under, 0, 0, width, height);
    over(context, size, palette);
  });
  const redraw = () => ((stale = true), draw());
  const resized = new ResizeObserver(redraw);
  const watched = new IntersectionObserver(([{ isIntersecting }]) => ((seen = isIntersecting), draw()), {
    rootMargin: "200px",
  });
  addEventListener("theme", redraw, { signal });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw, { signal });
  signal.addEventListener("abort", () => (resized.disconnect(), watched.disconnect()));
  const at = (listener) => (event) => listener(event.offsetX, event.offsetY);
  if (onmove) canvas.addEventListener("pointermove", at(onmove));
  if (onleave) canvas.addEventListener("pointerleave", onleave);
  if (onpick) canvas.addEventListener("click", at(onpick));
  const element = h("figure", { class: "plot" }, canvas, caption);
  resized.observe(element);
  watched.observe(element);
  const say = (words) => text(caption, words);
  const nothing = (words) => ((canvas.hidden = true), say(words));
  return { element, canvas, redraw, again: draw, say, nothing };
}

const pixels = (length) => Math.round(length * (devicePixelRatio || 1));

/** The cleared context of a canvas, in CSS pixels, with the font of the page. */
function fresh(canvas, { width, height }, styled) {
  canvas.width = pixels(width);
  canvas.height = pixels(height);
  const context = canvas.getContext("2d");
  context.setTransform(pixels(width) / width, 0, 0, pixels(height) / height, 0, 0);
  context.font = `12px ${getComputedStyle(styled).fontFamily}`;
  return context;
}

function colours() {
  const names = ["ink", "muted", "line", "accent", "mark", "mark-2", "mark-faded", "surface", "good"];
  return Object.fromEntries(names.map((name) => [name.replace("-", "_"), token(`--${name}`)]));
}

/** Grid, ticks and names of both axes. */
export function axes(
  context,
  x,
  y,
  { line, muted },
  { labelX = "", labelY = "", formatX = figure, formatY = figure } = {},
) {
  const [left, right] = x.range;
  const [bottom, top] = y.range;
  context.strokeStyle = line;
  context.fillStyle = muted;
  context.lineWidth = 1;
  context.beginPath();
  for (const value of ticks(y)) (context.moveTo(left, y(value)), context.lineTo(right, y(value)));
  for (const value of ticks(x)) (context.moveTo(x(value), bottom), context.lineTo(x(value), top));
  context.stroke();
  context.textAlign = "right";
  for (const value of ticks(y)) context.fillText(formatY(value), left - 6, y(value) + 4);
  context.textAlign = "center";
  for (const value of ticks(x)) context.fillText(formatX(value), x(value), bottom + 15);
  context.textAlign = "right";
  context.fillText(labelX, right, bottom + 30);
  context.textAlign = "left";
  context.fillText(labelY, 0, 10);
}

/** The ranges of both scales of a plot of this size. */
export const inside = ({ width, height }) => ({
  x: [MARGIN.left, width - MARGIN.right],
  y: [height - MARGIN.bottom, MARGIN.top + 6],
});
