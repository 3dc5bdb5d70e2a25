// What can be done with a job: buttons, and the dialogs behind them.

import { patch, post } from "../api.js";
import { announce, ask, failure, fill, h } from "../dom.js";
import { to } from "../address.js";
import { classifies, isOver, titleOf } from "../states.js";

/** The buttons for a job. `changed` gets the job as the API answers; `failed` an element that tells an error. */
export function buttons(job, changed, failed) {
  const run = (path, done) => async () => {
    try {
      changed(await post(`/jobs/${job.id}/${path}`));
      announce(done);
    } catch (error) {
      failed(failure(error));
    }
  };
  const active = !isOver(job);
  const extends_ = !classifies(job) && ["queued", "running", "paused", "completed"].includes(job.state);
  const name = `${titleOf(job)}, ${job.id}`;
  return [
    ["queued", "running", "stopping"].includes(job.state) && button("Pause", name, run("pause", "The job is paused")),
    job.state === "paused" && button("Resume", name, run("resume", "The job goes on")),
    extends_ && button("Extend", name, () => extend(job, changed)),
    !classifies(job) &&
      h("a", { class: "button", href: `#/jobs/new?from=${job.id}`, "aria-label": `Duplicate ${name}` }, "Duplicate"),
    active && button("Cancel", name, () => cancel(job, run("cancel", "The job is cancelled")), "danger"),
  ].filter(Boolean);
}

const button = (label, name, onclick, kind = "") =>
  h("button", { type: "button", class: kind, onclick, "aria-label": `${label} ${name}` }, label);

async function cancel(job, run) {
  const words = h(
    "p",
    {},
    `Its running trials are cut within seconds; what was measured is kept. A cancelled job cannot be resumed.`,
  );
  if (
    await ask(`Cancel “${titleOf(job)}”?`, words, [
      ["Keep it", null],
      ["Cancel the job", "yes", "danger"],
    ])
  )
    await run();
}

/** A dialog for another budget; it stays open until the API has taken it. */
async function extend(job, changed) {
  const trials = h("input", {
    type: "number",
    id: "extend-trials",
    min: 1,
    max: 100000,
    step: 1,
    value: job.trial_limit,
  });
  const seconds = h("input", {
    type: "number",
    id: "extend-seconds",
    min: 1,
    step: "any",
    value: job.seconds_limit ?? "",
  });
  const problem = h("div");
  const body = h(
    "div",
    { class: "view" },
    h(
      "p",
      {},
      job.state === "completed"
        ? "A completed job runs on where its new budget allows for more."
        : "The job ends at whichever limit it reaches first.",
    ),
    job.kind === "tune" && h("p", { class: "field" }, h("label", { for: trials.id }, "Trials in all"), trials),
    h("p", { class: "field" }, h("label", { for: seconds.id }, "Seconds of work, empty for no limit"), seconds),
    problem,
  );
  for (;;) {
    if (
      !(await ask("Another budget", body, [
        ["Close", null],
        ["Change the budget", "yes", "primary"],
      ]))
    )
      return;
    const budget = { seconds: seconds.value === "" ? null : Number(seconds.value) };
    if (job.kind === "tune") budget.trials = Number(trials.value);
    try {
      changed(await patch(`/jobs/${job.id}`, { budget }));
      announce("The budget is changed");
      return;
    } catch (error) {
      fill(problem, failure(error));
    }
  }
}

/** The address of a job's page. */
export const jobAddress = (job) => to("jobs", job.id);
