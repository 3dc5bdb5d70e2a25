// A canvas that is drawn at most once a frame, sharp on every screen, in the colours of the theme, with axes.

import { eachFrame, h, token } from "./dom.js";
import { figure } from "./format.js";
import { ticks } from "./scales.js";

export const MARGIN = { top: 14, right: 16, bottom: 34, left: 58 };

/**
 * A canvas in a <figure> whose caption says in words what it shows. `paint(context, size, colours)` draws it;
 * `redraw()` asks for that, and it happens by itself where the size or the theme changes. `say(words)` sets the caption.
 */
export function plot({ label, height = 300, paint, signal, onmove, onleave, onpick }) {
  const canvas = h("canvas", { role: "img", "aria-label": label, style: { height: `${height}px` } });
  const caption = h("figcaption", { class: "small muted" });
  const element = h("figure", { class: "plot" }, canvas, caption);
  const redraw = eachFrame(() => {
    const width = canvas.clientWidth;
    if (!width || !canvas.isConnected) return;
    const ratio = devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio);
    if (canvas.height !== Math.round(height * ratio)) canvas.height = Math.round(height * ratio);
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    context.font = `12px ${getComputedStyle(canvas).fontFamily}`;
    paint(context, { width, height }, colours());
  });
  const observer = new ResizeObserver(redraw);
  observer.observe(canvas);
  addEventListener("theme", redraw, { signal });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw, { signal });
  signal.addEventListener("abort", () => observer.disconnect());
  const at = (listener) => (event) => listener(event.offsetX, event.offsetY);
  if (onmove) canvas.addEventListener("pointermove", at(onmove));
  if (onleave) canvas.addEventListener("pointerleave", onleave);
  if (onpick) canvas.addEventListener("click", at(onpick));
  return { element, canvas, redraw, say: (words) => (caption.textContent = words) };
}

function colours() {
  const names = ["ink", "muted", "line", "accent", "mark", "mark-2", "mark-faded", "surface", "good"];
  return Object.fromEntries(names.map((name) => [name.replace("-", "_"), token(`--${name}`)]));
}

/** Grid, ticks and names of both axes. */
export function axes(context, x, y, { line, muted }, { labelX = "", labelY = "", formatX = figure, formatY = figure } = {}) {
  const [left, right] = x.range;
  const [bottom, top] = y.range;
  context.strokeStyle = line;
  context.fillStyle = muted;
  context.lineWidth = 1;
  context.beginPath();
  for (const value of ticks(y)) context.moveTo(left, y(value)), context.lineTo(right, y(value));
  for (const value of ticks(x)) context.moveTo(x(value), bottom), context.lineTo(x(value), top);
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
