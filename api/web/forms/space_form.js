// The part of the form that says what of each hyper-parameter is searched.

import { fill, h } from "../dom.js";
import { Field, inputFor, list, read, strict, typeOf } from "./inputs.js";
import { count, plain } from "../format.js";

const LABELS = {
  default: "keep the default",
  fixed: "fix it",
  int: "a range",
  float: "a range",
  categorical: "choices",
  grid: "every one of",
  list: "a list",
  json: "as JSON",
};

/**
 * A row for each parameter of a network. `space` is the search space, changed in place; `changed` hears of that;
 * `fields` gets a Field for every pointer, so that errors find their place.
 */
export function spaceRows({ parameters, space, changed, fields }) {
  const [searched, others] = [[], []];
  for (const [name, schema] of Object.entries(parameters))
    (name in space ? searched : others).push(rowOf(name, schema, space, changed, fields));
  const folded = h(
    "details",
    { open: !searched.length },
    h("summary", {}, `${count(others.length, "other parameter")}, at the default unless you say otherwise`),
    others,
  );
  return [...searched, others.length > 0 && folded];
}

function rowOf(name, schema, space, changed, fields) {
  const body = h("div", { class: "space-values" });
  const draw = () => fill(body, controls(name, schema, space, changed, fields));
  const select = h(
    "select",
    {
      onchange: () => {
        const begun = begin(select.value, schema);
        begun === undefined ? delete space[name] : (space[name] = begun);
        draw();
        changed();
      },
    },
    modes(schema).map((mode) =>
      h("option", { value: mode, selected: mode === modeOf(space[name], schema) }, LABELS[mode]),
    ),
  );
  const field = new Field(name, select, schema.description ?? "");
  fields.set(`#/search_space/${name}`, field);
  draw();
  return h("div", { class: "space-row" }, field.element, body);
}

function modes(schema) {
  const type = typeOf(schema);
  const range = { integer: ["int"], number: ["float"], array: ["list"] }[type] ?? [];
  return ["default", "fixed", ...range, "categorical", "grid", "json"];
}

function modeOf(dimension, schema) {
  if (dimension === undefined) return "default";
  if (dimension === null || typeof dimension !== "object" || Array.isArray(dimension)) return "fixed";
  const { type } = dimension;
  if (type === "int" && typeOf(schema) === "number") return "json";
  return modes(schema).includes(type) ? type : "json";
}

/** What a mode begins with. */
function begin(mode, schema) {
  const { enum: choices, minimum } = strict(schema);
  const known = schema.default ?? choices?.[0] ?? minimum ?? 1;
  return {
    default: undefined,
    fixed: known,
    int: { type: "int", low: Math.max(1, Math.floor(known / 4)), high: Math.max(2, known * 4), log: true },
    float: floats(known, strict(schema)),
    categorical: { type: "categorical", choices: choices ?? [known] },
    grid: { type: "grid", values: choices ?? [known] },
    list: {
      type: "list",
      length: { type: "int", low: 1, high: 4 },
      items: { type: "int", low: 64, high: 512, log: true },
    },
    json: schema.default ?? null,
  }[mode];
}

/** A decade to either side of a default above 0; else from 0 to half of what is allowed. */
function floats(known, { maximum, exclusiveMaximum }) {
  const most = maximum ?? exclusiveMaximum;
  if (known > 0 && (most === undefined || known * 10 < most))
    return { type: "float", low: known / 10, high: known * 10, log: true };
  return { type: "float", low: 0, high: (most ?? 2) / 2 };
}

function controls(name, schema, space, changed, fields) {
  const dimension = space[name];
  const at = `#/search_space/${name}`;
  const mode = modeOf(dimension, schema);
  const part = (pointer, label, control) => {
    const field = new Field([h("span", { class: "unseen" }, `${name}, `), label], control);
    fields.set(pointer, field);
    return field.element;
  };
  const number = (owner, key, label, where) =>
    part(
      `${where}/${key}`,
      label,
      inputFor({ type: "number" }, owner[key], (value) => ((owner[key] = value), changed())),
    );
  const range = (owner, where, what = "") => [
    number(owner, "low", `${what}low`, where),
    number(owner, "high", `${what}high`, where),
  ];
  const log = (owner) => {
    const box = h("input", {
      type: "checkbox",
      checked: owner.log,
      onchange: () => ((owner.log = box.checked), changed()),
    });
    return h("label", { class: "check" }, box, h("span", { class: "unseen" }, `${name}, `), "by its logarithm");
  };
  const values = (key, label) => part(`${at}/${key}`, label, listInput(dimension, key, changed));
  switch (mode) {
    case "default":
      return h("p", { class: "hint" }, schema.default === null ? "none" : plain(schema.default));
    case "fixed":
      return part(
        `${at}/`,
        "value",
        inputFor({ ...strict(schema), default: undefined }, dimension, (value) => ((space[name] = value), changed())),
      );
    case "int":
    case "float":
      return [...range(dimension, at), log(dimension)];
    case "list":
      return [
        ...range(dimension.length, `${at}/length`, "length, "),
        ...range(dimension.items, `${at}/items`, "each, "),
        log(dimension.items),
      ];
    case "categorical":
      return values("choices", "choices, by commas");
    case "grid":
      return values("values", "values, by commas; needs the grid sampler");
    default:
      return part(`${at}/`, "JSON", jsonInput(space, name, changed));
  }
}

function listInput(dimension, key, changed) {
  const simple = dimension[key].every((value) => typeof value !== "object");
  const shown = simple ? dimension[key].join(", ") : JSON.stringify(dimension[key]);
  const input = h("input", { value: shown, autocomplete: "off", spellcheck: "false" });
  input.addEventListener(
    "input",
    () => ((dimension[key] = simple ? list(input.value) : read(input.value, "json")), changed()),
  );
  return input;
}

function jsonInput(space, name, changed) {
  const input = h("input", {
    value: JSON.stringify(space[name]),
    class: "mono",
    autocomplete: "off",
    spellcheck: "false",
  });
  input.addEventListener("input", () => ((space[name] = read(input.value, "json")), changed()));
  return input;
}
