// Calibration diagram: the accuracy of answers by their confidence.

import { frame } from "./svg.js";
import { s } from "../dom.js";
import { count, percent } from "../format.js";
import { scale } from "./scales.js";

const [WIDTH, HEIGHT] = [420, 320];
const share = (value) => `${Math.round(value * 100)} %`;

/** Draw a dot for each bin. On the dashed line, accuracy equals confidence. The area of a dot grows with its images. */
export function reliability(bins) {
  const x = scale([0, 1], [48, WIDTH - 24]);
  const y = scale([0, 1], [HEIGHT - 40, 24]);
  const filled = bins.filter((bin) => bin.images);
  const most = Math.max(...filled.map((bin) => bin.images));
  const values = filled.map((bin) => `confidence ${percent(bin.confidence, 0)}, accuracy ${percent(bin.accuracy, 0)}`).join("; ");
  const svg = frame({ title: `Accuracy by confidence: ${values}`, width: WIDTH, height: HEIGHT, x, y, labelX: "confidence", labelY: "accuracy", formatX: share, formatY: share });
  svg.append(
    s("line", { class: "ideal", x1: x(0), y1: y(0), x2: x(1), y2: y(1) }),
    ...filled.map((bin) => dot(bin, x(bin.confidence), y(bin.accuracy), 3.5 + 8 * Math.sqrt(bin.images / most))));
  return svg;
}

const dot = (bin, cx, cy, r) =>
  s("circle", { cx, cy, r, "fill-opacity": 0.75 }, s("title", {}, `${count(bin.images, "image")}: confidence ${percent(bin.confidence, 1)}, accuracy ${percent(bin.accuracy, 1)}`));
