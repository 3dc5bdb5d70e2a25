// The list of jobs.

import { get, poll } from "../api.js";
import { buttons, jobAddress } from "./actions.js";
import { empty, failure, fill, h, refill, text } from "../dom.js";
import { ago, count, duration, instant, percent, figure, words } from "../format.js";
import { rewrite } from "../address.js";
import { badge, classifies, ended, isOver, progressOf, secondsLeft, titleOf } from "../states.js";

const STATES = ["queued", "running", "paused", "stopping", "completed", "failed", "cancelled"];
const PAGE = 25;
const LARGEST = 1000; // jobs that the API lists at once
const EVERY = 2000; // milliseconds between looks

export async function show(root, params, signal) {
  const list = h("ul", { class: "jobs" });
  const rows = new Map(); // a job's id → its row
  const told = h("div");
  const more = h("button", { type: "button", onclick: () => ((shown += PAGE), again()) }, "Show older jobs");
  let state = STATES.includes(params.state) ? params.state : "";
  let shown = PAGE;
  let looks = 0; // so that an answer that comes after a later one's question is not shown

  async function look() {
    const own = ++looks;
    const jobs = [];
    let cursor = null;
    do {
      const limit = Math.min(shown - jobs.length, LARGEST);
      const query = new URLSearchParams({ limit, ...(state && { state }), ...(cursor && { cursor }) });
      const page = await get(`/jobs?${query}`, { signal });
      jobs.push(...page.items);
      cursor = page.next_cursor;
    } while (cursor && jobs.length < shown);
    if (own !== looks) return;
    more.hidden = !cursor;
    draw(jobs);
  }

  function draw(jobs) {
    const kept = new Set(jobs.map((job) => job.id));
    for (const [id, row] of rows) if (!kept.has(id)) (row.element.remove(), rows.delete(id));
    jobs.forEach((job, at) => {
      if (!rows.has(job.id))
        rows.set(
          job.id,
          rowOf(job, look, (problem) => fill(told, problem)),
        );
      const { element, update } = rows.get(job.id);
      update(job);
      if (list.children[at] !== element) list.insertBefore(element, list.children[at] ?? null);
    });
    fill(nothing, jobs.length ? [] : noJobs(state));
  }

  const again = () => (fill(told), look().catch((error) => signal.aborted || fill(told, failure(error))));
  const nothing = h("div");
  const choice = h(
    "select",
    {
      id: "state",
      onchange: () => ((state = choice.value), rewrite({ state }), again()),
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
    told,
    nothing,
    list,
    h("div", { class: "row" }, more),
  );
  await look();
  poll(look, EVERY, signal).catch(
    (error) =>
      signal.aborted ||
      fill(
        told,
        failure(error, () => location.reload()),
      ),
  );
}

const noJobs = (state) =>
  state
    ? empty(`No job is ${state}.`)
    : empty(
        "No jobs yet.",
        h("p", {}, "A job searches the hyper-parameters of a network, or trains one with fixed ones."),
        h("p", {}, h("a", { class: "button primary", href: "#/jobs/new" }, "Post the first one")),
      );

/** A row that changes in place, so that focus and selection stay where they are. */
function rowOf(job, look, failed) {
  const state = h("span");
  const bar = h("progress", { max: 1, "aria-label": `Progress of job ${job.id}` });
  const told = h("span", { class: "small muted" });
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
        h("time", { datetime: job.created_at, title: instant(job.created_at) }, ago(job.created_at)),
        " ",
        state,
      ),
    ),
    h("div", { class: "job-progress" }, bar, told),
    h("dl", { class: "facts plain" }, h("div", {}, h("dt", {}, "Best so far"), best), h("div", {}, leftTerm, left)),
    actions,
  );
  let known = "";
  return {
    element,
    update(now) {
      const progress = progressOf(now);
      bar.hidden = progress === null && isOver(now);
      progress === null ? bar.removeAttribute("value") : (bar.value = progress);
      if (now.state === "queued" || (now.state === "paused" && progress === null)) bar.value = 0;
      text(told, progressInWords(now));
      fill(best, now.best ? [objective(now), h("span", { class: "muted small" }, ` trial ${now.best.trial}`)] : "–");
      text(leftTerm, isOver(now) ? "Took" : "Time left");
      text(
        left,
        isOver(now)
          ? duration(now.active_seconds)
          : secondsLeft(now) === null
            ? "–"
            : `about ${duration(secondsLeft(now))}`,
      );
      if (known === `${now.state} ${now.trial_limit} ${now.seconds_limit}`) return;
      known = `${now.state} ${now.trial_limit} ${now.seconds_limit}`;
      fill(state, badge(now.state));
      refill(actions, buttons(now, look, failed));
    },
  };
}

/** An accuracy as per cent, a loss as it is. */
const objective = ({ objective, best }) =>
  objective === "val_loss" ? `loss ${figure(best.value)}` : percent(best.value);

function progressInWords(job) {
  if (job.error) return job.error;
  if (classifies(job)) return job.stop_reason ? words(job.stop_reason) : "";
  const limit = job.trial_limit >= 100000 ? "" : ` of ${job.trial_limit.toLocaleString("en")}`;
  const pruned = job.trials.pruned ? `, ${job.trials.pruned.toLocaleString("en")} pruned` : "";
  const running = job.trials.running ? `, ${job.trials.running} running` : "";
  return job.kind === "train"
    ? job.trials.running
      ? "training"
      : job.state === "completed"
        ? "trained"
        : words(job.state)
    : `${count(ended(job), "trial")}${limit}${pruned}${running}`;
}
