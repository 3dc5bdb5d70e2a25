// Show the view that the hash of the address names.
//
// A view is a module that exports
//
//     async function show(root, params, signal)
//
// - `root` is an empty element inside <main>. The view fills it and starts with one <h1>.
// - `params` holds the parameters of the route (":id") and of the query ("#/jobs?state=running") as strings.
// - `signal` is an AbortSignal that is aborted when the reader leaves the view. Pass it to every request, stream, timer
//   and listener on window or document. The view need not catch `AbortError`.
// - The promise resolves when there is something to read; until then the router shows a spinner. If it rejects, the
//   router shows the error with a button to try again.
//
// A view is imported when it is first shown. address.js writes the addresses.

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

const NAME = /^\w[\w@.-]*$/; // the name of a job, a trial, a network or a version

let current = new AbortController(); // of the view that is shown

/** Show the view of the current address, and the next view each time the address changes. */
export function start(main) {
  // The skip link leads to #main, which is not a view: restore the address, so that a reload shows the view again.
  const isSkipLink = () => location.hash === "#main";
  addEventListener("hashchange", ({ oldURL }) => (isSkipLink() ? history.replaceState(null, "", oldURL) : show(main)));
  if (!location.hash || isSkipLink()) history.replaceState(null, "", "#/jobs");
  show(main);
}

async function show(main) {
  current.abort();
  current = new AbortController();
  const { signal } = current;
  const [path, query = ""] = location.hash.slice(1).split("?");
  const route = match(path);
  markCurrent(path);
  const root = h("div", { class: "view" });
  fill(main, busy());
  try {
    if (!route) throw new Error("This page does not exist.");
    document.title = `${route.title} · Chiffre`;
    const view = await route.load();
    await view.show(root, { ...Object.fromEntries(new URLSearchParams(query)), ...route.params }, signal);
  } catch (error) {
    if (signal.aborted) return;
    fill(
      root,
      h("h1", {}, route?.title ?? "Not found"),
      failure(error, () => show(main)),
    );
  }
  if (signal.aborted) return;
  fill(main, root);
  focusHeading(main);
}

/** Focus the view's heading for screen readers. The first view leaves the focus to the browser. */
function focusHeading(main) {
  const heading = main.querySelector("h1");
  announce(document.title);
  if (!heading || (document.activeElement === document.body && !focusHeading.before)) {
    focusHeading.before = true;
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
    if (named.some(([, value]) => !NAME.test(value))) continue; // other characters could change the path of a request
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
    const isCurrent = path === target || path.startsWith(`${target}/`);
    isCurrent ? link.setAttribute("aria-current", "page") : link.removeAttribute("aria-current");
  }
}
