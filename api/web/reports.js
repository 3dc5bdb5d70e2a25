// Reports: one of every job that has ended, written by the service when it is asked for.

import { pages } from "./api.js";
import { empty, h, fill } from "./dom.js";
import { ago, figure, instant, percent } from "./format.js";
import { to } from "./router.js";
import { badge, classifies, titleOf } from "./states.js";

const MOST = 200; // rows
const LANGUAGES = [
  ["en", "English"],
  ["fr", "French"],
];

export async function show(root, params, signal) {
  const jobs = [];
  for await (const items of pages("/jobs?state=completed&limit=100", { signal })) {
    jobs.push(...items.filter((job) => !classifies(job)));
    if (jobs.length >= MOST) break;
  }
  fill(
    root,
    h("div", { class: "head" }, h("h1", {}, "Reports")),
    h(
      "p",
      { class: "muted" },
      "A report is one HTML file that tells of a job: what was searched, what was found, and how sure that is. It can be kept and printed.",
    ),
    jobs.length
      ? table(jobs)
      : empty(
          "No job has completed yet.",
          h("p", {}, "When one has, its report is here."),
          h("p", {}, h("a", { class: "button primary", href: "#/jobs/new" }, "New job")),
        ),
  );
}

function table(jobs) {
  const heads = ["Job", "Best", "Version", "Ended", "Report"];
  return h(
    "div",
    { class: "card scroll", tabindex: 0, role: "group", "aria-label": "Reports" },
    h(
      "table",
      {},
      h("caption", {}, "Completed jobs, the newest first"),
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          heads.map((name) => h("th", { scope: "col" }, name)),
        ),
      ),
      h("tbody", {}, jobs.map(row)),
    ),
  );
}

function row(job) {
  const best = job.best && (job.objective === "val_loss" ? `loss ${figure(job.best.value)}` : percent(job.best.value));
  return h(
    "tr",
    {},
    h(
      "th",
      { scope: "row" },
      h("a", { href: to("jobs", job.id) }, titleOf(job)),
      h("br"),
      h("code", { class: "muted" }, job.id),
    ),
    h("td", {}, best ?? badge(job.state)),
    h(
      "td",
      {},
      job.version
        ? h(
            "a",
            { href: to("models", job.version.model, job.version.version) },
            `${job.version.model} ${job.version.version}`,
          )
        : "–",
    ),
    h("td", {}, h("time", { datetime: job.finished_at, title: instant(job.finished_at) }, ago(job.finished_at))),
    h(
      "td",
      {},
      h(
        "div",
        { class: "row" },
        LANGUAGES.map(([code, name]) => reportLink(job, code, name)),
      ),
    ),
  );
}

const reportLink = (job, code, name) =>
  h(
    "a",
    {
      href: `/jobs/${job.id}/report?lang=${code}`,
      target: "_blank",
      rel: "noopener",
      "aria-label": `${name}: report of ${titleOf(job)}, ${job.id}`,
    },
    name,
  );
