// The head of a job's page: its title, state, actions and the figures that matter.

import { buttons } from "./actions.js";
import { objectiveOf } from "../charts/columns.js";
import { announce, fill, h, refill, text } from "../dom.js";
import { duration, figure, words } from "../format.js";
import { to } from "../address.js";
import { badge, ended, isOver, progressOf, secondsLeft, titleOf } from "../states.js";

/** The head of a record: its element, `update()`, `stream(state)` as follow() names it, `failed(error)`. */
export function headOf(record, redraw) {
  const state = h("span");
  const live = h("span", { class: "live small muted", role: "status" });
  const actions = h("div", { class: "row" });
  const told = h("div");
  const bar = h("progress", { max: 1, "aria-label": "Progress" });
  const facts = h("dl", { class: "facts" });
  const element = h(
    "div",
    { class: "view" },
    h(
      "nav",
      { "aria-label": "Where you are", class: "small" },
      h("a", { href: "#/jobs" }, "Jobs"),
      " / ",
      h("code", {}, record.id),
    ),
    h("div", { class: "head" }, h("div", { class: "titled" }, h("h1", {}, titleOf(record.job)), state, live), actions),
    told,
    h("section", { class: "card view", "aria-label": "Where it stands" }, bar, facts),
  );
  let known = "";
  let before = record.job.state;
  const changed = (job) => ((record.job = job), redraw());

  function update() {
    const { job } = record;
    const epochs = epochsOf(record);
    const progress = progressOf(job, epochs);
    const atWork = ["running", "stopping"].includes(job.state);
    progress === null && atWork ? bar.removeAttribute("value") : (bar.value = progress ?? 0);
    const fresh = h(
      "dl",
      {},
      factsOf(job, epochs).map(([term, value]) => h("div", {}, h("dt", {}, term), h("dd", {}, value))),
    );
    if (fresh.innerHTML !== facts.innerHTML) refill(facts, ...fresh.children);
    if (job.state !== before) announce(`The job is ${words(job.state)}`);
    before = job.state;
    const now = `${job.state} ${job.trial_limit} ${job.seconds_limit} ${job.error}`;
    if (now === known) return;
    known = now;
    fill(state, badge(job.state));
    fill(told, job.error ? h("p", { class: "failure" }, job.error) : []);
    refill(
      actions,
      buttons(job, changed, (problem) => fill(told, problem)),
    );
  }

  return {
    element,
    update,
    stream: (name) =>
      text(live, { open: isOver(record.job) ? "" : "● live", waiting: "○ reconnecting …", ended: "" }[name]),
    failed: (error) => fill(told, h("p", { class: "failure", role: "alert" }, error.message)),
  };
}

/** How many epochs a training has had. */
const epochsOf = ({ job, trials }) => (job.kind === "train" ? (trials.get(0)?.epochs_run ?? 0) : 0);

function factsOf(job, epochs) {
  const { format } = objectiveOf(job);
  const limit = job.trial_limit >= 100000 ? "" : ` of ${job.trial_limit.toLocaleString("en")}`;
  const left = secondsLeft(job, epochs);
  return [
    job.kind === "tune" && ["Trials", `${ended(job).toLocaleString("en")}${limit}`],
    job.kind === "train" && ["Epochs", `${figure(epochs)} of at most ${job.spec.budget.epochs}`],
    job.kind === "tune" && job.trials.running > 0 && ["Running", job.trials.running],
    job.trials.pruned && ["Pruned", job.trials.pruned.toLocaleString("en")],
    job.best && [
      `Best ${objectiveOf(job).label}`,
      [
        format(job.best.value),
        " ",
        h("a", { class: "small", href: to("jobs", job.id, "trials", job.best.trial) }, `trial ${job.best.trial}`),
      ],
    ],
    ["Time worked", duration(job.active_seconds)],
    left !== null && ["Time left", `about ${duration(left)}`],
    job.lanes && ["Lanes", job.lanes],
    job.version && [
      "Published as",
      h(
        "a",
        { href: to("models", job.version.model, job.version.version) },
        `${job.version.model} ${job.version.version}`,
      ),
    ],
    job.stop_reason && ["Ended by", words(job.stop_reason)],
  ].filter(Boolean);
}
