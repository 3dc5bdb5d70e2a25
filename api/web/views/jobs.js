// The list of jobs.

import { get, poll } from "../api.js";
import { buttons, jobAddress } from "./actions.js";
import { empty, failure, fill, h, refill, setText, timeAgo } from "../dom.js";
import { count, duration, percent, figure, readable } from "../format.js";
import { setQuery } from "../address.js";
import { badge, isInference, endedTrials, isOver, progressOf, secondsLeft, stopReason, titleOf } from "../states.js";

const STATES = ["queued", "running", "paused", "stopping", "completed", "failed", "cancelled"];
const PAGE = 25;
const LARGEST = 1000; // jobs that the API lists at once
const INTERVAL = 2000; // milliseconds between two requests

export async function show(root, params, signal) {
  const list = h("ul", { class: "jobs" });
  const rows = new Map(); // a job's id → its row
  const alert = h("div");
  const more = h("button", { type: "button", onclick: () => ((shown += PAGE), again()) }, "Show older jobs");
  let state = STATES.includes(params.state) ? params.state : "";
  let shown = PAGE;
  let latest = 0; // number of the latest request; responses to earlier ones are dropped

  async function load() {
    const request = ++latest;
    const jobs = [];
    let cursor = null;
    do {
      const limit = Math.min(shown - jobs.length, LARGEST);
      const query = new URLSearchParams({ limit, ...(state && { state }), ...(cursor && { cursor }) });
      const page = await get(`/jobs?${query}`, { signal });
      jobs.push(...page.items);
      cursor = page.next_cursor;
    } while (cursor && jobs.length < shown);
    if (request !== latest) return;
    more.hidden = !cursor;
    draw(jobs);
  }

  function draw(jobs) {
    const listed = new Set(jobs.map((job) => job.id));
    for (const [id, row] of rows) if (!listed.has(id)) (row.element.remove(), rows.delete(id));
    jobs.forEach((job, at) => {
      if (!rows.has(job.id))
        rows.set(
          job.id,
          rowOf(job, load, (problem) => fill(alert, problem)),
        );
      const { element, update } = rows.get(job.id);
      update(job);
      if (list.children[at] !== element) list.insertBefore(element, list.children[at] ?? null);
    });
    fill(nothing, jobs.length ? [] : noJobs(state));
  }

  const again = () => (fill(alert), load().catch((error) => signal.aborted || fill(alert, failure(error))));
  const nothing = h("div");
  const choice = h(
    "select",
    {
      id: "state",
      onchange: () => ((state = choice.value), setQuery({ state }), again()),
    },
    h("option", { value: "" }, "all"),
    STATES.map((name) => h("option", { value: name, selected: name === state }, name)),
  );
  fill(
    root,
    h(
      "div",
      { class: "head" },
      h("h1", {}, "Jobs"),
      h("div", { class: "row" }, h("label", { for: "state" }, "State"), h("span", { class: "narrow" }, choice)),
      h("a", { class: "button primary", href: "#/jobs/new" }, "New job"),
    ),
    alert,
    nothing,
    list,
    h("div", { class: "row" }, more),
  );
  await load();
  poll(load, INTERVAL, signal).catch(
    (error) =>
      signal.aborted ||
      fill(
        alert,
        failure(error, () => location.reload()),
      ),
  );
}

const noJobs = (state) =>
  state
    ? empty(`No ${state} jobs`)
    : empty(
        "No jobs yet",
        h("p", {}, "A job tunes the hyper-parameters of a network, or trains it with fixed values."),
        h("p", {}, h("a", { class: "button primary", href: "#/jobs/new" }, "Create a job")),
      );

/** Create a row that is updated in place, so that it keeps focus and selection. */
function rowOf(job, changed, failed) {
  const state = h("span");
  const bar = h("progress", { max: 1, "aria-label": `Progress of job ${job.id}` });
  const status = h("span", { class: "small muted" });
  const best = h("dd");
  const left = h("dd");
  const leftTerm = h("dt");
  const actions = h("div", { class: "row actions-of" });
  const element = h(
    "li",
    { class: "card job" },
    h(
      "div",
      { class: "job-name" },
      h("h2", {}, h("a", { href: jobAddress(job) }, titleOf(job))),
      h(
        "p",
        { class: "small muted" },
        h("code", {}, job.id),
        " · ",
        timeAgo(job.created_at),
        " ",
        state,
      ),
    ),
    h("div", { class: "job-progress" }, bar, status),
    h("dl", { class: "facts plain" }, h("div", {}, h("dt", {}, "Best so far"), best), h("div", {}, leftTerm, left)),
    actions,
  );
  let drawn = ""; // the state that the badge and the buttons show
  return {
    element,
    update(now) {
      const progress = progressOf(now);
      bar.hidden = progress === null && isOver(now);
      progress === null ? bar.removeAttribute("value") : (bar.value = progress);
      if (now.state === "queued" || (now.state === "paused" && progress === null)) bar.value = 0;
      setText(status, statusOf(now));
      fill(best, now.best ? [objective(now), h("span", { class: "muted small" }, ` trial ${now.best.trial}`)] : "–");
      setText(leftTerm, isOver(now) ? "Duration" : "Time left");
      setText(
        left,
        isOver(now)
          ? duration(now.active_seconds)
          : secondsLeft(now) === null
            ? "–"
            : `about ${duration(secondsLeft(now))}`,
      );
      if (drawn === `${now.state} ${now.trial_limit} ${now.seconds_limit}`) return;
      drawn = `${now.state} ${now.trial_limit} ${now.seconds_limit}`;
      fill(state, badge(now.state));
      refill(actions, buttons(now, changed, failed));
    },
  };
}

/** Format the best objective: an accuracy as a percentage, a loss as a number. */
const objective = ({ objective, best }) =>
  objective === "val_loss" ? `loss ${figure(best.value)}` : percent(best.value);

function statusOf(job) {
  if (job.error) return job.error;
  if (isInference(job)) return stopReason(job);
  const done = endedTrials(job);
  const trials = job.trial_limit >= 100000 ? count(done, "trial") : `${figure(done)} of ${count(job.trial_limit, "trial")}`;
  const pruned = job.trials.pruned ? `, ${job.trials.pruned.toLocaleString("en")} pruned` : "";
  const running = job.trials.running ? `, ${job.trials.running} running` : "";
  return job.kind === "train"
    ? job.trials.running
      ? "training"
      : job.state === "completed"
        ? "trained"
        : readable(job.state)
    : `${trials}${pruned}${running}`;
}
