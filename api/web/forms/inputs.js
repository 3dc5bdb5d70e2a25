// Controls for values: by JSON Schema, as the catalog describes hyper-parameters.

import { h, unique } from "../dom.js";
import { plain } from "../format.js";

/** A schema without its "or null". */
export function strict(schema) {
  const options = (schema.anyOf ?? []).filter((option) => option.type !== "null");
  return options.length === 1 ? { ...schema, ...options[0], anyOf: undefined } : schema;
}

/** The JSON type that a schema allows beside null; "json" where it is none that has a control of its own. */
export function typeOf(schema) {
  const { type, items, enum: choices } = strict(schema);
  if (choices) return "enum";
  if (type === "array") return ["integer", "number"].includes(items?.type) ? "array" : "json";
  return ["integer", "number", "string", "boolean"].includes(type) ? type : "json";
}

/**
 * A control for a value of this schema. `onvalue` hears undefined where it is left empty, and the words themselves where
 * they cannot be read: the API then says what is wrong with them.
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
  input.addEventListener("input", () => onvalue(read(input.value, type)));
  return input;
}

function choice(options, schema, value, onvalue, attributes) {
  const known = "default" in schema && schema.default !== null;
  const empty = known ? `${schema.default} (default)` : "–";
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

/** What somebody typed, as a value. */
export function read(words, type) {
  const text = words.trim();
  if (text === "") return undefined;
  if (type === "array") return list(text);
  if (type === "string") return text;
  return scalar(text, type === "json");
}

/** Values parted by commas. */
export const list = (text) =>
  text
    .split(",")
    .map((part) => part.trim())
    .filter(Boolean)
    .map((part) => scalar(part, false));

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

/** A labelled control, a hint under it, and a place for what is wrong with it. */
export class Field {
  constructor(label, control, hint = "") {
    control.id ||= unique("field");
    this.control = control;
    this.error = h("p", { class: "error", id: `${control.id}-error` });
    const hinted = hint && h("p", { class: "hint", id: `${control.id}-hint` }, hint);
    control.setAttribute("aria-describedby", [hint && `${control.id}-hint`, this.error.id].filter(Boolean).join(" "));
    this.element = h("div", { class: "field" }, h("label", { for: control.id }, label), control, hinted, this.error);
  }

  /** Say what is wrong, or with "" that nothing is. */
  tell(words) {
    this.error.textContent = words;
    words ? this.control.setAttribute("aria-invalid", "true") : this.control.removeAttribute("aria-invalid");
    const folded = words && this.element.closest("details");
    if (folded) folded.open = true;
  }
}
