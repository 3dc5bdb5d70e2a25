// Buttons that promote a version to champion or roll back to the previous one.

import { post, put } from "../api.js";
import { announce, openDialog, failure, fill, h } from "../dom.js";

/** Create a button that promotes a version; `changed` is called after that. */
export const promoteButton = (version, changed) =>
  h("button", { type: "button", "aria-label": `Promote version ${version.version} of ${version.model}`, onclick: () => promote(version, changed) }, "Promote");

/** Create a button that undoes the last change of a champion. */
export const rollbackButton = ({ model, dataset }, changed) =>
  h("button", { type: "button", "aria-label": `Roll back ${model} on ${dataset}`, onclick: () => rollback(model, dataset, changed) }, "Roll back");

function promote({ model, dataset, version }, changed) {
  const reason = h("input", { id: "promote-reason", maxlength: 500, value: "chosen by hand", required: true });
  const body = h("div", { class: "view" },
    h("p", {}, `It becomes the champion of ${model} on ${dataset} and answers requests. You can roll back to the current version.`),
    h("p", { class: "field" }, h("label", { for: reason.id }, "Reason for log"), reason));
  return confirmed(`Promote version ${version} of ${model}?`, body, "Promote", async () => {
    await put(`/models/${encodeURIComponent(model)}/champion`, { version, dataset, reason: reason.value });
    announce(`Version ${version} of ${model} is the champion now`);
  }, changed);
}

function rollback(model, dataset, changed) {
  const body = h("p", {}, "The previous champion answers requests again.");
  return confirmed(`Roll back ${model} on ${dataset}?`, body, "Roll back", async () => {
    const { version } = await post(`/models/${encodeURIComponent(model)}/champion/rollback`, { dataset });
    announce(`Version ${version} of ${model} is the champion again`);
  }, changed);
}

/** Ask for confirmation, then call `action`. If it fails, show the error in the same dialog. */
async function confirmed(title, body, label, action, changed) {
  const problem = h("div");
  while (await openDialog(title, h("div", { class: "view" }, body, problem), [["Close", null], [label, "yes", "primary"]])) {
    try {
      await action();
      return changed();
    } catch (error) {
      fill(problem, failure(error));
    }
  }
}
