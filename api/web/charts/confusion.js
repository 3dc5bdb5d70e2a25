// Confusion matrix: a cell opens the images that it counts.

import { get } from "../api.js";
import { openDialog, busy, failure, fill, h } from "../dom.js";
import { count, percent } from "../format.js";
import { digit } from "../drawing/pixels.js";

/** Create a table with true classes as rows and predictions as columns. `path` is the version's path in the API. */
export function confusion({ classes, confusion_matrix: matrix }, path, shape) {
  const most = Math.max(1, ...matrix.flatMap((row, i) => row.filter((_, j) => i !== j)));
  const cell = (n, i, j) => h("td", {}, content(n, i, j));
  const content = (n, i, j) => {
    if (i === j) return h("span", { class: "right" }, n.toLocaleString("en"));
    if (!n) return h("span", { class: "none" }, "0");
    const label = `${count(n, "image")} of ${classes[i]} predicted as ${classes[j]}`;
    const style = { "--cell": `color-mix(in srgb, var(--bad-soft) ${Math.round(25 + 75 * (n / most))}%, var(--surface))` };
    return h("button", { type: "button", style, "aria-label": label, title: label, onclick: () => open(label, path, classes[i], classes[j], shape) }, n.toLocaleString("en"));
  };
  return h("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": "Confusion matrix" },
    h("table", { class: "confusion" },
      h("caption", {}, "Rows are true classes, columns are predictions. Open a cell to see its images."),
      h("thead", {}, h("tr", {}, h("td", {}), classes.map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, matrix.map((row, i) => h("tr", {}, h("th", { scope: "row" }, classes[i]), row.map((n, j) => cell(n, i, j)))))));
}

/** Open a dialog with the misclassified images of a cell. */
async function open(title, path, actual, predicted, shape) {
  const body = h("div", {}, busy());
  const closing = new AbortController();
  load(body, `${path}/mistakes?${new URLSearchParams({ actual, predicted })}`, shape, closing.signal);
  await openDialog(title, body, [["Close", null]]);
  closing.abort();
}

async function load(body, address, shape, signal) {
  try {
    const { count: all, items } = await get(address, { signal });
    const more = all > items.length && h("p", { class: "hint" }, `The ${items.length} with the highest confidence.`);
    fill(body, h("ul", { class: "mistakes", tabindex: 0 }, items.map((item) => shown(item, shape))), more);
  } catch (error) {
    if (!signal.aborted) fill(body, failure(error));
  }
}

const shown = ({ index, actual, predicted, confidence, pixels }, shape) =>
  h("li", {}, digit(pixels, `Image ${index}: ${actual}, predicted as ${predicted}`, shape), h("span", { class: "small" }, percent(confidence, 1)), h("span", { class: "small muted" }, `no. ${index.toLocaleString("en")}`));
