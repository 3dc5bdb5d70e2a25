// What mattered: importances and the correlation matrix, from GET /jobs/{id}/analysis.

import { get } from "./api.js";
import { bars } from "./charts.js";
import { fill, h } from "./dom.js";
import { figure } from "./format.js";
import { ended, isOver } from "./states.js";

const FEW = 4; // ended trials from which on there is something to say
const GROWTH = 1.25; // by which their number grows until it is asked again, while the job runs

/** Two sections, and `look()`, which asks again when there is more to know. */
export function analysis({ record, signal }) {
  const [importances, correlation] = [section("Which parameter matters"), section("Correlations")];
  let asked = "";
  let enough = FEW;

  async function look() {
    const known = ended(record.job);
    const now = isOver(record.job) ? `${record.job.state} ${record.job.run}` : `${enough}`;
    if (known < FEW) return tell("There is something to say once a few trials have ended.");
    if (now === asked || known < enough) return;
    enough = Math.ceil(known * GROWTH);
    asked = isOver(record.job) ? now : `${enough}`;
    try {
      const found = await get(`/jobs/${record.id}/analysis`, { signal });
      fill(importances.body, drawImportances(found));
      fill(correlation.body, drawCorrelation(found));
    } catch (error) {
      if (!signal.aborted) tell(error.status === 404 ? "This service does not analyse jobs." : `It cannot be told just now: ${error.message}.`);
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

function drawImportances({ importances }) {
  const rows = Object.entries(importances ?? {}).map(([label, value]) => ({ label, value })).sort((a, b) => b.value - a.value);
  if (!rows.length) return h("p", { class: "muted" }, "Too few trials, or parameters that do not differ.");
  return bars({ title: "Importance of each parameter", rows, format: (v) => figure(v, 2), labelWidth: 150, width: 460 });
}

/** A table whose cells are tinted by their coefficient. */
function drawCorrelation({ correlation }) {
  const { names = [], matrix = [] } = correlation ?? {};
  if (!names.length) return h("p", { class: "muted" }, "Too few trials.");
  return h("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": "Correlations" }, h("table", { class: "matrix" },
    h("caption", {}, "From −1, one falls where the other rises, over 0, nothing to see, to 1"),
    h("thead", {}, h("tr", {}, h("td", {}), names.map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", {}, matrix.map((row, i) => h("tr", {}, h("th", { scope: "row" }, names[i]), row.map(cell))))));
}

function cell(value) {
  if (value === null) return h("td", { class: "number muted" }, "–");
  const tint = `color-mix(in srgb, var(${value < 0 ? "--mark-2" : "--mark"}) ${Math.round(Math.abs(value) * 45)}%, transparent)`;
  return h("td", { class: "number", style: { "background-color": tint } }, value.toFixed(2).replace("-", "−"));
}
