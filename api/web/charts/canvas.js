// A canvas that is drawn at most once per frame, sharp on every screen, in the colours of the theme; and axes for it.

import { oncePerFrame, h, setText, token } from "../dom.js";
import { figure } from "../format.js";
import { ticks } from "./scales.js";

const MARGIN = { top: 14, right: 16, bottom: 34, left: 58 };

/**
 * Create a canvas in a <figure> whose caption describes what it shows. `paint(context, size, colours)` draws the data, and
 * `over(context, size, colours)` the mark under the pointer. `redraw()` requests both, `redrawOver()` only `over`. They run
 * at most once per frame, only while the canvas is visible, and also when its size or the theme changes. `caption(text)`
 * sets the caption; `hide(text)`, called while painting, hides the canvas as well.
 */
export function plot({ label, height = 300, paint, over = () => {}, signal, onmove, onleave, onpick }) {
  const canvas = h("canvas", { role: "img", "aria-label": label, style: { height: `${height}px` } });
  const under = document.createElement("canvas");
  const figcaption = h("figcaption", { class: "small muted" });
  let stale = true;
  let isVisible = false;
  const draw = oncePerFrame(() => {
    if (!isVisible) return;
    canvas.hidden = false;
    const width = canvas.clientWidth;
    if (!width) return;
    const size = { width, height };
    const palette = colours();
    if (stale || under.width !== pixels(width)) paint(cleared(under, size, canvas), size, palette);
    stale = false;
    const context = cleared(canvas, size, canvas);
    context.drawImage(under, 0, 0, width, height);
    over(context, size, palette);
  });
  const redraw = () => ((stale = true), draw());
  const resized = new ResizeObserver(redraw);
  const watched = new IntersectionObserver(([{ isIntersecting }]) => ((isVisible = isIntersecting), draw()), {
    rootMargin: "200px",
  });
  addEventListener("theme", redraw, { signal });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw, { signal });
  signal.addEventListener("abort", () => (resized.disconnect(), watched.disconnect()));
  const at = (listener) => (event) => listener(event.offsetX, event.offsetY);
  if (onmove) canvas.addEventListener("pointermove", at(onmove));
  if (onleave) canvas.addEventListener("pointerleave", onleave);
  if (onpick) canvas.addEventListener("click", at(onpick));
  const element = h("figure", { class: "plot" }, canvas, figcaption);
  resized.observe(element);
  watched.observe(element);
  const caption = (content) => setText(figcaption, content);
  const hide = (content) => ((canvas.hidden = true), caption(content));
  return { element, canvas, redraw, redrawOver: draw, caption, hide };
}

const pixels = (length) => Math.round(length * (devicePixelRatio || 1));

/** Clear a canvas and return its context, in CSS pixels and with the font of the page. */
function cleared(canvas, { width, height }, styled) {
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

/** Draw the grid, the ticks and the labels of both axes. */
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

/** Return the ranges of both scales for a plot of this size. */
export const inside = ({ width, height }) => ({
  x: [MARGIN.left, width - MARGIN.right],
  y: [height - MARGIN.bottom, MARGIN.top + 6],
});
