// Form controls for values that a JSON Schema describes, as the catalog does for hyper-parameters.

import { h, uniqueId } from "../dom.js";
import { plain } from "../format.js";

/** Return a schema without the alternative null. */
export function strict(schema) {
  const options = (schema.anyOf ?? []).filter((option) => option.type !== "null");
  return options.length === 1 ? { ...schema, ...options[0], anyOf: undefined } : schema;
}

/** Return the type that a schema allows besides null, or "json" if no control exists for that type. */
export function typeOf(schema) {
  const { type, items, enum: choices } = strict(schema);
  if (choices) return "enum";
  if (type === "array") return ["integer", "number"].includes(items?.type) ? "array" : "json";
  return ["integer", "number", "string", "boolean"].includes(type) ? type : "json";
}

/**
 * Create a control for a value of a schema. `onvalue` gets undefined if the control is empty. It gets the text if the text
 * cannot be parsed, so that the API can report what is wrong.
 */
export function inputFor(schema, value, onvalue, attributes = {}) {
  const type = typeOf(schema);
  if (type === "enum" || type === "boolean")
    return choice(type === "enum" ? strict(schema).enum : [true, false], schema, value, onvalue, attributes);
  const { minimum, maximum } = strict(schema);
  const number = type === "integer" || type === "number";
  const input = h("input", {
    type: "text",
    inputmode: number ? "decimal" : "text",
    autocomplete: "off",
    spellcheck: "false",
    placeholder: schema.default === undefined || schema.default === null ? "" : plain(schema.default),
    value: value === undefined ? "" : shown(value, type),
    title: minimum !== undefined && maximum !== undefined ? `${minimum} to ${maximum}` : null,
    ...attributes,
  });
  input.addEventListener("input", () => onvalue(parse(input.value, type)));
  return input;
}

function choice(options, schema, value, onvalue, attributes) {
  const hasDefault = "default" in schema && schema.default !== null;
  const empty = hasDefault ? `${schema.default} (default)` : "–";
  const select = h(
    "select",
    { ...attributes, onchange: () => onvalue(select.value === "" ? undefined : JSON.parse(select.value)) },
    !attributes.required && h("option", { value: "" }, empty),
    options.map((option) => h("option", { value: JSON.stringify(option), selected: option === value }, String(option))),
  );
  return select;
}

function shown(value, type) {
  if (type === "array" && Array.isArray(value)) return value.join(", ");
  return typeof value === "string" ? value : JSON.stringify(value);
}

/** Parse the text of a control into a value of a type. */
export function parse(content, type) {
  const text = content.trim();
  if (text === "") return undefined;
  if (type === "array") return list(text);
  if (type === "string") return text;
  return scalar(text, type === "json");
}

/** Parse values that are separated by commas. */
export const list = (text) =>
  text
    .split(",")
    .map((item) => item.trim())
    .filter(Boolean)
    .map((item) => scalar(item, false));

function scalar(text, json) {
  const number = Number(text);
  if (!Number.isNaN(number)) return number;
  if (text === "true" || text === "false") return text === "true";
  try {
    return json ? JSON.parse(text) : text;
  } catch {
    return text;
  }
}

/** A control with its label, a hint, and a place for an error message. */
export class Field {
  constructor(label, control, hint = "") {
    control.id ||= uniqueId("field");
    this.control = control;
    this.error = h("p", { class: "error", id: `${control.id}-error` });
    const hinted = hint && h("p", { class: "hint", id: `${control.id}-hint` }, hint);
    control.setAttribute("aria-describedby", [hint && `${control.id}-hint`, this.error.id].filter(Boolean).join(" "));
    this.element = h("div", { class: "field" }, h("label", { for: control.id }, label), control, hinted, this.error);
  }

  /** Show an error message; "" clears it. */
  showError(message) {
    this.error.textContent = message;
    message ? this.control.setAttribute("aria-invalid", "true") : this.control.removeAttribute("aria-invalid");
    const folded = message && this.element.closest("details");
    if (folded) folded.open = true;
  }
}
