// Reports: one of every job that has ended, and of experiments together, written by the service when asked for.

import { get, pages } from "../api.js";
import { empty, h, fill } from "../dom.js";
import { ago, figure, instant, percent } from "../format.js";
import { to } from "../address.js";
import { badge, classifies, titleOf } from "../states.js";

const MOST = 200; // rows
const HEADS = ["Job", "Best", "Version", "Ended", "Report"];
const GROUP_HEADS = ["Experiments", "Scale", "Posted", "Report"];
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
  const { groups } = await get("/jobs/experiments", { signal });
  fill(
    root,
    h("div", { class: "head" }, h("h1", {}, "Reports")),
    h(
      "p",
      { class: "muted" },
      "A report is one HTML file that tells of a job: what was searched, what was found, and how sure that is. It can be kept and printed.",
    ),
    groups.length > 0 && table("Experiments that were posted together, the newest first", GROUP_HEADS, groups.map(groupRow)),
    jobs.length
      ? table("Completed jobs, the newest first", HEADS, jobs.map(row))
      : empty(
          "No job has completed yet.",
          h("p", {}, "When one has, its report is here."),
          h("p", {}, h("a", { class: "button primary", href: "#/jobs/new" }, "New job")),
        ),
  );
}

function table(caption, heads, rows) {
  return h(
    "div",
    { class: "card scroll", tabindex: 0, role: "group", "aria-label": caption },
    h(
      "table",
      {},
      h("caption", {}, caption),
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          heads.map((name) => h("th", { scope: "col" }, name)),
        ),
      ),
      h("tbody", {}, rows),
    ),
  );
}

function groupRow(group) {
  const of = `experiments ${group.collection}, ${group.id}`;
  return h(
    "tr",
    {},
    h("th", { scope: "row" }, group.collection, h("br"), h("code", { class: "muted" }, group.id)),
    h("td", {}, percent(group.scale)),
    h("td", {}, h("time", { datetime: group.created_at, title: instant(group.created_at) }, ago(group.created_at))),
    h("td", {}, links(`/jobs/experiments/${group.id}/report`, of)),
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
    h("td", {}, links(`/jobs/${job.id}/report`, `${titleOf(job)}, ${job.id}`)),
  );
}

/** A report in each language. */
const links = (path, of) =>
  h(
    "div",
    { class: "row" },
    LANGUAGES.map(([code, name]) =>
      h("a", { href: `${path}?lang=${code}`, target: "_blank", rel: "noopener", "aria-label": `${name}: report of ${of}` }, name),
    ),
  );
