// Networks with their champions and versions. If the address names a network: that network and its champion history.

import { get } from "../api.js";
import { promoteButton, rollbackButton } from "./champions.js";
import { empty, fill, h, timeAgo } from "../dom.js";
import { figure, percent } from "../format.js";
import { to } from "../address.js";

export async function show(root, { model }, signal) {
  const draw = async () => {
    const items = model ? [await get(`/models/${encodeURIComponent(model)}`, { signal })] : (await get("/models", { signal })).items;
    const moves = model ? (await get(`/models/${encodeURIComponent(model)}/champion/moves`, { signal })).items : [];
    fill(root,
      h("div", { class: "head" }, h("h1", {}, model ?? "Models"), model && h("a", { href: "#/models" }, "All models")),
      items.length ? items.map((item) => network(item, !model, draw)) : noModels(),
      moves.length > 0 && history(moves));
  };
  await draw();
}

const noModels = () =>
  empty("No models yet", h("p", {}, "Train or tune a network. The best trial of a job is published when the job ends."), h("a", { class: "button primary", href: "#/jobs/new" }, "New job"));

function network({ model, champions, versions }, titled, changed) {
  return h("section", { class: "card view network", "aria-label": model },
    titled && h("h2", {}, h("a", { href: to("models", model) }, model)),
    h("div", { class: "grid" }, champions.map((champion) => championOf(champion, versions, changed))),
    h("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": `Versions of ${model}` }, table(model, versions, changed)));
}

/** Show the version that answers for a data set, with its accuracy. */
function championOf(champion, versions, changed) {
  const version = versions.find((each) => each.version === champion.version);
  return h("div", { class: "row spread" },
    h("dl", { class: "facts" },
      fact(`Champion on ${champion.dataset}`, h("a", { href: to("models", champion.model, champion.version) }, `version ${champion.version}`)),
      fact("Test accuracy", percent(version?.test_accuracy)),
      fact("Since", timeAgo(champion.moved_at))),
    versions.filter((each) => each.dataset === champion.dataset).length > 1 && rollbackButton(champion, changed));
}

const fact = (name, value) => h("div", {}, h("dt", {}, name), h("dd", {}, value));

const COLUMNS = ["Version", "Data set", "Validation", "Test", "Weights", "Latency", "Published", "Job", ""];
const NUMBERS = ["Validation", "Test", "Weights", "Latency"];

function table(model, versions, changed) {
  return h("table", { class: "network-versions" },
    h("caption", { class: "unseen" }, `Versions of ${model}, newest first`),
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
    h("td", {}, timeAgo(version.created_at)),
    h("td", {}, h("a", { href: to("jobs", version.job_id), class: "mono" }, version.job_id)),
    h("td", {}, version.champion ? h("span", { class: "badge good" }, "champion") : promoteButton(version, changed)));
}

const MOVED = { rule: "promoted automatically", hand: "promoted by hand", rollback: "rolled back" };

function history(moves) {
  const item = (move) => h("li", {},
    h("strong", {}, `${move.dataset}: ${move.previous === null ? "" : `version ${move.previous} → `}version ${move.version}`),
    h("span", { class: "muted" }, ` ${MOVED[move.by] ?? move.by}, `, timeAgo(move.at), `: ${move.reason}`));
  return h("section", { class: "card" }, h("h2", {}, "Champion history"), h("ul", { class: "moves" }, moves.map(item)));
}
