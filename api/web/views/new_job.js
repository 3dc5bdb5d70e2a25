// A new job: a form and its specification as JSON side by side, each following the other, checked as one types.

import { get, post } from "../api.js";
import { failure, fill, h, text } from "../dom.js";
import { count, duration } from "../format.js";
import { to } from "../address.js";
import { begin, drawForm } from "../forms/specform.js";

const REST = 350; // milliseconds without a change until the API is asked

export async function show(root, params, signal) {
  const [catalog, model] = await Promise.all([
    get("/catalog", { signal }),
    params.from ? get(`/jobs/${encodeURIComponent(params.from)}`, { signal }) : null,
  ]);
  let kind = model?.kind === "train" || params.kind === "train" ? "train" : "tune";
  let spec = model
    ? structuredClone(model.spec)
    : begin(kind, catalog, "cnn" in catalog.networks ? "cnn" : Object.keys(catalog.networks)[0]);
  let fields = new Map();
  let unread = false; // whether the JSON is none, so that the form does not say what it says
  let timer = null;
  let question = new AbortController();

  const form = h("div", { class: "view" });
  const json = h("textarea", {
    id: "json",
    rows: 28,
    spellcheck: "false",
    "aria-describedby": "json-error",
    oninput: readJson,
  });
  const jsonError = h("p", { class: "error", id: "json-error" });
  const told = h("div", { role: "status" });
  const send = h("button", { type: "submit", class: "primary" }, "Submit the job");
  const kinds = ["tune", "train"].map((name) => {
    const radio = h("input", {
      type: "radio",
      name: "kind",
      value: name,
      checked: name === kind,
      onchange: () => turn(name),
    });
    return h(
      "label",
      { class: "check" },
      radio,
      name === "tune" ? "Search the hyper-parameters" : "Train with fixed ones",
    );
  });
  fill(
    root,
    h("nav", { "aria-label": "Where you are", class: "small" }, h("a", { href: "#/jobs" }, "Jobs"), " / new"),
    h("div", { class: "head" }, h("h1", {}, model ? "A job like another" : "New job")),
    h(
      "form",
      { class: "new", onsubmit: submit, novalidate: true },
      h("div", { class: "view" }, h("fieldset", {}, h("legend", {}, "Kind"), h("div", { class: "row" }, kinds)), form),
      h(
        "div",
        { class: "side" },
        h("section", { class: "card view" }, told, send),
        h(
          "section",
          { class: "card field" },
          h("h2", {}, h("label", { for: "json" }, "Specification as JSON")),
          json,
          jsonError,
        ),
      ),
    ),
  );
  redraw(spec);

  function turn(name) {
    kind = name;
    const model = spec.model in catalog.networks ? spec.model : Object.keys(catalog.networks)[0];
    redraw(begin(kind, catalog, model, spec.dataset));
  }

  /** Draw the form of another specification; the focus stays on the control that it had. */
  function redraw(now) {
    const [held] = [...fields].find(([, field]) => field.element.contains(document.activeElement)) ?? [];
    fields = drawForm(form, { kind, spec: now, catalog, changed, again: redraw });
    spec = now;
    fields.get(held)?.element.querySelector("input, select, textarea")?.focus();
    changed();
  }

  function changed() {
    unread = false;
    if (document.activeElement !== json) json.value = JSON.stringify(spec, null, 2);
    text(jsonError, "");
    clearTimeout(timer);
    timer = setTimeout(check, REST);
  }

  function readJson() {
    try {
      const written = JSON.parse(json.value);
      if (written === null || typeof written !== "object" || Array.isArray(written))
        throw new Error("an object is wanted");
      redraw(written);
    } catch (error) {
      unread = true;
      text(jsonError, `Not a specification in JSON: ${error.message}`);
    }
  }

  /** Ask the API what it makes of the specification. */
  async function check() {
    question.abort();
    question = new AbortController();
    signal.addEventListener("abort", () => question.abort(), { once: true });
    const asked = question.signal;
    try {
      const found = await post(`/jobs/${kind}?validate_only=true`, spec, { signal: asked });
      if (asked.aborted) return;
      tellErrors([]);
      fill(told, estimated(found));
    } catch (error) {
      if (!asked.aborted) tellProblem(error);
    }
  }

  async function submit(event) {
    event.preventDefault();
    if (unread) return json.focus();
    clearTimeout(timer);
    question.abort();
    send.disabled = true;
    try {
      const job = await post(`/jobs/${kind}`, spec, { headers: { "Idempotency-Key": keyFor(`${kind} ${JSON.stringify(spec)}`) } });
      last = { of: null, key: null }; // posted again it is another job
      location.hash = to("jobs", job.id);
    } catch (error) {
      tellProblem(error);
      root.querySelector("[aria-invalid]")?.focus();
    }
    send.disabled = false;
  }

  function tellProblem(error) {
    const rest = tellErrors(error.errors ?? []);
    if (!error.errors?.length) return fill(told, failure(error));
    fill(
      told,
      h("p", { class: "error" }, `${count(error.errors.length, "thing")} to mend.`),
      rest.map(({ pointer, detail }) => h("p", { class: "error" }, h("code", {}, pointer), ` ${detail}`)),
    );
  }

  /** Put each error at its field; those that have none are returned. */
  function tellErrors(errors) {
    const at = new Map();
    const rest = [];
    for (const error of errors) {
      const field = fieldOf(error.pointer, fields);
      if (field) at.set(field, [...(at.get(field) ?? []), error.detail]);
      else rest.push(error);
    }
    for (const field of fields.values()) field.tell((at.get(field) ?? []).join("; "));
    return rest;
  }
}

/** The field that a pointer names, or the nearest one around it. */
function fieldOf(pointer, fields) {
  for (let at = pointer; at.includes("/"); at = at.slice(0, at.lastIndexOf("/")))
    if (fields.has(at)) return fields.get(at);
  return null;
}

function estimated({ seconds, measured_trials, trial_limit }) {
  const trials = trial_limit >= 100000 ? "trials until the time is up" : count(trial_limit, "trial");
  if (seconds === null)
    return h("p", {}, `${trials}. How long it takes cannot be told: nothing like it was measured here.`);
  return h(
    "p",
    {},
    h("strong", {}, `About ${duration(seconds)}`),
    ` for ${trials}, by ${count(measured_trials, "earlier one")}.`,
  );
}

/** Any text of our own: the same submission, sent twice, is one job. */
let last = { of: null, key: null };

/** A key of what is posted: the same when it is sent again because the answer was lost, so that it is one job. */
function keyFor(what) {
  if (last.of !== what) last = { of: what, key: Array.from(crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(16)).join("") };
  return last.key;
}
