// Plotly's figures, each in a frame of its own: a page of this service with a looser policy, which can reach nothing here.

import { h, fill } from "./dom.js";
import { words } from "./format.js";

export const PLOTS = ["optimization_history", "param_importances", "slice", "contour", "edf", "rank", "timeline", "parallel_coordinate"];

/** A section with a choice of figures; nothing is loaded before one is chosen. */
export function plots({ record }) {
  const place = h("div", {}, h("p", { class: "muted" }, "Choose a figure; it is drawn from the trials as they are then."));
  const draw = () => {
    const name = select.value;
    if (name) fill(place, h("iframe", { src: `/jobs/${record.id}/plots/${name}`, sandbox: "allow-scripts", title: `Figure: ${words(name)}`, loading: "lazy" }));
  };
  const select = h("select", { id: "plot", onchange: draw }, h("option", { value: "" }, "–"), PLOTS.map((name) => h("option", { value: name }, words(name))));
  return h("section", { class: "card" }, h("div", { class: "row spread" }, h("h2", {}, "More figures"),
    h("div", { class: "row" }, h("label", { for: "plot" }, "Figure"), h("span", { class: "narrow" }, select), h("button", { type: "button", onclick: draw }, "Draw again"))), place);
}
