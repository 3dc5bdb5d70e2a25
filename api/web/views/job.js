// A job with its trials and learning curves, updated live from the event stream.

import { analysis } from "../charts/analysis.js";
import { columnsOf, objectiveOf } from "../charts/columns.js";
import { curves } from "../charts/curves.js";
import { fill, h, nextFrame, setText, timeAgo } from "../dom.js";
import { predicate } from "../forms/filter.js";
import { count, figure } from "../format.js";
import { headOf } from "./job_head.js";
import { parallel } from "../charts/parallel.js";
import { pareto } from "../charts/pareto.js";
import { plots } from "../charts/plotly.js";
import { openStore } from "./job_store.js";
import { setQuery, to } from "../address.js";
import { badge, isInference, isOver, sharesOf, titleOf } from "../states.js";
import { trialTable } from "./trials.js";

const FEW_POINTS = 5000; // points of curves up to which every change is drawn at once
const SLOWER = 400; // milliseconds between two drawings of more points

export async function show(root, { id, filter = "" }, signal) {
  const store = await openStore(id, signal);
  document.title = `${titleOf(store.job)} · Chiffre`;
  const head = headOf(store, () => redraw());
  const open = (number) => (location.hash = to("jobs", id, "trials", number));
  const filtering = filterOf(store, filter, () => redraw());
  const shared = { store, matches: filtering.matches, open, signal };
  const { kind } = store.job;
  const charts = isInference(store.job) ? [] : [curves(shared), trialTable(shared)];
  if (kind === "tune") charts.push(parallel(shared), pareto(shared));
  const [learning, table, lines, scatter] = charts;
  const insights = kind === "tune" ? analysis({ store, signal }) : null;
  const details = detailsOf(store);
  const result = isInference(store.job) ? h("div", {}, resultOf(store.job)) : null;
  let isShown = Boolean(store.job.result);
  fill(
    root,
    head.element,
    result,
    kind === "tune" && filtering.element,
    learning && [card(learning), h("section", { class: "card" }, h("h2", {}, "Trials"), table.element, h("p", { class: "hint" }, sharesOf(store.job)))],
    insights && [
      card(lines),
      h("div", { class: "grid wide" }, card(scatter), insights.importances),
      insights.correlation,
      plots({ store, signal }),
    ],
    details.element,
  );
  const drawAll = async () => {
    head.update();
    details.update();
    if (result && !isShown && store.job.result) (isShown = true), fill(result, resultOf(store.job));
    for (const chart of charts) (chart.redraw(), await nextFrame()); // one per frame keeps the page responsive
    insights?.refresh();
  };
  const redraw = throttle(drawAll, () => (store.points > FEW_POINTS ? SLOWER : 0));
  redraw();
  store.follow(signal, redraw, head.stream).catch((error) => signal.aborted || head.failed(error));
}

const card = ({ element }) => h("section", { class: "card" }, element);

/** Wrap `callback` so that calls within `pause()` milliseconds become one, at the end of the pause. */
function throttle(callback, pause) {
  let waiting = null;
  return () => {
    if (waiting) return;
    waiting = setTimeout(() => ((waiting = null), callback()), pause());
  };
}

/** Create the input that filters trials in the table and in all charts. */
function filterOf(store, initial, redraw) {
  let test = () => true;
  const error = h("p", { class: "error", id: "filter-error", role: "alert" });
  const input = h("input", {
    type: "search",
    id: "filter",
    value: initial,
    placeholder: "> 0.98",
    "aria-describedby": "filter-hint filter-error",
    oninput: () => (read(), redraw()),
  });

  function read() {
    const columns = Object.fromEntries(
      columnsOf(store.job, [...store.trials.values()]).map(({ name, read }) => [name, read]),
    );
    try {
      test = predicate(input.value, columns, objectiveOf(store.job).name);
      setText(error, "");
      input.removeAttribute("aria-invalid");
      setQuery({ filter: input.value });
    } catch (problem) {
      setText(error, problem.message);
      input.setAttribute("aria-invalid", "true");
    }
  }

  read();
  const element = h(
    "div",
    { class: "field filter" },
    h("label", { for: "filter" }, "Filter trials"),
    input,
    h(
      "p",
      { class: "hint", id: "filter-hint" },
      "Examples: ",
      h("code", {}, "> 0.98"),
      " or ",
      h("code", {}, "learning_rate < 0.01, pruned"),
      ". Charts fade trials that do not match.",
    ),
    error,
  );
  return { element, matches: (trial) => test(trial) };
}

/** Show the result of a predict or evaluate job. */
function resultOf(job) {
  if (!job.result) return h("p", { class: "notice" }, isOver(job) ? "No result." : "The result appears when the job completes.");
  const { images, unusable, abstained, accuracy } = job.result;
  const facts = [
    ["Images", figure(images)],
    ["Unusable", figure(unusable)],
    ["Abstained", figure(abstained)],
    ["Accuracy", accuracy === null ? "–" : objectiveOf(job).format(accuracy)],
  ];
  return h(
    "section",
    { class: "card" },
    h("h2", {}, "Result"),
    h(
      "dl",
      { class: "facts" },
      facts.map(([term, value]) => h("div", {}, h("dt", {}, term), h("dd", {}, value))),
    ),
    h("p", {}, h("a", { href: `/jobs/${job.id}/predictions` }, "Prediction per image")),
  );
}

/** Show report, specification and history; `update()` adds new entries of the history. */
function detailsOf(store) {
  const summary = h("summary");
  const history = h("ol", { class: "history" });
  const update = () => {
    if (history.childElementCount === store.job.history.length) return;
    setText(summary, `History: ${count(store.job.history.length, "change")}`);
    fill(
      history,
      store.job.history.map(({ state, detail, by, at }) =>
        h(
          "li",
          {},
          h("span", { class: "muted small" }, timeAgo(at)),
          " ",
          badge(state),
          detail ? ` ${detail}` : "",
          by ? h("span", { class: "muted small" }, ` by ${by}`) : "",
        ),
      ),
    );
  };
  const element = h(
    "section",
    { class: "card view" },
    h("h2", {}, "Report, specification and history"),
    h(
      "p",
      { class: "row" },
      h("a", { href: `/jobs/${store.id}/report` }, "Report"),
      h("a", { href: `#/jobs/new?from=${store.id}` }, "New job like this"),
    ),
    h(
      "details",
      {},
      h("summary", {}, "Specification"),
      h("pre", { tabindex: 0 }, JSON.stringify(store.job.spec, null, 2)),
    ),
    h("details", {}, summary, history),
  );
  return { element, update };
}
