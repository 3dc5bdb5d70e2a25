// Reports of completed jobs and of experiments. The service writes a report when it is requested.

import { get, pages } from "../api.js";
import { empty, h, fill, timeAgo } from "../dom.js";
import { figure, percent } from "../format.js";
import { to } from "../address.js";
import { badge, isInference, titleOf } from "../states.js";

const MOST = 200; // the most jobs that are listed
const HEADS = ["Job", "Best", "Version", "Ended", "Report"];
const GROUP_HEADS = ["Experiments", "Scale", "Posted", "Report"];
const LANGUAGES = [
  ["en", "English"],
  ["fr", "French"],
];

export async function show(root, params, signal) {
  const jobs = [];
  for await (const items of pages("/jobs?state=completed&limit=100", { signal })) {
    jobs.push(...items.filter((job) => !isInference(job)));
    if (jobs.length >= MOST) break;
  }
  const { groups } = await get("/jobs/experiments", { signal });
  fill(
    root,
    h("div", { class: "head" }, h("h1", {}, "Reports")),
    h(
      "p",
      { class: "muted" },
      "A report is one HTML file about a job: its search space, its results and their uncertainty. You can save and print it.",
    ),
    groups.length > 0 && table("Experiments posted together, newest first", GROUP_HEADS, groups.map(groupRow)),
    jobs.length
      ? table("Completed jobs, newest first", HEADS, jobs.map(row))
      : empty(
          "No completed jobs yet",
          h("p", {}, "The report of a job appears here when the job completes."),
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
    h("td", {}, timeAgo(group.created_at)),
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
    h("td", {}, timeAgo(job.finished_at)),
    h("td", {}, links(`/jobs/${job.id}/report`, `${titleOf(job)}, ${job.id}`)),
  );
}

/** Create a link to the report in each language. */
const links = (path, of) =>
  h(
    "div",
    { class: "row" },
    LANGUAGES.map(([code, name]) =>
      h("a", { href: `${path}?lang=${code}`, target: "_blank", rel: "noopener", "aria-label": `${name}: report of ${of}` }, name),
    ),
  );
