// A job, live: its trials and their curves as they come, by the event stream.

import { analysis } from "../charts/analysis.js";
import { columnsOf, objectiveOf } from "../charts/columns.js";
import { curves } from "../charts/curves.js";
import { fill, h, nextFrame, text } from "../dom.js";
import { predicate } from "../forms/filter.js";
import { count, figure, instant } from "../format.js";
import { headOf } from "./jobhead.js";
import { parallel } from "../charts/parallel.js";
import { pareto } from "../charts/pareto.js";
import { plots } from "../charts/plotly.js";
import { recordOf } from "./job_store.js";
import { rewrite, to } from "../address.js";
import { badge, classifies, isOver, titleOf } from "../states.js";
import { trialTable } from "./trials.js";

const EASY = 5000; // points of curves up to which everything is drawn at every change
const CALM = 400; // milliseconds between two drawings of more

export async function show(root, { id, filter = "" }, signal) {
  const record = await recordOf(id, signal);
  document.title = `${titleOf(record.job)} · Chiffre`;
  const head = headOf(record, () => redraw());
  const open = (number) => (location.hash = to("jobs", id, "trials", number));
  const filtering = filterOf(record, filter, () => redraw());
  const shared = { record, chosen: filtering.chosen, open, signal };
  const { kind } = record.job;
  const parts = classifies(record.job) ? [] : [curves(shared), trialTable(shared)];
  if (kind === "tune") parts.push(parallel(shared), pareto(shared));
  const [drawnCurves, table, lines, scatter] = parts;
  const found = kind === "tune" ? analysis({ record, signal }) : null;
  const rest = more(record);
  const result = classifies(record.job) ? h("div", {}, resultOf(record.job)) : null;
  let told = Boolean(record.job.result);
  fill(
    root,
    head.element,
    result,
    kind === "tune" && filtering.element,
    drawnCurves && [card(drawnCurves), h("section", { class: "card" }, h("h2", {}, "Trials"), table.element)],
    found && [
      card(lines),
      h("div", { class: "grid wide" }, card(scatter), found.importances),
      found.correlation,
      plots({ record, signal }),
    ],
    rest.element,
  );
  const whole = async () => {
    head.update();
    rest.update();
    if (result && !told && record.job.result) (told = true), fill(result, resultOf(record.job));
    for (const part of parts) (part.redraw(), await nextFrame()); // one a frame: all at once would be felt
    found?.look();
  };
  const redraw = calmly(whole, () => (record.points > EASY ? CALM : 0));
  redraw();
  record.follow(signal, redraw, head.stream).catch((error) => signal.aborted || head.failed(error));
}

const card = ({ element }) => h("section", { class: "card" }, element);

/** Call `work` now, and then no more often than every `pause()` milliseconds; what comes in between is one call more. */
function calmly(work, pause) {
  let waiting = null;
  return () => {
    if (waiting) return;
    waiting = setTimeout(() => ((waiting = null), work()), pause());
  };
}

/** A line of words that choose trials, everywhere on the page. */
function filterOf(record, begun, redraw) {
  let test = () => true;
  const error = h("p", { class: "error", id: "filter-error", role: "alert" });
  const input = h("input", {
    type: "search",
    id: "filter",
    value: begun,
    placeholder: "> 0.98",
    "aria-describedby": "filter-hint filter-error",
    oninput: () => (read(), redraw()),
  });

  function read() {
    const columns = Object.fromEntries(
      columnsOf(record.job, [...record.trials.values()]).map(({ name, read }) => [name, read]),
    );
    try {
      test = predicate(input.value, columns, objectiveOf(record.job).name);
      text(error, "");
      input.removeAttribute("aria-invalid");
      rewrite({ filter: input.value });
    } catch (problem) {
      text(error, problem.message);
      input.setAttribute("aria-invalid", "true");
    }
  }

  read();
  const element = h(
    "div",
    { class: "field filter" },
    h("label", { for: "filter" }, "Filter the trials"),
    input,
    h(
      "p",
      { class: "hint", id: "filter-hint" },
      "such as ",
      h("code", {}, "> 0.98"),
      ", ",
      h("code", {}, "learning_rate < 0.01, pruned"),
      "; the charts fade what is filtered away",
    ),
    error,
  );
  return { element, chosen: (trial) => test(trial) };
}

/** What a predict job found. */
function resultOf(job) {
  if (!job.result) return h("p", { class: "notice" }, isOver(job) ? "It has no result." : "The result is shown when the job has completed.");
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
    h("p", {}, h("a", { href: `/jobs/${job.id}/predictions` }, "What each image shows")),
  );
}

/** Files, specification and history, and `update()` for what has been added to that. */
function more(record) {
  const summary = h("summary");
  const history = h("ol", { class: "history" });
  const update = () => {
    if (history.childElementCount === record.job.history.length) return;
    text(summary, `History: ${count(record.job.history.length, "change")}`);
    fill(
      history,
      record.job.history.map(({ state, detail, by, at }) =>
        h(
          "li",
          {},
          h("span", { class: "muted small" }, instant(at)),
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
    h("h2", {}, "Files, specification and history"),
    h(
      "p",
      { class: "row" },
      h("a", { href: `/jobs/${record.id}/report` }, "Report"),
      h("a", { href: `#/jobs/new?from=${record.id}` }, "Another job like this one"),
    ),
    h(
      "details",
      {},
      h("summary", {}, "Specification"),
      h("pre", { tabindex: 0 }, JSON.stringify(record.job.spec, null, 2)),
    ),
    h("details", {}, summary, history),
  );
  return { element, update };
}
