// A trial: its buttons, results, learning curves, hyper-parameters and lane.

import { get, poll, post } from "../api.js";
import { objectiveOf } from "../charts/columns.js";
import { failure, fill, h, refill, s, timeAgo } from "../dom.js";
import { frame } from "../charts/svg.js";
import { count, duration, figure, percent, plain } from "../format.js";
import { extent, padded, scale } from "../charts/scales.js";
import { badge, sharesOf, titleOf } from "../states.js";
import { to } from "../address.js";

const INTERVAL = 2000; // milliseconds between requests for a running trial

export async function show(root, { id, number }, signal) {
  const [job, trial] = await Promise.all([
    get(`/jobs/${id}`, { signal }),
    get(`/jobs/${id}/trials/${number}`, { signal }),
  ]);
  document.title = `Trial ${number} of ${titleOf(job)} · Chiffre`;
  const { elements, update } = viewOf(job, number);
  fill(root, elements);
  update(trial);
  const running = new AbortController();
  signal.addEventListener("abort", () => running.abort());
  poll(
    async () => {
      const now = await get(`/jobs/${id}/trials/${number}`, { signal });
      if (now.state !== "running") running.abort();
      update(now);
    },
    INTERVAL,
    trial.state === "running" ? running.signal : AbortSignal.abort(),
  );
}

/** Create a view that is updated in place, so that it keeps the focus. */
function viewOf(job, number) {
  const [state, alert, reason, figures] = [h("span"), h("div"), h("div"), h("div")];
  const [title, actions] = [h("div", { class: "titled" }, h("h1", {}, `Trial ${number}`), state), h("div", { class: "row" })];
  const [curves, origins, table] = [h("div", { class: "grid wide" }), h("div", { class: "grid" }), h("table")];
  const act = (path) => async () => {
    try {
      await post(`/jobs/${job.id}/trials/${number}/${path}`);
      location.hash = to("jobs", job.id);
    } catch (error) {
      fill(alert, failure(error));
    }
  };
  let drawn = ""; // the state that the badge and the buttons show
  const elements = [
    h("div", { class: "view" }, breadcrumb(job, number), h("div", { class: "head" }, title, actions), alert, reason),
    h("section", { class: "card" }, h("h2", {}, "Results"), figures, h("p", { class: "hint" }, sharesOf(job))),
    curves,
    origins,
    h(
      "section",
      { class: "card" },
      h("h2", {}, "Results per epoch"),
      h("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": "Results per epoch" }, table),
    ),
  ];
  return {
    elements,
    update(trial) {
      if (drawn !== trial.state) {
        drawn = trial.state;
        fill(state, badge(trial.state));
        refill(actions, actionsOf(trial.state, act));
      }
      fill(reason, trial.reason && h("p", { class: "notice" }, trial.reason));
      fill(figures, facts(results(job, trial)));
      fill(
        curves,
        curve(trial, ["val_accuracy"], "Accuracy", (v) => percent(v, 1)),
        curve(trial, ["val_loss", "train_loss"], "Loss", figure),
      );
      const params = Object.entries(trial.params ?? {}).map(([name, value]) => [name, plain(value)]);
      fill(origins, card("Hyper-parameters", params), card("Training", laneRows(trial)));
      fill(table, epochs(trial));
    },
  };
}

const breadcrumb = (job, number) =>
  h(
    "nav",
    { "aria-label": "Breadcrumb", class: "small" },
    h("a", { href: "#/jobs" }, "Jobs"),
    " / ",
    h("a", { href: to("jobs", job.id) }, titleOf(job)),
    ` / trial ${number}`,
  );

const actionsOf = (state, act) => [
  state === "running" &&
    h("button", { type: "button", class: "danger", onclick: act("cancel") }, "Cancel trial"),
  state === "failed" && h("button", { type: "button", onclick: act("retry") }, "Retry trial"),
];

const card = (title, rows) => h("section", { class: "card" }, h("h2", {}, title), pairs(title, rows));

const facts = (rows) =>
  h(
    "dl",
    { class: "facts" },
    rows.map(([term, value]) => h("div", {}, h("dt", {}, term), h("dd", {}, value))),
  );

const pairs = (title, rows) =>
  rows.length
    ? h(
        "div",
        { class: "scroll" },
        h(
          "table",
          {},
          h("caption", { class: "unseen" }, title),
          h(
            "tbody",
            {},
            rows.map(([name, value]) =>
              h("tr", {}, h("th", { scope: "row" }, name), h("td", { class: "number wraps" }, value)),
            ),
          ),
        ),
      )
    : h("p", { class: "muted" }, "No values yet.");

function results(job, trial) {
  const { label, format, read } = objectiveOf(job);
  return [
    [label.charAt(0).toUpperCase() + label.slice(1), format(read(trial))],
    ["Best epoch", figure(trial.best_epoch)],
    ["Validation loss", figure(trial.val_loss)],
    ["Training loss", figure(trial.train_loss)],
    ["Epochs", figure(trial.epochs_run)],
    ["Time", duration(trial.seconds)],
  ];
}

const laneRows = (trial) => [
  ["Pack", trial.pack === undefined ? "–" : String(trial.pack)],
  ["Lane", trial.lane === undefined ? "–" : String(trial.lane)],
  ["Start step", figure(trial.start_step)],
  ["Weight seed", trial.init_seed === null ? "–" : String(trial.init_seed)],
  ["Stream seed", trial.stream_seed === null ? "–" : String(trial.stream_seed)],
  ["Weights", figure(trial.weights)],
  ["FLOPs per image", figure(trial.flops)],
  ["Started", timeAgo(trial.created_at)],
  ["Ended", timeAgo(trial.finished_at)],
];

const [WIDTH, HEIGHT] = [480, 260];

/** Draw one or two figures by epoch. */
function curve({ measurements }, names, title, format) {
  const values = measurements.flatMap((m) => names.map((name) => m[name])).filter((v) => v !== null);
  const range = extent(values);
  if (!range)
    return h(
      "section",
      { class: "card" },
      h("h2", {}, title),
      h("p", { class: "muted" }, "No epochs measured yet."),
    );
  const x = scale([0, Math.max(1, measurements.at(-1).epoch)], [58, WIDTH - 12]);
  const y = scale(padded(range), [HEIGHT - 34, 18]);
  const chart = frame({
    title: `${title} by epoch; the table below has the values`,
    width: WIDTH,
    height: HEIGHT,
    x,
    y,
    labelX: "epoch",
    formatY: format,
  });
  names.forEach((name, i) => {
    const points = measurements.filter((m) => m[name] !== null).map((m) => [x(m.epoch), y(m[name])]);
    chart.append(s("polyline", { class: `line line-${i + 1}`, points: points.map((p) => p.join()).join(" ") }));
    chart.append(...points.map(([cx, cy]) => s("circle", { class: `dot-${i + 1}`, cx, cy, r: 3 })));
  });
  const key =
    names.length > 1 &&
    h(
      "p",
      { class: "key small" },
      h("span", { class: "key-1" }, "validation"),
      h("span", { class: "key-2" }, "training"),
    );
  return h("section", { class: "card" }, h("h2", {}, title), chart, key);
}

function epochs({ measurements }) {
  const heads = ["Epoch", "Accuracy", "Validation loss", "Training loss", "Images seen", "Time"];
  const rows = measurements.map((m) => [
    figure(m.epoch),
    percent(m.val_accuracy),
    figure(m.val_loss),
    figure(m.train_loss),
    figure(m.images_seen),
    duration(m.seconds),
  ]);
  return [
    h("caption", {}, `${count(rows.length, "measurement")} on validation images`),
    h(
      "thead",
      {},
      h(
        "tr",
        {},
        heads.map((name) => h("th", { scope: "col", class: "number" }, name)),
      ),
    ),
    h(
      "tbody",
      {},
      rows.map(([first, ...others]) =>
        h(
          "tr",
          {},
          h("th", { scope: "row", class: "number" }, first),
          others.map((value) => h("td", { class: "number" }, value)),
        ),
      ),
    ),
  ];
}
