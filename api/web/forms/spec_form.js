// Form of a job specification, built from the catalog. It changes the specification in place.

import { fill, h } from "../dom.js";
import { Field, inputFor } from "./inputs.js";
import { spaceRows } from "./space_form.js";

const STOPPING = {
  patience: { type: "integer", default: 2, description: "epochs without improvement" },
  min_delta: { type: "number", default: 0.001, description: "smallest change that counts as an improvement" },
  rule: { enum: ["best", "previous"], default: "best", description: "epoch to compare with: the best one or the previous one" },
};

/** Return an initial specification: the network's default search space, and the defaults that the form shows. */
export function initialSpec(kind, catalog, model, dataset = "mnist") {
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

/** Return the fields of a specification that depend on its network. */
const networkFields = ({ search_space, params }) => (params ? { params } : { search_space });

/**
 * Draw the form of `spec` into `root`. `changed()` is called after every change; `onstructure(spec)` after a change that
 * needs other fields. Returns the fields by JSON pointer.
 */
export function drawForm(root, { kind, spec, catalog, changed, onstructure }) {
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
    group("Network and data", [
      field(
        "#/model",
        "Network",
        named(catalog.networks, spec.model, (model) => onstructure({ ...spec, model, ...networkFields(initialSpec(kind, catalog, model)) })),
        network?.description,
      ),
      field(
        "#/dataset",
        "Data set",
        named(catalog.datasets, spec.dataset, (dataset) => ((spec.dataset = dataset), onstructure(spec))),
        catalog.datasets[spec.dataset]?.description,
      ),
      top("split", "Split", { enum: catalog.datasets[spec.dataset]?.splits ?? ["random"], default: "random" }),
    ]),
    group("Limits", budget(kind, spec, plainField)),
    kind === "tune"
      ? [
          wide(
            "Search space",
            spaceRows({ parameters: network?.parameters ?? {}, space: (spec.search_space ??= {}), changed, fields }),
          ),
          group("Search method", [
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
    group("Training options", [
      top("objective", "Objective", { enum: ["val_accuracy", "val_loss"], default: "val_accuracy" }),
      top("loss", "Loss", { enum: ["cross_entropy", "mse"], default: "cross_entropy" }),
      top("seed", "Seed", { type: "integer", default: 0 }),
      ...stopping(),
    ]),
  );
  return fields;

  /** Create a choice by name, and fields for the parameters of the entry that is chosen. */
  function chooser(key, label, entries) {
    const chosen = (spec[key] ??= { name: Object.keys(entries)[0] });
    const select = named(entries, chosen.name, (name) => ((spec[key] = { name }), onstructure(spec)));
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
      onchange: () => ((spec.early_stopping = box.checked ? { patience: 2, min_delta: 0.001 } : null), onstructure(spec)),
    });
    const rows = spec.early_stopping ? Object.entries(STOPPING) : [];
    return [
      h("div", { class: "field" }, h("label", { class: "check" }, box, "Early stopping")),
      ...rows.map(([name, schema]) =>
        plainField(spec.early_stopping, name, `#/early_stopping/${name}`, name, schema, schema.description),
      ),
    ];
  }
}

function budget(kind, spec, plainField) {
  const limits = (spec.budget ??= {});
  return [
    kind === "tune" &&
      plainField(limits, "trials", "#/budget/trials", "Trials", { type: "integer" }, "Total, including pruned trials"),
    plainField(limits, "seconds", "#/budget/seconds", "Seconds", { type: "number" }, "Time limit; blank = no limit"),
    plainField(
      limits,
      "epochs",
      "#/budget/epochs",
      "Epochs",
      { type: "integer", default: 10 },
      kind === "tune" ? "Maximum per trial" : "Maximum",
    ),
    kind === "tune" &&
      plainField(spec, "lanes", "#/lanes", "Lanes", { type: "integer" }, "Trials trained together; blank = automatic"),
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

/** Set a key. An empty value becomes null for keys that may be null; other keys are deleted and get their default. */
function put(owner, key, value) {
  if (value !== undefined) owner[key] = value;
  else if (key === "seconds" || key === "trials") owner[key] = null;
  else delete owner[key];
}
