// Plotly's figures, each in a frame of its own: a page of this service with a looser policy, which can reach nothing here.

import { h, fill } from "../dom.js";

const SHOWN = ["min_accuracy", "target"];
const PLOTS = {
  optimization_history: ["Optimization history", SHOWN],
  timeline: ["Timeline", []],
  slice: ["Each parameter alone", SHOWN],
  contour: ["Two parameters at a time", SHOWN],
  rank: ["Ranks, two parameters at a time", SHOWN],
  edf: ["Empirical distribution", SHOWN],
  param_importances: ["Importances of parameters", SHOWN],
  pareto_front: ["Accuracy against cost", ["min_accuracy", "cost"]],
  correlations: ["Correlations", ["coefficient"]],
  interactions: ["Two parameters whose effects depend on each other", []],
  parallel_coordinate: ["Parallel coordinates", SHOWN],
  intermediate_values: ["Learning curves", ["min_accuracy"]],
};
/** What can be asked of a figure: its label, and the values to choose from; without those it is a share. */
const OPTIONS = {
  min_accuracy: ["Accuracy of at least"],
  target: [
    "Showing",
    { objective: "the objective", val_accuracy: "accuracy", val_loss: "loss", seconds: "seconds of training" },
  ],
  cost: [
    "Cost",
    { seconds: "seconds of training", flops: "FLOPs", weights: "weights", latency_seconds: "latency, of versions" },
  ],
  coefficient: ["Coefficient", { spearman: "Spearman's", pearson: "Pearson's" }],
};

/** A section with a choice of figures; nothing is loaded before one is chosen. */
export function plots({ record }) {
  const place = h(
    "div",
    {},
    h("p", { class: "muted" }, "Choose a figure; it is drawn from the trials as they are then."),
  );
  const controls = h("div", { class: "row" });
  const draw = () => {
    const name = select.value;
    const asked = [...controls.querySelectorAll("select, input")].filter((one) => one.value && one.reportValidity());
    const query = new URLSearchParams(asked.map((one) => [one.name, one.value]));
    if (name)
      fill(
        place,
        h("iframe", {
          src: `/jobs/${record.id}/plots/${name}${query.size ? `?${query}` : ""}`,
          sandbox: "allow-scripts",
          title: `Figure: ${PLOTS[name][0]}`,
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
      h("h2", {}, "More figures"),
      h(
        "div",
        { class: "row" },
        h("label", { for: "plot" }, "Figure"),
        h("span", { class: "narrow figure" }, select),
        h("button", { type: "button", onclick: draw }, "Draw again"),
      ),
    ),
    controls,
    place,
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
