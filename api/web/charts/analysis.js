// What mattered: importances and the correlation matrix, from GET /jobs/{id}/analysis.

import { get } from "../api.js";
import { bars } from "./charts.js";
import { fill, h } from "../dom.js";
import { count, percent, words } from "../format.js";
import { ended, isOver } from "../states.js";

const FEW = 4; // ended trials from which on there is something to say
const ENOUGH = 20; // trials from which importances mean something
const GROWTH = 1.25; // by which their number grows until it is asked again, while the job runs

/** Two sections, and `look()`, which asks again when there is more to know. */
export function analysis({ record, signal }) {
  const [importances, correlation] = [section("Which parameter matters"), section("Correlations")];
  let asked = null; // the end of the job that is shown
  let enough = FEW;

  async function look() {
    const known = ended(record.job);
    const end = isOver(record.job) ? `${record.job.state} ${record.job.run}` : null;
    if (known < FEW) return tell("There is something to say once a few trials have ended.");
    if (end === null ? known < enough : end === asked) return;
    enough = Math.ceil(known * GROWTH);
    asked = end;
    try {
      const found = await get(`/jobs/${record.id}/analysis`, { signal });
      fill(importances.body, drawImportances(found));
      fill(correlation.body, drawCorrelation(found));
    } catch (error) {
      if (!signal.aborted)
        tell(
          error.status === 404
            ? "This service does not analyse jobs."
            : `It cannot be told just now: ${error.message}.`,
        );
    }
  }

  function tell(words) {
    for (const { body } of [importances, correlation]) fill(body, h("p", { class: "muted" }, words));
  }

  return { importances: importances.element, correlation: correlation.element, look };
}

function section(title) {
  const body = h("div", {}, h("p", { class: "muted" }, "Loading …"));
  return { body, element: h("section", { class: "card" }, h("h2", {}, title), body) };
}

/** Bars of the first method that could be used; its source stands under them. */
function drawImportances({ importances, used }) {
  const found = importances.find((importance) => importance.values);
  if (!found) return h("p", { class: "muted" }, importances[0]?.reason ?? "It cannot be told.");
  const rows = Object.entries(found.values)
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
      `By ${words(found.method)} (${found.source}), from ${count(found.trials, "trial")}. `,
      used < ENOUGH && "With so few, it says little.",
    ),
  ];
}

/** A table whose cells are tinted by their coefficient. */
function drawCorrelation({ correlations: { variables, pearson, n } }) {
  if (!pearson.flat().some((value) => value !== null))
    return h("p", { class: "muted" }, "Too few trials ran to their end.");
  return h(
    "div",
    { class: "scroll", tabindex: 0, role: "group", "aria-label": "Correlations" },
    h(
      "table",
      { class: "matrix" },
      h(
        "caption",
        {},
        "Pearson’s r over the trials that ran to their end: −1, one falls where the other rises; 0, nothing to see; 1, they rise together",
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

function cell(value, trials) {
  if (value === null) return h("td", { class: "number muted", title: count(trials, "trial") }, "–");
  const tint = `color-mix(in srgb, var(${value < 0 ? "--mark-2" : "--mark"}) ${Math.round(Math.abs(value) * 45)}%, transparent)`;
  return h(
    "td",
    { class: "number", style: { "background-color": tint }, title: count(trials, "trial") },
    value.toFixed(2).replace("-", "−"),
  );
}
