// Networks with their champions and versions; with a network's name in the address, that one and how its champions moved.

import { get } from "../api.js";
import { promoteButton, rollbackButton } from "./champions.js";
import { empty, fill, h } from "../dom.js";
import { ago, figure, instant, percent } from "../format.js";
import { to } from "../address.js";

export async function show(root, { model }, signal) {
  const draw = async () => {
    const items = model ? [await get(`/models/${encodeURIComponent(model)}`, { signal })] : (await get("/models", { signal })).items;
    const moves = model ? (await get(`/models/${encodeURIComponent(model)}/champion/moves`, { signal })).items : [];
    fill(root,
      h("div", { class: "head" }, h("h1", {}, model ?? "Models"), model && h("a", { href: "#/models" }, "All models")),
      items.length ? items.map((item) => network(item, !model, draw)) : nothing(),
      moves.length > 0 && history(moves));
  };
  await draw();
}

const nothing = () =>
  empty("No network is published yet", h("p", {}, "Train or tune one: the best trial of a job is published when the job has ended."), h("a", { class: "button primary", href: "#/jobs/new" }, "New job"));

function network({ model, champions, versions }, titled, changed) {
  return h("section", { class: "card view network", "aria-label": model },
    titled && h("h2", {}, h("a", { href: to("models", model) }, model)),
    h("div", { class: "grid" }, champions.map((champion) => reigning(champion, versions, changed))),
    h("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": `Versions of ${model}` }, table(model, versions, changed)));
}

/** The version that answers for a data set. */
function reigning(champion, versions, changed) {
  const version = versions.find((each) => each.version === champion.version);
  return h("div", { class: "row spread" },
    h("dl", { class: "facts" },
      fact(`Champion on ${champion.dataset}`, h("a", { href: to("models", champion.model, champion.version) }, `version ${champion.version}`)),
      fact("Test accuracy", percent(version?.test_accuracy)),
      fact("Since", h("span", { title: instant(champion.moved_at) }, ago(champion.moved_at)))),
    versions.filter((each) => each.dataset === champion.dataset).length > 1 && rollbackButton(champion, changed));
}

const fact = (name, value) => h("div", {}, h("dt", {}, name), h("dd", {}, value));

const COLUMNS = ["Version", "Data set", "Validation", "Test", "Weights", "Latency", "Published", "Job", ""];
const NUMBERS = ["Validation", "Test", "Weights", "Latency"];

function table(model, versions, changed) {
  return h("table", { class: "network-versions" },
    h("caption", { class: "unseen" }, `Versions of ${model}, the newest first`),
    h("thead", {}, h("tr", {}, COLUMNS.map((name) => h("th", { scope: "col", class: NUMBERS.includes(name) && "number" }, name || h("span", { class: "unseen" }, "Action"))))),
    h("tbody", {}, versions.map((version) => row(version, changed))));
}

function row(version, changed) {
  const { latency_seconds: latency } = version;
  return h("tr", {},
    h("th", { scope: "row" }, h("a", { href: to("models", version.model, version.version), "aria-label": `${version.model}, version ${version.version}` }, version.version)),
    h("td", {}, version.dataset),
    h("td", { class: "number" }, percent(version.val_accuracy)),
    h("td", { class: "number" }, percent(version.test_accuracy)),
    h("td", { class: "number" }, figure(version.weights)),
    h("td", { class: "number" }, latency === null ? "–" : `${figure(latency * 1000, 2)} ms`),
    h("td", {}, h("span", { title: instant(version.created_at) }, ago(version.created_at))),
    h("td", {}, h("a", { href: to("jobs", version.job_id), class: "mono" }, version.job_id)),
    h("td", {}, version.champion ? h("span", { class: "badge good" }, "champion") : promoteButton(version, changed)));
}

const BY = { rule: "by rule", hand: "by hand", rollback: "rolled back" };

function history(moves) {
  const item = (move) => h("li", {},
    h("strong", {}, `${move.dataset}: ${move.previous === null ? "" : `version ${move.previous} → `}version ${move.version}`),
    h("span", { class: "muted" }, ` ${BY[move.by] ?? move.by}, `, h("span", { title: instant(move.at) }, ago(move.at)), `: ${move.reason}`));
  return h("section", { class: "card" }, h("h2", {}, "How its champions moved"), h("ul", { class: "moves" }, moves.map(item)));
}
