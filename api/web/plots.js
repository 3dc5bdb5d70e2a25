// Plotly's figures, each in a frame of its own: a page of this service with a looser policy, which can reach nothing here.

import { h, fill } from "./dom.js";

const PLOTS = {
  optimization_history: "Optimization history",
  timeline: "Timeline",
  slice: "Each parameter alone",
  contour: "Two parameters at a time",
  rank: "Ranks, two parameters at a time",
  edf: "Empirical distribution",
  param_importances: "Importances of parameters",
  pareto_front: "Accuracy against cost",
  correlations: "Correlations",
  interactions: "Two parameters whose effects depend on each other",
  parallel_coordinate: "Parallel coordinates",
  intermediate_values: "Learning curves",
};

/** A section with a choice of figures; nothing is loaded before one is chosen. */
export function plots({ record }) {
  const place = h(
    "div",
    {},
    h("p", { class: "muted" }, "Choose a figure; it is drawn from the trials as they are then."),
  );
  const draw = () => {
    const name = select.value;
    if (name)
      fill(
        place,
        h("iframe", {
          src: `/jobs/${record.id}/plots/${name}`,
          sandbox: "allow-scripts",
          title: `Figure: ${PLOTS[name]}`,
          loading: "lazy",
        }),
      );
  };
  const select = h(
    "select",
    { id: "plot", onchange: draw },
    h("option", { value: "" }, "–"),
    Object.entries(PLOTS).map(([value, title]) => h("option", { value }, title)),
  );
  return h(
    "section",
    { class: "card" },
    h(
      "div",
      { class: "row spread" },
      h("h2", {}, "More figures"),
      h(
        "div",
        { class: "row" },
        h("label", { for: "plot" }, "Figure"),
        h("span", { class: "narrow figure" }, select),
        h("button", { type: "button", onclick: draw }, "Draw again"),
      ),
    ),
    place,
  );
}
