// The form of a specification, built from the catalog; it changes the specification in place.

import { fill, h } from "../dom.js";
import { Field, inputFor } from "./inputs.js";
import { spaceRows } from "./spaceform.js";

const STOPPING = {
  patience: { type: "integer", default: 2, description: "epochs without improvement" },
  min_delta: { type: "number", default: 0.001, description: "what counts as one" },
  rule: { enum: ["best", "previous"], default: "best", description: "what it is compared with" },
};

/** What a form begins with: the network's own space, and every default that a person may want to see. */
export function begin(kind, catalog, model, dataset = "mnist") {
  const common = {
    model,
    dataset,
    split: "random",
    loss: "cross_entropy",
    objective: "val_accuracy",
    early_stopping: null,
    seed: 0,
  };
  if (kind === "train") return { ...common, params: {}, budget: { epochs: 10, seconds: null } };
  return {
    ...common,
    search_space: structuredClone(catalog.networks[model].search_space),
    sampler: { name: "tpe" },
    pruner: { name: "hyperband" },
    budget: { trials: 20, epochs: 10, seconds: null },
  };
}

/** What of a specification is its network's own. */
const own = ({ search_space, params }) => (params ? { params } : { search_space });

/**
 * Draw the form of `spec` into `root`. `changed()` hears of every change; `again(spec)` of one after which the form is
 * another. Fields by the pointer of what they change.
 */
export function drawForm(root, { kind, spec, catalog, changed, again }) {
  const fields = new Map();
  const field = (pointer, label, control, hint) => {
    const made = new Field(label, control, hint);
    fields.set(pointer, made);
    return made.element;
  };
  const plainField = (owner, key, pointer, label, schema, hint) =>
    field(
      pointer,
      label,
      inputFor(schema, owner[key] ?? undefined, (value) => (put(owner, key, value), changed())),
      hint,
    );
  const top = (key, label, schema, hint) => plainField(spec, key, `#/${key}`, label, schema, hint);
  const network = catalog.networks[spec.model];

  fill(
    root,
    group("What", [
      field(
        "#/model",
        "Network",
        named(catalog.networks, spec.model, (model) => again({ ...spec, model, ...own(begin(kind, catalog, model)) })),
        network?.description,
      ),
      field(
        "#/dataset",
        "Data set",
        named(catalog.datasets, spec.dataset, (dataset) => ((spec.dataset = dataset), again(spec))),
        catalog.datasets[spec.dataset]?.description,
      ),
      top("split", "Split", { enum: catalog.datasets[spec.dataset]?.splits ?? ["random"], default: "random" }),
    ]),
    group("Until when", budget(kind, spec, plainField)),
    kind === "tune"
      ? [
          wide(
            "What is searched",
            spaceRows({ parameters: network?.parameters ?? {}, space: (spec.search_space ??= {}), changed, fields }),
          ),
          group("How it is searched", [
            ...chooser("sampler", "Sampler", catalog.samplers),
            ...chooser("pruner", "Pruner", catalog.pruners),
          ]),
        ]
      : group(
          "Hyper-parameters",
          Object.entries(network?.parameters ?? {}).map(([name, schema]) =>
            plainField((spec.params ??= {}), name, `#/params/${name}`, name, schema, schema.description),
          ),
        ),
    group("Judged by", [
      top("objective", "Objective", { enum: ["val_accuracy", "val_loss"], default: "val_accuracy" }),
      top("loss", "Loss", { enum: ["cross_entropy", "mse"], default: "cross_entropy" }),
      top("seed", "Seed", { type: "integer", default: 0 }),
      ...stopping(),
    ]),
  );
  return fields;

  /** A choice by name, and the parameters of what is chosen. */
  function chooser(key, label, entries) {
    const chosen = (spec[key] ??= { name: Object.keys(entries)[0] });
    const select = named(entries, chosen.name, (name) => ((spec[key] = { name }), again(spec)));
    const parameters = Object.entries(entries[chosen.name]?.parameters ?? {});
    return [
      field(`#/${key}`, label, select, entries[chosen.name]?.description),
      ...parameters.map(([name, schema]) =>
        plainField(chosen, name, `#/${key}/${name}`, name, schema, schema.description),
      ),
    ];
  }

  function stopping() {
    const box = h("input", {
      type: "checkbox",
      checked: Boolean(spec.early_stopping),
      onchange: () => ((spec.early_stopping = box.checked ? { patience: 2, min_delta: 0.001 } : null), again(spec)),
    });
    const rows = spec.early_stopping ? Object.entries(STOPPING) : [];
    return [
      h("div", { class: "field" }, h("label", { class: "check" }, box, "Stop a trial early")),
      ...rows.map(([name, schema]) =>
        plainField(spec.early_stopping, name, `#/early_stopping/${name}`, name, schema, schema.description),
      ),
    ];
  }
}

function budget(kind, spec, plainField) {
  const own = (spec.budget ??= {});
  return [
    kind === "tune" &&
      plainField(own, "trials", "#/budget/trials", "Trials", { type: "integer" }, "in all, pruned ones included"),
    plainField(own, "seconds", "#/budget/seconds", "Seconds", { type: "number" }, "of work; empty for no limit"),
    plainField(
      own,
      "epochs",
      "#/budget/epochs",
      "Epochs",
      { type: "integer", default: 10 },
      kind === "tune" ? "a trial, at most" : "at most",
    ),
    kind === "tune" &&
      plainField(spec, "lanes", "#/lanes", "Lanes", { type: "integer" }, "trials that train together; empty: measured"),
  ].filter(Boolean);
}

const group = (title, fields) => h("fieldset", {}, h("legend", {}, title), h("div", { class: "fields" }, fields));
const wide = (title, rows) => h("fieldset", {}, h("legend", {}, title), rows);

function named(entries, chosen, onname) {
  const unknown = chosen in entries ? [] : [chosen];
  const select = h(
    "select",
    { onchange: () => onname(select.value) },
    [...Object.keys(entries), ...unknown].map((name) => h("option", { value: name, selected: name === chosen }, name)),
  );
  return select;
}

/** Null where a key that may be null is left empty, nothing where it has a default. */
function put(owner, key, value) {
  if (value !== undefined) owner[key] = value;
  else if (key === "seconds" || key === "trials") owner[key] = null;
  else delete owner[key];
}
