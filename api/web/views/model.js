// A model version: figures, confusion matrix, calibration, hyper-parameters and model card.

import { get, request } from "../api.js";
import { promoteButton, rollbackButton } from "./champions.js";
import { confusion } from "../charts/confusion.js";
import { busy, failure, fill, h, timeAgo } from "../dom.js";
import { bytes, count, figure, percent, plain } from "../format.js";
import { renderMarkdown } from "../markdown.js";
import { reliability } from "../charts/reliability.js";
import { to } from "../address.js";

export async function show(root, { model, version: number }, signal) {
  const path = `/models/${encodeURIComponent(model)}/versions/${encodeURIComponent(number)}`;
  const [head, facts] = [h("div", { class: "head" }), h("div", { class: "card" })];
  const draw = async () => {
    const version = await get(path, { signal });
    fill(head, ...heading(version, version.champion && await canRollBack(version, signal), draw));
    fill(facts, figures(version));
    return version;
  };
  const version = await draw();
  const [matrix, diagram, card] = [h("div", {}, busy("Classifying the validation images …")), h("div", {}, busy()), h("div", { class: "prose" }, busy())];
  fill(root, head, facts,
    h("div", { class: "grid" },
      h("section", { class: "card" }, h("h2", {}, "Confusion matrix (validation)"), matrix),
      h("section", { class: "card view" }, h("h2", {}, "Calibration"), diagram, calibrationFacts(version.calibration))),
    h("section", { class: "card" }, h("h2", {}, "Hyper-parameters"), parameters(version.params)),
    h("section", { class: "card" }, h("h2", {}, "Model card"), card));
  showValidation([matrix, diagram], path, version, signal);
  showCard(card, path, signal);
}

/** Return true if the champion has ever moved from one version to another. */
async function canRollBack({ model, dataset }, signal) {
  const { items } = await get(`/models/${encodeURIComponent(model)}/champion/moves?${new URLSearchParams({ dataset })}`, { signal });
  return items.some((move) => move.previous !== null);
}

function heading(version, rollsBack, changed) {
  const { model, dataset, champion, version: number } = version;
  return [
    h("div", { class: "titled" }, h("h1", {}, `${model}, version ${number}`), champion && h("span", { class: "badge good" }, `champion on ${dataset}`)),
    champion ? rollsBack && rollbackButton(version, changed) : promoteButton(version, changed),
    h("a", { class: "button", href: `/models/${encodeURIComponent(model)}/versions/${number}/onnx`, download: true }, "ONNX"),
    h("a", { class: "button", href: `/models/${encodeURIComponent(model)}/versions/${number}/checkpoint`, download: true }, "Weights"),
  ];
}

function figures(version) {
  const { latency_seconds: latency } = version;
  const facts = {
    "Data set": version.dataset,
    "Validation accuracy": percent(version.val_accuracy),
    "Test accuracy": percent(version.test_accuracy),
    "Weights": figure(version.weights),
    "ONNX file": bytes(version.onnx_bytes),
    "Latency": latency === null ? "–" : `${figure(latency * 1000, 2)} ms`,
    "Published": timeAgo(version.created_at),
    "Source trial": h("a", { href: to("jobs", version.job_id, "trials", version.trial) }, `trial ${version.trial} of ${version.job_id}`),
    "Network": h("a", { href: to("models", version.model) }, "All versions"),
  };
  return h("dl", { class: "facts" }, Object.entries(facts).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

function calibrationFacts(calibration) {
  if (!calibration) return h("p", { class: "muted" }, "Not calibrated: probabilities come straight from the network.");
  return h("dl", { class: "facts plain" }, [
    ["Temperature", figure(calibration.temperature)],
    ["Calibration error (test)", percent(calibration.test_ece)],
    ["Uncalibrated error (test)", percent(calibration.test_ece_uncalibrated)],
    ["Abstained (test)", percent(calibration.test_abstained)],
  ].map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

const parameters = (params) =>
  h("dl", { class: "facts plain" }, Object.entries(params).map(([name, value]) => h("div", {}, h("dt", {}, h("code", {}, name)), h("dd", {}, plain(value)))));

/** Show the results on all validation images. The API computes them at the first request, which takes some seconds. */
async function showValidation([matrix, diagram], path, version, signal) {
  try {
    const validation = await get(`${path}/validation`, { signal });
    const correct = validation.confusion_matrix.reduce((sum, row, i) => sum + row[i], 0);
    fill(matrix, confusion(validation, path, version.shape), h("p", { class: "hint" }, `${correct.toLocaleString("en")} of ${count(validation.images, "image")} classified correctly.`));
    fill(diagram, reliability(validation.bins), h("p", { class: "hint" }, "On the dashed line, accuracy equals confidence. Dots below it are over-confident."));
  } catch (error) {
    if (signal.aborted) return;
    fill(matrix, failure(error, () => (fill(matrix, busy()), showValidation([matrix, diagram], path, version, signal))));
    fill(diagram);
  }
}

async function showCard(card, path, signal) {
  try {
    const response = await request(`${path}/card`, { signal });
    fill(card, renderMarkdown(await response.text(), 3));
  } catch (error) {
    if (!signal.aborted) fill(card, failure(error, () => showCard(card, path, signal)));
  }
}
