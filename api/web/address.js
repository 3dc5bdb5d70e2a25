// The address of a view: written here, read by router.js.

/** Change the query of the address; empty values are left out. */
export function rewrite(query) {
  const [path] = location.hash.slice(1).split("?");
  const kept = new URLSearchParams(Object.entries(query).filter(([, value]) => value));
  history.replaceState(null, "", `#${path}${kept.size ? `?${kept}` : ""}`);
}

/** The address of a view: its parts are encoded. */
export const to = (...parts) => `#/${parts.map(encodeURIComponent).join("/")}`;
