// Which view is shown, by the hash of the address.
//
// The contract of a view: a module that exports
//
//     async function show(root, params, signal)
//
// - `root` is an empty element inside <main>; the view fills it, beginning with one <h1>.
// - `params` has the parts that the route names (":id") and those of the query, as strings: "#/jobs?state=running".
// - `signal` is an AbortSignal, aborted when the view is left: give it to every request, stream, timer and listener on
//   window or document. `AbortError` may simply be let go.
// - It resolves once there is something to read; until then the router shows that it loads. What it throws is shown as
//   an error, with a button to try again.
//
// A view is imported when it is first shown. address.js writes addresses.

import { h, fill, announce, busy, failure } from "./dom.js";

const ROUTES = [
  ["/jobs", () => import("./views/jobs.js"), "Jobs"],
  ["/jobs/new", () => import("./views/new_job.js"), "New job"],
  ["/jobs/:id", () => import("./views/job.js"), "Job"],
  ["/jobs/:id/trials/:number", () => import("./views/trial.js"), "Trial"],
  ["/models", () => import("./views/models.js"), "Models"],
  ["/models/:model", () => import("./views/models.js"), "Models"],
  ["/models/:model/:version", () => import("./views/model.js"), "Version"],
  ["/try", () => import("./views/try.js"), "Try it"],
  ["/reports", () => import("./views/reports.js"), "Reports"],
];

const NAME = /^\w[\w@.-]*$/; // of a job, a trial, a network or a version

let leaving = new AbortController();

/** Show what the address names, and whatever it names from now on. */
export function start(main) {
  // The link that skips the menu leads to #main: no view, and nothing that may stay in the address when it is loaded anew.
  const aside = () => location.hash === "#main";
  addEventListener("hashchange", ({ oldURL }) => (aside() ? history.replaceState(null, "", oldURL) : show(main)));
  if (!location.hash || aside()) history.replaceState(null, "", "#/jobs");
  show(main);
}

async function show(main) {
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  const [path, query = ""] = location.hash.slice(1).split("?");
  const found = match(path);
  markCurrent(path);
  const root = h("div", { class: "view" });
  fill(main, busy());
  try {
    if (!found) throw new Error("there is no such page");
    document.title = `${found.title} · Chiffre`;
    const view = await found.load();
    await view.show(root, { ...Object.fromEntries(new URLSearchParams(query)), ...found.params }, signal);
  } catch (error) {
    if (signal.aborted) return;
    fill(
      root,
      h("h1", {}, found?.title ?? "Not found"),
      failure(error, () => show(main)),
    );
  }
  if (signal.aborted) return;
  fill(main, root);
  arrive(main);
}

/** Let a screen reader begin at the view's heading, but leave the very first focus where browsers put it. */
function arrive(main) {
  const heading = main.querySelector("h1");
  announce(document.title);
  if (!heading || (document.activeElement === document.body && !arrive.before)) {
    arrive.before = true;
    return;
  }
  heading.tabIndex = -1;
  heading.focus({ preventScroll: true });
  scrollTo(0, 0);
}

function match(path) {
  const parts = path.split("/");
  for (const [pattern, load, title] of ROUTES) {
    const names = pattern.split("/");
    if (names.length !== parts.length) continue;
    if (!names.every((name, i) => name.startsWith(":") || name === parts[i])) continue;
    const named = names.flatMap((name, i) => (name.startsWith(":") ? [[name.slice(1), decoded(parts[i])]] : []));
    if (named.some(([, value]) => !NAME.test(value))) continue; // it would lead elsewhere in the API
    return { load, title, params: Object.fromEntries(named) };
  }
  return null;
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

function markCurrent(path) {
  for (const link of document.querySelectorAll("header nav a")) {
    const target = link.getAttribute("href").slice(1);
    const current = path === target || path.startsWith(`${target}/`);
    current ? link.setAttribute("aria-current", "page") : link.removeAttribute("aria-current");
  }
}
