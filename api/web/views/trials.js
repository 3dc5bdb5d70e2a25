// Table of trials: filtered, sorted by clicking a heading, twenty rows per page.

import { fill, h, setText } from "../dom.js";
import { count, figure } from "../format.js";
import { to } from "../address.js";
import { columnsOf, compare } from "../charts/columns.js";

const PAGE = 20;
const LONG = 20; // characters from which a cell gets its full text as a title

/** Return the table of a job's trials: its element and `redraw()`. Trials are shown if `matches(trial)` is true. */
export function trialTable({ store, matches }) {
  let order = { name: "number", down: true };
  let page = 0;
  let heads = "";
  const head = h("tr");
  const body = h("tbody");
  const caption = h("caption");
  const [before, after] = [
    [-1, "Previous page"],
    [1, "Next page"],
  ].map(([step, label]) => h("button", { type: "button", onclick: () => ((page += step), redraw()) }, label));
  const range = h("span", { class: "muted small" });
  const element = h(
    "div",
    {},
    h(
      "div",
      { class: "scroll", tabindex: 0, role: "group", "aria-label": "Trials" },
      h("table", {}, caption, h("thead", {}, head), body),
    ),
    h("div", { class: "row pager" }, before, after, range),
  );

  function redraw() {
    const all = [...store.trials.values()];
    const columns = columnsOf(store.job, all);
    drawHead(columns);
    const sorted = sort(all.filter(matches), columns);
    const last = Math.max(0, Math.ceil(sorted.length / PAGE) - 1);
    page = Math.min(Math.max(page, 0), last);
    const rows = sorted.slice(page * PAGE, (page + 1) * PAGE);
    drawBody(rows, columns);
    setText(
      caption,
      `${sorted.length < all.length ? `${figure(sorted.length)} of ` : ""}${count(all.length, "trial")}, ${orderOf(columns)}`,
    );
    before.disabled = page === 0;
    after.disabled = page === last;
    before.hidden = after.hidden = last === 0;
    setText(range, last ? `rows ${page * PAGE + 1} to ${page * PAGE + rows.length}` : "");
  }

  function orderOf(columns) {
    if (order.name === "number") return order.down ? "newest first" : "oldest first";
    const { label, numeric } = columns.find(({ name }) => name === order.name) ?? columns[0];
    const first = numeric ? (order.down ? "highest first" : "lowest first") : order.down ? "Z to A" : "A to Z";
    return `by ${label}, ${first}`;
  }

  function sort(trials, columns) {
    const column = columns.find(({ name }) => name === order.name) ?? columns[0];
    return trials.sort((a, b) => compare(column.read(a), column.read(b), order.down) || a.number - b.number);
  }

  function drawHead(columns) {
    const names = columns.map(({ name }) => name).join();
    if (names !== heads) {
      heads = names;
      fill(head, columns.map(headOf));
    }
    for (const cell of head.children) {
      const direction = cell.dataset.name !== order.name ? "none" : order.down ? "descending" : "ascending";
      cell.setAttribute("aria-sort", direction);
    }
  }

  function headOf({ name, label, numeric }) {
    const sortByThis = () => {
      order = { name, down: order.name === name ? !order.down : Boolean(numeric) };
      page = 0;
      redraw();
    };
    return h(
      "th",
      { scope: "col", class: numeric ? "number" : "", "data-name": name },
      h("button", { type: "button", class: "sort", onclick: sortByThis }, label),
    );
  }

  /** Reuse rows and write only the cells that differ, so that focus stays and layout is cheap. */
  function drawBody(rows, columns) {
    while (body.children.length > rows.length) body.lastChild.remove();
    rows.forEach((trial, at) => {
      const key = `${trial.number} ${trial.state} ${columns.length}`;
      let row = body.children[at];
      if (row?.dataset.key !== key) {
        const fresh = rowOf(trial, columns);
        row ? row.replaceWith(fresh) : body.append(fresh);
        fresh.dataset.key = key;
        row = fresh;
      }
      row.classList.toggle("best", store.job.best?.trial === trial.number);
      columns.forEach((column, i) => i > 1 && write(row.children[i], column.format(column.read(trial))));
    });
  }

  function rowOf(trial, columns) {
    return h(
      "tr",
      {},
      columns.map(({ name, read, format, numeric }) => {
        const value = format(read(trial));
        if (name !== "number")
          return h("td", { class: numeric ? "number" : "", title: name === "state" ? trial.reason : null }, value);
        return h(
          "th",
          { scope: "row", class: "number" },
          h("a", { href: to("jobs", store.id, "trials", trial.number) }, value),
        );
      }),
    );
  }

  return { element, redraw };
}

/** Write a cell; a long value is cut off, so its title has the full text. */
function write(cell, value) {
  setText(cell, value);
  if (value.length > LONG) cell.title = value;
}
