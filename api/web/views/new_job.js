// New job: a form next to its specification as JSON. Each follows the other, and the API validates both while typing.

import { get, post } from "../api.js";
import { failure, fill, h, setText } from "../dom.js";
import { count, duration } from "../format.js";
import { to } from "../address.js";
import { initialSpec, drawForm } from "../forms/spec_form.js";

const DELAY = 350; // milliseconds without a change until the API validates

export async function show(root, params, signal) {
  const [catalog, original] = await Promise.all([
    get("/catalog", { signal }),
    params.from ? get(`/jobs/${encodeURIComponent(params.from)}`, { signal }) : null,
  ]);
  let kind = original?.kind === "train" || params.kind === "train" ? "train" : "tune";
  let spec = original
    ? structuredClone(original.spec)
    : initialSpec(kind, catalog, "cnn" in catalog.networks ? "cnn" : Object.keys(catalog.networks)[0]);
  let fields = new Map();
  let isInvalid = false; // true if the text is not JSON, so that the form does not match it
  let timer = null;
  let request = new AbortController(); // of the last validation

  const form = h("div", { class: "view" });
  const json = h("textarea", {
    id: "json",
    rows: 28,
    spellcheck: "false",
    "aria-describedby": "json-error",
    oninput: readJson,
  });
  const jsonError = h("p", { class: "error", id: "json-error" });
  const status = h("div", { role: "status" });
  const send = h("button", { type: "submit", class: "primary" }, "Submit job");
  const kinds = ["tune", "train"].map((name) => {
    const radio = h("input", {
      type: "radio",
      name: "kind",
      value: name,
      checked: name === kind,
      onchange: () => setKind(name),
    });
    return h(
      "label",
      { class: "check" },
      radio,
      name === "tune" ? "Tune hyper-parameters" : "Train fixed values",
    );
  });
  fill(
    root,
    h("nav", { "aria-label": "Breadcrumb", class: "small" }, h("a", { href: "#/jobs" }, "Jobs"), " / new"),
    h("div", { class: "head" }, h("h1", {}, original ? "Duplicate job" : "New job")),
    h(
      "form",
      { class: "new", onsubmit: submit, novalidate: true },
      h("div", { class: "view" }, h("fieldset", {}, h("legend", {}, "Kind"), h("div", { class: "row" }, kinds)), form),
      h(
        "div",
        { class: "side" },
        h("section", { class: "card view" }, status, send),
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

  function setKind(name) {
    kind = name;
    const model = spec.model in catalog.networks ? spec.model : Object.keys(catalog.networks)[0];
    redraw(initialSpec(kind, catalog, model, spec.dataset));
  }

  /** Draw the form of another specification, and keep the focus on the same field. */
  function redraw(now) {
    const [focused] = [...fields].find(([, field]) => field.element.contains(document.activeElement)) ?? [];
    fields = drawForm(form, { kind, spec: now, catalog, changed, onstructure: redraw });
    spec = now;
    fields.get(focused)?.element.querySelector("input, select, textarea")?.focus();
    changed();
  }

  function changed() {
    isInvalid = false;
    if (document.activeElement !== json) json.value = JSON.stringify(spec, null, 2);
    setText(jsonError, "");
    clearTimeout(timer);
    timer = setTimeout(validate, DELAY);
  }

  function readJson() {
    try {
      const parsed = JSON.parse(json.value);
      if (parsed === null || typeof parsed !== "object" || Array.isArray(parsed))
        throw new Error("a JSON object is required");
      redraw(parsed);
    } catch (error) {
      isInvalid = true;
      setText(jsonError, `Not a valid specification: ${error.message}`);
    }
  }

  /** Let the API validate the specification, and show its errors or its estimate. */
  async function validate() {
    request.abort();
    request = new AbortController();
    signal.addEventListener("abort", () => request.abort(), { once: true });
    const current = request.signal;
    try {
      const estimate = await post(`/jobs/${kind}?validate_only=true`, spec, { signal: current });
      if (current.aborted) return;
      showErrors([]);
      fill(status, estimateOf(estimate));
    } catch (error) {
      if (!current.aborted) showProblem(error);
    }
  }

  async function submit(event) {
    event.preventDefault();
    if (isInvalid) return json.focus();
    clearTimeout(timer);
    request.abort();
    send.disabled = true;
    try {
      const job = await post(`/jobs/${kind}`, spec, { headers: { "Idempotency-Key": keyFor(`${kind} ${JSON.stringify(spec)}`) } });
      last = { body: null, key: null }; // submitting again creates another job
      location.hash = to("jobs", job.id);
    } catch (error) {
      showProblem(error);
      root.querySelector("[aria-invalid]")?.focus();
    }
    send.disabled = false;
  }

  function showProblem(error) {
    const rest = showErrors(error.errors ?? []);
    if (!error.errors?.length) return fill(status, failure(error));
    fill(
      status,
      h("p", { class: "error" }, `${count(error.errors.length, "problem")} to fix`),
      rest.map(({ pointer, detail }) => h("p", { class: "error" }, h("code", {}, pointer), ` ${detail}`)),
    );
  }

  /** Show each error at its field, and return the errors that have no field. */
  function showErrors(errors) {
    const at = new Map();
    const rest = [];
    for (const error of errors) {
      const field = fieldOf(error.pointer, fields);
      if (field) at.set(field, [...(at.get(field) ?? []), error.detail]);
      else rest.push(error);
    }
    for (const field of fields.values()) field.showError((at.get(field) ?? []).join("; "));
    return rest;
  }
}

/** Return the field of a JSON pointer, or else of its nearest parent that has a field. */
function fieldOf(pointer, fields) {
  for (let at = pointer; at.includes("/"); at = at.slice(0, at.lastIndexOf("/")))
    if (fields.has(at)) return fields.get(at);
  return null;
}

function estimateOf({ seconds, measured_trials, trial_limit }) {
  const trials = trial_limit >= 100000 ? "all trials until the time limit" : count(trial_limit, "trial");
  if (seconds === null)
    return h("p", {}, `${trials}. No estimate yet: no similar job has run here.`);
  return h(
    "p",
    {},
    h("strong", {}, `About ${duration(seconds)}`),
    ` for ${trials}, estimated from ${count(measured_trials, "earlier trial")}.`,
  );
}

let last = { body: null, key: null }; // the last submission and its idempotency key

/** Return the idempotency key of a submission: a retry after a lost response uses the same key and creates no second job. */
function keyFor(body) {
  if (last.body !== body) last = { body, key: Array.from(crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(16)).join("") };
  return last.key;
}
