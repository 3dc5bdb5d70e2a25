// Parameter importance and the correlation matrix, from GET /jobs/{id}/analysis.

import { get } from "../api.js";
import { bars } from "./svg.js";
import { fill, h } from "../dom.js";
import { count, percent, readable } from "../format.js";
import { endedTrials, isOver } from "../states.js";

const FEW = 4; // ended trials that an analysis needs
const ENOUGH = 20; // trials from which importances are reliable
const GROWTH = 1.25; // factor by which the number of trials grows until the next request, while the job runs

/** Return two sections, and `refresh()`, which requests the analysis again when there are enough new trials. */
export function analysis({ store, signal }) {
  const [importances, correlation] = [section("Parameter importance"), section("Correlations")];
  let shown = null; // the end of the job that the analysis includes
  let needed = FEW;

  async function refresh() {
    const trials = endedTrials(store.job);
    const end = isOver(store.job) ? `${store.job.state} ${store.job.run}` : null;
    if (trials < FEW) return show(`Appears after ${FEW} trials.`);
    if (end === null ? trials < needed : end === shown) return;
    needed = Math.ceil(trials * GROWTH);
    shown = end;
    try {
      const result = await get(`/jobs/${store.id}/analysis`, { signal });
      fill(importances.body, drawImportances(result));
      fill(correlation.body, drawCorrelation(result));
    } catch (error) {
      if (!signal.aborted)
        show(
          error.status === 404
            ? "This service does not analyse jobs."
            : `The analysis is not available now: ${error.message}.`,
        );
    }
  }

  function show(message) {
    for (const { body } of [importances, correlation]) fill(body, h("p", { class: "muted" }, message));
  }

  return { importances: importances.element, correlation: correlation.element, refresh };
}

function section(title) {
  const body = h("div", {}, h("p", { class: "muted" }, "Loading …"));
  return { body, element: h("section", { class: "card" }, h("h2", {}, title), body) };
}

/** Draw bars of the first method that was applicable, with its source below. */
function drawImportances({ importances, used }) {
  const chosen = importances.find((importance) => importance.values);
  const shared = importances.find((importance) => importance.undetermined.length > 0)?.undetermined;
  const left = shared && `Not determined, because all trials of a pack share them: ${shared.join(", ")}.`;
  if (!chosen) return h("p", { class: "muted" }, [`${importances[0]?.reason ?? "Not available"}. `, left]);
  const rows = Object.entries(chosen.values)
    .map(([label, value]) => ({ label, value }))
    .sort((a, b) => b.value - a.value);
  return [
    bars({
      title: "Importance of each parameter",
      rows,
      format: (value) => percent(value, 0),
      labelWidth: 150,
      width: 460,
    }),
    h(
      "p",
      { class: "hint" },
      `By ${readable(chosen.method)} (${chosen.source}), from ${count(chosen.trials, "trial")}. `,
      used < ENOUGH && "Too few trials to be reliable. ",
      chosen.ranked && "The sampler learned, so results are ranked among trials of the same time. ",
      left,
    ),
  ];
}

/** Create a table whose cells are tinted by their coefficient. */
function drawCorrelation({ correlations: { variables, pearson, n_effective: n, p_reason: reason } }) {
  if (!pearson.flat().some((value) => value !== null))
    return h("p", { class: "muted" }, "Too few trials ran to the end.");
  return h(
    "div",
    { class: "scroll", tabindex: 0, role: "group", "aria-label": "Correlations" },
    h(
      "table",
      { class: "matrix" },
      h(
        "caption",
        {},
        "Pearson’s r over trials that ran to the end. 1: both rise together; 0: no linear relation; −1: one falls as the other rises. ",
        "n: independent observations, which are trials, or packs if all trials of a pack share one of the two. ",
        reason && `There are no p-values: ${reason}.`,
      ),
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          h("td", {}),
          variables.map((name) => h("th", { scope: "col" }, name)),
        ),
      ),
      h(
        "tbody",
        {},
        pearson.map((row, i) =>
          h(
            "tr",
            {},
            h("th", { scope: "row" }, variables[i]),
            row.map((value, j) => cell(value, n[i][j])),
          ),
        ),
      ),
    ),
  );
}

function cell(value, observations) {
  const n = h("small", { class: "observations" }, `n ${observations.toLocaleString("en")}`);
  if (value === null) return h("td", { class: "number muted" }, "–", n);
  const tint = `color-mix(in srgb, var(${value < 0 ? "--mark-2" : "--mark"}) ${Math.round(Math.abs(value) * 45)}%, transparent)`;
  return h("td", { class: "number", style: { "background-color": tint } }, value.toFixed(2).replace("-", "−"), n);
}
