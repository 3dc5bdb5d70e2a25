// Addresses of views. This module writes them; router.js reads them.

/** Set the query of the current address without adding to the browser's history; empty values are left out. */
export function setQuery(query) {
  const [path] = location.hash.slice(1).split("?");
  const parameters = new URLSearchParams(Object.entries(query).filter(([, value]) => value));
  history.replaceState(null, "", `#${path}${parameters.size ? `?${parameters}` : ""}`);
}

/** Return the address of a view, with its parts encoded. */
export const to = (...parts) => `#/${parts.map(encodeURIComponent).join("/")}`;
