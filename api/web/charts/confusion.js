// The confusion matrix: a cell opens the images that were mistaken.

import { get } from "../api.js";
import { ask, busy, failure, fill, h } from "../dom.js";
import { count, percent } from "../format.js";
import { digit } from "../drawing/pixels.js";

/** A table with a row a true class and a column a predicted one; `path` is the version's at the API, `shape` its images'. */
export function confusion({ classes, confusion_matrix: matrix }, path, shape) {
  const most = Math.max(1, ...matrix.flatMap((row, i) => row.filter((_, j) => i !== j)));
  const cell = (n, i, j) => h("td", {}, content(n, i, j));
  const content = (n, i, j) => {
    if (i === j) return h("span", { class: "right" }, n.toLocaleString("en"));
    if (!n) return h("span", { class: "none" }, "0");
    const words = `${count(n, "image")} of ${classes[i]} taken for ${classes[j]}`;
    const style = { "--cell": `color-mix(in srgb, var(--bad-soft) ${Math.round(25 + 75 * (n / most))}%, var(--surface))` };
    return h("button", { type: "button", style, "aria-label": words, title: words, onclick: () => open(words, path, classes[i], classes[j], shape) }, n.toLocaleString("en"));
  };
  return h("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": "Confusion matrix" },
    h("table", { class: "confusion" },
      h("caption", {}, "A row is what an image shows, a column what it was taken for. Open a cell to see the images."),
      h("thead", {}, h("tr", {}, h("td", {}), classes.map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, matrix.map((row, i) => h("tr", {}, h("th", { scope: "row" }, classes[i]), row.map((n, j) => cell(n, i, j)))))));
}

/** A dialog with the mistaken images. */
async function open(title, path, actual, predicted, shape) {
  const body = h("div", {}, busy());
  const leaving = new AbortController();
  load(body, `${path}/mistakes?${new URLSearchParams({ actual, predicted })}`, shape, leaving.signal);
  await ask(title, body, [["Close", null]]);
  leaving.abort();
}

async function load(body, address, shape, signal) {
  try {
    const { count: all, items } = await get(address, { signal });
    const more = all > items.length && h("p", { class: "hint" }, `The ${items.length} that it was surest of.`);
    fill(body, h("ul", { class: "mistakes", tabindex: 0 }, items.map((item) => shown(item, shape))), more);
  } catch (error) {
    if (!signal.aborted) fill(body, failure(error));
  }
}

const shown = ({ index, actual, predicted, confidence, pixels }, shape) =>
  h("li", {}, digit(pixels, `Image ${index}: ${actual}, taken for ${predicted}`, shape), h("span", { class: "small" }, percent(confidence, 1)), h("span", { class: "small muted" }, `no. ${index}`));
