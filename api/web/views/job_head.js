// Head of a job's page: title, state, buttons and key figures.

import { buttons } from "./actions.js";
import { objectiveOf } from "../charts/columns.js";
import { announce, fill, h, refill, setText } from "../dom.js";
import { duration, figure, readable } from "../format.js";
import { to } from "../address.js";
import { badge, endedTrials, isInference, isOver, progressOf, rulesOf, secondsLeft, stopReason, titleOf } from "../states.js";

/** Return the head of a job: its element, `update()`, `stream(state)` for the states of follow(), and `failed(error)`. */
export function headOf(store, redraw) {
  const state = h("span");
  const live = h("span", { class: "live small muted", role: "status" });
  const actions = h("div", { class: "row" });
  const alert = h("div");
  const bar = h("progress", { max: 1, "aria-label": "Progress" });
  const facts = h("dl", { class: "facts" });
  const element = h(
    "div",
    { class: "view" },
    h(
      "nav",
      { "aria-label": "Breadcrumb", class: "small" },
      h("a", { href: "#/jobs" }, "Jobs"),
      " / ",
      h("code", {}, store.id),
    ),
    h("div", { class: "head" }, h("div", { class: "titled" }, h("h1", {}, titleOf(store.job)), state, live), actions),
    alert,
    h("section", { class: "card view", "aria-label": "Job status" }, bar, facts),
  );
  let drawn = ""; // what the badge, the alert and the buttons show
  let before = store.job.state;
  const changed = (job) => ((store.job = job), redraw());

  function update() {
    const { job } = store;
    const epochs = epochsOf(store);
    const progress = progressOf(job, epochs);
    const isWorking = ["running", "stopping"].includes(job.state);
    progress === null && isWorking ? bar.removeAttribute("value") : (bar.value = progress ?? 0);
    const fresh = h(
      "dl",
      {},
      factsOf(job, epochs).map(([term, value]) => h("div", {}, h("dt", {}, term), h("dd", {}, value))),
    );
    if (fresh.innerHTML !== facts.innerHTML) refill(facts, ...fresh.children);
    if (job.state !== before) announce(`The job is ${readable(job.state)}`);
    before = job.state;
    const now = `${job.state} ${job.trial_limit} ${job.seconds_limit} ${job.error}`;
    if (now === drawn) return;
    drawn = now;
    fill(state, badge(job.state));
    fill(alert, job.error ? h("p", { class: "failure" }, job.error) : []);
    refill(
      actions,
      buttons(job, changed, (problem) => fill(alert, problem)),
    );
  }

  return {
    element,
    update,
    stream: (name) =>
      setText(live, { open: isOver(store.job) ? "" : "● live", waiting: "○ reconnecting …", ended: "" }[name]),
    failed: (error) => fill(alert, h("p", { class: "failure", role: "alert" }, error.message)),
  };
}

/** Return the epochs that a train job has run; 0 for other jobs. */
const epochsOf = ({ job, trials }) => (job.kind === "train" ? (trials.get(0)?.epochs_run ?? 0) : 0);

function factsOf(job, epochs) {
  const { format } = objectiveOf(job);
  const limit = job.trial_limit >= 100000 ? "" : ` of ${job.trial_limit.toLocaleString("en")}`;
  const left = secondsLeft(job, epochs);
  return [
    job.kind === "tune" && ["Trials", `${endedTrials(job).toLocaleString("en")}${limit}`],
    job.kind === "train" && ["Epochs", `${figure(epochs)} of ${job.spec.budget.epochs}`],
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
    ["Active time", duration(job.active_seconds)],
    left !== null && ["Time left", `about ${duration(left)}`],
    job.lanes && ["Lanes", job.lanes],
    !isInference(job) && ["Rules", rulesOf(job)],
    job.version && [
      "Published version",
      h(
        "a",
        { href: to("models", job.version.model, job.version.version) },
        `${job.version.model} ${job.version.version}`,
      ),
    ],
    job.stop_reason && ["Stop reason", stopReason(job)],
  ].filter(Boolean);
}
