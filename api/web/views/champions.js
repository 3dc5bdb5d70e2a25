// Which version answers: promoting one, and going back.

import { post, put } from "../api.js";
import { announce, ask, failure, fill, h } from "../dom.js";

/** A button that lets a version answer, `changed` is called once it does. */
export const promoteButton = (version, changed) =>
  h("button", { type: "button", "aria-label": `Promote version ${version.version} of ${version.model}`, onclick: () => promote(version, changed) }, "Promote");

/** A button that undoes the last move of a champion. */
export const rollbackButton = ({ model, dataset }, changed) =>
  h("button", { type: "button", "aria-label": `Roll back ${model} on ${dataset}`, onclick: () => rollback(model, dataset, changed) }, "Roll back");

function promote({ model, dataset, version }, changed) {
  const reason = h("input", { id: "promote-reason", maxlength: 500, value: "chosen by hand", required: true });
  const body = h("div", { class: "view" },
    h("p", {}, `From now on it answers for ${model} on ${dataset}. The version before stays and can be brought back.`),
    h("p", { class: "field" }, h("label", { for: reason.id }, "Reason, for the log"), reason));
  return confirmed(`Promote version ${version} of ${model}?`, body, "Promote", async () => {
    await put(`/models/${encodeURIComponent(model)}/champion`, { version, dataset, reason: reason.value });
    announce(`Version ${version} of ${model} answers from now on`);
  }, changed);
}

function rollback(model, dataset, changed) {
  const words = h("p", {}, "The last move of its champion is undone: the version that answered before answers again.");
  return confirmed(`Roll back ${model} on ${dataset}?`, words, "Roll back", async () => {
    const { version } = await post(`/models/${encodeURIComponent(model)}/champion/rollback`, { dataset });
    announce(`Version ${version} of ${model} answers again`);
  }, changed);
}

/** Ask, do, and tell what was wrong in the same dialog. */
async function confirmed(title, words, label, work, changed) {
  const problem = h("div");
  while (await ask(title, h("div", { class: "view" }, words, problem), [["Close", null], [label, "yes", "primary"]])) {
    try {
      await work();
      return changed();
    } catch (error) {
      fill(problem, failure(error));
    }
  }
}
