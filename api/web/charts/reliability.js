// The calibration diagram: how often answers of a confidence are right.

import { frame } from "./charts.js";
import { s } from "../dom.js";
import { count, percent } from "../format.js";
import { scale } from "./scales.js";

const [WIDTH, HEIGHT] = [420, 320];
const share = (value) => `${Math.round(value * 100)} %`;

/** Dots on the dashed line are as right as they are sure; under it too sure. A dot's area grows with its images. */
export function reliability(bins) {
  const x = scale([0, 1], [48, WIDTH - 24]);
  const y = scale([0, 1], [HEIGHT - 40, 24]);
  const filled = bins.filter((bin) => bin.images);
  const most = Math.max(...filled.map((bin) => bin.images));
  const told = filled.map((bin) => `${percent(bin.confidence, 0)} sure, ${percent(bin.accuracy, 0)} right`).join("; ");
  const svg = frame({ title: `Accuracy by confidence: ${told}`, width: WIDTH, height: HEIGHT, x, y, labelX: "confidence", labelY: "right", formatX: share, formatY: share });
  svg.append(
    s("line", { class: "ideal", x1: x(0), y1: y(0), x2: x(1), y2: y(1) }),
    ...filled.map((bin) => dot(bin, x(bin.confidence), y(bin.accuracy), 3.5 + 8 * Math.sqrt(bin.images / most))));
  return svg;
}

const dot = (bin, cx, cy, r) =>
  s("circle", { cx, cy, r, "fill-opacity": 0.75 }, s("title", {}, `${count(bin.images, "image")}: ${percent(bin.confidence, 1)} sure, ${percent(bin.accuracy, 1)} right`));
