// Plots by Plotly, each in its own frame. The frame's page has a looser policy, and its sandbox cannot reach this page.

import { h, fill } from "../dom.js";

const SHOWN = ["min_accuracy", "target"];
const PLOTS = {
  optimization_history: ["Optimization history", SHOWN],
  timeline: ["Timeline", []],
  slice: ["Slice (one parameter)", SHOWN],
  contour: ["Contour (two parameters)", SHOWN],
  rank: ["Rank (two parameters)", SHOWN],
  edf: ["Empirical distribution", SHOWN],
  param_importances: ["Parameter importance", SHOWN],
  pareto_front: ["Accuracy against cost", ["min_accuracy", "cost"]],
  correlations: ["Correlations", ["coefficient"]],
  interactions: ["Parameter interactions", []],
  parallel_coordinate: ["Parallel coordinates", SHOWN],
  intermediate_values: ["Learning curves", ["min_accuracy"]],
};
/** Options of plots: a label, and the values to choose from; an option without values is a share from 0 to 1. */
const OPTIONS = {
  min_accuracy: ["Minimum accuracy"],
  target: [
    "Metric",
    { objective: "objective", val_accuracy: "accuracy", val_loss: "loss", seconds: "training time (s)" },
  ],
  cost: [
    "Cost",
    { seconds: "training time (s)", flops: "FLOPs", weights: "weights", latency_seconds: "latency (published versions)" },
  ],
  coefficient: ["Coefficient", { spearman: "Spearman's", pearson: "Pearson's" }],
};

/** Create a section with a choice of plots; nothing is loaded before the reader chooses one. */
export function plots({ store }) {
  const body = h(
    "div",
    {},
    h("p", { class: "muted" }, "Choose a plot of the current trials."),
  );
  const controls = h("div", { class: "row" });
  const draw = () => {
    const name = select.value;
    const options = [...controls.querySelectorAll("select, input")].filter((option) => option.value && option.reportValidity());
    const query = new URLSearchParams(options.map((option) => [option.name, option.value]));
    if (name)
      fill(
        body,
        h("iframe", {
          src: `/jobs/${store.id}/plots/${name}${query.size ? `?${query}` : ""}`,
          sandbox: "allow-scripts",
          title: `Plot: ${PLOTS[name][0]}`,
          loading: "lazy",
        }),
      );
  };
  const choose = () => {
    fill(controls, ...(PLOTS[select.value]?.[1] ?? []).map((option) => control(option, draw)));
    draw();
  };
  const titles = Object.fromEntries(Object.entries(PLOTS).map(([name, [title]]) => [name, title]));
  const select = choice({ id: "plot", onchange: choose }, { "": "–", ...titles });
  return h(
    "section",
    { class: "card" },
    h(
      "div",
      { class: "row spread" },
      h("h2", {}, "More plots"),
      h(
        "div",
        { class: "row" },
        h("label", { for: "plot" }, "Plot"),
        h("span", { class: "narrow figure" }, select),
        h("button", { type: "button", onclick: draw }, "Redraw"),
      ),
    ),
    controls,
    body,
  );
}

function control(name, draw) {
  const [label, values] = OPTIONS[name];
  const id = `plot-${name}`;
  const share = { type: "number", min: 0, max: 1, step: "any", placeholder: "0.98" };
  const field = values
    ? choice({ id, name, onchange: draw }, values)
    : h("input", { id, name, onchange: draw, ...share });
  return h("span", { class: "row" }, h("label", { for: id }, label), h("span", { class: "narrow" }, field));
}

const choice = (attributes, values) =>
  h(
    "select",
    attributes,
    Object.entries(values).map(([value, title]) => h("option", { value }, title)),
  );
