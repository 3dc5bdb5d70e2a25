// Form of the search space: a row for each hyper-parameter.

import { fill, h } from "../dom.js";
import { Field, inputFor, list, parse, strict, typeOf } from "./inputs.js";
import { count, plain } from "../format.js";

const LABELS = {
  default: "Default",
  fixed: "Fixed value",
  int: "Range",
  float: "Range",
  categorical: "Choices",
  grid: "Try each value (grid)",
  list: "List",
  json: "JSON",
};

/**
 * Create a row for each parameter of a network. `space` is the search space and is changed in place; `changed` is called
 * after that. `fields` gets a Field for each JSON pointer, so that errors are shown at their fields.
 */
export function spaceRows({ parameters, space, changed, fields }) {
  const [searched, others] = [[], []];
  for (const [name, schema] of Object.entries(parameters))
    (name in space ? searched : others).push(rowOf(name, schema, space, changed, fields));
  const folded = h(
    "details",
    { open: !searched.length },
    h("summary", {}, `${count(others.length, "other parameter")} at default values`),
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
        const dimension = initial(select.value, schema);
        dimension === undefined ? delete space[name] : (space[name] = dimension);
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

/** Return the initial dimension of a mode. */
function initial(mode, schema) {
  const { enum: choices, minimum } = strict(schema);
  const value = schema.default ?? choices?.[0] ?? minimum ?? 1;
  return {
    default: undefined,
    fixed: value,
    int: { type: "int", low: Math.max(1, Math.floor(value / 4)), high: Math.max(2, value * 4), log: true },
    float: floats(value, strict(schema)),
    categorical: { type: "categorical", choices: choices ?? [value] },
    grid: { type: "grid", values: choices ?? [value] },
    list: {
      type: "list",
      length: { type: "int", low: 1, high: 4 },
      items: { type: "int", low: 64, high: 512, log: true },
    },
    json: schema.default ?? null,
  }[mode];
}

/** Return a range of a decade on either side of a default above 0; otherwise from 0 to half of the allowed maximum. */
function floats(value, { maximum, exclusiveMaximum }) {
  const most = maximum ?? exclusiveMaximum;
  if (value > 0 && (most === undefined || value * 10 < most))
    return { type: "float", low: value / 10, high: value * 10, log: true };
  return { type: "float", low: 0, high: (most ?? 2) / 2 };
}

function controls(name, schema, space, changed, fields) {
  const dimension = space[name];
  const at = `#/search_space/${name}`;
  const mode = modeOf(dimension, schema);
  const field = (pointer, label, control) => {
    const made = new Field([h("span", { class: "unseen" }, `${name}, `), label], control);
    fields.set(pointer, made);
    return made.element;
  };
  const number = (owner, key, label, parent) =>
    field(
      `${parent}/${key}`,
      label,
      inputFor({ type: "number" }, owner[key], (value) => ((owner[key] = value), changed())),
    );
  const range = (owner, parent, prefix = "") => [
    number(owner, "low", `${prefix}low`, parent),
    number(owner, "high", `${prefix}high`, parent),
  ];
  const log = (owner) => {
    const box = h("input", {
      type: "checkbox",
      checked: owner.log,
      onchange: () => ((owner.log = box.checked), changed()),
    });
    return h("label", { class: "check" }, box, h("span", { class: "unseen" }, `${name}, `), "log scale");
  };
  const values = (key, label) => field(`${at}/${key}`, label, listInput(dimension, key, changed));
  switch (mode) {
    case "default":
      return h("p", { class: "hint" }, schema.default === null ? "none" : plain(schema.default));
    case "fixed":
      return field(
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
        ...range(dimension.items, `${at}/items`, "item, "),
        log(dimension.items),
      ];
    case "categorical":
      return values("choices", "choices, comma-separated");
    case "grid":
      return values("values", "values, comma-separated (needs the grid sampler)");
    default:
      return field(`${at}/`, "JSON", jsonInput(space, name, changed));
  }
}

function listInput(dimension, key, changed) {
  const simple = dimension[key].every((value) => typeof value !== "object");
  const shown = simple ? dimension[key].join(", ") : JSON.stringify(dimension[key]);
  const input = h("input", { value: shown, autocomplete: "off", spellcheck: "false" });
  input.addEventListener(
    "input",
    () => ((dimension[key] = simple ? list(input.value) : parse(input.value, "json")), changed()),
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
  input.addEventListener("input", () => ((space[name] = parse(input.value, "json")), changed()));
  return input;
}
