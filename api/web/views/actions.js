// Buttons that act on a job, and their dialogs.

import { patch, post } from "../api.js";
import { announce, openDialog, failure, fill, h } from "../dom.js";
import { to } from "../address.js";
import { isInference, isOver, titleOf } from "../states.js";

/** Create the buttons for a job. `changed` gets the updated job from the API; `failed` gets an element with the error. */
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
  const canExtend = !isInference(job) && ["queued", "running", "paused", "completed"].includes(job.state);
  const name = `${titleOf(job)}, ${job.id}`;
  return [
    ["queued", "running", "stopping"].includes(job.state) && button("Pause", name, run("pause", "Job paused")),
    job.state === "paused" && button("Resume", name, run("resume", "Job resumed")),
    canExtend && button("Extend", name, () => extend(job, changed)),
    !isInference(job) &&
      h("a", { class: "button", href: `#/jobs/new?from=${job.id}`, "aria-label": `Duplicate ${name}` }, "Duplicate"),
    active && button("Cancel", name, () => cancel(job, run("cancel", "Job cancelled")), "danger"),
  ].filter(Boolean);
}

const button = (label, name, onclick, kind = "") =>
  h("button", { type: "button", class: kind, onclick, "aria-label": `${label} ${name}` }, label);

async function cancel(job, run) {
  const body = h(
    "p",
    {},
    "Running trials stop within seconds. Results so far are kept. A cancelled job cannot be resumed.",
  );
  if (
    await openDialog(`Cancel “${titleOf(job)}”?`, body, [
      ["Keep job", null],
      ["Cancel job", "yes", "danger"],
    ])
  )
    await run();
}

/** Open a dialog for new limits; it stays open until the API accepts them. */
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
        ? "Raising a limit restarts a completed job."
        : "The job stops at the first limit that it reaches.",
    ),
    job.kind === "tune" && h("p", { class: "field" }, h("label", { for: trials.id }, "Total trials"), trials),
    h("p", { class: "field" }, h("label", { for: seconds.id }, "Time limit in seconds (blank = no limit)"), seconds),
    problem,
  );
  for (;;) {
    if (
      !(await openDialog("Change limits", body, [
        ["Close", null],
        ["Save limits", "yes", "primary"],
      ]))
    )
      return;
    const budget = { seconds: seconds.value === "" ? null : Number(seconds.value) };
    if (job.kind === "tune") budget.trials = Number(trials.value);
    try {
      changed(await patch(`/jobs/${job.id}`, { budget }));
      announce("Limits saved");
      return;
    } catch (error) {
      fill(problem, failure(error));
    }
  }
}

/** Return the address of a job's page. */
export const jobAddress = (job) => to("jobs", job.id);
