// One version: figures, confusion matrix, calibration, hyper-parameters and its card.

import { get, request } from "../api.js";
import { promoteButton, rollbackButton } from "./champions.js";
import { confusion } from "../charts/confusion.js";
import { busy, failure, fill, h } from "../dom.js";
import { bytes, count, figure, instant, percent, plain } from "../format.js";
import { rendered } from "../markdown.js";
import { reliability } from "../charts/reliability.js";
import { to } from "../address.js";

export async function show(root, { model, version: number }, signal) {
  const path = `/models/${encodeURIComponent(model)}/versions/${encodeURIComponent(number)}`;
  const [head, facts] = [h("div", { class: "head" }), h("div", { class: "card" })];
  const draw = async () => {
    const version = await get(path, { signal });
    fill(head, ...heading(version, version.champion && await canGoBack(version, signal), draw));
    fill(facts, figures(version));
    return version;
  };
  const version = await draw();
  const [matrix, diagram, card] = [h("div", {}, busy("Looking at the validation images …")), h("div", {}, busy()), h("div", { class: "prose" }, busy())];
  fill(root, head, facts,
    h("div", { class: "grid" },
      h("section", { class: "card" }, h("h2", {}, "Confusion matrix, validation images"), matrix),
      h("section", { class: "card view" }, h("h2", {}, "Calibration"), diagram, trust(version.calibration))),
    h("section", { class: "card" }, h("h2", {}, "Hyper-parameters"), parameters(version.params)),
    h("section", { class: "card" }, h("h2", {}, "Card"), card));
  judged([matrix, diagram], path, version, signal);
  carded(card, path, signal);
}

/** Whether its champion has ever been moved from one version to another. */
async function canGoBack({ model, dataset }, signal) {
  const { items } = await get(`/models/${encodeURIComponent(model)}/champion/moves?${new URLSearchParams({ dataset })}`, { signal });
  return items.some((move) => move.previous !== null);
}

function heading(version, goesBack, changed) {
  const { model, dataset, champion, version: number } = version;
  return [
    h("div", { class: "titled" }, h("h1", {}, `${model}, version ${number}`), champion && h("span", { class: "badge good" }, `champion on ${dataset}`)),
    champion ? goesBack && rollbackButton(version, changed) : promoteButton(version, changed),
    h("a", { class: "button", href: `/models/${encodeURIComponent(model)}/versions/${number}/onnx`, download: true }, "ONNX"),
    h("a", { class: "button", href: `/models/${encodeURIComponent(model)}/versions/${number}/checkpoint`, download: true }, "Weights"),
  ];
}

function figures(version) {
  const { latency_seconds: latency } = version;
  const facts = {
    "Data set": version.dataset,
    "Validation": percent(version.val_accuracy),
    "Test": percent(version.test_accuracy),
    "Weights": figure(version.weights),
    "ONNX": bytes(version.onnx_bytes),
    "One image": latency === null ? "–" : `${figure(latency * 1000, 2)} ms`,
    "Published": instant(version.created_at),
    "From": h("a", { href: to("jobs", version.job_id, "trials", version.trial) }, `trial ${version.trial} of ${version.job_id}`),
    "Network": h("a", { href: to("models", version.model) }, "all versions"),
  };
  return h("dl", { class: "facts" }, Object.entries(facts).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

function trust(calibration) {
  if (!calibration) return h("p", { class: "muted" }, "None was fitted: its probabilities are the network's own.");
  return h("dl", { class: "facts plain" }, [
    ["Temperature", figure(calibration.temperature)],
    ["Calibration error, test", percent(calibration.test_ece)],
    ["Without calibration", percent(calibration.test_ece_uncalibrated)],
    ["Abstains, test", percent(calibration.test_abstained)],
  ].map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

const parameters = (params) =>
  h("dl", { class: "facts plain" }, Object.entries(params).map(([name, value]) => h("div", {}, h("dt", {}, h("code", {}, name)), h("dd", {}, plain(value)))));

/** Fill in what the API finds by letting the version answer for every validation image: some seconds the first time. */
async function judged([matrix, diagram], path, version, signal) {
  try {
    const found = await get(`${path}/validation`, { signal });
    const right = found.confusion_matrix.reduce((sum, row, i) => sum + row[i], 0);
    fill(matrix, confusion(found, path, version.shape), h("p", { class: "hint" }, `${right.toLocaleString("en")} of ${count(found.images, "image")} are right.`));
    fill(diagram, reliability(found.bins), h("p", { class: "hint" }, "On the dashed line an answer is right as often as it is sure; below it, it is too sure."));
  } catch (error) {
    if (signal.aborted) return;
    fill(matrix, failure(error, () => (fill(matrix, busy()), judged([matrix, diagram], path, version, signal))));
    fill(diagram);
  }
}

async function carded(card, path, signal) {
  try {
    const response = await request(`${path}/card`, { signal });
    fill(card, rendered(await response.text(), 3));
  } catch (error) {
    if (!signal.aborted) fill(card, failure(error, () => carded(card, path, signal)));
  }
}
