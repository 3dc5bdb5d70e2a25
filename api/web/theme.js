// Runs before the first paint, so that a page in a chosen theme does not flash in the other.
try {
  const kept = localStorage.getItem("theme");
  if (kept) document.documentElement.dataset.theme = kept;
} catch {
  // The browser keeps nothing for this page: it is in the system's theme.
}
