// SVG charts: a frame with axes, and bars. Each has a title that describes it.

import { s, uniqueId } from "../dom.js";
import { figure } from "../format.js";
import { ticks } from "./scales.js";

/**
 * Create an empty chart. `x` and `y` are scales (scales.js) whose ranges lie inside width × height; `formatX` and `formatY`
 * format the ticks. Append marks to the returned element. The chart scales with its container.
 */
export function frame({ title, width, height, x, y, labelX, labelY, formatX = figure, formatY = figure }) {
  const id = uniqueId("chart");
  return s(
    "svg",
    { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-labelledby": id },
    s("title", { id }, title),
    s("g", { class: "axes", "aria-hidden": "true" }, axisX(x, y, formatX), axisY(x, y, formatY)),
    labelX && s("text", { class: "label", x: x.range[1], y: height - 4, "text-anchor": "end" }, labelX),
    labelY && s("text", { class: "label", x: 4, y: 12 }, labelY),
  );
}

function axisX(x, y, format) {
  const bottom = Math.max(...y.range);
  return ticks(x).map((value) => [
    s("line", { x1: x(value), x2: x(value), y1: Math.min(...y.range), y2: bottom }),
    s("text", { x: x(value), y: bottom + 15, "text-anchor": "middle" }, format(value)),
  ]);
}

function axisY(x, y, format) {
  return ticks(y).map((value) => [
    s("line", { x1: x.range[0], x2: x.range[1], y1: y(value), y2: y(value) }),
    s("text", { x: x.range[0] - 6, y: y(value) + 4, "text-anchor": "end" }, format(value)),
  ]);
}

/** Create horizontal bars, one for each row {label, value}, with values from 0 to `most`; `format` formats them. */
export function bars({ title, rows, most, format = figure, width = 420, labelWidth = 130 }) {
  const id = uniqueId("chart");
  const size = 26;
  const room = width - labelWidth - 70;
  const greatest = most ?? Math.max(...rows.map((row) => row.value), 1e-12);
  return s(
    "svg",
    { class: "chart bars", viewBox: `0 0 ${width} ${rows.length * size}`, role: "img", "aria-labelledby": id },
    s("title", { id }, `${title}: ${rows.map((row) => `${row.label} ${format(row.value)}`).join(", ")}`),
    rows.map((row, i) => [
      s("text", { x: labelWidth - 8, y: i * size + 17, "text-anchor": "end" }, row.label),
      s("rect", {
        x: labelWidth,
        y: i * size + 5,
        height: size - 10,
        width: Math.max(1, (row.value / greatest) * room),
        rx: 3,
      }),
      s(
        "text",
        { class: "value", x: labelWidth + Math.max(1, (row.value / greatest) * room) + 6, y: i * size + 17 },
        format(row.value),
      ),
    ]),
  );
}
